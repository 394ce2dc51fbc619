"""The folder that shows artifacts by name: in step with the catalog, never in its way."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from modelyard.engines.blobs.local import LocalBlobs
from modelyard.engines.blobs.named import NamedFolder
from modelyard.kernel.auth import Scope
from modelyard.kernel.clock import FixedClock
from modelyard.kernel.database import Database
from modelyard.kernel.errors import InvalidInput
from modelyard.kernel.reconcile import ReconcileLoop
from modelyard.planes.tracking import Owner, Tracking
from modelyard.types.tracking import CreateRun, Purge

ME = "/the/home"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "shown"


@pytest.fixture
def make(database: Database, root: Path, tmp_path: Path) -> Callable[..., Tracking]:
    """The plane as a server that starts anew has it."""

    def start(project: str | None = "default") -> Tracking:
        folder = NamedFolder(root, ME)
        folder.claim()
        return Tracking(database, LocalBlobs(tmp_path / "blobs"), folder, project)

    return start


@pytest.fixture
def tracking(make: Callable[..., Tracking]) -> Tracking:
    return make()


@pytest.fixture
def settle(database: Database) -> Callable[[Tracking], None]:
    return lambda tracking: ReconcileLoop(database, tracking.reconcilers()).settle()


def files(root: Path) -> dict[str, str]:
    return {
        str(file.relative_to(root)): file.read_text() for file in sorted(root.rglob("[!.]*")) if file.is_file()
    }  # fmt: skip


def test_what_is_put_replaced_uploaded_in_parts_and_deleted_shows_at_once(
    tracking: Tracking, scope: Scope, root: Path, run_id: str
) -> None:
    run, project = Owner("run", run_id), Owner("project")
    model = tracking.models.create(scope, "0", name="m")
    tracking.artifacts.put(scope, project, "a.txt", [b"0"])
    tracking.artifacts.put(scope, project, "dir/b.txt", [b"1"])
    tracking.artifacts.put(scope, run, "plots/roc.txt", [b"old"])
    tracking.artifacts.put(scope, run, "plots/roc.txt", [b"new"])
    tracking.artifacts.put(scope, Owner("model", model.id), "MLmodel", [b"m"])
    upload = tracking.uploads.begin(scope, run, "big.bin", 2)
    tags = {number: tracking.uploads.put_part(scope, upload, number, [text]) for number, text in ((1, b"x"), (2, b"y"))}
    assert "big" not in " ".join(files(root))
    tracking.uploads.complete(scope, upload, tags)
    assert files(root) == {
        "a.txt": "0",
        "dir/b.txt": "1",
        f"0/{run_id}/artifacts/plots/roc.txt": "new",
        f"0/{run_id}/artifacts/big.bin": "xy",
        f"0/models/{model.id}/artifacts/MLmodel": "m",
    }
    tracking.artifacts.delete(scope, run, "plots")
    tracking.artifacts.delete(scope, project, "dir/b.txt")
    assert set(files(root)) == {
        "a.txt", f"0/{run_id}/artifacts/big.bin", f"0/models/{model.id}/artifacts/MLmodel"
    }  # fmt: skip
    assert not (root / "dir").exists()


def test_who_writes_into_the_folder_spoils_no_artifact(
    tracking: Tracking, scope: Scope, root: Path, settle: Callable[[Tracking], None], make: Callable[..., Tracking]
) -> None:
    owner = Owner("project")
    tracking.artifacts.put(scope, owner, "a.txt", [b"right"])
    (root / "a.txt").chmod(0o600)
    (root / "a.txt").write_text("wrong")
    with tracking.artifacts.open(scope, owner, "a.txt")[1] as file:
        assert file.read() == b"right"
    (root / "stray.txt").write_text("not an artifact")
    settle(make())
    assert files(root) == {"a.txt": "right"}


def test_what_was_missed_is_made_up_for_when_the_loop_starts(
    database: Database, tmp_path: Path, scope: Scope, root: Path, settle: Callable[[Tracking], None],
    make: Callable[..., Tracking], clock: FixedClock,
) -> None:  # fmt: skip
    without = Tracking(database, LocalBlobs(tmp_path / "blobs"))
    run = Owner("run", without.runs.create(scope, CreateRun(name="one")).id)
    for number in range(3):
        without.artifacts.put(scope, run, f"{number}.txt", [str(number).encode()])
    tracking = make()
    settle(tracking)
    below = f"0/{run.id}/artifacts"
    assert files(root) == {f"{below}/{number}.txt": str(number) for number in range(3)}
    clock.advance(1)
    without.artifacts.put(scope, run, "0.txt", [b"z"])
    without.artifacts.delete(scope, run, "1.txt")
    untouched = (root / below / "2.txt").stat().st_ino
    settle(make())
    assert files(root) == {f"{below}/0.txt": "z", f"{below}/2.txt": "2"}
    assert (root / below / "2.txt").stat().st_ino == untouched
    without.runs.delete(scope, run.id)
    tracking.purges.purge(scope, Purge(runs=[run.id], older_than_s=0))
    settle(tracking)
    assert files(root) == {}


def test_with_all_projects_each_has_a_folder_of_its_own(
    make: Callable[..., Tracking], scope: Scope, root: Path, settle: Callable[[Tracking], None]
) -> None:
    other = Scope("other", scope.principal)
    tracking = make(None)
    tracking.artifacts.put(scope, Owner("project"), "a.txt", [b"0"])
    tracking.artifacts.put(other, Owner("project"), "a.txt", [b"1"])
    settle(tracking)
    assert files(root) == {"default/a.txt": "0", "other/a.txt": "1"}


def test_of_one_project_no_other_shows(tracking: Tracking, scope: Scope, root: Path) -> None:
    tracking.artifacts.put(Scope("other", scope.principal), Owner("project"), "a.txt", [b"1"])
    assert files(root) == {}


def test_no_link_in_the_folder_is_followed_and_none_fails_an_upload(
    tracking: Tracking, scope: Scope, root: Path, tmp_path: Path, settle: Callable[[Tracking], None]
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept.txt").write_text("kept")
    (root / "dir").symlink_to(outside)
    (root / "a.txt").symlink_to(outside / "kept.txt")
    tracking.artifacts.put(scope, Owner("project"), "dir/b.txt", [b"1"])
    tracking.artifacts.put(scope, Owner("project"), "a.txt", [b"0"])
    assert files(outside) == {"kept.txt": "kept"}
    settle(tracking)
    assert files(root) == {"dir/b.txt": "1", "a.txt": "0"}
    assert files(outside) == {"kept.txt": "kept"}


def test_what_stands_in_the_way_goes_and_what_cannot_be_shown_is_left_out(
    tracking: Tracking, scope: Scope, root: Path, run_id: str, settle: Callable[[Tracking], None]
) -> None:
    (root / "a.txt").mkdir()
    (root / "a.txt" / "x").write_text("in the way")
    tracking.artifacts.put(scope, Owner("project"), "a.txt", [b"0"])
    tracking.artifacts.put(scope, Owner("run", run_id), "r.txt", [b"r"])
    # As the tree of other servers has it, '0' is where the runs of experiment 0 are.
    tracking.artifacts.put(scope, Owner("project"), "0", [b"?"])
    tracking.artifacts.put(scope, Owner("project"), ".modelyard-folder", [b"?"])
    odd = os.fsencode(root) + b"/.\xff;..;"
    with open(odd, "wb"):
        pass
    settle(tracking)
    assert files(root) == {"a.txt": "0", f"0/{run_id}/artifacts/r.txt": "r"}
    assert os.path.exists(odd), "what has no name that could be an artifact's is left alone"


def test_a_full_disk_fails_no_upload_and_is_made_up_for(
    tracking: Tracking, scope: Scope, root: Path, settle: Callable[[Tracking], None], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    stage = NamedFolder.staged

    def on_a_full_disk(*arguments: object) -> object:
        # The copy alone meets a limit, as a folder on a full disk of its own does.
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
        return stage(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(NamedFolder, "staged", on_a_full_disk)
    try:
        tracking.artifacts.put(scope, Owner("project"), "big.txt", [b"x" * 5_000])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(root) == {}
    assert "is behind" in caplog.text
    assert os.listdir(root / ".modelyard-incoming") == []
    monkeypatch.setattr(NamedFolder, "staged", stage)
    settle(tracking)
    assert files(root) == {"big.txt": "x" * 5_000}


def test_what_a_killed_process_staged_goes_and_what_is_being_staged_stays(
    tracking: Tracking, root: Path, settle: Callable[[Tracking], None], make: Callable[..., Tracking],
    clock: FixedClock,
) -> None:  # fmt: skip
    staged = root / ".modelyard-incoming" / "x"
    staged.write_text("half")
    os.utime(staged, (0, 0))
    settle(tracking)
    assert staged.exists()
    clock.advance((datetime.now(UTC) + timedelta(days=2) - clock.now()).total_seconds())
    settle(make())
    assert not staged.exists()


def test_a_folder_of_others_is_refused_and_left_alone(tmp_path: Path, root: Path) -> None:
    NamedFolder(root, ME).claim()
    NamedFolder(root, ME).claim()
    with pytest.raises(InvalidInput, match="/the/home") as refused:
        NamedFolder(root, "/another/home").claim()
    assert refused.value.code == "artifact_folder.foreign"
    full = tmp_path / "full"
    full.mkdir()
    (full / "precious").write_text("1")
    with pytest.raises(InvalidInput):
        NamedFolder(full, ME).claim()
    assert os.listdir(full) == ["precious"]
    with pytest.raises(InvalidInput) as refused:
        NamedFolder(full / "precious", ME).claim()
    assert refused.value.code == "artifact_folder.unusable"
