"""What a server process and a model's worker process say to each other: frames of MessagePack, never pickles.

The worker runs code that somebody else wrote. Whatever it sends is decoded into exactly these types, or it is an error.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from modelyard.engines.models.base import NUMPY_TYPES
from modelyard.kernel.errors import EngineError
from modelyard.types.serving import LoggedColumn, TensorSpec

if TYPE_CHECKING:
    from modelyard.engines.models.base import Array, Columns

FRAME_BYTES_MAX = 1024 * 1024 * 1024
_LENGTH = struct.Struct("<I")
_DATATYPES = {np.dtype(name): kind for kind, name in NUMPY_TYPES.items()}


class Ready(msgspec.Struct, frozen=True):
    """The first thing that a worker says. With an `error` it has ended."""

    inputs: list[TensorSpec] = []
    outputs: list[TensorSpec] = []
    platform: str = ""
    error: str = ""


class Answer(msgspec.Struct, frozen=True):
    """The outputs of a call, or why there are none."""

    outputs: list[LoggedColumn] = []
    error: str = ""


def send(channel: socket.socket, message: msgspec.Struct | list[LoggedColumn]) -> None:
    """Send one message."""
    payload = msgspec.msgpack.encode(message)
    if len(payload) > FRAME_BYTES_MAX:
        raise EngineError(f"a message of {len(payload):,} bytes is too large for a model's worker")
    channel.sendall(_LENGTH.pack(len(payload)) + payload)


def receive(channel: socket.socket, kind: type[Any]) -> Any:
    """Receive one message of a type. Raises EOFError where the other side is gone, EngineError for another thing."""
    (length,) = _LENGTH.unpack(_exactly(channel, _LENGTH.size))
    if length > FRAME_BYTES_MAX:
        raise EngineError(f"the model's worker announced {length:,} bytes")
    try:
        return msgspec.msgpack.decode(_exactly(channel, length), type=kind)
    except msgspec.DecodeError as error:
        raise EngineError(f"the model's worker sent what is no answer: {error}") from error


def _exactly(channel: socket.socket, count: int) -> bytearray:
    data = bytearray(count)
    view = memoryview(data)
    at = 0
    while at < count:
        got = channel.recv_into(view[at:])
        if got == 0:
            raise EOFError("the other side is gone")
        at += got
    return data


def pack(columns: Columns) -> list[LoggedColumn]:
    """Arrays as they travel."""
    packed = []
    for name, array in columns.items():
        if array.dtype.kind in "OUS":
            texts = [
                one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in array.reshape(-1)
            ]
            packed.append(LoggedColumn(name, "BYTES", list(array.shape), texts))
        else:
            packed.append(LoggedColumn(name, _DATATYPES[array.dtype], list(array.shape), array.tobytes()))
    return packed


def unpack(columns: list[LoggedColumn]) -> dict[str, Array]:
    """The arrays of a message. Raises EngineError where bytes, type and shape do not fit each other."""
    arrays: dict[str, Array] = {}
    for one in columns:
        try:
            if isinstance(one.data, list):
                texts = np.empty(len(one.data), object)
                texts[:] = one.data
                arrays[one.name] = texts.reshape(one.shape)
            else:
                arrays[one.name] = np.frombuffer(one.data, NUMPY_TYPES[one.datatype]).reshape(one.shape)
        except (ValueError, KeyError) as error:
            raise EngineError(f"the model's worker sent a broken column '{one.name[:80]}': {error}") from error
    return arrays
