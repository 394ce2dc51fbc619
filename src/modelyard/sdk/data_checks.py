"""Checks of a dataset's versions from a program: run suites, of ours or as other tools wrote them; read what fails."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from modelyard.kernel.errors import InvalidInput
from modelyard.sdk.client import Client, connect
from modelyard.sdk.data import Ref, arrow_reader
from modelyard.types.data import Check, CheckRun, ReadSuite, RunChecks, Suite

if TYPE_CHECKING:
    import pyarrow as pa

SUITE_BYTES_MAX = 4 * 1024 * 1024
_DEPTH_MAX = 64


def read_suite(file: Path, model: str = "", client: Client | None = None) -> Suite:
    """The checks of a YAML or JSON file: ours, a Great Expectations 1.x suite or a dbt `schema.yml`, of which `model`
    names the part. What is not supported is named in its `unsupported`. Raises InvalidInput."""
    body = ReadSuite(document=read_document(file), model=model)
    return (client or connect()).post("/api/check-suites/read", body, Suite)


def check(
    name: str,
    checks: Sequence[Check] | None = None,
    *,
    version: Ref = None,
    suite: str = "",
    client: Client | None = None,
) -> CheckRun:
    """Run checks, by default the dataset's own, over all rows of a version. Nothing of the dataset changes."""
    body = RunChecks(
        checks=None if checks is None else list(checks), suite=suite, ref=None if version is None else str(version)
    )
    return (client or connect()).patient.post(f"{_path(name)}/check-runs", body, CheckRun)


def check_runs(name: str, *, limit: int = 50, client: Client | None = None) -> list[CheckRun]:
    """The newest runs of checks over versions of a dataset, newest first."""
    return (client or connect()).get(f"{_path(name)}/check-runs", list[CheckRun], {"limit": limit})


def check_run(name: str, run_id: str, client: Client | None = None) -> CheckRun:
    """One run with its report. Raises NotFound."""
    return (client or connect()).get(f"{_path(name)}/check-runs/{quote(run_id, safe='')}", CheckRun)


def failing_rows(name: str, run_id: str, place: int, client: Client | None = None) -> pa.Table:
    """All rows that fail a check of a run, by its place in the report from 0."""
    path = f"{_path(name)}/check-runs/{quote(run_id, safe='')}/failing/{place}"
    with arrow_reader(client or connect(), path) as reader:
        return reader.read_all()


def export_suite(name: str, client: Client | None = None) -> dict[str, Any]:
    """The dataset's checks as a suite of Great Expectations 1.x."""
    return (client or connect()).get(f"{_path(name)}/suite", dict[str, Any])


def read_document(file: Path) -> Any:
    """What a YAML or JSON file holds. Raises InvalidInput, with the place where the file is wrong."""
    import yaml  # heavy: imported late

    text = _text(file)
    try:
        _check_tokens(file, yaml.scan(text))
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InvalidInput(
            f"{file} is no YAML or JSON: {' '.join(str(error).split())[:300]}",
            code="dataset.checks_invalid",
            hint="an entry looks like `{check: range, column: distance, min: 0}`",
        ) from error


def _check_tokens(file: Path, tokens: Iterable[Any]) -> None:
    """Raise InvalidInput for what a suite has no use for, before it is made: an alias, which could stand for itself
    many times over, and depth, for which the parser takes time by its square."""
    import yaml  # heavy: imported late

    opening = (
        *(yaml.FlowSequenceStartToken, yaml.FlowMappingStartToken),
        *(yaml.BlockSequenceStartToken, yaml.BlockMappingStartToken),
    )
    closing = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)
    depth = 0
    for token in tokens:
        if isinstance(token, (yaml.AliasToken, yaml.AnchorToken)):
            raise InvalidInput(f"{file} uses YAML anchors, which a suite may not", code="dataset.checks_invalid")
        depth += isinstance(token, opening) - isinstance(token, closing)
        if depth > _DEPTH_MAX:
            raise InvalidInput(
                f"{file} is nested deeper than {_DEPTH_MAX} levels in line {token.start_mark.line + 1}",
                code="dataset.checks_invalid",
            )


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > SUITE_BYTES_MAX:
            raise InvalidInput(f"{file} is larger than {SUITE_BYTES_MAX} bytes", code="dataset.checks_invalid")
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file} cannot be read: {error}", code="dataset.checks_invalid") from error


def _path(name: str) -> str:
    return f"/api/datasets/{quote(name, safe='')}"
