"""A suite from a document of any known format. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from modelyard.kernel.errors import InvalidInput
from modelyard.planes.data.suites.dbt import dbt_suite, is_dbt
from modelyard.planes.data.suites.great_expectations import Refused, gx_suite_checks
from modelyard.types.checks import Check, Suite

CHECKS_MAX = 2_000


def read_suite(document: Any, model: str = "") -> Suite:
    """The suite that a document declares: of ours (a list of checks, or a mapping whose `checks` is one), of Great
    Expectations, or of dbt, of which `model` names the part. Raises InvalidInput, saying where it is wrong."""
    suite = _read(document, model)
    if len(suite.checks) > CHECKS_MAX:
        raise InvalidInput(
            f"the suite has {len(suite.checks)} checks, more than {CHECKS_MAX}", code="dataset.checks_invalid"
        )
    return suite


def _read(document: Any, model: str) -> Suite:
    if isinstance(document, Mapping) and isinstance(document.get("expectations"), list):
        return gx_suite_checks(document)
    if isinstance(document, Mapping) and is_dbt(document):
        try:
            return dbt_suite(document, model)
        except Refused as refused:
            raise InvalidInput(
                f"the dbt file cannot be used: {refused}",
                code="dataset.checks_invalid",
                hint="name the model with --model",
            ) from None
    listed = document.get("checks") if isinstance(document, Mapping) else document
    name = str(document.get("name") or "") if isinstance(document, Mapping) else ""
    try:
        return Suite(name=name, format="modelyard", checks=msgspec.convert(listed, list[Check]))
    except (msgspec.ValidationError, RecursionError) as error:
        raise InvalidInput(
            f"this is no list of checks: {error}",
            code="dataset.checks_invalid",
            hint="an entry looks like `{check: range, column: distance, min: 0}`; suites of Great Expectations have "
            "`expectations`, and dbt's files `models`",
        ) from error
