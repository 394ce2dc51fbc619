"""Attestations, licences and who submitted: evidence that is recorded, and no way round the gates."""

from __future__ import annotations

import pytest

from modelyard.kernel.auth import Role, Scope
from modelyard.kernel.errors import Conflict, Forbidden, NotFound
from modelyard.planes.registry.documents import read_license, read_policy
from modelyard.types.registry import AttestVersion, Policy

from .conftest import LIGHTGBM, MLMODEL, House

LICENSED = MLMODEL + b"metadata: {license: Apache-2.0}\nsaved_input_example_info: {artifact_path: input.json}\n"


def said(kind: str, *, passed: bool = True, value: str = "") -> AttestVersion:
    return AttestVersion(kind=kind, passed=passed, summary="looked at", value=value)


def gate(house: House, scope: Scope, name: str, version: int = 1) -> tuple[str, str]:
    found = next(one for one in house.registry.decide(scope, "delay", version).gates if one.name == name)
    return found.status, found.reason


def test_no_evidence_is_not_passed_and_the_newest_word_counts(house: House, ann: Scope, bob: Scope) -> None:
    house.version(ann)
    policy = read_policy("{features: true, attestations: [{kind: scan, by: [scanner]}]}")
    house.registry.models.set_policy(ann, "delay", policy)
    assert gate(house, ann, "features") == ("missing", "no evidence: there is no attestation of features")
    assert gate(house, ann, "attestation:scan")[0] == "missing"
    house.registry.statements.attest(ann, "delay", 1, said("features"))
    house.registry.statements.attest(ann, "delay", 1, said("scan"))
    assert gate(house, ann, "features")[0] == "passed"
    assert gate(house, ann, "attestation:scan")[0] == "missing", "ann is not the scanner"
    house.registry.statements.attest(house.scope("scanner"), "delay", 1, said("scan"))
    assert house.registry.decide(ann, "delay", 1).promotable
    house.registry.statements.attest(bob, "delay", 1, said("features", passed=False))
    status, reason = gate(house, ann, "features")
    assert (status, reason) == ("failed", "bob attests: looked at")
    with pytest.raises(Forbidden):
        house.registry.promote(ann, "delay", 1, "champion", "")
    assert len(house.registry.statements.attestations(ann, "delay", 1)) == 4


def test_an_attestation_is_of_one_version_and_its_bytes(house: House, ann: Scope) -> None:
    house.version(ann)
    house.registry.models.set_policy(ann, "delay", read_policy("features: true"))
    house.registry.statements.attest(ann, "delay", 1, said("features"))
    house.version(ann, files={"model.txt": LIGHTGBM + b"other"})
    assert gate(house, ann, "features", 2)[0] == "missing"
    house.registry.models.create(ann, "elsewhere")
    house.registry.versions.create(ann, "elsewhere", "s3://bucket/model")
    with pytest.raises(Conflict):
        house.registry.statements.attest(ann, "elsewhere", 1, said("features"))


def test_old_attestations_are_no_evidence(house: House, ann: Scope) -> None:
    house.version(ann)
    house.registry.models.set_policy(ann, "delay", read_policy("{features: true, evidence_valid_days: 2}"))
    house.registry.statements.attest(ann, "delay", 1, said("features"))
    assert gate(house, ann, "features")[0] == "passed"
    house.clock.advance(3 * 86_400)
    assert gate(house, ann, "features")[0] == "missing"


def test_licence_and_example_are_read_from_the_files(house: House, ann: Scope) -> None:
    house.version(ann, files={"MLmodel": LICENSED, "model.txt": LIGHTGBM, "input.json": b"{}"})
    house.version(ann)
    house.version(ann, files={"model.txt": LIGHTGBM, "README.md": b"---\nlicense: gpl-3.0\n---\n# Late\n"})
    assert [one.license for one in house.registry.versions.list(ann, "delay")] == ["gpl-3.0", "", "Apache-2.0"]
    assert [one.input_example for one in house.registry.versions.list(ann, "delay")] == ["", "", "input.json"]
    policy = read_policy("{licenses: [apache-2.0, MIT], input_example: true}")
    house.registry.models.set_policy(ann, "delay", policy)
    assert house.registry.decide(ann, "delay", 1).promotable
    assert [one.status for one in house.registry.decide(ann, "delay", 2).gates] == ["missing", "missing"]
    assert gate(house, ann, "license", 3)[0] == "failed"
    house.registry.statements.attest(ann, "delay", 2, said("license", value="MIT"))
    assert gate(house, ann, "license", 2)[0] == "passed"
    # What somebody says does not undo what the files declare.
    house.registry.statements.attest(ann, "delay", 3, said("license", value="MIT"))
    assert gate(house, ann, "license", 3)[0] == "failed"
    house.registry.statements.attest(ann, "delay", 1, said("license", passed=False, value="Apache-2.0"))
    assert gate(house, ann, "license", 1)[0] == "failed"


@pytest.mark.parametrize(
    ("text", "license"),
    [
        (b"---\nlicense: mit\n---\n", "mit"),
        (b"---\r\nlicense: mit\r\n---\r\n", "mit"),
        (b"license: mit", ""),
        (b"---\nlicense: mit\n", ""),
        (b"---\nlicense: [mit]\n---\n", ""),
        (b"---\nlicense: !!python/object/apply:os.system [id]\n---\n", ""),
        (b"---\nlicense: '" + b"x" * 300 + b"'\n---\n", ""),
    ],
)
def test_the_head_of_a_readme(text: bytes, license: str) -> None:
    assert read_license(text) == license


def test_bytes_that_are_elsewhere_pass_no_policy(house: House, ann: Scope) -> None:
    house.registry.models.create(ann, "delay", policy=Policy())
    house.registry.versions.create(ann, "delay", "s3://bucket/model")
    with pytest.raises(Forbidden, match="outside this platform"):
        house.registry.promote(ann, "delay", 1, "champion", "")


def test_who_made_the_run_does_not_approve_either(house: House, ann: Scope, bob: Scope) -> None:
    """Bob trains, a build account registers: bob's approval would still be of his own work."""
    source = house.logged(bob)
    house.registry.models.create(ann, "delay")
    house.registry.versions.create(house.scope("ci"), "delay", source)
    with pytest.raises(Forbidden) as caught:
        house.registry.approve(bob, "delay", 1, "mine, but I did not register it")
    assert caught.value.code == "approval.own"


def test_a_copy_has_the_submitters_of_what_it_is_a_copy_of(house: House, ann: Scope, bob: Scope) -> None:
    house.version(bob)
    house.registry.models.create(ann, "copy")
    house.registry.versions.create(ann, "copy", "models:/delay/1")
    with pytest.raises(Forbidden) as caught:
        house.registry.approve(bob, "copy", 1, "a copy of mine")
    assert caught.value.code == "approval.own"
    house.registry.approve(house.scope("cleo", Role.APPROVER), "copy", 1, "looked at it")


def test_an_approval_does_not_travel_to_other_bytes_or_to_a_copy(house: House, ann: Scope, bob: Scope) -> None:
    house.version(ann)
    house.registry.approve(bob, "delay", 1, "fine")
    house.version(ann, files={"MLmodel": MLMODEL, "model.txt": LIGHTGBM + b"x"})
    house.registry.models.set_policy(ann, "delay", read_policy("approvals: {count: 1}"))
    house.registry.models.create(ann, "copy", policy=read_policy("approvals: {count: 1}"))
    house.registry.versions.create(ann, "copy", "models:/delay/1")
    assert house.registry.decide(ann, "delay", 1).promotable
    assert not house.registry.decide(ann, "delay", 2).promotable
    assert not house.registry.decide(ann, "copy", 1).promotable


@pytest.mark.parametrize(
    ("rule", "by", "counts"),
    [
        ("{count: 1, people: [bob, cleo]}", "bob", True),
        ("{count: 1, people: [cleo]}", "bob", False),
        ("{count: 1, role: admin}", "bob", False),
        ("{count: 1, role: admin}", "root", True),
    ],
)
def test_named_people_and_roles(
    house: House, ann: Scope, bob: Scope, root: Scope, rule: str, by: str, counts: bool
) -> None:
    house.version(ann)
    house.registry.models.set_policy(ann, "delay", read_policy(f"approvals: {rule}"))
    house.registry.approve({"bob": bob, "root": root}[by], "delay", 1, "fine")
    assert house.registry.decide(ann, "delay", 1).promotable is counts


def test_a_deleted_model_made_anew_keeps_its_policy_and_its_past(house: House, ann: Scope, root: Scope) -> None:
    house.version(ann)
    house.registry.models.set_policy(ann, "delay", Policy(aliases=["champion"], require_signature=None, signature=True))
    house.registry.promote(ann, "delay", 1, "champion", "")
    served_at = house.clock.now()
    house.clock.advance(60)
    house.registry.promotions.unset(root, "delay", "champion", "out")
    house.registry.models.delete(root, "delay", "gone")
    house.clock.advance(60)
    assert house.registry.at(ann, "delay", "champion", served_at).version == 1
    assert [one.kind for one in house.registry.history(ann, "delay")] == ["promote", "delete"]
    made = house.registry.models.create(ann, "delay")
    assert made.policy is not None
    assert made.policy.signature
    house.version(ann, files={"model.txt": LIGHTGBM})
    with pytest.raises(Forbidden):
        house.registry.promote(ann, "delay", 2, "champion", "")
    weaker = house.registry.models
    with pytest.raises(Forbidden):
        weaker.set_policy(ann, "delay", None)
    with pytest.raises(NotFound):
        house.registry.history(ann, "never")


def test_what_a_move_rested_on_stays_with_it(house: House, ann: Scope, bob: Scope) -> None:
    house.version(ann)
    house.registry.promote(ann, "delay", 1, "free", "")
    house.registry.models.set_policy(ann, "delay", read_policy("{signature: true, approvals: {count: 1}}"))
    house.registry.approve(bob, "delay", 1, "fine")
    house.registry.promote(ann, "delay", 1, "champion", "")
    free, champion = house.registry.history(ann, "delay")
    assert (free.guarded, free.gates, free.approved_by) == (False, [], [])
    assert champion.guarded
    assert [(one.name, one.status) for one in champion.gates] == [("signature", "passed")]
    assert champion.approved_by == ["bob"]


def test_a_guarded_alias_goes_back_only_to_what_passed(house: House, ann: Scope, bob: Scope, root: Scope) -> None:
    for _ in range(3):
        house.version(ann)
    house.registry.promote(ann, "delay", 1, "champion", "before there were gates")
    house.registry.models.set_policy(ann, "delay", read_policy("approvals: {count: 1}"))
    for number in (2, 3):
        house.registry.approve(bob, "delay", number, "fine")
        house.registry.promote(ann, "delay", number, "champion", "")
    given = house.registry.evidence.approvals(ann, "delay", 2)[0]
    house.registry.evidence.revoke(bob, "delay", 2, given.id, "it leaks")
    with pytest.raises(Forbidden, match="bob took the approval back"):
        house.registry.rollback(ann, "delay", "champion", "worse")
    assert house.registry.rollback(root, "delay", "champion", "outage").version == 2
    move = house.registry.history(ann, "delay")[-1]
    assert (move.kind, move.unmet) == ("rollback", ["bob took the approval back"])
    with pytest.raises(Forbidden, match="no gate guarded"):
        house.registry.rollback(ann, "delay", "champion", "worse still")


def test_the_stage_production_is_left_by_admins_only(house: House, ann: Scope, root: Scope) -> None:
    house.version(ann)
    house.registry.models.set_policy(ann, "delay", Policy(signature=True))
    house.registry.promotions.transition(ann, "delay", 1, "Production")
    for stage in ("Archived", "None", "Staging"):
        with pytest.raises(Forbidden):
            house.registry.promotions.transition(ann, "delay", 1, stage)
    house.registry.promotions.transition(root, "delay", 1, "Archived")
