"""What checks say of parts of a table, so that what is known of one part is not asked again when another changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from modelyard.planes.data.checks.asking import Session, answer
from modelyard.planes.data.checks.compiling import compile_check
from modelyard.planes.data.checks.facts import OneRow, gather_facts, provided_of, refers_to_fixed
from modelyard.planes.data.checks.question import DATASET, Context, Provided, Question, Values
from modelyard.planes.data.checks.running import Seen, check_conditions
from modelyard.planes.data.checks.statements import Asked, Hints
from modelyard.planes.data.checks.states import State, complete, key_of, merged
from modelyard.types.checks import Check
from modelyard.types.data import Column

_ENDS = ("first", "last")


@dataclass(frozen=True, slots=True)
class PartQuestions:
    """The checks of a suite that parts can answer, by key; `keys`: those of all its checks. `in_doubt`: those of
    pairs of rows, some of which failed before, or may have."""

    questions: Mapping[str, Question]
    keys: frozenset[str]
    in_doubt: frozenset[str]
    context: Context

    def look(self, session: Session, wanted: Mapping[str, Sequence[str]], hints: Hints) -> dict[str, dict[str, State]]:
        """The states of tables by key: of each those keys that are wanted, without those that cannot be had or kept."""
        asked = {(table, key): Asked(self.questions[key], table, key) for table, keys in wanted.items() for key in keys}
        check_conditions(session, list(asked.values()), self.context)
        answer(session, [one for one in asked.values() if not one.error], hints)
        found: dict[str, dict[str, State]] = {table: {} for table in wanted}
        for (table, key), one in asked.items():
            state = State(list(one.answers.items()))
            if not one.error and complete(one.question, state):
                found[table][key] = state
        return found

    def together(self, key: str, parts: Sequence[State]) -> State | None:
        """The state over all parts, with what is known of the reference; None where it cannot be known from them."""
        if key in self.in_doubt:
            return None
        question = self.questions[key]
        total: State | None = parts[0] if parts else None
        for part in parts[1:]:
            total = None if total is None else merged(question, total, part)
        if total is None:
            return None
        if question.append is not None:
            # No pair fails: the rows are some of those among which none did.
            nothing = dict.fromkeys(question.append.measures.keys() - question.plain.keys(), 0)
            total = replace(total, slices=[(value, {**values, **nothing}) for value, values in total.slices])
        return replace(total, facts=dict(question.facts))


def part_questions(
    session: OneRow,
    checks: Sequence[Check],
    columns: Sequence[Column],
    *,
    whole: bool,
    before: Mapping[str, State],
    provided: Mapping[str, Provided],
    profiles: Mapping[str, Values],
) -> PartQuestions:
    """Those of the checks that parts can answer. `whole`: also what is otherwise asked of new rows alone. `before`: the
    states over a table of which the parts are some of the rows."""
    keys = [key_of(check, provided_of(check, provided)) for check in checks]
    chosen = dict(zip(keys, checks, strict=True))
    context = Context({column.name: column.type for column in columns}, provided)
    facts = gather_facts(session, list(chosen.values()), list(chosen), context, before, profiles)
    context = dataclasses.replace(context, facts=facts)
    found: dict[str, Question] = {}
    for key, check in chosen.items():
        question = of_part(compile_check(check, context))
        if question is not None and (whole or question.of == DATASET):
            found[key] = question
    failing = {key for key, one in found.items() if one.append is not None and not _none_failed(before.get(key))}
    return PartQuestions(found, frozenset(keys), frozenset(failing), context)


def of_part(question: Question) -> Question | None:
    """A question as a part of a table answers it; None where the order of all rows, or pairs of them, must be seen."""
    if question.verdict is not None or not question.merges or not refers_to_fixed(question.check):
        return None
    if question.append is not None:
        clean = question.append.clean
        return Question(question.check, question.of, plain=clean, append=question.append) if clean else None
    if any(one.merge in _ENDS for one in question.measures.values()):
        return None
    return question


def _none_failed(state: State | None) -> bool:
    return state is not None and not any(values.get("failing") for _, values in state.slices)


def of_batch(seen: Seen) -> dict[str, State | None]:
    """What was asked of a batch alone, as the states of a part of a table; None for what cannot be kept of it."""
    found: dict[str, State | None] = {}
    for key, (question, state) in seen.items():
        part = of_part(question)
        if part is None:
            continue
        if part.append is not None:
            state = State([(value, {name: values[name] for name in part.plain}) for value, values in state.slices])
        found[key] = State(state.slices) if complete(part, state) else None
    return found
