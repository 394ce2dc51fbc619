"""What the spans of a trace say of it as a whole: when, how it ended, what it used, what went in and came out. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from modelyard.types.tracing import Span, TraceState

INPUTS = "mlflow.spanInputs"
OUTPUTS = "mlflow.spanOutputs"
TYPE = "mlflow.spanType"
USAGE = "mlflow.chat.tokenUsage"
# Where programs that MLflow's client does not trace say the same: OpenTelemetry's GenAI, OpenInference, OpenLLMetry.
_INPUTS = (INPUTS, "input.value", "gen_ai.input.messages", "gen_ai.prompt", "traceloop.entity.input")
_OUTPUTS = (OUTPUTS, "output.value", "gen_ai.output.messages", "gen_ai.completion", "traceloop.entity.output")
_TYPES = (TYPE, "openinference.span.kind", "traceloop.span.kind", "gen_ai.operation.name")
_TOKENS = {
    "input_tokens": ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt"),
    "output_tokens": ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.token_count.completion"),
}
COST = "mlflow.llm.cost"
PREVIEW_CHARACTERS_MAX = 1_000
_NS_PER_MS = 1_000_000


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """`state` is None without a root span. `usage` and `cost` are sums over the spans."""

    start_ms: int
    end_ms: int | None
    state: TraceState | None
    usage: dict[str, float]
    cost: dict[str, float]
    session: str | None
    user: str | None
    request_preview: str | None
    response_preview: str | None


def facts(spans: Sequence[Span]) -> Facts:
    """The facts of some spans of one trace; there is at least one."""
    roots = [span for span in spans if span.parent_id is None]
    root = roots[-1] if roots else None
    ends = [span.end_ns for span in spans if span.end_ns]
    return Facts(
        start_ms=min(span.start_ns for span in spans) // _NS_PER_MS,
        end_ms=max(ends) // _NS_PER_MS if ends else None,
        state=None if not roots else "ERROR" if roots[0].status == "ERROR" else "OK",
        usage=total(spans, USAGE),
        cost=total(spans, COST),
        session=_first(spans, "session.id"),
        user=_first(spans, "user.id"),
        request_preview=None if root is None else preview(_said(root, _INPUTS), "user"),
        response_preview=None if root is None else preview(_said(root, _OUTPUTS), "assistant"),
    )


def total(spans: Sequence[Span], key: str) -> dict[str, float]:
    """The sums of an attribute that holds numbers by name."""
    sums: dict[str, float] = {}
    for span in spans:
        found = numbers(span.attributes.get(key)) or (_tokens(span) if key == USAGE else {})
        for name, number in found.items():
            sums[name] = sums.get(name, 0) + number
    return sums


def type_of(span: Span) -> str:
    """What sort of operation a span is, such as `LLM` or `TOOL`; `UNKNOWN` where nobody said."""
    return str(_said(span, _TYPES) or "UNKNOWN")


def _tokens(span: Span) -> dict[str, float]:
    found = {name: numbers({name: _said(span, keys)}).get(name) for name, keys in _TOKENS.items()}
    known = {name: number for name, number in found.items() if number is not None}
    return {**known, "total_tokens": sum(known.values())} if known else {}


def _said(span: Span, keys: Sequence[str]) -> Any:
    return next((span.attributes[key] for key in keys if span.attributes.get(key) is not None), None)


def numbers(value: Any) -> dict[str, float]:
    """The numbers by name of a mapping, or of a JSON text of one; of anything else none."""
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError:
            return {}
    if not isinstance(value, Mapping):
        return {}
    return {
        str(name): number
        for name, number in value.items()
        if isinstance(number, int | float) and not isinstance(number, bool)
    }


def preview(value: Any, role: str) -> str | None:
    """The beginning of an input or output: of a conversation the last message of a role, else the value in JSON."""
    if value is None:
        return None
    decoded = value
    if isinstance(value, str):
        try:
            decoded = msgspec.json.decode(value)
        except msgspec.DecodeError:
            decoded = None
    text = _last_message(decoded, role) or (value if isinstance(value, str) else msgspec.json.encode(value).decode())
    return text if len(text) <= PREVIEW_CHARACTERS_MAX else text[: PREVIEW_CHARACTERS_MAX - 3] + "..."


def _last_message(value: Any, role: str) -> str | None:
    messages: list[Any] = []
    if isinstance(value, Mapping):
        found = value.get("messages")
        if isinstance(found, list):
            messages = found
        elif isinstance(choices := value.get("choices"), list):
            messages = [choice.get("message") for choice in choices if isinstance(choice, Mapping)]
    said = [one for one in messages if isinstance(one, Mapping) and "role" in one and "content" in one]
    chosen = [one for one in said if one["role"] == role] or said
    if not chosen:
        return None
    content = chosen[-1]["content"]
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, Mapping) and part.get("type") == "text"]
        content = next((part for part in parts if isinstance(part, str)), None)
    return content if isinstance(content, str) else None


def _first(spans: Sequence[Span], key: str) -> str | None:
    return next((str(found) for span in spans if (found := span.attributes.get(key))), None)
