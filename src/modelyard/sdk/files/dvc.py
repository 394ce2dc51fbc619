"""Reading what DVC keeps: a `.dvc` file, and the cache that holds the files it names by their MD5.

The forms are those of DVC 2 and 3: `outs` with `md5` (ending in `.dir` for a folder, whose listing lies in the cache as
JSON), under `files/md5/` of the cache since DVC 3, right below it before.
"""

from __future__ import annotations

import configparser
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from modelyard.kernel.errors import InvalidInput, NotFound
from modelyard.kernel.paths import safe_relative


class Out(msgspec.Struct, frozen=True):
    """One output of a `.dvc` file."""

    path: str
    md5: str = ""


class DvcFile(msgspec.Struct, frozen=True):
    """What matters of a `.dvc` file."""

    outs: list[Out]


class Listed(msgspec.Struct, frozen=True):
    """One line of a folder's listing."""

    md5: str
    relpath: str


class Cached(NamedTuple):
    """A file of DVC's cache, and the path that it has in the dataset."""

    file: Path
    path: str
    md5: str


def read(dvc_file: Path) -> list[Cached]:
    """The files that a `.dvc` file stands for, where the cache has them.

    Raises InvalidInput for what is no such file, NotFound for a file that the cache lacks, naming it.
    """
    outs = _parse(dvc_file).outs
    caches = list(_caches(dvc_file))
    found: list[Cached] = []
    for out in outs:
        if not out.md5:
            raise InvalidInput(
                f"{dvc_file}: the output {out.path!a} has no md5: DVC does not keep it", code="dvc.not_kept"
            )
        if out.md5.endswith(".dir"):
            found.extend(_folder(out, caches, len(outs) > 1))
        else:
            found.append(Cached(_find(caches, out.md5, out.path), str(safe_relative(Path(out.path).name)), out.md5))
    return found


def _folder(out: Out, caches: list[Path], several: bool) -> Iterator[Cached]:
    listing = _find(caches, out.md5, out.path)
    try:
        lines = msgspec.json.decode(listing.read_bytes(), type=list[Listed])
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        raise InvalidInput(f"{listing}: no listing of a folder: {error}", code="dvc.listing_invalid") from error
    below = f"{Path(out.path).name}/" if several else ""
    for line in lines:
        path = str(safe_relative(below + line.relpath))
        yield Cached(_find(caches, line.md5, path), path, line.md5)


def _parse(dvc_file: Path) -> DvcFile:
    import yaml  # heavy: imported late

    try:
        return msgspec.convert(yaml.safe_load(dvc_file.read_text("utf-8")), DvcFile)
    except FileNotFoundError:
        raise NotFound(f"there is no file {dvc_file}", code="dvc.no_file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, msgspec.ValidationError, RecursionError) as error:
        raise InvalidInput(f"{dvc_file} is no .dvc file: {error}", code="dvc.invalid") from error


def _caches(dvc_file: Path) -> Iterator[Path]:
    """Where the cache may be: beside the nearest `.dvc` folder, or where its configuration says."""
    for folder in dvc_file.resolve().parents:
        home = folder / ".dvc"
        if home.is_dir():
            for name in ("config.local", "config"):
                parser = configparser.ConfigParser()
                parser.read(home / name)
                if parser.has_option("cache", "dir"):
                    yield (home / parser.get("cache", "dir")).resolve()
            yield home / "cache"
            return
    raise NotFound(
        f"{dvc_file} lies in no DVC repository", code="dvc.no_repository", hint="there is a folder .dvc in its root"
    )


def _find(caches: list[Path], md5: str, path: str) -> Path:
    stem = md5.removesuffix(".dir")
    if len(stem) != 32 or any(letter not in "0123456789abcdef" for letter in stem):
        raise InvalidInput(f"{md5[:60]!a} is no MD5", code="dvc.invalid")
    for cache in caches:
        for folder in (cache / "files" / "md5", cache):
            if (file := folder / md5[:2] / md5[2:]).is_file():
                return file
    raise NotFound(
        f"DVC's cache has no file {md5} for {path!a}",
        code="dvc.not_cached",
        hint="run `dvc fetch` (or `dvc pull`) first",
    )
