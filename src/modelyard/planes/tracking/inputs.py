"""Which of the platform's own data an input of a run names: a dataset version, and the columns of it that were read."""

from __future__ import annotations

import msgspec

from modelyard.kernel.lineage import ALL_COLUMNS
from modelyard.types.tracking import Dataset

_URN_CHARACTERS_MAX = 512
_COLUMNS_MAX = 1_000


class _Column(msgspec.Struct):
    name: str = ""


class _Schema(msgspec.Struct):
    """A schema as MLflow's clients write it, as far as it names columns."""

    mlflow_colspec: list[_Column] = []


class _Source(msgspec.Struct):
    uri: str = ""
    url: str = ""
    path: str = ""


def urns_of(dataset: Dataset) -> list[str]:
    """The URN of one of our own dataset versions that an input names as its source, and one for each of its columns
    that its schema names, or for all where it names none; empty for other sources."""
    version = _version_of(dataset.source)
    if not version:
        return []
    columns = _columns(dataset.schema, _URN_CHARACTERS_MAX - len(version))
    return [version, *(f"{version}#{column}" for column in columns or [ALL_COLUMNS])]


def _version_of(source: str) -> str:
    if source.startswith("{"):
        try:
            found = msgspec.json.decode(source, type=_Source, strict=False)
        except (msgspec.ValidationError, msgspec.DecodeError):
            return ""
        source = found.uri or found.url or found.path
    shaped = source.startswith("dataset:") and "@" in source and "#" not in source
    return source if shaped and len(source) <= _URN_CHARACTERS_MAX else ""


def _columns(schema: str | None, room: int) -> list[str]:
    if not schema:
        return []
    try:
        named = msgspec.json.decode(schema, type=_Schema).mlflow_colspec
    except (msgspec.ValidationError, msgspec.DecodeError):
        return []
    found = dict.fromkeys(one.name for one in named if 0 < len(one.name) < room)
    return list(found) if len(found) <= _COLUMNS_MAX else []
