"""MLflow's endpoints of issues that traces show."""

from __future__ import annotations

from typing import Any, ClassVar, cast

from litestar import Response

from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.errors import InvalidInput
from modelyard.kernel.routing import get, patch, post
from modelyard.planes.tracking import Tracking
from modelyard.server.dialects.mlflow import wire
from modelyard.server.dialects.mlflow.wire import Message, endpoint
from modelyard.types.tracing import CreateIssue, Issue, IssueSeverity, IssueStatus, UpdateIssue

PAGE_DEFAULT = 1_000
PAGE_MAX = 50_000
_STATUSES = ("pending", "rejected", "resolved")
_SEVERITIES = ("not_an_issue", "low", "medium", "high")


class Create(Message):
    REQUIRED: ClassVar = ("experiment_id", "name", "description")
    experiment_id: str = ""
    name: str = ""
    description: str = ""
    status: str = ""
    severity: str = ""
    root_causes: list[str] = []
    categories: list[str] = []
    source_run_id: str = ""
    created_by: str = ""


class Update(Message):
    name: str = ""
    description: str = ""
    status: str = ""
    severity: str = ""


class Search(Message):
    experiment_id: str = ""
    filter_string: str = ""
    max_results: int | None = None
    page_token: str = ""
    include_trace_count: bool = False


@post(endpoint("/issues", "3.0"), requires=Action.WRITE)
def create_issue(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, Create)
    made = tracking.issues.create(
        caller,
        CreateIssue(
            experiment_id=asked.experiment_id,
            name=asked.name,
            description=asked.description,
            status=_status(asked.status) or "pending",
            severity=_severity(asked.severity),
            root_causes=asked.root_causes,
            categories=asked.categories,
            source_run_id=asked.source_run_id or None,
            created_by=asked.created_by or None,
        ),
    )
    return wire.reply({"issue": view(made)})


@get(endpoint("/issues/{issue_id:str}", "3.0"), requires=Action.READ)
def get_issue(caller: Scope, tracking: Tracking, issue_id: str) -> Response[bytes]:
    return wire.reply({"issue": view(tracking.issues.get(caller, issue_id))})


@patch(endpoint("/issues/{issue_id:str}", "3.0"), requires=Action.WRITE)
def update_issue(caller: Scope, tracking: Tracking, issue_id: str, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, Update)
    changes = UpdateIssue(
        name=asked.name or None,
        description=asked.description or None,
        status=_status(asked.status),
        severity=_severity(asked.severity),
    )
    return wire.reply({"issue": view(tracking.issues.update(caller, issue_id, changes))})


@post(endpoint("/issues/search", "3.0"), requires=Action.READ)
def search_issues(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, Search)
    limit = asked.max_results or PAGE_DEFAULT
    if not 1 <= limit <= PAGE_MAX:
        raise InvalidInput(
            f"Invalid value {limit} for parameter 'max_results' supplied. It must be 1 to {PAGE_MAX}.{wire.SEE_DOCS}",
            code="parameter.invalid",
        )
    found = tracking.issues.search(
        caller, asked.experiment_id, asked.filter_string, limit, asked.page_token, counting=asked.include_trace_count
    )
    # The token is there at the end too, empty.
    content: dict[str, Any] = {"next_page_token": found.next or ""}
    if found.items:
        content["issues"] = [view(one) for one in found.items]
    return wire.reply(content)


def view(issue: Issue) -> dict[str, Any]:
    """An issue as MLflow writes it."""
    seen: dict[str, Any] = {
        "issue_id": issue.id,
        "experiment_id": issue.experiment_id,
        "name": issue.name,
        "description": issue.description,
        "status": issue.status,
        "created_timestamp": issue.created_ms,
        "last_updated_timestamp": issue.updated_ms,
    }
    for name in ("severity", "source_run_id", "created_by", "root_causes", "categories"):
        if value := getattr(issue, name):
            seen[name] = value
    if issue.traces is not None:
        seen["trace_count"] = issue.traces
    return seen


def _status(said: str) -> IssueStatus | None:
    return cast("IssueStatus | None", _one_of(said, _STATUSES, "status"))


def _severity(said: str) -> IssueSeverity | None:
    return cast("IssueSeverity | None", _one_of(said, _SEVERITIES, "severity"))


def _one_of(said: str, known: tuple[str, ...], path: str) -> str | None:
    if said and said not in known:
        raise InvalidInput(
            f"Invalid value '{said[:80]}' for parameter '{path}' supplied. It must be one of {list(known)}.",
            code="parameter.invalid",
        )
    return said or None


HANDLERS = [create_issue, get_issue, update_issue, search_issues]
