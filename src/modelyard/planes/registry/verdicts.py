"""Whether the checks of a data version passed, asked of the data plane."""

from __future__ import annotations

from modelyard.kernel.auth import Scope
from modelyard.kernel.errors import InvalidInput, NotFound
from modelyard.planes.data import Data


class DataVerdicts:
    """Check verdicts of data versions by their URN."""

    def __init__(self, data: Data) -> None:
        self._data = data

    def verdict(self, scope: Scope, urn: str) -> str:
        """`passed`, `failed`, or `unknown` where the version is not there or has no report."""
        name, _, number = urn.removeprefix("dataset:").rpartition("@")
        if not name or not number.isdecimal():
            return "unknown"
        try:
            report = self._data.resolve(scope, name, int(number)).report
        except (NotFound, InvalidInput):
            return "unknown"
        if report is None:
            return "unknown"
        return "passed" if report.passed else "failed"
