"""Datasets of files: adding 1 GB in 1,000 files, checking it out again, and 200,000 small files.

The floor of adding is hashing the same bytes by as many threads and hard-linking each file; the peer is DVC
(`.venvs/dvc`, by `make foreign`), which links as well. The server is a process of its own on the same disk.

`PARTS=large,small` chooses. Of the small ones, `FILES=…` and `SIZE=…` say how many and how large (200,000 of 100
bytes), `DVC_FILES=…` with how many DVC is compared (20,000: with all it takes too long), `BENCH_DISK` on which disk.
"""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks._servers import ROOT, served

DVC = ROOT / ".venvs" / "dvc" / "bin" / "python"
LARGE_FILES, LARGE_BYTES = 1_000, 1_000_000
FILES = int(os.environ.get("FILES", "200000"))
SIZE = int(os.environ.get("SIZE", "100"))
DVC_FILES = int(os.environ.get("DVC_FILES", "20000"))
PARTS = os.environ.get("PARTS", "large,small").split(",")


def main() -> None:
    """Print each time, and its ratio to floor and peer."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DISK")) as directory:
        folder = Path(directory)
        os.environ["MODELYARD_HOME"] = str(folder / "client")
        with served(folder / "home") as (url, token, held_mib):
            from modelyard.sdk.client import Client
            from modelyard.sdk.files.handle import FilesHandle

            client = Client(url, token=token)
            if "large" in PARTS:
                _large(folder, FilesHandle("large", client))
            if "small" in PARTS:
                if DVC.exists() and DVC_FILES:
                    _beside_dvc(folder, FilesHandle("some", client))
                _small(folder, FilesHandle("small", client))
            here = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"  at most {here:,.0f} MiB in the client, {held_mib():,.0f} MiB in the server")


def _large(folder: Path, handle: Any) -> None:
    raw = _make(folder / "raw", LARGE_FILES, LARGE_BYTES)
    _hash_and_link(raw, folder / "warm")
    shutil.rmtree(folder / "warm")
    floor = _seconds(lambda: _hash_and_link(raw, folder / "floor"))
    add = _seconds(lambda: handle.add(raw))
    again = _seconds(lambda: handle.add(raw))
    first = _seconds(lambda: handle.checkout(folder / "out"))
    second = _seconds(lambda: handle.checkout(folder / "out2"))
    print(f"1 GB in {LARGE_FILES} files:")
    print(f"  add                     {add:6.2f} s   {add / floor:5.2f} x hashing and hard-linking ({floor:.2f} s)")
    print(f"  add again, unchanged    {again:6.2f} s")
    print(f"  checkout                {first:6.2f} s, a second one {second:.2f} s")
    if not DVC.exists():
        print("  DVC is not set up: `make foreign`")
        return
    added, checked_out, _, _ = _dvc(folder / "dvc", raw)
    print(f"  DVC add                 {added:6.2f} s   {added / add:5.1f} x ours")
    print(f"  DVC checkout            {checked_out:6.2f} s   {checked_out / second:5.1f} x ours")


def _small(folder: Path, handle: Any) -> None:
    raw = _make(folder / "small", FILES, SIZE)
    floor = _seconds(lambda: _hash_and_link(raw, folder / "small-floor"))
    found = _ours(handle, raw, folder / "small-out")
    print(f"{FILES:,} files of {SIZE} bytes (hashing and hard-linking them: {floor:.1f} s):")
    for what, seconds in found.items():
        print(f"  {what:24}{seconds:7.1f} s")


def _beside_dvc(folder: Path, handle: Any) -> None:
    raw = _make(folder / "some", DVC_FILES, SIZE)
    found = _ours(handle, raw, folder / "some-out")
    added, checked_out, again, status = _dvc(folder / "dvc-some", raw)
    theirs = {"add": added, "add again, unchanged": again, "status, unchanged": status, "checkout": checked_out}
    print(f"{DVC_FILES:,} files of {SIZE} bytes:")
    for what, seconds in found.items():
        beside = f"   DVC {theirs[what]:7.1f} s, {theirs[what] / seconds:5.1f} x ours" if what in theirs else ""
        print(f"  {what:24}{seconds:7.1f} s{beside}")


def _ours(handle: Any, raw: Path, out: Path) -> dict[str, float]:
    found = {"add": _seconds(lambda: handle.add(raw))}
    # What was written in these two seconds may be written again within the tick of its time, and is hashed again.
    time.sleep(2.1)
    handle.add(raw)
    found["add again, unchanged"] = _seconds(lambda: handle.add(raw))
    found["status, unchanged"] = _seconds(lambda: handle.status(raw))
    one = raw / "d000" / "f0000000.bin"
    # Another file in its place: the platform's copy shares the inode of this one.
    one.unlink()
    one.write_bytes(b"changed")
    found["add, one changed"] = _seconds(lambda: handle.add(raw))
    found["diff of two versions"] = _seconds(lambda: handle.diff(1, 2))
    found["checkout"] = _seconds(lambda: handle.checkout(out))
    found["checkout of 1 to there"] = _seconds(lambda: handle.checkout(out, 1, update=True))
    return found


def _dvc(repository: Path, raw: Path) -> tuple[float, float, float, float]:
    repository.mkdir()
    # Not linked: DVC would change the files that the others share.
    shutil.copytree(raw, repository / "raw")
    subprocess.run(["git", "init", "-q"], cwd=repository, check=True)
    _run_dvc(repository, "init", "-q")
    _run_dvc(repository, "config", "cache.type", "hardlink")
    added = _seconds(lambda: _run_dvc(repository, "add", "-q", "raw"))
    again = _seconds(lambda: _run_dvc(repository, "add", "-q", "raw"))
    status = _seconds(lambda: _run_dvc(repository, "status", "-q"))
    shutil.rmtree(repository / "raw")
    return added, _seconds(lambda: _run_dvc(repository, "checkout", "-q")), again, status


def _run_dvc(repository: Path, *arguments: str) -> None:
    subprocess.run([str(DVC), "-m", "dvc", *arguments], cwd=repository, check=True)


def _make(folder: Path, count: int, size_bytes: int) -> Path:
    for at in range(count):
        below = folder / f"d{at % 256:03d}"
        if at < 256:
            below.mkdir(parents=True)
        (below / f"f{at:07d}.bin").write_bytes(os.urandom(size_bytes))
    return folder


def _hash_and_link(raw: Path, target: Path) -> None:
    target.mkdir()
    files = [file for file in raw.rglob("*") if file.is_file()]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for file, digest in zip(files, pool.map(_digest, files), strict=True):
            os.link(file, target / digest)


def _digest(file: Path) -> str:
    with file.open("rb", buffering=0) as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def _seconds(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started
