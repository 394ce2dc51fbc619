"""What auditing a write comes to, and running checks over one snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from modelyard.planes.data.checks.asking import Session
from modelyard.planes.data.checks.running import run_suite
from modelyard.types.data import Check, CheckReport, CheckResult, Column, Profile
from modelyard.types.profiles import Anomaly

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Audited:
    """What was found, with the profile of the dataset as it would become, and of the batch alone."""

    report: CheckReport
    profile: Profile | None
    batch: Profile
    anomalies: list[Anomaly] = field(default_factory=list)


def columns_of(schema: pa.Schema) -> list[Column]:
    """The columns of an Arrow schema."""
    return [Column(field.name, str(field.type)) for field in schema]


def run_checks(
    session: Session, checks: Sequence[Check], columns: Sequence[Column], now: datetime
) -> list[CheckResult]:
    """The results of all checks, in their order. One that cannot run gives an error result and disturbs no other."""
    return run_suite(session, checks, columns, now)
