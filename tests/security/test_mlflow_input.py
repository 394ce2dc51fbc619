"""Bad input to MLflow's surface: a clear error in MLflow's own form, never a 500, and nothing half done."""

from __future__ import annotations

import json
import math
import re
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest

from modelyard.server.dialects.mlflow import ROUTES
from modelyard.server.dialects.mlflow.wire import Message
from modelyard.server.run import Server
from running import raw_client, running_server

API = "/api/2.0/mlflow"
SURROGATE = '"\\ud800"'
# Raw JSON, since no encoder would write some of these.
NASTY = [
    "null",
    '""',
    '" "',
    '"x"',
    '"\\u0000"',
    SURROGATE,
    '"\\u202e\\u200b\\ufeff"',
    '"e\\u0301"',
    '"../../etc/passwd"',
    '"%2e%2e%2f"',
    '"' + "k" * 20_000 + '"',
    "0",
    "-1",
    "1.5",
    "1e400",
    "-1e400",
    "NaN",
    "Infinity",
    "true",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775809",
    "1" * 400,
    "[]",
    "[null]",
    '["x"]',
    "[[]]",
    "[{}]",
    "{}",
    '{"x": 1}',
    '{"key": "\\u0000", "value": "\\ud800"}',
    '[{"key": "k", "value": "\\u0000"}]',
    '["\\u0000", "\\ud800"]',
    '[{"key": "k", "value": 1e400, "timestamp": 99999999999999999999, "step": -99999999999999999999}]',
    '"9223372036854775808"',
    '"' + "9" * 5_000 + '"',
    '"metrics.a > ' + "9" * 5_000 + '"',
    "\"name = '\\u0000'\"",
    '"' + "[" * 1_000 + '"',
    "[" * 500 + "]" * 500,
]


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("postgresql", marks=(pytest.mark.slow, pytest.mark.postgres))]
)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server over a catalog of each sort: what the one takes the other may not."""
    home = tmp_path_factory.mktemp("mlflow") / "home"
    url = request.getfixturevalue("postgres").migrated() if request.param == "postgresql" else ""
    with running_server(home, database_url=url) as made:
        yield made


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    with raw_client(server, server.token) as client:
        client.timeout = httpx.Timeout(60)
        yield client


@pytest.fixture
def run_id(http: httpx.Client) -> str:
    made = http.post(f"{API}/runs/create", json={"experiment_id": "0", "start_time": 1})
    return str(made.json()["run"]["info"]["run_id"])


def endpoints() -> list[tuple[str, str]]:
    """Every method and path that MLflow's clients know."""
    found = {
        (str(method), path)
        for handler in ROUTES
        for path in handler.paths
        for method in handler.http_methods
        if not path.startswith("/mlflow")
    }
    return sorted(found)


def field_names() -> list[str]:
    """Every field of every request."""

    def below(kind: type) -> set[type]:
        return {kind} | {deeper for one in kind.__subclasses__() for deeper in below(one)}

    return sorted({field.encode_name for kind in below(Message) for field in msgspec.structs.fields(kind)})


def check(reply: httpx.Response, said: str) -> None:
    assert reply.status_code < 500 or reply.status_code == 501, f"{said}: {reply.status_code} {reply.text[:500]}"
    if reply.status_code >= 400:
        body = reply.json()
        assert isinstance(body["error_code"], str), said
        assert isinstance(body["message"], str), said
        assert "Traceback" not in reply.text, said


@pytest.mark.slow
def test_no_value_of_any_field_breaks_any_endpoint(http: httpx.Client, run_id: str) -> None:
    names = field_names()
    assert len(endpoints()) > 80
    for value in NASTY:
        # Also with what leads further in: an owner that is there.
        known = {"run_id": json.dumps(run_id), "experiment_id": '"0"', "experiment_ids": '["0"]', "key": '"k"'}
        for fixed in ({}, known):
            body = "{" + ",".join(f'"{name}":{fixed.get(name, value)}' for name in names) + "}"
            for method, path in endpoints():
                for text in ("x", run_id) if fixed and "{" in path else ("x",):
                    address = re.sub(r"\{[^}]*:int\}", "1", path)
                    address = re.sub(r"\{[^}]*\}", text, address)
                    reply = http.request(method, address, content=body.encode())
                    check(reply, f"{method} {address} {body[:200]}")


QUERIES = ["", "\x00", "x" * 5_000, "-1", "0", "9" * 400, "1e400", "true", "../x", "%00", "\ud7ff\u202e", "[]"]


@pytest.mark.slow
def test_no_query_breaks_any_endpoint(http: httpx.Client, run_id: str) -> None:
    for method, path in endpoints():
        if method != "GET" or "{" in path:
            continue
        for value in QUERIES:
            for fixed in ({}, {"run_id": run_id, "metric_key": "k", "experiment_ids": "0"}):
                asked = {**dict.fromkeys(field_names(), value), **fixed}
                if value == "x" * 5_000:
                    asked = dict.fromkeys(("name", "filter", "run_id", "path", "page_token"), value)
                check(http.get(path, params=asked), f"{path} {value[:40]!r}")


BODIES = [
    b"",
    b"{",
    b"null",
    b"[1, 2]",
    b'"x"',
    b'"{}"',
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"1" * 10_000,
    b'{"run_id": "' + b"\xed\xa0\x80" + b'"}',
    b"\x00" * 100,
    b'{"run_id": "a", "run_id": "b"}',
]


@pytest.mark.slow
def test_what_is_no_request_is_refused(http: httpx.Client) -> None:
    for method, path in endpoints():
        # An upload takes any bytes, and tracing has a form of its own.
        if method in ("GET", "PUT") or "{" in path or path == "/v1/traces":
            continue
        for body in BODIES:
            reply = http.request(method, path, content=body)
            check(reply, f"{method} {path} {body[:60]!r}")
            if body in (b"{", b"[1, 2]", b"\xff\xfe"):
                assert reply.status_code in (400, 501), f"{method} {path} {body[:60]!r}: {reply.text[:200]}"


def logged(http: httpx.Client, run_id: str) -> dict[str, Any]:
    found: dict[str, Any] = http.get(f"{API}/runs/get", params={"run_id": run_id}).json()["run"]["data"]
    return {name: value for name, value in found.items() if name != "tags"}


def test_too_much_at_once_is_refused_whole(http: httpx.Client, run_id: str) -> None:
    point = {"key": "m", "value": 1, "timestamp": 1}
    for body in (
        {"params": [{"key": f"p{at}", "value": "x"} for at in range(10_000)]},
        {"tags": [{"key": f"t{at}", "value": "x"} for at in range(101)]},
        {"metrics": [point] * 1_001},
        {"metrics": [point] * 950, "params": [{"key": f"p{at}", "value": "x"} for at in range(51)]},
    ):
        reply = http.post(f"{API}/runs/log-batch", json={"run_id": run_id, **body})
        assert (reply.status_code, reply.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    million = b'{"run_id":"%s","metrics":[' % run_id.encode() + b",".join([b'{"key":"m"}'] * 10**6) + b"]}"
    assert http.post(f"{API}/runs/log-batch", content=million).status_code == 400
    assert http.post(f"{API}/runs/log-batch", content=million + b" " * 2**24).status_code == 413
    assert logged(http, run_id) == {}


def test_a_tag_of_a_megabyte_is_cut_and_a_key_of_one_refused(http: httpx.Client, run_id: str) -> None:
    assert (
        http.post(f"{API}/runs/set-tag", json={"run_id": run_id, "key": "big", "value": "é" * 2**20}).status_code == 200
    )
    tags = http.get(f"{API}/runs/get", params={"run_id": run_id}).json()["run"]["data"]["tags"]
    assert {one["key"]: len(one["value"]) for one in tags}["big"] == 8_000
    for verb in ("set-tag", "log-parameter"):
        reply = http.post(f"{API}/runs/{verb}", json={"run_id": run_id, "key": "k" * 2**20, "value": "v"})
        assert reply.status_code == 400
        assert len(reply.content) < 2**21


KEYS_REFUSED = [
    "",
    "a/../b",
    "../a",
    "/a",
    "a//b",
    "a/./b",
    "a\x00b",
    "a\nb",
    "a\tb",
    "a;b",
    "a'b",
    'a"b',
    "a\\b",
    "a\u202eb",
    "a\u200bb",
    "\ufeffa",
    "a\u2028b",
    "\ud83d\ude00",
    "a%b",
    "a`b",
    "<a>",
    "k" * 251,
]
KEYS_TAKEN = ["a", "a/b", "a.b-c d:e", "ümlaut", "e\u0301"[:1] + "x", "名前", "k" * 250, "a.."]


def test_keys_are_taken_as_they_are_or_refused(http: httpx.Client, run_id: str) -> None:
    for key in KEYS_REFUSED:
        for verb, more in (
            ("log-metric", {"value": 1.0, "timestamp": 1}),
            ("log-parameter", {"value": "v"}),
            ("set-tag", {"value": "v"}),
        ):
            body = json.dumps({"run_id": run_id, "key": key, **more})
            reply = http.post(f"{API}/runs/{verb}", content=body)
            assert reply.status_code == 400, (verb, key, reply.text)
    assert logged(http, run_id) == {}
    for key in KEYS_TAKEN:
        reply = http.post(f"{API}/runs/log-metric", json={"run_id": run_id, "key": key, "value": 1, "timestamp": 1})
        assert reply.status_code == 200, (key, reply.text)
    assert {one["key"] for one in logged(http, run_id)["metrics"]} == set(KEYS_TAKEN)


def test_numbers_that_no_double_or_int64_holds_are_refused(http: httpx.Client, run_id: str) -> None:
    for value, timestamp, step in (
        ("1e400", "1", "0"), ("1", "1.5", "0"), ("1", "-1", "0"), ("1", "9223372036854775808", "0"),
        ("1", "1", "9223372036854775808"), ("1", "1", "0.5"), ("null", "1", "0"), ('"x"', "1", "0"), ("[]", "1", "0"),
    ):  # fmt: skip
        point = f'{{"key": "m", "value": {value}, "timestamp": {timestamp}, "step": {step}}}'
        reply = http.post(f"{API}/runs/log-metric", content=f'{{"run_id": "{run_id}", {point[1:]}')
        assert reply.status_code == 400, (point, reply.text)
        good = '{"key": "good", "value": 1, "timestamp": 1}'
        batch = f'{{"run_id": "{run_id}", "metrics": [{good}, {point}]}}'
        assert http.post(f"{API}/runs/log-batch", content=batch).status_code == 400, batch
    assert logged(http, run_id) == {}
    for value, kept in (("NaN", "NaN"), ("Infinity", 1.7976931348623157e308), ("-Infinity", -1.7976931348623157e308)):
        for written in (value, f'"{value}"'):
            body = f'{{"run_id": "{run_id}", "key": "m{value}", "value": {written}, "timestamp": 1}}'
            assert http.post(f"{API}/runs/log-metric", content=body).status_code == 200, body
        found = {one["key"]: one["value"] for one in logged(http, run_id)["metrics"]}
        assert found[f"m{value}"] == kept


FILTERS = [
    "metrics.a > " + "9" * 30_000,
    "a" * 49_999,
    "'" * 49_999,
    '"' * 49_999,
    "`" * 49_999,
    "(" * 49_999,
    "a." * 24_999,
    "a=1 and " * 6_000,
    "tags.a = 'x' AND " * 100 + "tags.a = 'x'",
    "tags.a LIKE '" + "%" * 40_000 + "'",
    "tags.a LIKE '" + "%a" * 2_000 + "%b'",
    "tags.a ILIKE '" + "%a" * 20_000 + "%b'",
    "tags.a LIKE '" + "[" * 49_000 + "'",
    "attributes.run_id IN (" + ",".join(["'x'"] * 9_000) + ")",
    "params.a = '\\' OR 1=1 --'",
    "tags.a = '''; DROP TABLE runs; --'",
    "metrics.a = 1e999",
    "metrics.a = -0",
    "attributes.start_time > 1e30",
    "attributes.start_time > " + "9" * 19,
    "tags.`" + "x" * 40_000 + "` = 'y'",
    "\x00",
    "tags.a = '\x00'",
    "\u202e = 'x'",
    "tags.a IS NOT NOT NULL",
    ";" * 40_000,
    "tags.a = 'a' AND " * 99 + "tags.a = 'a'",
    "metrics.a > 1 AND " * 99 + "params.a = 'a'",
    "tags.a LIKE '_" * 10_000,
    "-" * 49_999,
    "1" * 49_999 + "x",
    "=" * 49_999,
    " " * 49_999 + "x",
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "path", "asked"),
    [
        ("POST", f"{API}/runs/search", {"experiment_ids": ["0"]}),
        ("POST", f"{API}/experiments/search", {}),
        ("POST", f"{API}/logged-models/search", {"experiment_ids": ["0"]}),
        ("POST", "/api/3.0/mlflow/traces/search", {"locations": [{"mlflow_experiment": {"experiment_id": "0"}}]}),
        ("GET", f"{API}/registered-models/search", {}),
        ("GET", f"{API}/model-versions/search", {}),
    ],
)
def test_no_filter_blows_up(http: httpx.Client, run_id: str, method: str, path: str, asked: dict[str, Any]) -> None:
    # A value that a pattern of many stars would be tried on at every place.
    http.post(f"{API}/runs/set-tag", json={"run_id": run_id, "key": "a", "value": "a" * 8_000})
    for filter in FILTERS:
        for name in ("filter", "order_by"):
            said = {**asked, "max_results": 10, name: filter if name == "filter" else [filter]}
            if method == "GET" and len(filter) > 15_000:
                said[name] = filter[:15_000]
            before = time.monotonic()
            reply = http.post(path, json=said) if method == "POST" else http.get(path, params=said)
            check(reply, f"{path} {filter[:60]!r}")
            # Far beyond what any of these takes, far below what trying every way would.
            assert time.monotonic() - before < 20, filter[:60]


CLIMBING = [
    "..",
    "../x",
    "a/../../x",
    "%2e%2e/x",
    "%2e%2e%2fx",
    "%252e%252e%252fx",
    "..%2fx",
    "..%5cx",
    "..\\x",
    "a/%2e%2e/%2e%2e/x",
    "%c0%ae%c0%ae/x",
    "..%c0%afx",
    "....//x",
    "..;/x",
    "/etc/passwd",
    "//etc/passwd",
    "%2fetc%2fpasswd",
    "C:%5cx",
    "C:/x",
    "~/x",
    "file:%2f%2f%2fetc/passwd",
    "a%00b",
    "a/%2e",
    "%2e",
    "a%2f%2e%2e%2f%2e%2e%2fx",
    "\uff0e\uff0e/x",
    "..%00/x",
    "a/..;/x",
    "x%0d%0aSet-Cookie:a",
]


def raw(server: Server, method: str, path: str, body: bytes = b"x") -> tuple[int, bytes]:
    """Sent as it stands: clients tidy paths up before they leave."""
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=30) as plain:
        head = f"{method} {path} HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {server.token}\r\n"
        plain.sendall(head.encode() + f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        reply = b""
        while piece := plain.recv(65_536):
            reply += piece
    return int(reply.split(b" ", 2)[1]), reply


@pytest.mark.slow
def test_no_path_climbs_at_any_layer(server: Server, http: httpx.Client, run_id: str) -> None:
    for path in CLIMBING:
        encoded = path.encode().decode("latin-1") if not path.isascii() else path
        for root in (
            f"/api/2.0/mlflow-artifacts/artifacts/0/{run_id}/artifacts/", "/api/2.0/mlflow-artifacts/artifacts/",
            f"/p/default/api/2.0/mlflow-artifacts/artifacts/0/{run_id}/artifacts/",
        ):  # fmt: skip
            for method in ("PUT", "GET", "DELETE"):
                status, reply = raw(server, method, root + encoded)
                stays = status in (200, 404) and path in (
                    "....//x",
                    "a/..;/x",
                    "..;/x",
                    "\uff0e\uff0e/x",
                    "file:%2f%2f%2fetc/passwd",
                    # The server makes one slash of several before anybody sees them.
                    "/etc/passwd",
                    "//etc/passwd",
                    "%2fetc%2fpasswd",
                )
                assert stays or status in (400, 404), (method, root + path, status, reply[:300])
                assert b"root:" not in reply
        for address in (
            f"/get-artifact?run_id={run_id}&path={encoded}", f"{API}/artifacts/list?run_id={run_id}&path={encoded}",
            f"/api/2.0/mlflow-artifacts/artifacts?path={encoded}",
            f"/ajax-api/2.0/mlflow/get-trace-artifact?request_id=tr-x&path={encoded}",
            f"/model-versions/get-artifact?name=m&version=1&path={encoded}",
        ):  # fmt: skip
            status, reply = raw(server, "GET", address, b"")
            assert status in (200, 400, 404), (address, status, reply[:300])
            assert b"root:" not in reply


SOURCES = [
    "/etc/passwd",
    "file:///etc/passwd",
    "FILE:///etc/passwd",
    "file:/etc",
    "file://localhost/etc",
    "C:\\windows",
    "../x",
    "./x",
    "mlflow-artifacts:/../x",
    "mlflow-artifacts:/a/%2e%2e/%2e%2e/x",
    "mlflow-artifacts:/a/..%2f..%2fx",
    "s3://b/../../x",
    "models:/../x",
    "runs:/../../x",
    "s3://b/%252e%252e/%252e%252e/x",
    " /etc/passwd",
    "\tfile:///etc",
    "dbfs:/../x",
    "http://h/..",
    "mlflow-artifacts:/a/..\\..\\x",
]


def test_a_version_comes_from_no_local_place_and_no_climbing_one(http: httpx.Client, run_id: str) -> None:
    http.post(f"{API}/registered-models/create", json={"name": "bad"})
    for source in SOURCES:
        for more in ({}, {"run_id": run_id}):
            reply = http.post(f"{API}/model-versions/create", json={"name": "bad", "source": source, **more})
            assert reply.status_code in (400, 404), (source, more, reply.text)
    found = http.get(f"{API}/model-versions/search", params={"filter": "name='bad'"}).json()
    assert found.get("model_versions", []) == []


@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_killed_in_the_middle_of_an_upload_leaves_nothing(
    server: Server, http: httpx.Client, run_id: str, chunked: bool
) -> None:
    where = f"/api/2.0/mlflow-artifacts/artifacts/0/{run_id}/artifacts/half.bin"
    address, home = urlsplit(server.url), server.settings.home
    stored = {file for file in home.rglob("*") if file.is_file() and "catalog" not in file.name}
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=30) as plain:
        head = f"PUT {where} HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {server.token}\r\n"
        sized = "Transfer-Encoding: chunked\r\n\r\n" if chunked else "Content-Length: 9000000\r\n\r\n"
        plain.sendall((head + sized).encode())
        for _ in range(40):
            piece = b"x" * 100_000
            plain.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    for _ in range(100):
        left = {file for file in home.rglob("*") if file.is_file() and "catalog" not in file.name} - stored
        if not left:
            break
        time.sleep(0.1)
    assert left == set()
    assert http.get(where).status_code == 404
    assert "files" not in http.get(f"{API}/artifacts/list", params={"run_id": run_id}).json()


def test_the_limits_on_pages_hold(http: httpx.Client) -> None:
    for path, most in (("registered-models/search", 1_000), ("model-versions/search", 200_000)):
        for value in (0, -1, most + 1, 2**63, 2**70):
            assert http.get(f"{API}/{path}", params={"max_results": value}).status_code == 400, (path, value)
    for value in (0, -1, 50_001, 2**31, 2**63, math.pi):
        reply = http.post(f"{API}/runs/search", json={"experiment_ids": ["0"], "max_results": value})
        assert reply.status_code == 400, (value, reply.text)
    for token in (
        "x",
        "e30=",
        "eyJvZmZzZXQiOiAtMX0=",
        "eyJvZmZzZXQiOiAxZTMwfQ==",
        "eyJvZmZzZXQiOiAieCJ9",
        "A" * 100_000,
    ):
        reply = http.post(f"{API}/runs/search", json={"experiment_ids": ["0"], "page_token": token})
        assert reply.status_code == 400, (token[:40], reply.text)
