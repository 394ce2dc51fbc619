"""MLflow's artifact endpoints: the proxy that clients upload through, and the lists and downloads of its pages."""

from __future__ import annotations

from posixpath import basename
from typing import Any, ClassVar

from litestar import Request, Response
from litestar.response import Stream

from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.errors import Forbidden, InvalidInput, NotFound
from modelyard.kernel.paths import safe_relative
from modelyard.kernel.routing import delete, get, post, put
from modelyard.planes.registry import VERSION_ROOT, Registry
from modelyard.planes.tracking import Owner, Tracking, below_uri, locate, transfer
from modelyard.server.dialects.mlflow import wire
from modelyard.server.dialects.mlflow.wire import Message, endpoint
from modelyard.types.tracking import Artifact

UPLOAD_BYTES_MAX = 10 * 1024 * 1024
PROXY = "/api/2.0/mlflow-artifacts/artifacts"
_PRESIGNED = "/api/2.0/mlflow-artifacts/presigned/{path:path}"
_FILES = f"{PROXY}/{{path:path}}"


class Listed(Message):
    REQUIRED: ClassVar = ("run_id",)
    run_id: str = ""
    run_uuid: str = ""
    path: str = ""


@get(PROXY, requires=Action.READ)
def list_proxied(
    caller: Scope, tracking: Tracking, registry: Registry, request: Request[Any, Any, Any]
) -> Response[bytes]:
    path = safe(request.query_params.get("path", ""))
    version = registry.versions.stored(caller, path)
    if version is not None:
        listed = [Artifact(path=name, is_dir=size is None, size_bytes=size) for name, size in version.listing()]
        return _files([_view(one, one.path) for one in listed])
    owner, below = locate(path)
    found = tracking.artifacts.list(caller, owner, below)
    return _files([_view(one, basename(one.path)) for one in found])


@get(_FILES, requires=Action.READ)
def download_proxied(caller: Scope, tracking: Tracking, registry: Registry, request: Request[Any, Any, Any]) -> Stream:
    path = safe(_path_of(request))
    version = registry.versions.stored(caller, path)
    if version is not None:
        file, content = registry.versions.open_stored(version)
        known = Artifact(path=file.path, is_dir=False, size_bytes=file.size_bytes, digest=file.digest)
        return transfer.attachment(known, content)
    owner, below = locate(path)
    return transfer.attachment(*tracking.artifacts.open(caller, owner, below))


@put(_FILES, requires=Action.WRITE, request_max_body_size=None)
async def upload_proxied(caller: Scope, tracking: Tracking, request: Request[Any, Any, Any]) -> Response[bytes]:
    owner, below = locate(changeable(_path_of(request)))
    await transfer.receive(request, lambda pieces: tracking.artifacts.put(caller, owner, below, pieces))
    return wire.reply()


@delete(_FILES, requires=Action.WRITE)
def delete_proxied(caller: Scope, tracking: Tracking, request: Request[Any, Any, Any]) -> Response[bytes]:
    owner, below = locate(changeable(_path_of(request)))
    tracking.artifacts.delete(caller, owner, below)
    return wire.reply()


@get(endpoint("/artifacts/list"), requires=Action.READ)
def list_of_run(caller: Scope, tracking: Tracking, request: Request[Any, Any, Any]) -> Response[bytes]:
    return wire.reply(listing(caller, tracking, wire.decode_query(request, Listed)))


def listing(caller: Scope, tracking: Tracking, asked: Listed) -> dict[str, Any]:
    """What is in a directory of a run, as MLflow writes it."""
    path = safe(asked.path)
    uri = tracking.runs.get(caller, asked.run_id).artifact_uri
    below_uri(uri)
    found = tracking.artifacts.list(caller, Owner("run", asked.run_id), path)
    return _content([_view(one, one.path) for one in found], root_uri=uri)


@get("/get-artifact", requires=Action.READ)
def get_of_run(caller: Scope, tracking: Tracking, request: Request[Any, Any, Any]) -> Stream:
    query = request.query_params
    run_id, path = query.get("run_id") or query.get("run_uuid") or "", query.get("path") or ""
    if not run_id or not path:
        raise wire.missing("path" if run_id else "run_id")
    path = safe(path)
    tracking.runs.get(caller, run_id)
    return transfer.attachment(*tracking.artifacts.open(caller, Owner("run", run_id), path))


@post(endpoint("/upload-artifact"), requires=Action.WRITE)
def upload_to_run(caller: Scope, tracking: Tracking, request: Request[Any, Any, Any], body: bytes) -> Response[bytes]:
    run_id, path = request.query_params.get("run_uuid"), request.query_params.get("path")
    if not run_id:
        raise InvalidInput("Request must specify run_uuid.")
    if not path:
        raise InvalidInput("Request must specify path.")
    path = safe(path)
    if len(body) > UPLOAD_BYTES_MAX:
        raise InvalidInput("Artifact size is too large. Max size is 10MB.")
    if not body:
        raise InvalidInput("Request must specify data.")
    tracking.artifacts.put(caller, Owner("run", run_id), path, [body])
    return wire.reply()


@get(endpoint("/logged-models/{model_id:str}/artifacts/directories"), requires=Action.READ)
def list_of_model(caller: Scope, tracking: Tracking, model_id: str, request: Request[Any, Any, Any]) -> Response[bytes]:
    path = safe(request.query_params.get("artifact_directory_path", ""))
    uri = tracking.models.get(caller, model_id).artifact_location
    below_uri(uri)
    found = tracking.artifacts.list(caller, Owner("model", model_id), path)
    return _files([_view(one, one.path) for one in found], root_uri=uri)


@get(endpoint("/logged-models/{model_id:str}/artifacts/files"), requires=Action.READ)
def get_of_model(caller: Scope, tracking: Tracking, model_id: str, request: Request[Any, Any, Any]) -> Stream:
    path = request.query_params.get("artifact_file_path")
    if not path:
        raise InvalidInput('Request must include the "artifact_file_path" query parameter.')
    tracking.models.get(caller, model_id)
    return transfer.attachment(*tracking.artifacts.open(caller, Owner("model", model_id), safe(path)))


@get(_PRESIGNED, requires=Action.READ)
def refuse_presigned_download() -> Response[bytes]:
    """Clients then download from here."""
    raise _not_offered("presigned downloads")


@post(endpoint("/artifacts/presigned-upload-url"), requires=Action.WRITE)
def refuse_presigned_upload() -> Response[bytes]:
    """Clients then upload to here."""
    raise _not_offered("presigned uploads")


def _not_offered(what: str) -> NotFound:
    return NotFound(
        f"The artifact store of this server does not offer {what}; artifacts stream through the server.",
        code="endpoint.not_implemented",
    )


def _path_of(request: Request[Any, Any, Any]) -> str:
    # From the path as the server decoded it, once. Decoding again is how guards like `safe` were bypassed elsewhere.
    return str(request.scope["path"]).partition("/mlflow-artifacts/artifacts/")[2]


def changeable(path: str) -> str:
    """The path, if files may be put there: the files of model versions never change. Raises Forbidden."""
    kept = safe(path)
    if kept.partition("/")[0] == VERSION_ROOT:
        raise Forbidden(
            "the files of a model version never change",
            code="version.immutable",
            hint="log a new model, and register it as a new version",
        )
    return kept


def safe(path: str) -> str:
    """A path that stays where it is; empty for the root. Raises InvalidInput."""
    path = path.rstrip("/")
    if "\ufffd" in path:
        # What the server makes of bytes that are no UTF-8: two such paths would be one.
        raise InvalidInput("the path is not UTF-8", code="path.unsafe")
    return str(safe_relative(path)) if path and path != "." else ""


def _files(files: list[dict[str, Any]], **more: str) -> Response[bytes]:
    return wire.reply(_content(files, **more))


def _content(files: list[dict[str, Any]], **more: str) -> dict[str, Any]:
    return {**more, **({"files": files} if files else {})}


def _view(artifact: Artifact, path: str) -> dict[str, Any]:
    seen: dict[str, Any] = {"path": path, "is_dir": artifact.is_dir}
    if not artifact.is_dir:
        seen["file_size"] = artifact.size_bytes
    return seen


HANDLERS = [
    list_proxied,
    download_proxied,
    upload_proxied,
    delete_proxied,
    list_of_run,
    get_of_run,
    upload_to_run,
    list_of_model,
    get_of_model,
    refuse_presigned_download,
    refuse_presigned_upload,
]
