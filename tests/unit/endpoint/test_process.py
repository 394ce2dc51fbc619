"""The prediction process as its clients and its operator see it."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from typing import Any

import httpx
import psutil
import pytest

from unit.endpoint.living import COLUMN_SIGNATURE, Living, linear, rows, slow, typed_columns


def started(living: Living, content: bytes | None = None, **options: Any) -> Living:
    living.add(1, linear([2.0], 1.0) if content is None else content)
    living.configure(1, **options)
    living.start()
    return living


def values(reply: httpx.Response) -> list[float]:
    assert reply.status_code == 200, reply.text
    data: list[float] = reply.json()["outputs"][0]["data"]
    return data


def test_it_answers_and_echoes_the_id(living: Living) -> None:
    started(living)
    reply = living.infer(rows(1.0, 2.0, id="q-7"))
    assert reply.json() == {
        "model_name": "delay",
        "model_version": "1",
        "id": "q-7",
        "parameters": {"variant": "v1"},
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [2, 1], "data": [3.0, 5.0]}],
    }


def test_it_is_ready_within_two_seconds_and_loads_nothing_heavy(living: Living) -> None:
    living.add(1, linear([2.0]))
    living.configure(1)
    began = time.monotonic()
    status = living.start()
    assert time.monotonic() - began < 2.0 * 2  # twice the aim: other work shares the machine
    loaded = {one.path for one in psutil.Process(status.pid).memory_maps()}
    assert any("onnxruntime" in path for path in loaded)
    assert not any(name in path for path in loaded for name in ("/pandas/", "/pyarrow/", "/sklearn/", "/duckdb"))


def test_it_listens_on_loopback_only(living: Living) -> None:
    started(living)
    assert living.process is not None
    listening = [one.laddr.ip for one in psutil.Process(living.process.pid).net_connections("inet")]
    assert set(listening) == {"127.0.0.1"}


BAD: list[tuple[str, dict[str, Any] | bytes, str]] = [
    ("no body", b"", "not an inference request"),
    ("not JSON", b"{", "not an inference request"),
    ("no inputs", {}, "missing required field `inputs`"),
    ("missing", {"inputs": []}, "input 'x' (FP32[-1, 1]) is missing"),
    ("extra", {"inputs": [*rows(1)["inputs"], {**rows(1)["inputs"][0], "name": "z"}]}, "'z' is not one of the model's"),
    ("twice", {"inputs": rows(1)["inputs"] * 2}, "given twice"),
    ("text for number", {"inputs": [{**rows(1)["inputs"][0], "data": ["a"]}]}, "Expected `float`, got `str`"),
    ("bool for number", {"inputs": [{**rows(1)["inputs"][0], "data": [True]}]}, "Expected `float`, got `bool`"),
    ("other type", {"inputs": [{**rows(1)["inputs"][0], "datatype": "FP64"}]}, "is FP32, not FP64"),
    ("unknown type", {"inputs": [{**rows(1)["inputs"][0], "datatype": "BF99"}]}, "is FP32, not BF99"),
    ("too few values", {"inputs": [{**rows(1)["inputs"][0], "shape": [2, 1]}]}, "1 elements, shape [2, 1] needs 2"),
    ("too many values", {"inputs": [{**rows(1, 2)["inputs"][0], "shape": [1, 1]}]}, "2 elements, shape [1, 1] needs 1"),
    ("other width", {"inputs": [{**rows(1, 2)["inputs"][0], "shape": [1, 2]}]}, "the model takes [-1, 1]"),
    ("other rank", {"inputs": [{**rows(1)["inputs"][0], "shape": [1]}]}, "the model takes [-1, 1]"),
    ("negative size", {"inputs": [{**rows(1)["inputs"][0], "shape": [-1, 1]}]}, "sizes of 0 or more"),
    ("no rows", {"inputs": [{**rows(1)["inputs"][0], "shape": [0, 1], "data": []}]}, "no rows"),
    ("ragged", {"inputs": [{**rows(1)["inputs"][0], "shape": [2, 1], "data": [[1], [2, 3]]}]}, "a list of 2 where"),
    ("number too large", {"inputs": [{**rows(1)["inputs"][0], "data": [1e300]}]}, "that FP32 cannot hold"),
    ("no data", {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1]}]}, "has no data"),
    ("unknown output", {**rows(1), "outputs": [{"name": "q"}]}, "output 'q' is not one of the model's"),
    ("classification", {**rows(1), "outputs": [{"name": "y", "parameters": {"classification": 2}}]}, "not offered"),
    (
        "ids for other rows",
        {
            "inputs": [
                *rows(1)["inputs"],
                {"name": "modelyard.id", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]},
            ]
        },
        "2 values for 1 rows",
    ),
    (
        "no instant",
        {
            "inputs": [
                *rows(1)["inputs"],
                {"name": "modelyard.event_time", "datatype": "BYTES", "shape": [1], "data": ["yesterday"]},
            ]
        },
        "which is no instant",
    ),
    (
        "instant without zone",
        {
            "inputs": [
                *rows(1)["inputs"],
                {"name": "modelyard.event_time", "datatype": "BYTES", "shape": [1], "data": ["2013-01-01T00:00:00"]},
            ]
        },
        "which is no instant",
    ),
]


def test_bad_requests_are_400_with_a_sentence_and_change_nothing(living: Living) -> None:
    started(living)
    with living.client() as client:
        for name, body, expected in BAD:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            reply = client.post("/v2/models/delay/infer", content=content)
            assert reply.status_code == 400, (name, reply.text)
            assert list(reply.json()) == ["error"], name
            assert expected in reply.json()["error"], (name, reply.json())
        assert values(client.post("/v2/models/delay/infer", json=rows(1.0))) == [3.0]
    living.stop()
    assert [record.rows for record in living.records()] == [1]


def test_other_errors_have_the_protocols_form(living: Living) -> None:
    started(living, body_bytes_max=2_000)
    with living.client() as client:
        for method, path, status in (
            ("GET", "/v2/models/other", 404),
            ("POST", "/v2/models/delay/versions/9/infer", 404),
            ("GET", "/nothing", 404),
            ("GET", "/v2/models/delay/infer", 405),
            ("POST", "/v2", 405),
        ):
            reply = client.request(method, path, json=rows(1.0))
            assert (reply.status_code, list(reply.json())) == (status, ["error"]), path
        assert client.post("/v2/models/delay/infer", json=rows(*range(900))).status_code == 413
        gzipped = client.post("/v2/models/delay/infer", content=b"x", headers={"Content-Encoding": "gzip"})
        assert gzipped.status_code == 400


def test_what_is_not_a_number_is_met_by_policy(living: Living) -> None:
    started(living, nan_inputs="allow", nan_outputs="refuse")
    missing = {"inputs": [{**rows(1)["inputs"][0], "shape": [2, 1], "data": [1.0, None]}]}
    reply = living.infer(missing)
    assert reply.status_code == 500
    assert "not finite in output 'y', row 1" in reply.json()["error"]
    living.configure(2, nan_outputs="allow")
    living.wait_for(lambda status: status.revision == 2)
    assert values(living.infer(missing)) == [3.0, None]
    living.configure(3, nan_inputs="refuse")
    living.wait_for(lambda status: status.revision == 3)
    reply = living.infer(missing)
    assert (reply.status_code, "not finite" in reply.json()["error"]) == (400, True)


def test_one_bad_row_does_not_fail_the_others_of_its_batch(living: Living) -> None:
    started(living, slow(200_000))
    replies: dict[int, httpx.Response] = {}

    def ask(number: int) -> None:
        value = None if number == 3 else float(number)
        replies[number] = living.infer({"inputs": [{**rows(1)["inputs"][0], "data": [value]}]})

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert replies.pop(3).status_code == 500
    assert {number: values(reply) for number, reply in replies.items()} == {
        number: [float(number)] for number in (0, 1, 2, 4, 5, 6, 7)
    }


@pytest.mark.slow
def test_what_queues_up_runs_in_one_call(living: Living) -> None:
    started(living, slow(300_000))
    threads = [threading.Thread(target=living.infer, args=(rows(float(n)),)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with living.client() as client:
        lines = client.get("/metrics").text.splitlines()
    batches = [line for line in lines if line.startswith("modelyard_endpoint_batch_rows_")]
    counted = {line.split("{")[0]: float(line.split(" ")[1]) for line in batches}
    assert counted["modelyard_endpoint_batch_rows_sum"] == 16
    assert counted["modelyard_endpoint_batch_rows_count"] < 16


def test_columns_of_every_type_pass(living: Living) -> None:
    living.add(1, typed_columns(), COLUMN_SIGNATURE)
    living.configure(1)
    living.start()
    sent = {"number": [1.5, -2.0], "count": [2**60, -1], "word": ["a", "é"], "flag": [True, False]}
    kinds = {"number": "FP64", "count": "INT64", "word": "BYTES", "flag": "BOOL"}
    tensors = [{"name": k, "datatype": kinds[k], "shape": [2], "data": v} for k, v in sent.items()]
    reply = living.infer({"inputs": tensors}).json()
    assert {one["name"].removesuffix("_out"): one["data"] for one in reply["outputs"]} == sent
    for name, bad in (("count", [1.5, 2.0]), ("count", [2**63, 0]), ("word", [1, 2]), ("flag", [0, 1])):
        broken = [{**one, "data": bad} if one["name"] == name else one for one in tensors]
        assert living.infer({"inputs": broken}).status_code == 400, (name, bad)


def test_ids_and_times_are_logged_and_kept_from_the_model(living: Living) -> None:
    started(living)
    body = rows(1.0, 2.0, id="r")
    body["inputs"] += [
        {"name": "modelyard.id", "datatype": "BYTES", "shape": [2], "data": ["f1", "f2"]},
        {"name": "modelyard.event_time", "datatype": "INT64", "shape": [2], "data": [1_000_000, 2_000_000]},
    ]
    assert values(living.infer(body)) == [3.0, 5.0]
    assert living.stop() == 0
    (record,) = living.records()
    assert (record.request_id, record.ids, record.event_times_us) == ("r", ["f1", "f2"], [1_000_000, 2_000_000])
    assert [(one.name, one.shape) for one in record.inputs] == [("x", [2, 1])]
    assert [(one.name, one.shape) for one in record.outputs] == [("y", [2, 1])]
    assert (record.variant, record.model, record.version, record.digest) == ("v1", "m", 1, "sha256:1")
    assert record.latency_us > 0


def test_kill_9_loses_no_acknowledged_prediction(living: Living) -> None:
    started(living)
    acknowledged: list[str] = []
    enough = threading.Event()

    def ask(worker: int) -> None:
        with living.client() as client:
            for number in range(100_000):
                try:
                    name = f"{worker}-{number}"
                    reply = client.post("/v2/models/delay/infer", json=rows(1.0, id=name))
                except httpx.TransportError:
                    return
                assert reply.status_code == 200
                acknowledged.append(name)
                if len(acknowledged) > 300:
                    enough.set()

    threads = [threading.Thread(target=ask, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    assert enough.wait(30)
    living.kill()
    for thread in threads:
        thread.join()
    logged = [record.request_id for record in living.records()]
    assert set(acknowledged) <= set(logged)
    assert len(logged) == len(set(logged))


def test_a_switch_under_load_fails_no_request(living: Living) -> None:
    living.add(1, linear([1.0], 100.0))
    living.add(2, linear([1.0], 200.0))
    living.configure(1, {1: 1.0})
    living.start()
    answers: list[tuple[str, float]] = []
    failed: list[object] = []
    ended = threading.Event()

    def ask() -> None:
        with living.client() as client:
            while not ended.is_set():
                reply = client.post("/v2/models/delay/infer", json=rows(1.0))
                if reply.status_code != 200:
                    failed.append(reply.text)
                    return
                answers.append((reply.json()["model_version"], reply.json()["outputs"][0]["data"][0]))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for revision in range(2, 8):
        count = len(answers)
        living.configure(revision, {2 if revision % 2 == 0 else 1: 1.0})
        living.wait_for(lambda status, revision=revision: status.revision == revision)
        deadline = time.monotonic() + 20
        while len(answers) < count + 40 and time.monotonic() < deadline:
            time.sleep(0.01)
    ended.set()
    for thread in threads:
        thread.join()
    assert failed == []
    assert {version for version, _ in answers} == {"1", "2"}
    assert all(value == {"1": 101.0, "2": 201.0}[version] for version, value in answers)
    living.stop()
    assert sum(record.rows for record in living.records()) == len(answers)


def test_a_model_that_does_not_load_leaves_the_old_one_serving(living: Living) -> None:
    started(living)
    living.add(2, b"this is no model")
    living.configure(2, {2: 1.0})
    status = living.wait_for(lambda status: status.failed_revision == 2)
    assert (status.state, status.revision) == ("ready", 1)
    assert "trusted" in status.error or "ONNX" in status.error
    assert values(living.infer(rows(1.0))) == [3.0]
    living.write(b"{ broken")
    living.wait_for(lambda status: "no endpoint configuration" in status.error)
    assert values(living.infer(rows(1.0))) == [3.0]
    living.add(3, linear([10.0]))
    living.configure(3, {3: 1.0})
    status = living.wait_for(lambda status: status.revision == 3)
    assert (status.failed_revision, status.error) == (0, "")
    assert values(living.infer(rows(1.0))) == [10.0]


def test_a_first_model_that_does_not_load_is_said_and_can_be_mended(living: Living) -> None:
    living.add(1, b"this is no model")
    living.configure(1)
    living.launch()
    living.wait_for(lambda status: status.state == "failed")
    with living.client() as client:
        assert client.get("/v2/health/live").status_code == 200
        assert client.get("/v2/health/ready").status_code == 503
        assert client.post("/v2/models/delay/infer", json=rows(1.0)).status_code == 503
    living.add(2, linear([3.0]))
    living.configure(2, {2: 1.0})
    living.wait_for(lambda status: status.revision == 2)
    assert values(living.infer(rows(1.0))) == [3.0]


@pytest.mark.slow
def test_traffic_is_split_by_weight_and_sticks_to_the_row_id(living: Living) -> None:
    living.add(1, linear([1.0], 100.0))
    living.add(2, linear([1.0], 200.0))
    living.configure(1, {1: 3.0, 2: 1.0})
    living.start()

    def version(client: httpx.Client, row: str) -> str:
        body = rows(1.0)
        body["inputs"].append({"name": "modelyard.id", "datatype": "BYTES", "shape": [1], "data": [row]})
        reply = client.post("/v2/models/delay/infer", json=body)
        assert reply.status_code == 200
        return str(reply.json()["model_version"])

    with living.client() as client:
        first = {str(row): version(client, str(row)) for row in range(400)}
        again = {str(row): version(client, str(row)) for row in range(0, 400, 7)}
        assert again == {row: first[row] for row in again}
        assert 60 <= sum(one == "2" for one in first.values()) <= 140
        by_number = client.post("/v2/models/delay/versions/2/infer", json=rows(1.0))
        assert values(by_number) == [201.0]
        assert client.get("/v2/models/delay").json()["versions"] == ["1", "2"]
        living.configure(2, {1: 0.0, 2: 1.0})
        living.wait_for(lambda status: status.revision == 2)
        assert {version(client, str(row)) for row in range(50)} == {"2"}


def test_a_token_is_asked_for_where_one_is_set(living: Living) -> None:
    started(living, token_sha256=hashlib.sha256(b"secret").hexdigest())
    assert living.infer(rows(1.0)).status_code == 401
    assert living.infer(rows(1.0), Authorization="Bearer wrong").status_code == 401
    assert living.infer(rows(1.0), Authorization="Bearer secret").status_code == 200
    with living.client() as client:
        assert client.get("/v2/health/ready").status_code == 200
        assert client.get("/metrics").status_code == 401


def test_web_pages_are_shut_out(living: Living) -> None:
    started(living)
    assert living.infer(rows(1.0), Origin="http://evil.example").status_code == 403
    assert living.infer(rows(1.0), Host="rebound.example").status_code == 403


def test_a_second_process_for_the_same_directory_ends(living: Living) -> None:
    started(living)
    second = Living(living.directory)
    second.process = None
    status = living.status()
    with (living.directory / "stderr").open("ab"):
        Living.launch(second)
    assert second.process is not None
    assert second.process.wait(30) == 3
    living.configure(2)
    assert living.wait_for(lambda found: found.revision == 2).pid == (status.pid if status else 0)


def test_a_taken_port_gives_way_to_a_free_one(living: Living) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        started(living, port=taken.getsockname()[1])
        status = living.status()
        assert status is not None
        assert status.port != taken.getsockname()[1]
    assert values(living.infer(rows(1.0))) == [3.0]


@pytest.mark.slow
def test_a_stall_is_answered_with_503_and_others_go_on(living: Living) -> None:
    started(living, slow(1_500_000), predict_timeout_s=0.2)
    reply = living.infer(rows(1.0))
    assert (reply.status_code, "no answer within 0.2 s" in reply.json()["error"]) == (503, True)
    with living.client() as client:
        assert client.get("/v2/health/live").status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("full", ["limit", "directory"])
def test_a_log_that_cannot_be_written_does_not_hold_up_replies(living: Living, full: str) -> None:
    if full == "limit":
        started(living, log_bytes_max=1024)
    else:
        started(living)
        (living.directory / "log").rmdir()
    for _ in range(40):
        assert living.infer(rows(1.0)).status_code == 200
    with living.client() as client:
        metrics = client.get("/metrics").text
    dropped = next(line for line in metrics.splitlines() if line.startswith("modelyard_endpoint_log_rows_dropped "))
    assert float(dropped.split()[1]) > 0
