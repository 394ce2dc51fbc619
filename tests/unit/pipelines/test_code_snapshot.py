"""Snapshots of source trees: what is in them, that they are the same everywhere, and that unpacking trusts nothing."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest

from modelyard.kernel.errors import InvalidInput, TooLarge
from modelyard.sdk import code_snapshot
from modelyard.sdk.code_snapshot import commit_of, import_paths, pack, project_root, source_files, unpack


def tree(root: Path, **files: str) -> Path:
    for name, content in files.items():
        path = root / name.replace("__", "/").replace("DOT", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout


def test_without_git_all_but_hidden_and_built_files_belong(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        mainDOTpy="1",
        pkg__modDOTpy="2",
        pkg__dataDOTjson="{}",
        DOTsecret="no",
        DOTvenv__xDOTpy="no",
        env__pyvenvDOTcfg="no",
        env__libDOTpy="no",
        node_modules__xDOTjs="no",
        big__dataDOTbin="no",
        notesDOTtxt="no",
    )
    (root / "pkg" / "__pycache__").mkdir()
    (root / "pkg" / "__pycache__" / "mod.pyc").write_text("no")
    (root / ".modelyardignore").write_text("# what stays here\nbig/\n*.txt\n")
    (root / "link.py").symlink_to("/etc/passwd")
    assert source_files(root) == ["main.py", "pkg/data.json", "pkg/mod.py"]


def test_under_git_what_it_does_not_ignore_belongs(tmp_path: Path) -> None:
    root = tree(
        tmp_path, DOTgitignore="ignored.py\n", aDOTpy="1", ignoredDOTpy="no", newDOTpy="2", goneDOTpy="3", DOTenv="S=1"
    )
    git(root, "init", "-q")
    git(root, "add", "a.py", "gone.py")
    git(root, "commit", "-qm", "x")
    (root / "gone.py").unlink()
    assert source_files(root) == [".gitignore", "a.py", "new.py"]
    commit, dirty = commit_of(root)
    assert commit == git(root, "rev-parse", "HEAD").strip()
    assert dirty
    assert commit_of(Path("/")) == ("", False)


def test_packing_is_the_same_for_the_same_tree_and_comes_out_as_it_went_in(tmp_path: Path) -> None:
    one = tree(tmp_path / "one", bDOTpy="b", a__cDOTpy="c")
    other = tree(tmp_path / "other", a__cDOTpy="c", bDOTpy="b")
    (one / "b.py").chmod(0o755)
    (other / "b.py").chmod(0o700)
    assert pack(one) == pack(other)
    target = tmp_path / "target"
    target.mkdir()
    unpack(io.BytesIO(pack(one)), target)
    assert source_files(target) == ["a/c.py", "b.py"]
    assert (target / "b.py").read_text() == "b"
    assert (target / "b.py").stat().st_mode & 0o777 == 0o700
    assert (target / "a" / "c.py").stat().st_mode & 0o777 == 0o600
    (one / "b.py").write_text("changed")
    assert pack(one) != pack(other)


def test_a_tree_over_the_limits_names_its_largest_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path, hugeDOTbin="x" * 2_000, aDOTpy="1")
    monkeypatch.setattr(code_snapshot, "CODE_SNAPSHOT_BYTES_MAX", 1_000)
    with pytest.raises(TooLarge, match=r"the largest: huge\.bin"):
        pack(root)


def archive(*members: tuple[str, bytes, bytes | None]) -> io.BytesIO:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as opened:
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            member.linkname = "/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            member.size = len(content or b"")
            opened.addfile(member, io.BytesIO(content or b""))
    target.seek(0)
    return target


@pytest.mark.parametrize(
    "members",
    [
        [("../out", tarfile.REGTYPE, b"x")],
        [("/etc/out", tarfile.REGTYPE, b"x")],
        [("a/../../out", tarfile.REGTYPE, b"x")],
        [("link", tarfile.SYMTYPE, None), ("link/x", tarfile.REGTYPE, b"x")],
        [("hard", tarfile.LNKTYPE, None)],
        [("device", tarfile.CHRTYPE, None)],
        [("pipe", tarfile.FIFOTYPE, None)],
        [("a", tarfile.REGTYPE, b"x"), ("a", tarfile.REGTYPE, b"y")],
        [("a\nb", tarfile.REGTYPE, b"x")],
    ],
)
def test_an_archive_with_anything_but_plain_files_is_refused(
    tmp_path: Path, members: list[tuple[str, bytes, bytes | None]]
) -> None:
    target = tmp_path / "deep" / "target"
    target.mkdir(parents=True)
    with pytest.raises(InvalidInput):
        unpack(archive(*members), target)
    assert [path.name for path in tmp_path.rglob("*") if path.name == "out"] == []


def test_a_bomb_stops_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_snapshot, "CODE_SNAPSHOT_BYTES_MAX", 1_000)
    with pytest.raises(TooLarge):
        unpack(archive(("a", tarfile.REGTYPE, b"x" * 2_000)), tmp_path)
    monkeypatch.setattr(code_snapshot, "CODE_SNAPSHOT_FILES_MAX", 2)
    with pytest.raises(TooLarge):
        unpack(archive(*((f"f{n}", tarfile.REGTYPE, b"") for n in range(3))), tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a tar", b"\x1f\x8b" + b"x" * 2_000])
def test_what_is_no_archive_is_refused_or_empty(tmp_path: Path, content: bytes) -> None:
    with suppress(InvalidInput):
        unpack(io.BytesIO(content), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_root_is_the_nearest_project_and_import_paths_are_those_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree(tmp_path / "p", pyprojectDOTtoml="", src__pkg__mDOTpy="", toolsDOTpy="")
    assert project_root(root / "src" / "pkg" / "m.py") == root
    monkeypatch.setattr(sys, "path", [str(root / "src"), "/usr/lib", str(root / ".venv"), str(root / "absent")])
    assert import_paths(root) == ["src", ""]
