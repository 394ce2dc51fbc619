"""Datasets of files: adding 1 GB in 1,000 files, checking it out again, and 200,000 small files.

The floor of adding is hashing the same bytes by as many threads and hard-linking each file; the peer is DVC
(`.venvs/dvc`, by `make foreign`), which links as well. The server is a process of its own on the same disk.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.training_loop import ROOT, serving

DVC = ROOT / ".venvs" / "dvc" / "bin" / "python"
FILES, FILE_BYTES = 1_000, 1_000_000
SMALL_FILES = int(os.environ.get("BENCH_SMALL_FILES", "200000"))


def main() -> None:
    """Print each time, and its ratio to floor and peer."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DISK")) as directory:
        folder = Path(directory)
        os.environ["MODELYARD_HOME"] = str(folder / "client")
        with serving(folder / "home") as (url, token):
            from modelyard.sdk.client import Client
            from modelyard.sdk.files.handle import FilesHandle

            client = Client(url, token=token)
            _large(folder, FilesHandle("large", client))
            _small(folder, FilesHandle("small", client))


def _large(folder: Path, handle: object) -> None:
    raw = _make(folder / "raw", FILES, FILE_BYTES)
    _hash_and_link(raw, folder / "warm")
    shutil.rmtree(folder / "warm")
    floor = _seconds(lambda: _hash_and_link(raw, folder / "floor"))
    add = _seconds(lambda: handle.add(raw))  # type: ignore[attr-defined]
    again = _seconds(lambda: handle.add(raw))  # type: ignore[attr-defined]
    first = _seconds(lambda: handle.checkout(folder / "out"))  # type: ignore[attr-defined]
    second = _seconds(lambda: handle.checkout(folder / "out2"))  # type: ignore[attr-defined]
    print(f"1 GB in {FILES} files:")
    print(f"  add                     {add:6.2f} s   {add / floor:5.2f} x hashing and hard-linking ({floor:.2f} s)")
    print(f"  add again, unchanged    {again:6.2f} s")
    print(f"  checkout                {first:6.2f} s, a second one {second:.2f} s")
    if not DVC.exists():
        print("  DVC is not set up: `make foreign`")
        return
    added, checked_out = _dvc(folder, raw)
    print(f"  DVC add                 {added:6.2f} s   {added / add:5.1f} x ours")
    print(f"  DVC checkout            {checked_out:6.2f} s   {checked_out / second:5.1f} x ours")


def _small(folder: Path, handle: object) -> None:
    raw = _make(folder / "small", SMALL_FILES, 100)
    add = _seconds(lambda: handle.add(raw))  # type: ignore[attr-defined]
    (raw / "d000" / "f0000000.bin").write_bytes(b"changed")
    again = _seconds(lambda: handle.add(raw))  # type: ignore[attr-defined]
    out = _seconds(lambda: handle.checkout(folder / "small-out"))  # type: ignore[attr-defined]
    print(f"{SMALL_FILES:,} files of 100 bytes:")
    print(f"  add {add:.1f} s, add with one changed {again:.1f} s, checkout {out:.1f} s")


def _dvc(folder: Path, raw: Path) -> tuple[float, float]:
    repository = folder / "dvc"
    repository.mkdir()
    # Not linked: DVC would change the files that the others share.
    shutil.copytree(raw, repository / "raw")
    subprocess.run(["git", "init", "-q"], cwd=repository, check=True)
    _run_dvc(repository, "init", "-q")
    _run_dvc(repository, "config", "cache.type", "hardlink")
    added = _seconds(lambda: _run_dvc(repository, "add", "-q", "raw"))
    shutil.rmtree(repository / "raw")
    return added, _seconds(lambda: _run_dvc(repository, "checkout", "-q"))


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
