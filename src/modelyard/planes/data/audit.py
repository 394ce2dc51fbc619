"""Running a suite of checks over one snapshot."""

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
from modelyard.planes.data.profile import wire_row
from modelyard.types.data import Check, CheckReport, CheckResult, Column, Profile

if TYPE_CHECKING:
    import pyarrow as pa


class Session(Protocol):
    """What the audit needs of SQL over the tables `batch` and `dataset`."""

    def one(self, statement: str) -> dict[str, Any]: ...
    def rows(self, statement: str) -> list[dict[str, Any]]: ...
    def check_condition(self, table: str, condition: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Audited:
    """What was found, with the profile of the dataset as it would become, and of the batch alone."""

    report: CheckReport
    profile: Profile | None
    batch: Profile


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
