"""Artifacts: files by content under safe names, never outside their owner."""

from __future__ import annotations

import pytest

from modelyard.kernel.auth import Scope
from modelyard.kernel.errors import Conflict, InvalidInput, NotFound
from modelyard.planes.tracking import Owner, Tracking, below_uri, locate


@pytest.fixture
def owner(run_id: str) -> Owner:
    return Owner("run", run_id)


def test_a_file_comes_back_by_its_path(tracking: Tracking, scope: Scope, owner: Owner) -> None:
    tracking.artifacts.put(scope, owner, "model/MLmodel", [b"one", b"two"])
    tracking.artifacts.put(scope, owner, "a.txt", [b""])
    found, file = tracking.artifacts.open(scope, owner, "model/MLmodel")
    with file:
        assert file.read() == b"onetwo"
    assert found.size_bytes == 6
    assert [(one.path, one.is_dir) for one in tracking.artifacts.list(scope, owner)] == [
        ("a.txt", False),
        ("model", True),
    ]
    assert [one.path for one in tracking.artifacts.list(scope, owner, "model")] == ["model/MLmodel"]
    assert tracking.artifacts.list(scope, owner, "mod") == []
    assert {found.digest} < set(tracking.kept_blobs())


def test_putting_again_replaces_and_deleting_a_directory_takes_all_of_it(
    tracking: Tracking, scope: Scope, owner: Owner
) -> None:
    for path, body in (("d/a", b"1"), ("d/a", b"2"), ("d/b/c", b"3"), ("da", b"4")):
        tracking.artifacts.put(scope, owner, path, [body])
    with tracking.artifacts.open(scope, owner, "d/a")[1] as file:
        assert file.read() == b"2"
    assert tracking.artifacts.delete(scope, owner, "d") == 2
    assert [one.path for one in tracking.artifacts.tree(scope, owner)] == ["da"]
    with pytest.raises(NotFound):
        tracking.artifacts.delete(scope, owner, "d")


@pytest.mark.parametrize(
    "path",
    ["../x", "a/../../x", "/etc/passwd", "a//b", "~/x", "C:\\x", "a\x00b", "%2e%2e/x", "a/%252e%252e", "", "a/."],
)
def test_a_path_that_climbs_is_refused_by_every_verb(tracking: Tracking, scope: Scope, owner: Owner, path: str) -> None:
    with pytest.raises((InvalidInput, NotFound)):
        tracking.artifacts.put(scope, owner, path, [b"x"])
    with pytest.raises((InvalidInput, NotFound)):
        tracking.artifacts.open(scope, owner, path)
    with pytest.raises((InvalidInput, NotFound)):
        tracking.artifacts.delete(scope, owner, path)
    assert tracking.artifacts.tree(scope, owner) == []


def test_a_path_is_a_file_or_a_directory_and_differs_by_more_than_case(
    tracking: Tracking, scope: Scope, owner: Owner
) -> None:
    tracking.artifacts.put(scope, owner, "a/b", [b"x"])
    for path in ("a", "a/b/c", "A/B"):
        with pytest.raises(Conflict):
            tracking.artifacts.put(scope, owner, path, [b"x"])


def test_a_broken_upload_leaves_nothing(tracking: Tracking, scope: Scope, owner: Owner) -> None:
    def pieces() -> object:
        yield b"half"
        raise ConnectionError("the client went away")

    with pytest.raises(ConnectionError):
        tracking.artifacts.put(scope, owner, "half.bin", pieces())  # type: ignore[arg-type]
    assert tracking.artifacts.tree(scope, owner) == []


def test_other_projects_and_missing_owners_are_not_found(tracking: Tracking, scope: Scope, owner: Owner) -> None:
    tracking.artifacts.put(scope, owner, "x", [b"x"])
    other = Scope("other", scope.principal)
    with pytest.raises(NotFound):
        tracking.artifacts.open(other, owner, "x")
    for missing in (Owner("run", "0" * 32), Owner("model", "m-" + "0" * 32)):
        with pytest.raises(NotFound):
            tracking.artifacts.put(scope, missing, "x", [b"x"])


def test_the_artifact_tree_says_whose_a_path_is(run_id: str) -> None:
    assert locate(f"0/{run_id}/artifacts/a/b") == (Owner("run", run_id), "a/b")
    assert locate(f"0/{run_id}/artifacts") == (Owner("run", run_id), "")
    assert locate(f"1/models/m-{run_id}/artifacts/MLmodel") == (Owner("model", f"m-{run_id}"), "MLmodel")
    assert locate("dir/b.txt") == (Owner("project"), "dir/b.txt")
    assert below_uri(f"mlflow-artifacts:/0/{run_id}/artifacts") == f"0/{run_id}/artifacts"
    with pytest.raises(InvalidInput):
        below_uri("s3://bucket/x")
