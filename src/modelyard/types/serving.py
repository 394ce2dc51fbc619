"""Nouns of serving: endpoints, their variants, what a prediction process is told and says, logged predictions."""

from __future__ import annotations

import struct
from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

EndpointState = Literal["starting", "ready", "failed", "stopped", "deleting"]
NanPolicy = Literal["allow", "refuse"]
Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES"
]

Name = Annotated[str, Meta(pattern=r"^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$", max_length=64)]
Weight = Annotated[float, Meta(ge=0.0, le=1_000_000.0)]

ROW_ID = "modelyard.id"
"""Reserved optional input: the caller's own id of each row (BYTES), logged and not given to the model."""
EVENT_TIME = "modelyard.event_time"
"""Reserved optional input: when each row happened (INT64 microseconds since the epoch, or BYTES in RFC 3339)."""


class TensorSpec(Struct, frozen=True, kw_only=True):
    """A named, typed input or output. -1 stands for any size; the first axis counts rows.

    An input that is not `required` may be left out: its rows are then missing values (NaN).
    """

    name: str
    datatype: Datatype
    shape: list[int]
    required: bool = True


# --- endpoints --------------------------------------------------------------------------------------------------


class VariantSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One share of the traffic, to a version of the endpoint's model: a fixed one, or whichever an alias names.

    Shares are relative: weights 9 and 1 give nine tenths and one tenth.
    """

    name: Name
    weight: Weight = 1.0
    version: Annotated[int, Meta(ge=1)] | None = None
    alias: str = ""


class EndpointOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the prediction process behaves. `port` 0 takes a free one and keeps it over restarts."""

    port: Annotated[int, Meta(ge=0, le=65535)] = 0
    nan_inputs: NanPolicy = "allow"
    nan_outputs: NanPolicy = "refuse"
    batch_rows_max: Annotated[int, Meta(ge=1, le=65536)] = 64
    queue_rows_max: Annotated[int, Meta(ge=1)] = 100_000
    body_bytes_max: Annotated[int, Meta(ge=1024)] = 64 * 1024 * 1024
    predict_timeout_s: Annotated[float, Meta(gt=0.0, le=3600.0)] = 30.0
    segment_bytes_max: Annotated[int, Meta(ge=1024)] = 16 * 1024 * 1024
    segment_age_s_max: Annotated[float, Meta(gt=0.0)] = 5.0
    log_bytes_max: Annotated[int, Meta(ge=1024)] = 4 * 1024 * 1024 * 1024


class CreateEndpoint(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An endpoint to make. Without `variants` all traffic goes to `version`, or to whatever `alias` names."""

    name: Name
    model: str
    alias: str = ""
    version: Annotated[int, Meta(ge=1)] | None = None
    variants: Annotated[list[VariantSpec], Meta(max_length=16)] = []
    options: EndpointOptions = EndpointOptions()


class UpdateEndpoint(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A change of traffic, of options, or of being up at all; what is left out stays.

    With `expected` the change is refused where the endpoint no longer is at that revision.
    """

    alias: str = ""
    version: Annotated[int, Meta(ge=1)] | None = None
    variants: Annotated[list[VariantSpec], Meta(max_length=16)] = []
    options: EndpointOptions | None = None
    running: bool | None = None
    expected: int | None = None
    reason: str = ""


class Variant(Struct, frozen=True, kw_only=True):
    """A variant with the version that it stands for now."""

    name: str
    model: str
    version: int
    digest: str
    weight: float
    alias: str = ""

    @property
    def urn(self) -> str:
        """The URN of the model version."""
        return f"model:{self.model}@{self.version}"


class Endpoint(Struct, frozen=True, kw_only=True):
    """A name under which predictions are served. `revision` is wanted, `observed_revision` is what the process serves.

    `url` is where clients of the Open Inference Protocol talk to it; empty until the process has answered once.
    """

    name: str
    project: str
    model: str
    state: EndpointState
    revision: int
    observed_revision: int
    variants: list[Variant]
    serving: list[Variant]
    options: EndpointOptions
    created_at: datetime
    created_by: str
    updated_at: datetime
    url: str = ""
    port: int = 0
    pid: int = 0
    error: str = ""
    restarts: int = 0
    rows_logged: int = 0

    @property
    def ready(self) -> bool:
        """Whether what is wanted is what is served."""
        return self.state == "ready" and self.observed_revision >= self.revision


class Switch(Struct, frozen=True, kw_only=True):
    """From `at` on, the endpoint served `variants` by `revision`; an empty list means that it served nothing."""

    endpoint: str
    at: datetime
    revision: int
    variants: list[Variant]
    by: str = ""
    reason: str = ""


class PredictionRows(Struct, frozen=True, kw_only=True):
    """Logged predictions, newest first, a dict per row."""

    dataset: str
    rows: list[dict[str, object]]


# --- the prediction process -------------------------------------------------------------------------------------


class VariantConfig(Struct, frozen=True, kw_only=True):
    """A variant as the process loads it: the files of the version lie in `directory`, their digest was verified."""

    name: str
    model: str
    version: int
    digest: str
    directory: str
    weight: float = 1.0
    trusted: bool = False


class EndpointConfig(Struct, frozen=True, kw_only=True):
    """What a prediction process serves. Written whole and atomically; a higher `revision` is loaded and swapped in."""

    revision: int
    endpoint: str
    project: str
    variants: list[VariantConfig]
    host: str = "127.0.0.1"
    token_sha256: str = ""
    options: EndpointOptions = EndpointOptions()


class EndpointStatus(Struct, frozen=True, kw_only=True):
    """What a prediction process says of itself. `error` tells why `failed_revision` was not taken."""

    pid: int
    process_started_at: float
    host: str
    port: int
    state: Literal["starting", "ready", "failed", "stopped"]
    revision: int = 0
    failed_revision: int = 0
    error: str = ""
    at: datetime | None = None


# --- the prediction log -----------------------------------------------------------------------------------------

FRAME_HEADER = struct.Struct("<II")
"""Before each record of a log segment: the length of its bytes and their CRC-32. A torn tail shows by them."""
SEGMENT_OPEN = ".open"
SEGMENT_CLOSED = ".frames"


class LoggedColumn(Struct, frozen=True, array_like=True):
    """A tensor of a logged request, as little-endian bytes, or as texts for BYTES."""

    name: str
    datatype: str
    shape: list[int]
    data: bytes | list[str]


class PredictionRecord(Struct, frozen=True, array_like=True):
    """One answered request. `ids` and `event_times_us` have a value per row where the caller gave them.

    Fields are only ever added at the end: a segment may be read by a newer version than wrote it.
    """

    request_id: str
    at_us: int
    endpoint: str
    variant: str
    model: str
    version: int
    digest: str
    latency_us: int
    rows: int
    ids: list[str] | None
    event_times_us: list[int] | None
    inputs: list[LoggedColumn]
    outputs: list[LoggedColumn]
