"""Where a version's files come from: the sources that MLflow's clients name, read without touching anything.

A source never becomes a path on this machine. Published attacks climbed out of the artifact root by `..`, by encoding
it once or twice, and by naming a file of the server as the source; all of these are refused here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote_plus, urlparse

from modelyard.kernel.errors import InvalidInput

SOURCE_CHARACTERS_MAX = 4_000
_DECODINGS_MAX = 16
_LOCAL_HOSTS = ("localhost", "127.0.0.1")
_LOGGED_MODEL = re.compile(r"m-[0-9a-zA-Z]+")

Kind = Literal["logged model", "version", "run", "artifacts", "elsewhere"]


@dataclass(frozen=True)
class Source:
    """A source as it was meant. `owner` is a logged model, a run, or a model's name; `path` is below the owner.

    `artifacts` is a location in the server's own artifact store, which tracking can tell the owner of; `elsewhere` is a
    store that this platform does not read.
    """

    kind: Kind
    uri: str
    owner: str = ""
    path: str = ""
    version: str = ""
    alias: str = ""


def parse_source(uri: str) -> Source:
    """What a source means. Raises InvalidInput for local files, climbing paths and what cannot be read."""
    if not uri:
        raise InvalidInput("Missing value for required parameter 'source'.", code="source.missing")
    if len(uri) > SOURCE_CHARACTERS_MAX:
        raise InvalidInput(f"the source is longer than {SOURCE_CHARACTERS_MAX} characters", code="source.invalid")
    check_not_local(uri)
    check_not_climbing(uri)
    parsed = urlparse(uri)
    path = parsed.path.strip("/")
    if parsed.scheme == "models":
        return _model_source(uri, path)
    if parsed.scheme == "runs":
        run, _, below = path.partition("/")
        return Source("run", uri, owner=run, path=below)
    if parsed.scheme == "mlflow-artifacts":
        return Source("artifacts", uri, path=path)
    return Source("elsewhere", uri)


def _model_source(uri: str, path: str) -> Source:
    name, _, below = path.partition("/")
    if _LOGGED_MODEL.fullmatch(name):
        return Source("logged model", uri, owner=name, path=below)
    if "@" in path and "/" not in path:
        model, _, alias = path.rpartition("@")
        return Source("version", uri, owner=model, alias=alias)
    if not name or not below or "/" in below:
        raise InvalidInput(
            f"Unable to fetch model from model URI source artifact location '{uri}'. Error: Not a proper models:/ URI",
            code="source.invalid",
            hint="write models:/m-<id>, models:/<name>/<version> or models:/<name>@<alias>",
        )
    return Source("version", uri, owner=name, version=below)


def check_not_local(uri: str) -> None:
    """Raise InvalidInput for a source on the server's own disk."""
    try:
        parsed = urlparse(uri)
        host = parsed.hostname or ""
    except ValueError as error:
        raise _refused(uri, "it is no URI") from error
    # One letter is no scheme but a drive of Windows.
    if len(parsed.scheme) <= 1 or parsed.scheme == "file":
        raise InvalidInput(
            f"Invalid model version source: '{uri}'. To use a local path as a model version source, the run_id "
            "request parameter has to be specified and the local path has to be contained within the artifact "
            "directory of the run specified by the run_id. This server keeps no artifacts under local paths.",
            code="source.local",
            hint="log the model to a run first, and register runs:/<run>/<path> or models:/m-<id>",
        )
    if host.startswith(_LOCAL_HOSTS) and parsed.scheme not in ("mlflow-artifacts", "http", "https"):
        raise _refused(uri, "it points to this machine")


def check_not_climbing(uri: str) -> None:
    """Raise InvalidInput for a source whose path, decoded however often, leaves where it starts."""
    text = uri
    for _ in range(_DECODINGS_MAX):
        plain = unquote_plus(text)
        if plain == text:
            break
        text = plain
    else:
        raise _refused(uri, "it is encoded too often")
    segments = re.split(r"[/\\]", text)
    try:
        path = urlparse(text).path
    except ValueError as error:
        raise _refused(uri, "it is no URI") from error
    controls = any(ord(character) < 32 or ord(character) == 127 for character in text)
    if controls or ".." in segments or "." in path.split("/"):
        raise _refused(
            uri,
            "If supplying a source as an http, https, local file path, ftp, objectstore, or mlflow-artifacts uri, "
            "an absolute path must be provided without relative path references present. "
            "Please provide an absolute path",
        )


def _refused(uri: str, why: str) -> InvalidInput:
    return InvalidInput(f"Invalid model version source: '{uri[:300]}'. {why}.", code="source.unsafe")
