"""Tests of a text that SQL has no words for: Python's own parsers, asked of each distinct value once."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from importlib import import_module
from typing import Any

from modelyard.engines.tables.sql import quoted
from modelyard.planes.data.checks.question import (
    BATCH,
    Context,
    Question,
    TextTest,
    count_of,
    count_present,
    present,
)
from modelyard.planes.data.checks.values import Unfit
from modelyard.types.checks import Parses

_SCHEMA_BYTES_MAX = 256 * 1024
BAD_VALUES_MAX = 20_000


def parses(check: Parses, context: Context) -> Question:
    """Whether texts can be read so: distinct values are fetched and tested."""
    kind = context.kind(check.column)
    if kind != "string":
        raise Unfit(f"column '{check.column}' is {kind}, not text")
    has_value = present(check.column, context, check)
    counts = {
        "elements": count_of(check, ""),
        "present": count_present(check.column, context, check),
    }
    return Question(check, BATCH, plain=counts, text=TextTest(quoted(check.column), _test(check), has_value))


def _test(check: Parses) -> Callable[[str], bool]:
    match check.form:
        case "json":
            return lambda text: _succeeds(json.loads, text)
        case "strftime":
            # Raises ValueError for a directive that there is not.
            try:
                datetime.strptime(datetime(2000, 1, 1).strftime(check.format), check.format)
            except ValueError as error:
                raise Unfit(f"{check.format!r} is no format of dates: {error}") from error
            return lambda text: _succeeds(lambda one: datetime.strptime(one, check.format), text)
        case "date":
            parser = _package("dateutil.parser", "python-dateutil")
            return lambda text: _succeeds(parser.parse, text)
        case "json_schema":
            return _fits_schema(check.schema)


def _succeeds(read: Callable[[str], Any], text: str) -> bool:
    try:
        read(text)
    except (ValueError, OverflowError, RecursionError):
        return False
    return True


def _fits_schema(text: str) -> Callable[[str], bool]:
    package = _package("jsonschema", "jsonschema")
    if len(text) > _SCHEMA_BYTES_MAX:
        raise Unfit(f"the JSON schema is longer than {_SCHEMA_BYTES_MAX} characters")
    try:
        schema = json.loads(text)
        kind = package.validators.validator_for(schema)
        kind.check_schema(schema)
    except (ValueError, package.SchemaError) as error:
        raise Unfit(f"this is no JSON schema: {str(error).splitlines()[0]}") from error
    validator = kind(schema)

    def fits(value: str) -> bool:
        try:
            return bool(validator.is_valid(json.loads(value)))
        except (ValueError, RecursionError):
            return False

    return fits


def _package(module: str, name: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise Unfit(f"this check needs the Python package {name}, which is not installed") from None
