"""Endpoints in a program: `modelyard.endpoint("delay").predict({"distance": [740.0]})`.

Predictions go straight to the endpoint's own process by the Open Inference Protocol v2, not through the server.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any
from urllib.parse import quote

import httpx
import msgspec

from modelyard.kernel.clock import to_us
from modelyard.kernel.errors import EngineError, InvalidInput, ModelyardError, Problem, Unavailable, from_problem
from modelyard.sdk.client import Client, connect
from modelyard.sdk.handle import Handle
from modelyard.types.page import Page
from modelyard.types.serving import (
    EVENT_TIME,
    ROW_ID,
    CreateEndpoint,
    Endpoint,
    EndpointOptions,
    PredictionRows,
    Switch,
    UpdateEndpoint,
    VariantSpec,
)

READY_TIMEOUT_S = 120.0
PREDICT_TIMEOUT_S = 60.0
POLL_S = 0.05
REACH_TRIES = 3
HEADER_LENGTH = "Inference-Header-Content-Length"
_FLOATS = frozenset({"FP16", "FP32", "FP64"})


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """What a model said. `outputs` has a value per row; `id` is the request's id in the prediction log."""

    id: str
    model_version: str
    variant: str
    outputs: dict[str, Any]


class EndpointHandle(Handle):
    """An endpoint by its name, which need not exist yet."""

    _NOUN = "endpoint"
    _AT = "/api/endpoints"

    def __init__(self, name: str, client: Client | None = None, *, token: str = "") -> None:
        super().__init__(name, client)
        self._http = httpx.Client(
            timeout=PREDICT_TIMEOUT_S,
            # An endpoint is reached directly: a proxy of the environment is for the outside.
            trust_env=False,
            headers={"Authorization": f"Bearer {token}"} if token else {},
        )
        self._url = ""
        self._datatypes: dict[str, str] = {}

    # --- the endpoint -------------------------------------------------------------------------------------------

    def create(
        self,
        model: str,
        *,
        alias: str = "",
        version: int | None = None,
        variants: Sequence[VariantSpec] = (),
        options: EndpointOptions | None = None,
    ) -> Endpoint:
        """Make it: for an alias that it follows (default: `champion`), a fixed version, or several variants.

        Raises Conflict (`endpoint.exists`), NotFound, InvalidInput for a version without signature, Forbidden for one
        of an unsafe format that nobody trusted.
        """
        body = CreateEndpoint(
            name=self.name, model=model, alias=alias, version=version, variants=list(variants),
            options=options or EndpointOptions(),
        )  # fmt: skip
        return self._client.post("/api/endpoints", body, type=Endpoint)

    def get(self) -> Endpoint:
        """The endpoint as it is. Raises NotFound."""
        return self._client.get(self._path, type=Endpoint)

    def update(
        self,
        *,
        alias: str = "",
        version: int | None = None,
        variants: Sequence[VariantSpec] = (),
        options: EndpointOptions | None = None,
        running: bool | None = None,
        expected: int | None = None,
        reason: str = "",
    ) -> Endpoint:
        """Change its traffic or options, which it takes over without a failed request, or stop and start it."""
        body = UpdateEndpoint(
            alias=alias, version=version, variants=list(variants), options=options, running=running,
            expected=expected, reason=reason,
        )  # fmt: skip
        changed: Endpoint = self._client.patch(self._path, body, type=Endpoint)
        return changed

    def delete(self, reason: str = "") -> Endpoint:
        """Stop and forget it; its logged predictions stay."""
        deleted: Endpoint = self._client.delete(self._path, type=Endpoint, params={"reason": reason})
        return deleted

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> Endpoint:
        """Wait until it serves what is wanted.

        Raises EngineError with what the endpoint says where that failed, Unavailable when the time is over.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            found = self.get()
            if found.ready:
                return found
            if found.error and (found.state == "failed" or found.observed_revision > 0):
                raise EngineError(
                    f"endpoint '{self.name}' does not serve revision {found.revision}: {found.error}",
                    code="endpoint.not_ready",
                    hint=f"look at it with `modelyard endpoint get {self.name}`",
                )
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"endpoint '{self.name}' is {found.state} after {timeout_s:g} s, at revision "
                    f"{found.observed_revision} of {found.revision}",
                    code="endpoint.not_ready",
                    hint="is a server up that runs it? start one with `modelyard up`",
                )
            time.sleep(POLL_S)

    def switches(self, limit: int = 100) -> list[Switch]:
        """What it served since when, newest first."""
        return self._client.get(f"{self._path}/switches", type=Page[Switch], params={"limit": limit}).items

    def served_at(self, at: datetime) -> Switch:
        """What it served at an instant."""
        return self._client.get(f"{self._path}/served", type=Switch, params={"at": at.isoformat()})

    def logs(self, limit: int = 20) -> PredictionRows:
        """Its newest logged predictions."""
        return self._client.get(f"{self._path}/predictions", type=PredictionRows, params={"limit": limit})

    # --- predictions --------------------------------------------------------------------------------------------

    def predict(
        self,
        columns: Any,
        *,
        ids: Sequence[str] | None = None,
        event_times: Sequence[datetime | int] | None = None,
        request_id: str = "",
        binary: bool = False,
    ) -> Prediction:
        """Predict for columns: a mapping of names to lists or arrays, an Arrow table, or a data frame.

        `ids` and `event_times` (datetimes, or microseconds since 1970) are logged with the rows. With `binary` the
        values travel as bytes and come back as NumPy arrays: faster for many rows. Raises InvalidInput for inputs that
        the model does not take, Unavailable where the endpoint cannot be reached.
        """
        given = _columns_of(columns)
        datatypes = self._inputs(refresh=False)
        try:
            return self._ask(given, datatypes, ids, event_times, request_id, binary)
        except InvalidInput:
            # The model may have been switched to one of other inputs since its metadata was read.
            fresh = self._inputs(refresh=True)
            if fresh == datatypes:
                raise
        return self._ask(given, fresh, ids, event_times, request_id, binary)

    def _ask(
        self,
        columns: Mapping[str, Any],
        datatypes: Mapping[str, str],
        ids: Sequence[str] | None,
        event_times: Sequence[datetime | int] | None,
        request_id: str,
        binary: bool,
    ) -> Prediction:
        tensors: list[dict[str, Any]] = []
        blobs: list[bytes] = []
        for name, values in columns.items():
            tensor, blob = _tensor(name, values, datatypes.get(name, ""), binary=binary)
            tensors.append(tensor)
            blobs.append(blob)
        if ids is not None:
            tensors.append({"name": ROW_ID, "datatype": "BYTES", "shape": [len(ids)], "data": [str(i) for i in ids]})
        if event_times is not None:
            instants = [to_us(one) if isinstance(one, datetime) else int(one) for one in event_times]
            tensors.append({"name": EVENT_TIME, "datatype": "INT64", "shape": [len(instants)], "data": instants})
        body: dict[str, Any] = {"inputs": tensors, "parameters": {"binary_data_output": binary}}
        if request_id:
            body["id"] = request_id
        header = msgspec.json.encode(body, enc_hook=_plain)
        headers = {HEADER_LENGTH: str(len(header))} if binary else {}
        reply = self._reach("POST", "/infer", b"".join((header, *blobs)), headers)
        return _prediction(reply)

    def _inputs(self, *, refresh: bool) -> dict[str, str]:
        if refresh or not self._datatypes:
            metadata = msgspec.json.decode(self._reach("GET", "").content)
            self._datatypes = {one["name"]: one["datatype"] for one in metadata["inputs"]}
        return self._datatypes

    def _reach(
        self, method: str, path: str, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """One request to the process. Where it is gone, its URL is asked for again: a new one may be elsewhere."""
        problem = "it has no URL yet"
        for _ in range(REACH_TRIES):
            if not self._url:
                self._url = self.get().url
            if self._url:
                url = f"{self._url}/v2/models/{quote(self.name, safe='')}{path}"
                try:
                    reply = self._http.request(method, url, content=content, headers=headers)
                except httpx.TransportError as error:
                    problem, self._url = str(error), ""
                else:
                    if reply.status_code >= 400:
                        raise _failure(reply)
                    return reply
            time.sleep(POLL_S)
        raise Unavailable(
            f"endpoint '{self.name}' cannot be reached: {problem}",
            code="endpoint.unreachable",
            hint=f"see its state with `modelyard endpoint get {self.name}`",
        )

    def close(self) -> None:
        """Give back the connections."""
        self._http.close()


def endpoint(name: str, client: Client | None = None, *, token: str = "") -> EndpointHandle:
    """The endpoint of a name. `token` is for endpoints that ask for one of their own."""
    return EndpointHandle(name, client, token=token)


def list_endpoints(client: Client | None = None, *, after: str | None = None, limit: int = 100) -> Page[Endpoint]:
    """Endpoints by name."""
    return (client or connect()).get("/api/endpoints", type=Page[Endpoint], params={"after": after, "limit": limit})


def _columns_of(given: Any) -> Mapping[str, Any]:
    if isinstance(given, Mapping):
        return given
    if hasattr(given, "column_names"):
        return {name: given.column(name).to_pylist() for name in given.column_names}
    if hasattr(given, "columns") and hasattr(given, "to_dict"):
        return {str(name): given[name].to_numpy() for name in given.columns}
    raise InvalidInput(
        f"inputs cannot be a {type(given).__name__}",
        code="prediction.invalid",
        hint="give a mapping of column names to lists or arrays, an Arrow table, or a data frame",
    )


def _tensor(name: str, values: Any, datatype: str, *, binary: bool) -> tuple[dict[str, Any], bytes]:
    """A column as the protocol carries it. Without a known datatype it is sent as text, for the endpoint to refuse."""
    shape = list(values.shape) if hasattr(values, "shape") else _shape_of(values)
    about: dict[str, Any] = {"name": name, "datatype": datatype or "BYTES", "shape": shape}
    if binary and datatype and datatype != "BYTES":
        blob = _bytes_of(name, values, datatype)
        return about | {"parameters": {"binary_data_size": len(blob)}}, blob
    listed = values.tolist() if hasattr(values, "tolist") else list(values)
    if datatype in _FLOATS:
        # Anything that counts as missing in a frame is null on the wire; whole numbers are fine as they are.
        listed = [None if one != one else one for one in listed] if len(shape) == 1 else listed
    return about | {"data": listed}, b""


def _plain(value: Any) -> Any:
    """A scalar of NumPy's as one of Python's."""
    if hasattr(value, "item"):
        return value.item()
    raise InvalidInput(
        f"a value of type {type(value).__name__} cannot be sent",
        code="prediction.invalid",
        hint="send numbers, booleans and texts; write instants as RFC 3339 texts",
    )


def _shape_of(values: Any) -> list[int]:
    shape: list[int] = []
    while isinstance(values, list | tuple):
        shape.append(len(values))
        values = values[0] if values else None
    return shape


def _bytes_of(name: str, values: Any, datatype: str) -> bytes:
    import numpy as np  # heavy: imported late

    kind = {"BOOL": "?", "F": "<f", "I": "<i", "U": "<u"}[datatype if datatype == "BOOL" else datatype[0]]
    size = "" if datatype == "BOOL" else str(int("".join(c for c in datatype if c.isdigit())) // 8)
    try:
        array = np.asarray(values)
        wanted = np.dtype(kind + size)
        if array.dtype.kind not in "biuf" or not np.can_cast(array.dtype, wanted, "same_kind"):
            raise ValueError(f"{array.dtype} is not {datatype}")
        return array.astype(wanted).tobytes()
    except (ValueError, TypeError) as error:
        raise InvalidInput(
            f"input '{name}' cannot be sent as {datatype}: {error}", code="prediction.invalid"
        ) from error


def _prediction(reply: httpx.Response) -> Prediction:
    length = reply.headers.get(HEADER_LENGTH)
    header = msgspec.json.decode(reply.content[: int(length)] if length else reply.content)
    outputs: dict[str, Any] = {}
    at = int(length or 0)
    for output in header["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            outputs[output["name"]] = _by_row(output["data"], output["shape"])
        else:
            outputs[output["name"]] = _array_of(output, reply.content[at : at + size])
            at += size
    return Prediction(
        id=header["id"],
        model_version=header["model_version"],
        variant=header.get("parameters", {}).get("variant", ""),
        outputs=outputs,
    )


def _by_row(data: list[Any], shape: list[int]) -> list[Any]:
    """A value per row: one where the row has one, else a list."""
    width = len(data) // shape[0] if shape and shape[0] else 1
    return data if width == 1 else [data[at : at + width] for at in range(0, len(data), width)]


def _array_of(output: Mapping[str, Any], blob: bytes) -> Any:
    import numpy as np  # heavy: imported late

    datatype, shape = output["datatype"], output["shape"]
    if datatype == "BYTES":
        texts, at = [], 0
        while at < len(blob):
            end = at + 4 + int.from_bytes(blob[at : at + 4], "little")
            texts.append(blob[at + 4 : end].decode())
            at = end
        return np.array(texts, object).reshape(shape)
    kind = "bool" if datatype == "BOOL" else datatype.lower().replace("fp", "float")
    array = np.frombuffer(blob, np.dtype(kind).newbyteorder("<")).reshape(shape)
    return array.reshape(shape[0]) if array.ndim == 2 and shape[1] == 1 else array


def _failure(reply: httpx.Response) -> ModelyardError:
    message = reply.text[:500]
    with suppress(msgspec.DecodeError, KeyError, TypeError):
        message = str(msgspec.json.decode(reply.content)["error"])
    status = reply.status_code if reply.status_code < 500 or reply.status_code == 503 else EngineError.status
    code = "prediction.invalid" if status == 400 else "prediction.failed"
    return from_problem(Problem(status=status, title="", detail=message, code=code))
