"""Sources: what MLflow's clients name is understood; what reaches for the server's files is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.kernel.errors import InvalidInput
from modelyard.planes.registry.sources import parse_source


@pytest.mark.parametrize(
    ("uri", "kind", "owner", "path", "version", "alias"),
    [
        ("models:/m-0123abc", "logged model", "m-0123abc", "", "", ""),
        ("models:/m-0123abc/sub/dir", "logged model", "m-0123abc", "sub/dir", "", ""),
        ("models:/delay/3", "version", "delay", "", "3", ""),
        ("models:/delay/Production", "version", "delay", "", "Production", ""),
        ("models:/delay@champion", "version", "delay", "", "", "champion"),
        ("runs:/abc/model", "run", "abc", "model", "", ""),
        ("runs:/abc", "run", "abc", "", "", ""),
        ("mlflow-artifacts:/0/abc/artifacts/model", "artifacts", "", "0/abc/artifacts/model", "", ""),
        ("mlflow-artifacts://host:9000/models/foo///bar", "artifacts", "", "models/foo///bar", "", ""),
        ("s3://bucket/model", "elsewhere", "", "", "", ""),
        ("dbfs:/some/where", "elsewhere", "", "", "", ""),
        ("mlflow-artifacts://host:9000/models/artifact/..../", "artifacts", "", "models/artifact/....", "", ""),
    ],
)
def test_sources_are_understood(uri: str, kind: str, owner: str, path: str, version: str, alias: str) -> None:
    found = parse_source(uri)
    assert (found.kind, found.owner, found.path, found.version, found.alias) == (kind, owner, path, version, alias)
    assert found.uri == uri


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "/etc/passwd",
        "etc/passwd",
        "file:///etc/passwd",
        "file://localhost/etc/passwd",
        "file://127.0.0.1/etc/passwd",
        "FILE:///etc/passwd",
        "mlflow-artifacts:/models/../../x",
        "mlflow-artifacts://host:9000/models/..%2f..%2fartifacts",
        "mlflow-artifacts://host:9000/models/%252e%252e/x",
        "mlflow-artifacts://host/%25252e%25252e%25252f",
        "mlflow-artifacts:/a/..\\..\\b",
        "mlflow-artifacts:/a%00",
        "mlflow-artifacts:/a%0d%0ab",
        "http://host/api/2.0/mlflow-artifacts/artifacts/../../../",
        "s3a://bucket/../x",
        "ftp://host/a/%2e%2e/b",
        "dbfs:/x/artifacts/a%3f/../../../../",
        "models:/delay",
        "models:/delay/1/2",
        "models:/",
        "http://[::1",
        "x" * 5000,
    ],
)
def test_sources_that_reach_elsewhere_are_refused(uri: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_source(uri)
    assert caught.value.code.startswith("source.")


def encoded(text: str, times: int) -> str:
    for _ in range(times):
        text = "".join(f"%{byte:02x}" for byte in text.encode()) if times == 1 else text.replace("%", "%25")
        times -= 1
    return text


@settings(deadline=None)
@given(
    scheme=st.sampled_from(["mlflow-artifacts:/", "s3://b/", "http://h/", "models:/", "runs:/"]),
    before=st.text("ab/", max_size=6),
    dots=st.sampled_from(["..", "%2e%2e", ".%2e", "%252e%252e", "%25252e."]),
    slash=st.sampled_from(["/", "%2f", "%252f", "\\", "%5c"]),
    after=st.text("ab/", max_size=6),
)
def test_no_encoding_of_a_climb_passes(scheme: str, before: str, dots: str, slash: str, after: str) -> None:
    with pytest.raises(InvalidInput):
        parse_source(f"{scheme}{before}{slash}{dots}{slash}{after}")


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_understood_or_refused(text: str) -> None:
    try:
        found = parse_source(text)
    except InvalidInput:
        return
    assert ".." not in found.path.split("/")
    assert found.uri == text
