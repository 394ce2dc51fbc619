"""MLflow's endpoints of uploads in parts: clients that are told to put the parts of a large file at once.

A part is put without the client's own way of signing in, only with the headers that it is given for it; so it is given
back the very header that it signed in with.
"""

from __future__ import annotations

from posixpath import basename
from typing import Any, ClassVar
from urllib.parse import urlsplit

import msgspec
from litestar import Request, Response

from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.errors import InvalidInput
from modelyard.kernel.routing import post, put
from modelyard.kernel.settings import Settings
from modelyard.planes.tracking import Tracking, locate, transfer
from modelyard.server.dialects.mlflow import wire
from modelyard.server.dialects.mlflow.artifacts import changeable, safe
from modelyard.server.dialects.mlflow.wire import Message

_ROOT = "/api/2.0/mlflow-artifacts/mpu"


def _paths(step: str) -> list[str]:
    return [f"{_ROOT}/{step}{below}" for below in ("", "/{directory:path}")]


class Create(Message):
    REQUIRED: ClassVar = ("path",)
    path: str = ""
    num_parts: int = 1


class Part(msgspec.Struct, kw_only=True):
    part_number: int = 0
    etag: str = ""


class Complete(Message):
    REQUIRED: ClassVar = ("path", "upload_id")
    path: str = ""
    upload_id: str = ""
    parts: list[Part] = []


class Abort(Message):
    REQUIRED: ClassVar = ("path", "upload_id")
    path: str = ""
    upload_id: str = ""


@post(_paths("create"), requires=Action.WRITE)
def create_upload(
    caller: Scope, tracking: Tracking, settings: Settings, request: Request[Any, Any, Any], body: bytes
) -> Response[bytes]:
    asked = wire.decode(body, Create)
    directory = safe(str(request.scope["path"]).partition("/mpu/create/")[2])
    # The client names the file by its path on its own disk, of which only the name is ours to take.
    name = basename(asked.path.replace("\\", "/"))
    if not name:
        raise InvalidInput(f"'{asked.path[:200]}' names no file", code="path.unsafe")
    owner, below = locate(changeable(f"{directory}/{name}" if directory else name))
    upload_id = tracking.uploads.begin(caller, owner, below, asked.num_parts)
    signed_in = request.headers.get("authorization")
    root = f"{_address(request, settings)}/p/{caller.project}{_ROOT}/part/{upload_id}"
    credentials = [
        {
            "url": f"{root}/{number}",
            "part_number": number,
            "headers": {} if signed_in is None else {"Authorization": signed_in},
        }
        for number in range(1, asked.num_parts + 1)
    ]
    return wire.reply({"upload_id": upload_id, "credentials": credentials})


@put(f"{_ROOT}/part/{{upload_id:str}}/{{number:int}}", requires=Action.WRITE, request_max_body_size=None)
async def put_part(
    caller: Scope, tracking: Tracking, upload_id: str, number: int, request: Request[Any, Any, Any]
) -> Response[bytes]:
    tag = await transfer.receive(request, lambda pieces: tracking.uploads.put_part(caller, upload_id, number, pieces))
    reply = wire.reply()
    reply.headers["ETag"] = f'"{tag}"'
    return reply


@post(_paths("complete"), requires=Action.WRITE)
def complete_upload(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    asked = wire.decode(body, Complete)
    tags = {part.part_number: part.etag.strip('"') for part in asked.parts}
    tracking.uploads.complete(caller, asked.upload_id, tags)
    return wire.reply()


@post(_paths("abort"), requires=Action.WRITE)
def abort_upload(caller: Scope, tracking: Tracking, body: bytes) -> Response[bytes]:
    tracking.uploads.abort(caller, wire.decode(body, Abort).upload_id)
    return wire.reply()


def _address(request: Request[Any, Any, Any], settings: Settings) -> str:
    """The server's address as this client knows it. Of a proxy in front, only `public_url` knows the scheme."""
    host = request.headers.get("host", "")
    known = urlsplit(settings.public_url)
    return f"{known.scheme if known.netloc == host else request.scope['scheme']}://{host}"


HANDLERS = [create_upload, put_part, complete_upload, abort_upload]
