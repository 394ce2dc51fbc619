"""MLflow's endpoints of traces, of its API 3.0 and, for clients before it, of 2.0."""

from __future__ import annotations

import asyncio
import math
from typing import Any, ClassVar

import msgspec
from anyio import to_thread
from litestar import Request, Response
from litestar.response import Stream

from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.errors import InvalidInput, NotFound
from modelyard.kernel.routing import delete, get, patch, post
from modelyard.planes.tracking import HERE, WHERE_TAG, Owner, Tracking, expected, transfer
from modelyard.server.dialects.mlflow import assessments, trace_views, wire
from modelyard.server.dialects.mlflow.wire import Message, Pair, endpoint
from modelyard.types.tracing import Span, Trace, TraceState

SEARCH_MAX = 500
SEARCH_DEFAULT = 100
BATCH_MAX = 1_000
PATIENCE_S = (0.25, 0.75)
"""How long a trace whose spans are still on their way is waited for."""
DATA_FILE = "traces.json"
_STATES: dict[str, TraceState] = {
    "0": "STATE_UNSPECIFIED", "STATE_UNSPECIFIED": "STATE_UNSPECIFIED",
    "1": "OK", "OK": "OK", "2": "ERROR", "ERROR": "ERROR", "3": "IN_PROGRESS", "IN_PROGRESS": "IN_PROGRESS",
}  # fmt: skip
_STATES_BEFORE_3: dict[str, TraceState] = {**_STATES, "TRACE_STATUS_UNSPECIFIED": "STATE_UNSPECIFIED"}


class OfExperiment(msgspec.Struct, kw_only=True):
    experiment_id: str = ""


class Location(msgspec.Struct, kw_only=True):
    mlflow_experiment: OfExperiment | None = None


class Info(msgspec.Struct, kw_only=True):
    trace_id: str = ""
    client_request_id: str | None = None
    trace_location: Location = msgspec.field(default_factory=Location)
    request_preview: str | None = None
    response_preview: str | None = None
    request_time: str = ""
    execution_duration: str | None = None
    state: str | int = "STATE_UNSPECIFIED"
    trace_metadata: dict[str, str] = {}
    tags: dict[str, str] = {}
    assessments: list[assessments.Said] = []


class Whole(msgspec.Struct, kw_only=True):
    trace_info: Info = msgspec.field(default_factory=Info)


class Start(Message):
    REQUIRED: ClassVar = ("trace",)
    trace: Whole | None = None


class StartBefore3(Message):
    experiment_id: str = ""
    timestamp_ms: int = 0
    request_metadata: list[Pair] = []
    tags: list[Pair] = []


class EndBefore3(Message):
    timestamp_ms: int = 0
    status: str | int = "TRACE_STATUS_UNSPECIFIED"
    request_metadata: list[Pair] = []
    tags: list[Pair] = []


class Get(Message):
    REQUIRED: ClassVar = ("trace_id",)
    trace_id: str = ""
    allow_partial: bool = False


class Several(Message):
    REQUIRED: ClassVar = ("trace_ids",)
    trace_ids: list[str] = []


class Search(Message):
    REQUIRED: ClassVar = ("locations",)
    locations: list[Location] = []
    filter: str = ""
    max_results: int = SEARCH_DEFAULT
    order_by: list[str] = []
    page_token: str = ""


class SearchBefore3(Message):
    REQUIRED: ClassVar = ("experiment_ids",)
    experiment_ids: list[str] = []
    filter: str = ""
    max_results: int = SEARCH_DEFAULT
    order_by: list[str] = []
    page_token: str = ""


class Delete(Message):
    REQUIRED: ClassVar = ("experiment_id",)
    experiment_id: str = ""
    max_timestamp_millis: int | None = None
    max_traces: int | None = None
    request_ids: list[str] = []


class SetTag(Message):
    REQUIRED: ClassVar = ("key",)
    key: str = ""
    value: str = ""


class DeleteTag(Message):
    REQUIRED: ClassVar = ("key",)
    key: str = ""


class LinkToRun(Message):
    REQUIRED: ClassVar = ("trace_ids", "run_id")
    trace_ids: list[str] = []
    run_id: str = ""


class PromptVersion(msgspec.Struct, kw_only=True):
    name: str = ""
    version: str = ""


class LinkPrompts(Message):
    REQUIRED: ClassVar = ("trace_id", "prompt_versions")
    trace_id: str = ""
    prompt_versions: list[PromptVersion] = []


class Correlation(Message):
    REQUIRED: ClassVar = ("experiment_ids", "filter_string1", "filter_string2")
    experiment_ids: list[str] = []
    filter_string1: str = ""
    filter_string2: str = ""
    base_filter: str = ""


@post(endpoint("/traces", "3.0"), requires=Action.WRITE)
def start_trace(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    """What a client calls when a trace has ended, in spite of the name."""
    asked = wire.decode(body, Start)
    assert asked.trace is not None
    return _one(tracking.traces.start(caller, _trace(asked.trace.trace_info)))


def _trace(said: Info) -> Trace:
    path = "trace.trace_info"
    if not said.trace_id:
        raise wire.missing(f"{path}.trace_id")
    if said.trace_location.mlflow_experiment is None:
        raise wire.missing(f"{path}.trace_location.mlflow_experiment")
    duration = said.execution_duration
    return Trace(
        id=said.trace_id,
        experiment_id=said.trace_location.mlflow_experiment.experiment_id,
        request_ms=trace_views.instant_ms(said.request_time or "1970-01-01T00:00:00Z", f"{path}.request_time"),
        duration_ms=None if duration is None else trace_views.duration_ms(duration, f"{path}.execution_duration"),
        state=_state(_STATES, said.state, f"{path}.state"),
        client_request_id=said.client_request_id,
        request_preview=said.request_preview,
        response_preview=said.response_preview,
        tags=said.tags,
        metadata=said.trace_metadata,
        assessments=[assessments.noun(one, said.trace_id) for one in said.assessments],
    )


def _state(states: dict[str, TraceState], said: str | int, path: str) -> TraceState:
    state = states.get(str(said))
    if state is None:
        raise wire.invalid(path, said)
    return state


@get(endpoint("/traces/{trace_id:str}", "3.0"), requires=Action.READ)
def get_trace_info(caller: Scope, tracking: Tracking, trace_id: str) -> Response[bytes]:
    return _one(tracking.traces.get(caller, trace_id))


@get(endpoint("/traces/get", "3.0"), requires=Action.READ)
async def get_trace(caller: Scope, tracking: Tracking, request: Request[Any, Any, Any]) -> Response[bytes]:
    asked = wire.decode_query(request, Get)
    for pause in (*PATIENCE_S, None):
        trace, spans = await to_thread.run_sync(lambda: _with_spans(caller, tracking, asked.trace_id))
        if asked.allow_partial or _is_whole(trace, spans):
            return wire.reply({"trace": _whole(trace, spans)})
        if pause is not None and WHERE_TAG in trace.tags:
            await asyncio.sleep(pause)
    raise NotFound(
        f"Trace with ID {asked.trace_id} is not fully exported yet, please try again later.", code="trace.incomplete"
    )


@get(endpoint("/traces/batchGet", "3.0"), requires=Action.READ)
def get_traces(caller: Scope, tracking: Tracking, request: Request[Any, Any, Any]) -> Response[bytes]:
    found = tracking.traces.several(caller, _named(wire.decode_query(request, Several)))
    spans = tracking.spans.of(caller, [one.id for one in found])
    whole = [(one, spans.get(one.id, [])) for one in found if _is_whole(one, spans.get(one.id, []))]
    return wire.reply({"traces": [_whole(one, its) for one, its in whole if its]} if whole else None)


@post(endpoint("/traces/batchGetInfos", "3.0"), requires=Action.READ)
def get_trace_infos(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    found = tracking.traces.several(caller, _named(wire.decode(body, Several)))
    return wire.reply({"trace_infos": [trace_views.info(one) for one in found]} if found else None)


def _named(asked: Several) -> list[str]:
    if len(asked.trace_ids) > BATCH_MAX:
        raise InvalidInput(f"trace_ids: at most {BATCH_MAX} in one request", code="parameter.invalid")
    return asked.trace_ids


def _with_spans(caller: Scope, tracking: Tracking, trace_id: str) -> tuple[Trace, list[Span]]:
    try:
        trace = tracking.traces.get(caller, trace_id)
    except NotFound as error:
        raise NotFound(f"Trace with ID {trace_id} is not found.", code=error.code) from error
    return trace, tracking.spans.of(caller, [trace_id]).get(trace_id, [])


def _is_whole(trace: Trace, spans: list[Span]) -> bool:
    return trace.tags.get(WHERE_TAG) == HERE and len(spans) >= expected(trace.metadata)


def _whole(trace: Trace, spans: list[Span]) -> dict[str, Any]:
    return {"trace_info": trace_views.info(trace), "spans": [trace_views.span(one) for one in spans]}


def _one(trace: Trace) -> Response[bytes]:
    return wire.reply({"trace": {"trace_info": trace_views.info(trace)}})


@post(endpoint("/traces/search", "3.0"), requires=Action.READ)
def search_traces(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, Search)
    _check_max_results(asked.max_results)
    experiment_ids = [
        one.mlflow_experiment.experiment_id for one in asked.locations if one.mlflow_experiment is not None
    ]
    found = tracking.traces.search(
        caller, experiment_ids, asked.filter, asked.order_by, asked.max_results, asked.page_token
    )
    content: dict[str, Any] = {}
    if found.items:
        content["traces"] = [trace_views.info(one) for one in found.items]
    if found.next:
        content["next_page_token"] = found.next
    return wire.reply(content)


@get(endpoint("/traces"), requires=Action.READ)
def search_traces_before_3(caller: Scope, tracking: Tracking, request: Request[Any, Any, Any]) -> Response[bytes]:
    asked = wire.decode_query(request, SearchBefore3)
    _check_max_results(asked.max_results)
    found = tracking.traces.search(
        caller, asked.experiment_ids, asked.filter, asked.order_by, asked.max_results, asked.page_token
    )
    content: dict[str, Any] = {}
    if found.items:
        content["traces"] = [trace_views.info_before_3(one) for one in found.items]
    if found.next:
        content["next_page_token"] = found.next
    return wire.reply(content)


def _check_max_results(value: int) -> None:
    if not 1 <= value <= SEARCH_MAX:
        raise InvalidInput(
            f"Invalid value {value} for parameter 'max_results' supplied. It must be 1 to {SEARCH_MAX}.{wire.SEE_DOCS}",
            code="parameter.invalid",
        )


@post([endpoint("/traces/delete-traces"), endpoint("/traces/delete-traces", "3.0")], requires=Action.WRITE)
def delete_traces(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, Delete)
    named, until, most = asked.request_ids, asked.max_timestamp_millis, asked.max_traces
    if not named and until is None and most is None:
        raise InvalidInput("Either `max_timestamp_millis` or `trace_ids` must be specified.")
    if named and (until is not None or most is not None):
        raise InvalidInput("`max_timestamp_millis` and `max_traces` cannot be specified together with `trace_ids`.")
    if until is None and not named:
        raise InvalidInput("`max_traces` can only be specified together with `max_timestamp_millis`.")
    if most is not None and most <= 0:
        raise InvalidInput(f"`max_traces` must be a positive integer, received {most}.")
    gone = tracking.traces.delete(caller, asked.experiment_id, until_ms=until, at_most=most, trace_ids=named)
    return wire.reply({"traces_deleted": gone})


@patch([endpoint("/traces/{trace_id:str}/tags"), endpoint("/traces/{trace_id:str}/tags", "3.0")], requires=Action.WRITE)
def set_trace_tag(caller: Scope, tracking: Tracking, trace_id: str, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, SetTag)
    tracking.traces.set_tag(caller, trace_id, asked.key, asked.value)
    return wire.reply()


@delete(
    [endpoint("/traces/{trace_id:str}/tags"), endpoint("/traces/{trace_id:str}/tags", "3.0")], requires=Action.WRITE
)
def delete_trace_tag(
    caller: Scope, tracking: Tracking, trace_id: str, request: Request[Any, Any, Any], body: bytes
) -> Response[bytes]:
    asked = wire.decode(body, DeleteTag) if body else wire.decode_query(request, DeleteTag)
    tracking.traces.delete_tag(caller, trace_id, asked.key)
    return wire.reply()


@post([endpoint("/traces/link-to-run"), endpoint("/traces/link-to-run", "3.0")], requires=Action.WRITE)
def link_traces_to_run(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, LinkToRun)
    tracking.traces.link_to_run(caller, asked.trace_ids, asked.run_id)
    return wire.reply()


@post([endpoint("/traces/link-prompts"), endpoint("/traces/link-prompts", "3.0")], requires=Action.WRITE)
def link_prompts_to_trace(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, LinkPrompts)
    tracking.traces.link_prompts(caller, asked.trace_id, [(one.name, one.version) for one in asked.prompt_versions])
    return wire.reply()


@post(endpoint("/traces/calculate-filter-correlation", "3.0"), requires=Action.READ)
def correlate_filters(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, Correlation)
    counts = tracking.traces.counts(
        caller, asked.experiment_ids, asked.filter_string1, asked.filter_string2, asked.base_filter
    )
    plain = pointwise_information(counts.both, counts.first, counts.second, counts.total, 0.0)
    smoothed = pointwise_information(counts.both, counts.first, counts.second, counts.total, 0.5)
    return wire.reply(
        {
            "npmi": wire.number(plain),
            "npmi_smoothed": wire.number(smoothed),
            "filter1_count": counts.first,
            "filter2_count": counts.second,
            "joint_count": counts.both,
            "total_count": counts.total,
        }
    )


def pointwise_information(both: int, first: int, second: int, total: int, smoothing: float) -> float:
    """Normalized pointwise mutual information of two events, -1 (never together) to 1 (always); NaN if one never is."""
    if min(first, second, total) == 0:
        return math.nan
    cells = [both, first - both, second - both, total - first - second + both]
    if min(cells) < 0:
        return math.nan
    together, only_first, only_second, neither = (cell + smoothing for cell in cells)
    if together == 0:
        return -1.0
    every = together + only_first + only_second + neither
    if together == every:
        return 1.0
    log_together = math.log(together / every)
    log_apart = math.log((together + only_first) / every) + math.log((together + only_second) / every)
    return max(-1.0, min(1.0, (log_together - log_apart) / -log_together))


@get(endpoint("/get-trace-artifact"), requires=Action.READ)
def get_trace_file(caller: Scope, tracking: Tracking, request: Request[Any, Any, Any]) -> Response[bytes] | Stream:
    """The spans of a trace as a file, or one of its attachments."""
    trace_id, path = request.query_params.get("request_id", ""), request.query_params.get("path", "")
    if not trace_id:
        raise InvalidInput('Request must include the "request_id" query parameter.')
    trace = tracking.traces.get(caller, trace_id)
    if not path and WHERE_TAG in trace.tags:
        spans = tracking.spans.of(caller, [trace_id]).get(trace_id, [])
        return Response(
            msgspec.json.encode({"spans": [trace_views.span_in_file(one) for one in spans]}),
            media_type="application/octet-stream",
            headers={"Content-Disposition": f"attachment; filename={DATA_FILE}", "X-Content-Type-Options": "nosniff"},
        )
    folder = f"{trace.experiment_id}/traces/{trace.id}/artifacts"
    where = f"{folder}/attachments/{path}" if path else f"{folder}/{DATA_FILE}"
    return transfer.attachment(*tracking.artifacts.open(caller, Owner("project"), where))


@post(endpoint("/traces"), requires=Action.WRITE)
def start_trace_before_3(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, StartBefore3)
    begun = tracking.traces.begin(
        caller, asked.experiment_id, asked.timestamp_ms, wire.mapping(asked.tags), wire.mapping(asked.request_metadata)
    )
    return wire.reply({"trace_info": trace_views.info_before_3(begun)})


@patch(endpoint("/traces/{request_id:str}"), requires=Action.WRITE)
def end_trace_before_3(caller: Scope, tracking: Tracking, request_id: str, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, EndBefore3)
    ended = tracking.traces.end(
        caller,
        request_id,
        asked.timestamp_ms,
        _state(_STATES_BEFORE_3, asked.status, "status"),
        wire.mapping(asked.tags),
        wire.mapping(asked.request_metadata),
    )
    return wire.reply({"trace_info": trace_views.info_before_3(ended)})


@get(endpoint("/traces/{request_id:str}/info"), requires=Action.READ)
def get_trace_info_before_3(caller: Scope, tracking: Tracking, request_id: str) -> Response[bytes]:
    return wire.reply({"trace_info": trace_views.info_before_3(tracking.traces.get(caller, request_id))})


HANDLERS = [
    start_trace,
    get_trace_info,
    get_trace,
    get_traces,
    get_trace_infos,
    search_traces,
    search_traces_before_3,
    delete_traces,
    set_trace_tag,
    delete_trace_tag,
    link_traces_to_run,
    link_prompts_to_trace,
    correlate_filters,
    get_trace_file,
    start_trace_before_3,
    end_trace_before_3,
    get_trace_info_before_3,
]
