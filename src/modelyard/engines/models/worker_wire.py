"""What a server process and a model's worker process say to each other: frames of MessagePack, never pickles.

The worker runs code that somebody else wrote. Whatever it sends is decoded into exactly these types, or it is an error.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

import msgspec

from modelyard.kernel.errors import EngineError
from modelyard.types.serving import LoggedColumn, TensorSpec

FRAME_BYTES_MAX = 1024 * 1024 * 1024
_LENGTH = struct.Struct("<I")


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
