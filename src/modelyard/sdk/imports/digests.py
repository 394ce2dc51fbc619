"""What "the same" means for an import: one digest over what a source has, and one over what is here, compared."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from modelyard.sdk.imports.source import Value
from modelyard.types.tracing import Span

FLOAT_MAX = 1.7976931348623157e308
_POINT = struct.Struct("<qqd")


def storable(values: Iterable[Value]) -> list[Value]:
    """The values as they are kept: an infinity as the largest number of its sign, what is there twice once; by time,
    step and value, not-a-number first."""
    kept = {
        (one.timestamp_ms, one.step, _ranked(value)): Value(one.timestamp_ms, one.step, value)
        for one in values
        for value in (math.copysign(FLOAT_MAX, one.value) if math.isinf(one.value) else one.value,)
    }
    return [kept[key] for key in sorted(kept)]


def of_values(values: Iterable[Value]) -> str:
    """The digest of a history, whatever its order."""
    return of_storable(storable(values))


def of_storable(values: Sequence[Value]) -> str:
    """The digest of a history as `storable` gives it; as the platform computes it over what it has."""
    # All not-a-numbers are one, and so are the two zeros.
    packed = b"".join(
        [_POINT.pack(time, step, math.nan if math.isnan(value) else value + 0.0) for time, step, value in values]
    )
    return hashlib.sha256(packed).hexdigest()


def of_spans(spans: Sequence[Span]) -> str:
    """The digest of a trace's spans; of two with one id the last counts."""
    kept = {one.id: msgspec.json.encode(one).decode() for one in spans}
    return hashlib.sha256("\n".join(kept[one] for one in sorted(kept)).encode()).hexdigest()


def of_texts(texts: Mapping[str, str]) -> str:
    """The digest of params or tags, whatever their order."""
    digest = hashlib.sha256()
    for key in sorted(texts):
        for text in (key, texts[key]):
            encoded = text.encode("utf-8", "surrogatepass")
            digest.update(b"%d:%s" % (len(encoded), encoded))
    return digest.hexdigest()


def _ranked(value: float) -> tuple[bool, float]:
    return (False, 0.0) if math.isnan(value) else (True, value)
