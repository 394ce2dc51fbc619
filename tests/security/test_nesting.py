"""Data nested deeper than anybody can follow, wherever JSON or YAML comes in: a clear refusal, never a fault."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from modelyard.cli.main import app
from modelyard.cli.options import json_or_text
from modelyard.kernel.errors import InvalidInput, ModelyardError
from modelyard.kernel.limits import NESTING_MAX
from modelyard.kernel.nesting import check_nesting
from modelyard.sdk.files import dvc
from modelyard.server.dialects.mlflow import ROUTES, wire
from modelyard.server.run import Server
from running import raw_client, running_server
from security.test_routes import concrete, litestar_of

DEPTHS = (500, 100_000)
assert ROUTES, "the messages below are those of loaded routes"


def nests(depth: int) -> list[str]:
    return ["[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth, "[" * depth]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("nesting") / "home") as made:
        yield made


def bodies(server: Server) -> Iterator[tuple[str, str, list[str]]]:
    """Every route that takes a body, with the names of what it takes."""
    for route in litestar_of(server).routes:
        for handler in route.route_handlers:
            for method in {str(one) for one in handler.http_methods} & {"POST", "PUT", "PATCH"}:
                kind = typing.get_type_hints(handler.fn).get("data")
                typed = isinstance(kind, type) and issubclass(kind, msgspec.Struct)
                fields = [one.encode_name for one in msgspec.structs.fields(kind)] if typed else []
                yield method, concrete(route.path_format), fields


def post(client: httpx.Client, method: str, path: str, text: str) -> httpx.Response:
    return client.request(method, path, content=text, headers={"Content-Type": "application/json"})


@pytest.mark.slow
def test_no_route_fails_on_a_deep_body(server: Server) -> None:
    with raw_client(server, server.token) as client:
        for method, path, fields in bodies(server):
            for nest in nests(500)[:2]:
                for text in (nest, *(f'{{"{field}":{nest}}}' for field in fields)):
                    reply = post(client, method, path, text)
                    assert reply.status_code < 500 or reply.status_code == 501, (method, path, text[:40], reply.text)
        assert client.get("/api/health").status_code == 200


def test_a_wrong_value_under_a_name_that_the_server_knows_is_the_senders(server: Server) -> None:
    """`features` is a plane of the server too; what somebody sends under that name is his all the same."""
    with raw_client(server, server.token) as client:
        for value in ("7", '{"a": 1}', nests(500)[0]):
            reply = post(client, "POST", "/api/endpoints/e/verify-features", f'{{"features":{value}}}')
            assert reply.status_code == 400, reply.text
            assert "features" in reply.json()["detail"]


@pytest.mark.parametrize("depth", DEPTHS)
def test_messages_of_mlflow_are_refused_in_its_words(depth: int) -> None:
    seen = 0
    for kind in wire.Message.__subclasses__():
        for field in msgspec.structs.fields(kind):
            for nest in nests(depth)[: 3 if depth < 1_000 else 1]:
                seen += 1
                with suppress(InvalidInput):
                    wire.decode(f'{{"{field.encode_name}":{nest}}}'.encode(), kind)
    assert seen > 100


tree = st.recursive(
    st.integers(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


def depth_of(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth_of, inner), default=0)


@given(tree, st.integers(0, NESTING_MAX + 10))
def test_what_may_be_kept_is_told_by_its_depth(value: Any, wrapped: int) -> None:
    for number in range(wrapped):
        value = [value] if number % 2 else {"a": value}
    if depth_of(value) <= NESTING_MAX:
        check_nesting(value, "it")
    else:
        with pytest.raises(InvalidInput, match="it is nested too deeply"):
            check_nesting(value, "it")


def test_params_that_a_trigger_would_keep_are_refused(server: Server) -> None:
    nest = nests(NESTING_MAX + 1)[0]
    spec = f'{{"name":"t","on":{{"on":"schedule","every_s":60}},"start":{{"pipeline":"p","params":{{"x":{nest}}}}}}}'
    with raw_client(server, server.token) as client:
        reply = post(client, "POST", "/api/triggers", spec)
        assert (reply.status_code, reply.json()["code"]) == (400, "body.too_deep"), reply.text
        reply = post(client, "POST", "/api/pipelines/p/runs", f'{{"params":{{"x":{nest}}}}}')
        assert (reply.status_code, reply.json()["code"]) == (400, "body.too_deep"), reply.text


@pytest.mark.parametrize("depth", [500])
def test_files_and_options_of_the_command_line(tmp_path: Path, depth: int) -> None:
    nest = nests(depth)[0]
    files = {name: tmp_path / name for name in ("view.json", "view.yaml", "columns.json", "contract.yaml", "x.dvc")}
    for file in files.values():
        file.write_text(nest)
    files["columns.json"].write_text(f'{{"x": [{nest}]}}')
    for command in (
        ["feature", "apply", str(files["view.json"])],
        ["feature", "apply", str(files["view.yaml"])],
        ["endpoint", "predict", "e", str(files["columns.json"])],
        ["dataset", "contract", "set", "d", str(files["contract.yaml"])],
        ["dataset", "check-file", str(files["columns.json"]), "--suite", str(files["contract.yaml"])],
    ):
        done = CliRunner(env={"MODELYARD_HOME": str(tmp_path / "home")}).invoke(app, command)
        assert isinstance(done.exception, ModelyardError), (command, done.output, done.exception)
    with pytest.raises(InvalidInput):
        dvc.read(files["x.dvc"])
    with pytest.raises(InvalidInput):
        json_or_text(nests(100_000)[0])
