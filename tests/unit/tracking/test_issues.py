"""Issues that traces show: found by state, counted by the traces that name them."""

from __future__ import annotations

import pytest

from modelyard.kernel.auth import Scope
from modelyard.kernel.clock import FixedClock
from modelyard.kernel.errors import InvalidInput, NotFound
from modelyard.planes.tracking import Tracking
from modelyard.types.tracing import CreateAssessment, CreateIssue, Trace, UpdateIssue


def test_issues_are_found_newest_first_and_by_state(tracking: Tracking, scope: Scope, clock: FixedClock) -> None:
    made = []
    for name in ("slow", "wrong", "rude"):
        made.append(tracking.issues.create(scope, CreateIssue(experiment_id="0", name=name, description="it is")))
        clock.advance(1)
    changed = tracking.issues.update(scope, made[1].id, UpdateIssue(status="resolved", severity="high"))
    assert (changed.name, changed.status, changed.severity) == ("wrong", "resolved", "high")
    assert changed.updated_ms > made[1].updated_ms
    assert tracking.issues.get(scope, made[1].id) == changed

    def found(filter: str = "", **more: str) -> list[str]:
        return [one.name for one in tracking.issues.search(scope, more.get("of", ""), filter).items]

    assert found() == ["rude", "wrong", "slow"]
    assert found("status = 'resolved'") == ["wrong"]
    assert found("status != 'resolved' AND source_run_id = 'x'") == []
    assert found(of="7") == []
    first = tracking.issues.search(scope, limit=2)
    assert [one.name for one in tracking.issues.search(scope, page=first.next).items] == ["slow"]
    for filter in ("name = 'x'", "status > 'x'", "status", "status IS NULL", "status = pending"):
        with pytest.raises(InvalidInput):
            found(filter)


def test_an_issue_knows_how_many_traces_show_it(tracking: Tracking, scope: Scope) -> None:
    made = tracking.issues.create(scope, CreateIssue(experiment_id="0", name="slow", description="d"))
    for trace_id in ("a", "b"):
        tracking.traces.start(scope, Trace(id=trace_id, experiment_id="0", request_ms=1))
        shown = CreateAssessment(name=made.id, kind="issue", value="slow")
        tracking.assessments.create(scope, trace_id, shown)
        tracking.assessments.create(scope, trace_id, shown)
    assert tracking.issues.search(scope, counting=True).items[0].traces == 2
    assert [one.id for one in tracking.traces.search(scope, ["0"], f"issue.id = '{made.id}'").items] == ["a", "b"]
    assert tracking.issues.get(scope, made.id).traces is None


def test_an_issue_needs_its_experiment_and_its_run(tracking: Tracking, scope: Scope) -> None:
    with pytest.raises(NotFound):
        tracking.issues.create(scope, CreateIssue(experiment_id="9", name="n", description="d"))
    with pytest.raises(NotFound):
        tracking.issues.create(scope, CreateIssue(experiment_id="0", name="n", description="d", source_run_id="none"))
    for act in (tracking.issues.get, lambda s, i: tracking.issues.update(s, i, UpdateIssue(name="x"))):
        with pytest.raises(NotFound):
            act(scope, "iss-none")
