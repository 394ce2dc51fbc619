"""Versions: immutable by digest, numbers never reused, provenance from the record, written out with digests checked."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from modelyard.kernel import lineage
from modelyard.kernel.auth import Role, Scope
from modelyard.kernel.errors import Conflict, EngineError, Forbidden, InvalidInput, NotFound
from modelyard.planes.registry.snapshot import tree_digest
from modelyard.planes.tracking import Owner
from modelyard.types.registry import ModelFile

from .conftest import LIGHTGBM, MLMODEL, PICKLE, House


def test_a_version_knows_its_files_signature_format_and_run(house: House, ann: Scope) -> None:
    made = house.version(ann)
    assert (made.version, made.files, made.format, made.stage) == (1, 2, "safe", "None")
    assert made.size_bytes == len(MLMODEL) + len(LIGHTGBM)
    assert made.signature is not None
    assert made.signature["inputs"][0]["name"] == "distance"
    assert "onnx" in made.flavors
    assert made.created_by == "ann"
    assert made.provenance.logged_model.startswith("m-")
    with house.database.reading(ann) as tx:
        ties = {(edge.subject, edge.relation, edge.object) for edge in lineage.neighbours(tx, "model:delay@1")}
    assert (f"run:{made.provenance.run}", "produced", "model:delay@1") in ties


def test_what_happens_to_the_run_later_does_not_change_a_version(house: House, ann: Scope, tmp_path: Path) -> None:
    made = house.version(ann)
    owner = Owner("model", made.provenance.logged_model)
    house.tracking.artifacts.put(ann, owner, "model.txt", io.BytesIO(b"tree\nversion=v4\nother"))
    house.tracking.artifacts.delete(ann, owner, "MLmodel")
    again = house.registry.materialize(ann, "delay", 1, tmp_path / "out")
    assert again.digest == made.digest
    assert (tmp_path / "out" / "model.txt").read_bytes() == LIGHTGBM
    assert (tmp_path / "out" / "MLmodel").read_bytes() == MLMODEL
    second = house.registry.versions.create(ann, "delay", made.source)
    assert second.version == 2
    assert second.digest != made.digest


def test_the_digest_is_of_paths_and_contents_whatever_their_order() -> None:
    one, two = ModelFile("a", "0" * 64, 1), ModelFile("b", "1" * 64, 2)
    assert tree_digest([one, two]) == tree_digest([two, one])
    assert tree_digest([one]) != tree_digest([ModelFile("c", "0" * 64, 1)])
    assert tree_digest([one]) != tree_digest([ModelFile("a", "2" * 64, 1)])
    assert tree_digest([]) == ""


def test_a_damaged_blob_is_never_written_out(house: House, ann: Scope, tmp_path: Path) -> None:
    made = house.version(ann)
    digest = next(one.digest for one in house.registry.versions.files(ann, "delay", 1) if one.path == "model.txt")
    blob = next(path for path in tmp_path.rglob(digest))
    blob.write_bytes(b"tree\nversion=v4\nevil")
    with pytest.raises(EngineError, match="damaged"):
        house.registry.materialize(ann, "delay", made.version, tmp_path / "out")


def test_numbers_are_never_reused(house: House, ann: Scope) -> None:
    assert [house.version(ann).version for _ in range(3)] == [1, 2, 3]
    house.registry.drop(ann, "delay", 3, "wrong data")
    assert house.version(ann).version == 4
    house.registry.models.delete(ann, "delay")
    assert house.version(ann).version == 5
    with pytest.raises(NotFound):
        house.registry.versions.get(ann, "delay", 3)


def test_a_renamed_model_keeps_all_and_its_old_name_goes_on_counting(house: House, ann: Scope) -> None:
    house.version(ann)
    house.registry.promote(ann, "delay", 1, "champion", "first")
    house.registry.models.rename(ann, "delay", "late")
    assert house.registry.resolve(ann, "late", "champion").version == 1
    assert house.version(ann, "late").version == 2
    assert house.version(ann, "delay").version == 2
    with pytest.raises(Conflict) as caught:
        house.registry.models.rename(ann, "late", "delay")
    assert caught.value.code == "model.exists"
    with house.database.reading(ann) as tx:
        ties = {(edge.subject, edge.relation, edge.object) for edge in lineage.neighbours(tx, "model:late@1")}
    assert ("model:late@1", "derived", "model:delay@1") in ties


def test_a_name_with_a_past_cannot_be_taken_over(house: House, ann: Scope) -> None:
    house.version(ann, "old")
    house.registry.models.delete(ann, "old")
    house.version(ann, "new")
    with pytest.raises(Conflict, match="stay on record"):
        house.registry.models.rename(ann, "new", "old")


def test_pickles_are_stored_as_unsafe_and_trust_is_an_act(house: House, ann: Scope, bob: Scope) -> None:
    made = house.version(ann, files={"MLmodel": MLMODEL, "model.pkl": PICKLE})
    assert made.format == "unsafe"
    assert "model.pkl" in made.format_reason
    with pytest.raises(Forbidden):
        house.registry.versions.trust(ann, "delay", 1, "I made it")
    with pytest.raises(InvalidInput, match="reason"):
        house.registry.versions.trust(bob, "delay", 1, " ")
    trusted = house.registry.versions.trust(bob, "delay", 1, "looked at the code")
    assert (trusted.trusted, trusted.trusted_by) == (True, "bob")


def test_a_source_elsewhere_has_no_files_and_nothing_can_be_tied_to_it(house: House, ann: Scope, bob: Scope) -> None:
    house.registry.models.create(ann, "far")
    made = house.registry.versions.create(ann, "far", "s3://bucket/model", run="made-up")
    assert (made.digest, made.files, made.format, made.provenance.run) == ("", 0, "unknown", "made-up")
    with pytest.raises(Conflict, match="not known here"):
        house.registry.approve(bob, "far", 1, "fine")
    with house.database.reading(ann) as tx:
        assert lineage.neighbours(tx, "model:far@1") == []


def test_a_copy_of_a_version_whose_run_is_not_known_here_names_that_run_too(house: House, ann: Scope) -> None:
    house.registry.models.create(ann, "far")
    house.registry.versions.create(ann, "far", "s3://bucket/model", run="made-up")
    copy = house.registry.versions.create(ann, "far", "models:/far/1", run="made-up")
    assert (copy.version, copy.provenance.run) == (2, "made-up")
    with house.database.reading(ann) as tx:
        assert [edge.object for edge in lineage.neighbours(tx, "model:far@2")] == ["model:far@1"]


@pytest.mark.parametrize("source", ["/etc/passwd", "file:///etc/passwd", "mlflow-artifacts:/0/../../etc"])
def test_sources_on_the_server_are_refused(house: House, ann: Scope, source: str) -> None:
    house.registry.models.create(ann, "delay")
    with pytest.raises(InvalidInput):
        house.registry.versions.create(ann, "delay", source)


def test_all_forms_of_a_source_give_the_same_version(house: House, ann: Scope) -> None:
    made = house.version(ann)
    location = house.tracking.models.get(ann, made.provenance.logged_model).artifact_location
    for source in (location, "models:/delay/1", "models:/delay@first", "models:/delay/Production"):
        house.registry.promote(ann, "delay", 1, "first", "")
        house.registry.promotions.transition(ann, "delay", 1, "production")
        again = house.registry.versions.create(ann, "delay", source)
        assert again.digest == made.digest, source
        # The same content at an address of its own, which nobody can write to.
        assert again.location == f"{made.location.removesuffix('/1')}/{again.version}"


def test_another_projects_model_is_not_there(house: House, ann: Scope) -> None:
    made = house.version(ann)
    eve = house.scope("eve", Role.ADMIN, "other")
    with pytest.raises(NotFound):
        house.registry.models.get(eve, "delay")
    with pytest.raises(NotFound):
        house.registry.materialize(eve, "delay", 1, Path("/nowhere"))
    house.registry.models.create(eve, "delay")
    with pytest.raises(NotFound):
        house.registry.versions.create(eve, "delay", made.source)


def test_drop_refuses_while_an_alias_points_to_it(house: House, ann: Scope) -> None:
    house.version(ann)
    house.version(ann)
    house.registry.promote(ann, "delay", 1, "champion", "")
    with pytest.raises(Conflict) as caught:
        house.registry.drop(ann, "delay", 1, "old")
    assert caught.value.code == "version.in_use"
    house.registry.promote(ann, "delay", 2, "champion", "")
    dropped = house.registry.drop(ann, "delay", 1, "old")
    assert (dropped.dropped_by, dropped.dropped_reason) == ("ann", "old")
    assert [one.version for one in house.registry.versions.list(ann, "delay")] == [2]
    assert [one.version for one in house.registry.versions.list(ann, "delay", dropped=True)] == [2, 1]


def test_references_by_number_alias_and_latest(house: House, ann: Scope) -> None:
    house.version(ann)
    house.version(ann)
    house.registry.promote(ann, "delay", 1, "champion", "")
    registry = house.registry
    assert [registry.resolve(ann, "delay", ref).version for ref in (1, "2", "champion", "latest")] == [1, 2, 1, 2]
    for missing in ("3", "challenger", "0", "99999999999999999999"):
        with pytest.raises(NotFound):
            registry.resolve(ann, "delay", missing)


def test_blobs_of_versions_and_evaluations_are_kept(house: House, ann: Scope) -> None:
    house.version(ann)
    files = {one.digest for one in house.registry.versions.files(ann, "delay", 1)}
    assert files <= set(house.registry.kept_blobs())


def test_diff_names_what_changed(house: House, ann: Scope) -> None:
    house.version(ann)
    house.version(ann, files={"MLmodel": MLMODEL, "model.txt": LIGHTGBM + b"more", "notes.txt": b"hi"})
    found = house.registry.diff(ann, "delay", 1, 2)
    named = {(change.plane, change.name) for change in found.changes}
    assert {("files", "model.txt"), ("files", "notes.txt"), ("model", "size_bytes"), ("provenance", "run")} <= named
    assert ("files", "MLmodel") not in named
    assert house.registry.diff(ann, "delay", 1, 1).changes == []
