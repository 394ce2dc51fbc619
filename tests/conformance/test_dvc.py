"""What the real DVC added is imported from its cache as it is."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from foreign_python import foreign_python
from modelyard.kernel.errors import Conflict, InvalidInput, NotFound
from modelyard.sdk.files import dvc
from modelyard.sdk.files.handle import FilesHandle
from running import client_of, running_server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a folder and a file under DVC."""
    python = foreign_python("dvc")
    root = tmp_path_factory.mktemp("repository")
    for path, content in {
        "scans/a.png": "aaa",
        "scans/deep/b.png": "bb",
        "scans/c.png": "aaa",
        "one.csv": "x\n1\n",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    for arguments in (["init", "-q"], ["add", "-q", "scans"], ["add", "-q", "one.csv"]):
        subprocess.run([str(python), "-m", "dvc", *arguments], cwd=root, check=True, timeout=120)
    return root


def test_a_folder_and_a_file_are_imported(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path / "own"))
    with running_server(tmp_path / "home") as server:
        scans = FilesHandle("scans", client_of(server))
        imported = scans.import_dvc(repository / "scans.dvc")
        assert (imported.added, imported.version.size_bytes) == (3, 8)
        assert [one.path for one in scans.list()] == ["a.png", "c.png", "deep/b.png"]
        assert scans.read("deep/b.png") == b"bb"
        assert not scans.import_dvc(repository / "scans.dvc").changed
        one = FilesHandle("one", client_of(server))
        one.import_dvc(repository / "one.csv.dvc")
        assert one.read("one.csv") == b"x\n1\n"


def test_what_dvc_lacks_or_has_damaged_is_named(repository: Path, tmp_path: Path) -> None:
    assert {cached.path for cached in dvc.read(repository / "scans.dvc")} == {"a.png", "c.png", "deep/b.png"}
    with pytest.raises(NotFound, match="no file"):
        dvc.read(repository / "nothing.dvc")
    with pytest.raises(InvalidInput):
        dvc.read(repository / "one.csv")
    stray = tmp_path / "stray.dvc"
    stray.write_text((repository / "scans.dvc").read_text())
    with pytest.raises(NotFound, match="no DVC repository"):
        dvc.read(stray)
    cached = next(one for one in dvc.read(repository / "scans.dvc") if one.path == "deep/b.png")
    cached.file.chmod(0o600)
    cached.file.write_text("rotten")
    with pytest.raises(Conflict, match="cache is damaged"):
        FilesHandle("x").import_dvc(repository / "scans.dvc")
    cached.file.unlink()
    with pytest.raises(NotFound, match="dvc fetch"):
        dvc.read(repository / "scans.dvc")
