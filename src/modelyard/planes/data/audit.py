"""Running a suite of checks and the profile over one snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from modelyard.kernel.errors import InvalidInput, LimitExceeded
from modelyard.planes.data.checks import (
    BATCH,
    DATASET,
    Question,
    aggregate,
    compile_check,
    judge,
    judge_observed,
    result,
)
from modelyard.planes.data.profile import (
    distinct_statement,
    is_counted,
    profile_statement,
    read_profile,
    sample_statement,
    wire_row,
)
from modelyard.planes.data.sketches import TOP_KEPT, Sketch, compressed, registers_of
from modelyard.types.data import Check, CheckReport, CheckResult, Column, Profile

if TYPE_CHECKING:
    import pyarrow as pa


_DIGEST_GROUPS = 1_000


class Session(Protocol):
    """What the audit needs of SQL over the tables `batch` and `dataset`."""

    def table(self, statement: str) -> pa.Table: ...
    def one(self, statement: str) -> dict[str, Any]: ...
    def rows(self, statement: str) -> list[dict[str, Any]]: ...
    def check_condition(self, table: str, condition: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Audited:
    """What was found, with the profile of the dataset as it would become."""

    report: CheckReport
    profile: Profile | None


def columns_of(schema: pa.Schema) -> list[Column]:
    """The columns of an Arrow schema."""
    return [Column(field.name, str(field.type)) for field in schema]


def run_checks(
    session: Session, checks: Sequence[Check], columns: Sequence[Column], now: datetime
) -> list[CheckResult]:
    """The results of all checks, in their order. One that cannot run gives an error result and disturbs no other."""
    types = {column.name: column.type for column in columns}
    questions = [_with_condition_checked(session, compile_check(check, types)) for check in checks]
    try:
        answers = _aggregates(session, questions)
        results = [_answer(session, question, index, answers, now) for index, question in enumerate(questions)]
    except (InvalidInput, LimitExceeded):
        # One of them broke the common statement: asked one by one, only that one fails.
        results = [_alone(session, question, now) for question in questions]
    return [_with_sample(session, question, found) for question, found in zip(questions, results, strict=True)]


def make_profile(session: Session, columns: Sequence[Column]) -> Profile:
    """The profile of the batch."""
    answer = session.one(profile_statement(columns, BATCH))
    drawn = sample_statement(columns, BATCH, answer["n"])
    sample = session.table(drawn) if drawn else None
    sketches = [_sketch(session, column, sample, int(answer[f"count_{place}"])) for place, column in enumerate(columns)]
    return read_profile(columns, answer, sketches)


def _sketch(session: Session, column: Column, sample: pa.Table | None, count: int) -> Sketch:
    """The sketch of one column; `count` is how many values it has, of which the sample holds some."""
    import duckdb  # heavy: imported late

    made = Sketch(hashed_by=f"duckdb {duckdb.__version__}")
    if is_counted(column):
        least = session.table(distinct_statement(column, BATCH))
        pairs = zip(least["bucket"].to_pylist(), least["least"].to_pylist(), strict=True)
        made = msgspec.structs.replace(made, registers=registers_of(pairs))
    if sample is None or column.name not in sample.column_names:
        return made
    values = sample[column.name].drop_null()
    if column.type == "string":
        return msgspec.structs.replace(made, top=_top(values, count))
    means, weights = _digest(values, count)
    return msgspec.structs.replace(made, means=means, weights=weights)


def _top(values: pa.ChunkedArray, count: int) -> list[tuple[Any, float]]:
    counted = values.value_counts().to_pylist()
    scale = count / len(values) if len(values) else 1.0
    ordered = sorted(counted, key=lambda entry: (-entry["counts"], entry["values"]))
    return [(entry["values"], entry["counts"] * scale) for entry in ordered[:TOP_KEPT]]


def _digest(values: pa.ChunkedArray, count: int) -> tuple[list[float], list[float]]:
    import numpy as np  # heavy: imported late

    numbers = values.to_numpy()
    numbers = np.sort(numbers[np.isfinite(numbers)])
    if not len(numbers):
        return [], []
    scale = count / len(values)
    distinct, counts = np.unique(numbers, return_counts=True)
    if len(distinct) <= _DIGEST_GROUPS:
        return compressed(list(zip(distinct.tolist(), (counts * scale).tolist(), strict=True)))
    starts = np.unique(np.linspace(0, len(numbers), min(len(numbers), _DIGEST_GROUPS), endpoint=False).astype(int))
    sizes = np.diff([*starts, len(numbers)])
    # Divided first: the sum of large numbers may be too large for a double.
    means = np.add.reduceat(numbers / np.repeat(sizes, sizes), starts)
    means = np.clip(means, numbers[starts], numbers[starts + sizes - 1])
    return compressed(list(zip(means.tolist(), (sizes * scale).tolist(), strict=True)))


def _with_condition_checked(session: Session, question: Question) -> Question:
    check = question.check
    if not check.where or question.verdict is not None:
        return question
    try:
        session.check_condition(question.table, check.where)
    except InvalidInput as error:
        return Question(check, verdict=result(check, "error", message=f"`where` cannot be used: {error.message}"))
    return question


def _aggregates(session: Session, questions: Sequence[Question]) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    for table in (BATCH, DATASET):
        statement = aggregate(questions, table)
        if statement:
            answers |= session.one(statement)
    return answers


def _answer(session: Session, question: Question, index: int, answers: dict[str, Any], now: datetime) -> CheckResult:
    check = question.check
    if question.verdict is not None:
        return question.verdict
    if question.observed:
        return judge_observed(check, answers[f"o{index}"], now)
    if question.statement:
        try:
            counted = session.one(question.statement)
        except (InvalidInput, LimitExceeded) as error:
            return result(check, "error", message=error.message)
        return judge(check, int(counted["evaluated"]), int(counted["failing"]))
    return judge(check, int(answers[f"e{index}"] or 0), int(answers[f"f{index}"] or 0))


def _alone(session: Session, question: Question, now: datetime) -> CheckResult:
    try:
        return _answer(session, question, 0, _aggregates(session, [question]), now)
    except (InvalidInput, LimitExceeded) as error:
        return result(question.check, "error", message=error.message)


def _with_sample(session: Session, question: Question, found: CheckResult) -> CheckResult:
    if not found.failing or not question.sample:
        return found
    rows = session.rows(question.sample)
    return msgspec.structs.replace(found, sample=[wire_row(row) for row in rows])
