"""Endpoints end to end: real processes, a real registry, real datasets, on SQLite and on PostgreSQL."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from datetime import UTC, datetime, timedelta

import pytest

from modelyard.kernel import lineage
from modelyard.kernel.auth import Scope, system_scope
from modelyard.kernel.errors import Conflict, Forbidden, InvalidInput, NotFound
from modelyard.planes.serving.segments import read_segment
from modelyard.types.serving import CreateEndpoint, UpdateEndpoint, VariantSpec
from unit.serving.conftest import House, model_files


@pytest.fixture
def champion(house: House, ann: Scope, root: Scope) -> int:
    """A first version, which is champion."""
    version = house.version(ann, model_files(100.0))
    house.champion(root, version)
    return version


def test_an_endpoint_serves_logs_and_is_deleted(house: House, ann: Scope, champion: int) -> None:
    endpoint = house.served(ann)
    assert endpoint.state == "ready"
    assert [(one.model, one.version, one.alias) for one in endpoint.serving] == [("delay", champion, "champion")]
    assert house.answers(endpoint, 1.0, 2.0, request_id="r1") == [101.0, 102.0]

    house.until(lambda: house.serving.get(ann, "late").rows_logged == 2)
    table = house.data.read(ann, "predictions.late").to_pylist()
    assert [row["id"] for row in table] == ["r1:0", "r1:1"]
    assert [(row["input.distance"], row["output.y"]) for row in table] == [(1.0, 101.0), (2.0, 102.0)]
    assert {(row["model"], row["version"], row["variant"]) for row in table} == {("delay", champion, "main")}
    assert table[0]["event_time"] == table[0]["at"]
    assert [row["id"] for row in house.serving.predictions(ann, "late").rows] == ["r1:0", "r1:1"]

    house.answers(endpoint, 3.0, request_id="r2")
    house.serving.delete(ann, "late", "no longer needed")
    with pytest.raises(Conflict, match="is being deleted"):
        house.serving.update(ann, "late", UpdateEndpoint(running=True))
    house.until(lambda: house.serving.list(ann).items == [])
    assert house.data.get(ann, "predictions.late").rows == 3
    assert not (house.home / "endpoints/default/late").exists()
    assert house.events(ann) == [
        "endpoint.created", "endpoint.started", "endpoint.switched", "endpoint.deleted", "endpoint.stopped",
    ]  # fmt: skip
    with house.database.reading(ann) as tx:
        edges = lineage.neighbours(tx, "endpoint:late")
    assert [(one.subject, one.relation, one.object) for one in edges] == [
        ("endpoint:late", "serves", f"model:delay@{champion}")
    ]


@pytest.mark.slow
def test_a_moved_alias_is_followed_under_load(house: House, ann: Scope, root: Scope, champion: int) -> None:
    endpoint = house.served(ann)
    second = house.version(ann, model_files(200.0))
    answers: list[float] = []
    failed: list[str] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            reply = house.ask(endpoint, 1.0)
            if reply.status_code != 200:
                failed.append(reply.text)
                return
            answers.append(reply.json()["outputs"][0]["data"][0])

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        house.until(lambda: answers)
        house.clock.advance(3600)
        house.champion(root, second)
        house.until(lambda: house.serving.get(ann, "late").observed_revision == 2)
        count = len(answers)
        house.until(lambda: len(answers) > count + 5)
    finally:
        ended.set()
        thread.join()
    assert failed == []
    assert set(answers) == {101.0, 201.0}
    assert answers == sorted(answers)
    switched = house.serving.switches(ann, "late")
    assert [(one.revision, [v.version for v in one.variants]) for one in switched] == [(2, [second]), (1, [champion])]
    assert "moved, by root" in switched[0].reason
    first_at = switched[1].at
    for at, served in ((first_at + timedelta(minutes=1), champion), (switched[0].at, second)):
        assert [one.version for one in house.serving.served_at(ann, "late", at).variants] == [served]
    with pytest.raises(NotFound, match="had served nothing"):
        house.serving.served_at(ann, "late", first_at - timedelta(seconds=1))
    house.until(lambda: house.serving.get(ann, "late").rows_logged == len(answers))
    models = house.home / "endpoints/default/late/models"
    assert len(list(models.iterdir())) == 1


def test_a_process_is_adopted_after_the_server_was_killed(house: House, ann: Scope, champion: int) -> None:
    endpoint = house.served(ann)
    house.restart()
    for _ in range(5):
        assert house.loop.step() == 0
    again = house.serving.get(ann, "late")
    assert (again.pid, again.port, again.restarts) == (endpoint.pid, endpoint.port, 0)
    house.serving.update(ann, "late", UpdateEndpoint(options=endpoint.options, variants=[
        VariantSpec(name="a", version=champion, weight=1.0), VariantSpec(name="b", version=champion, weight=1.0)
    ]))  # fmt: skip
    assert house.until_ready(ann).pid == endpoint.pid


def test_a_start_that_the_server_did_not_live_to_note_is_found(
    house: House, ann: Scope, champion: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.serving.create(ann, CreateEndpoint(name="late", model="delay"))
    start = house.compute.start

    class Killed(BaseException):
        pass

    def start_and_die(spec: object) -> object:
        start(spec)  # type: ignore[arg-type]
        raise Killed

    monkeypatch.setattr(house.compute, "start", start_and_die)
    with pytest.raises(Killed):
        house.until_ready(ann)
    house.restart()
    house.clock.advance(120)  # the dead server's leases run out
    endpoint = house.until_ready(ann)
    assert len(list((house.home / "endpoints/default/late/runs").iterdir())) == 1
    assert house.answers(endpoint, 1.0) == [101.0]


@pytest.mark.slow
def test_a_process_that_dies_is_started_again_and_nothing_acknowledged_is_lost(
    house: House, ann: Scope, champion: int
) -> None:
    endpoint = house.served(ann)
    for number in range(20):
        house.answers(endpoint, float(number), request_id=f"before-{number}")
    os.kill(endpoint.pid, signal.SIGKILL)
    house.until(lambda: house.serving.get(ann, "late").restarts == 1)
    assert "signal 9" in house.serving.get(ann, "late").error
    house.clock.advance(2)
    house.until(lambda: house.serving.get(ann, "late").pid not in (0, endpoint.pid))
    again = house.until_ready(ann)
    assert again.port == endpoint.port
    assert again.error == ""
    assert house.answers(again, 1.0, request_id="after") == [101.0]
    house.until(lambda: house.serving.get(ann, "late").rows_logged == 21)
    ids = [row["request_id"] for row in house.data.read(ann, "predictions.late").to_pylist()]
    assert sorted(ids) == sorted([*(f"before-{number}" for number in range(20)), "after"])
    assert house.events(ann).count("endpoint.died") == 1


def test_a_segment_is_taken_in_once_though_it_is_offered_twice(house: House, ann: Scope, champion: int) -> None:
    endpoint = house.served(ann)
    house.answers(endpoint, 1.0, 2.0, 3.0)
    log = house.home / "endpoints/default/late/log"
    house.serving.update(ann, "late", UpdateEndpoint(running=False))
    house.loop = type(house.loop)(house.database, house.serving.reconcilers()[:1])
    house.until(lambda: house.serving.get(ann, "late").state == "stopped")
    (segment,) = log.glob("*.frames")
    content = segment.read_bytes()
    house.restart()
    house.until(lambda: not segment.exists())
    # As after a crash between the write and the removal of the file.
    segment.write_bytes(content)
    house.until(lambda: not segment.exists())
    assert house.data.get(ann, "predictions.late").rows == 3


def test_damage_in_a_segment_keeps_what_stands_before_it(house: House, ann: Scope, champion: int) -> None:
    endpoint = house.served(ann)
    for number in range(4):
        house.answers(endpoint, float(number))
    house.serving.update(ann, "late", UpdateEndpoint(running=False))
    house.loop = type(house.loop)(house.database, house.serving.reconcilers()[:1])
    house.until(lambda: house.serving.get(ann, "late").state == "stopped")
    log = house.home / "endpoints/default/late/log"
    segments = sorted(log.glob("*.frames"))
    merged = b"".join(one.read_bytes() for one in segments)
    for one in segments[1:]:
        one.unlink()
    size = len(merged) // 4
    segments[0].write_bytes(merged[: 2 * size + 20] + b"\xff\xff" + merged[2 * size + 22 :])
    assert (len(read_segment(segments[0]).records), read_segment(segments[0]).problem != "") == (2, True)
    house.restart()
    house.until(lambda: not segments[0].exists())
    assert house.data.get(ann, "predictions.late").rows == 2
    assert list(log.iterdir()) == []
    assert len(list((house.home / "damaged_predictions/default/late").iterdir())) == 1
    assert "endpoint.segment_damaged" in house.events(ann)


def test_stopping_and_starting(house: House, ann: Scope, champion: int) -> None:
    endpoint = house.served(ann)
    house.clock.advance(60)
    house.serving.update(ann, "late", UpdateEndpoint(running=False, reason="at night"))
    house.until(lambda: house.serving.get(ann, "late").state == "stopped")
    stopped = house.serving.get(ann, "late")
    assert (stopped.url, stopped.serving, stopped.pid) == ("", [], 0)
    assert house.serving.served_at(ann, "late", house.clock.now()).variants == []
    house.serving.update(ann, "late", UpdateEndpoint(running=True))
    again = house.until_ready(ann)
    assert again.port == endpoint.port
    assert house.answers(again, 1.0) == [101.0]


def test_what_cannot_be_served_is_refused(house: House, ann: Scope, root: Scope, champion: int) -> None:
    unsigned = house.version(ann, model_files(1.0, signature=False))
    unsafe = house.version(ann, {**model_files(1.0), "model.pkl": pickle.dumps({"a": 1})})

    def create(**options: object) -> None:
        house.serving.create(ann, CreateEndpoint(name="late", model="delay", **options))  # type: ignore[arg-type]

    with pytest.raises(InvalidInput, match="no signature"):
        create(version=unsigned)
    with pytest.raises(Forbidden, match="nobody has trusted it"):
        create(version=unsafe)
    with pytest.raises(NotFound):
        create(version=99)
    with pytest.raises(NotFound):
        create(alias="nobody")
    with pytest.raises(InvalidInput, match="either an alias or a version"):
        create(variants=[VariantSpec(name="a")])
    with pytest.raises(InvalidInput, match="one name"):
        create(variants=[VariantSpec(name="a", version=1), VariantSpec(name="a", version=1)])
    with pytest.raises(InvalidInput, match="weight above 0"):
        create(variants=[VariantSpec(name="a", version=1, weight=0.0)])
    assert house.serving.list(ann).items == []
    create()
    with pytest.raises(Conflict, match="exists already"):
        create()


def test_an_alias_that_moves_to_an_unservable_version_is_not_followed(
    house: House, ann: Scope, root: Scope, champion: int
) -> None:
    endpoint = house.served(ann)
    unsigned = house.version(ann, model_files(1.0, signature=False))
    house.champion(root, unsigned)
    house.until(lambda: "no signature" in house.serving.get(ann, "late").error)
    assert house.serving.get(ann, "late").revision == 1
    assert house.answers(endpoint, 1.0) == [101.0]
    assert "endpoint.switch_refused" in house.events(ann)
    third = house.version(ann, model_files(300.0))
    house.champion(root, third)
    house.until(lambda: house.serving.get(ann, "late").observed_revision == 2)
    assert house.answers(endpoint, 1.0) == [301.0]
    assert house.serving.get(ann, "late").error == ""


def test_a_damaged_blob_is_named_and_not_served(house: House, ann: Scope, root: Scope, champion: int) -> None:
    endpoint = house.served(ann)
    second = house.version(ann, model_files(200.0))
    file = next(one for one in house.registry.versions.files(ann, "delay", second) if one.path == "model.onnx")
    (stored,) = [path for path in (house.home / "blobs").rglob("*") if path.name.endswith(file.digest[-20:])]
    os.chmod(stored, 0o600)
    stored.write_bytes(b"x" + stored.read_bytes()[1:])
    house.champion(root, second)
    house.until(lambda: house.serving.get(ann, "late").error != "")
    assert house.serving.get(ann, "late").observed_revision == 1
    assert house.answers(endpoint, 1.0) == [101.0]


@pytest.mark.slow
def test_weights_split_traffic_and_a_stale_change_is_refused(house: House, ann: Scope, champion: int) -> None:
    second = house.version(ann, model_files(200.0))
    endpoint = house.served(ann)
    split = [VariantSpec(name="main", alias="champion", weight=1.0), VariantSpec(name="next", version=second)]
    house.serving.update(ann, "late", UpdateEndpoint(variants=split, expected=1, reason="try it"))
    with pytest.raises(Conflict, match="at revision 2, not 1"):
        house.serving.update(ann, "late", UpdateEndpoint(variants=split[:1], expected=1))
    house.until_ready(ann)
    found = {house.answers(endpoint, 1.0, request_id=str(number))[0] for number in range(40)}
    assert found == {101.0, 201.0}
    assert house.serving.switches(ann, "late")[0].reason == "try it"


def test_projects_do_not_see_each_other(house: House, ann: Scope, champion: int) -> None:
    house.serving.create(ann, CreateEndpoint(name="late", model="delay"))
    other = system_scope("other")
    assert house.serving.list(other).items == []
    for call in (
        lambda: house.serving.get(other, "late"),
        lambda: house.serving.delete(other, "late"),
        lambda: house.serving.update(other, "late", UpdateEndpoint(running=False)),
        lambda: house.serving.switches(other, "late"),
        lambda: house.serving.served_at(other, "late", datetime(2030, 1, 1, tzinfo=UTC)),
        lambda: house.serving.predictions(other, "late"),
    ):
        with pytest.raises(NotFound, match="does not exist in project 'other'"):
            call()


def test_an_endpoint_whose_status_is_damaged_does_not_hold_up_the_others(
    house: House, ann: Scope, champion: int
) -> None:
    house.served(ann, "broken")
    (house.home / "endpoints/default/broken/status.json").write_bytes(b"{")
    endpoint = house.served(ann, "late")
    assert house.answers(endpoint, 1.0) == [101.0]
    assert "status file of endpoint 'broken' is damaged" in house.serving.get(ann, "broken").error
