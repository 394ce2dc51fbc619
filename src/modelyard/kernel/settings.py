"""Settings: one frozen object. Flag > environment `MODELYARD_…` > `modelyard.toml` > default."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec

from modelyard.kernel.errors import InvalidInput

ENV_PREFIX = "MODELYARD_"
FILE_NAME = "modelyard.toml"
DEFAULT_PROJECT = "default"
"""The project of a request that names none."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All that can be set. Field docs are in `DOCS`, which a test keeps complete."""

    home: Path = Path("~/.modelyard")
    url: str = ""
    token: str = ""
    project: str = DEFAULT_PROJECT
    host: str = "127.0.0.1"
    port: int = 5800
    public_url: str = ""
    database_url: str = ""
    allowed_hosts: str = ""
    anonymous_role: str = ""
    outbound_allow: str = ""
    mlflow_pages: str = ""
    artifact_folder: str = ""
    secret_key: str = ""
    cpus: float = 0.0
    memory_bytes: int = 0
    reconcile_interval_s: float = 0.5

    @property
    def catalog_url(self) -> str:
        """The SQLAlchemy URL of the catalog: `database_url`, or SQLite in the home directory."""
        return self.database_url or f"sqlite:///{self.home / 'catalog.db'}"


DOCS: dict[str, str] = {
    "home": "Directory of the embedded catalog, blobs, tables and job folders.",
    "url": "URL of a running server. Empty: the SDK and CLI work in process over `home`.",
    "token": "Bearer token for the server at `url`.",
    "project": "Project that commands act in.",
    "host": "Address that `modelyard up` binds. Other than loopback needs a token.",
    "port": "Port that `modelyard up` binds; 0 takes a free one.",
    "public_url": "URL under which others reach this server, where it differs from http://host:port.",
    "database_url": "SQLAlchemy URL of a PostgreSQL catalog. Empty: SQLite in `home`.",
    "allowed_hosts": "Comma-separated further Host header values that the server answers to.",
    "anonymous_role": "Role of requests without a token, on loopback only. Empty: they are refused.",
    "outbound_allow": "Comma-separated host:port that the server may call although they are private addresses.",
    "mlflow_pages": "Folder of MLflow's built web pages (mlflow/server/js/build). Empty: those of an installed mlflow.",
    "artifact_folder": "Folder that shows the artifacts of runs and logged models by name, as plain files for other "
    "programs: those of the project `default`, or with `/{project}` at its end those of each. Empty: none.",
    "secret_key": "Keys in base64 (32 bytes each, with commas, the newest first) that seal secrets in the catalog. "
    "Empty: those of the file `secrets.key` in `home`, which is made.",
    "cpus": "CPUs that jobs on this machine may use together. 0: all of them.",
    "memory_bytes": "Memory in bytes that jobs on this machine may use together. 0: 80 % of the machine's.",
    "reconcile_interval_s": "Seconds between two looks of the reconcile loop when nothing wakes it.",
}
SECRETS = frozenset({"token", "database_url", "secret_key"})


class Origin(msgspec.Struct, frozen=True):
    """Where the value of one setting came from."""

    name: str
    value: str
    origin: str
    doc: str


def load(
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Settings:
    """The settings in force. Raises InvalidInput for an unknown key (naming the nearest) or a mistyped value."""
    return load_with_origin(flags, environ, directory)[0]


def load_with_origin(
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> tuple[Settings, list[Origin]]:
    """The settings in force and, for each, where its value came from; secrets are masked in the list."""
    environ = os.environ if environ is None else environ
    file = (directory or Path.cwd()) / FILE_NAME
    layers: list[tuple[str, Mapping[str, Any]]] = [
        (str(file), _read_file(file)),
        ("environment", _read_environment(environ)),
        ("flag", {key: value for key, value in (flags or {}).items() if value is not None}),
    ]
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, layer in layers:
        for key, value in layer.items():
            values[key] = _convert(key, value, origin)
            origins[key] = f"{ENV_PREFIX}{key.upper()}" if origin == "environment" else origin
    values["home"] = Path(values.get("home", "~/.modelyard")).expanduser().absolute()
    settings = Settings(**values)
    shown = [
        Origin(name, _shown(name, getattr(settings, name)), origins.get(name, "default"), DOCS[name])
        for name in Settings.__struct_fields__
    ]
    return settings, shown


def process_environment() -> Mapping[str, str]:
    """The environment that this process was given, for engines that start others."""
    return dict(os.environ)


def _read_file(file: Path) -> Mapping[str, Any]:
    if not file.is_file():
        return {}
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file} is not valid TOML: {error}", code="settings.file_invalid") from error


def _read_environment(environ: Mapping[str, str]) -> Mapping[str, str]:
    return {
        key[len(ENV_PREFIX) :].lower(): value
        for key, value in environ.items()
        if key.startswith(ENV_PREFIX) and value != ""
    }


def _convert(key: str, value: Any, origin: str) -> Any:
    kinds = get_type_hints(Settings)
    if key not in kinds:
        nearest = difflib.get_close_matches(key, kinds, n=1)
        raise InvalidInput(
            f"unknown setting '{key}' from {origin}",
            code="settings.unknown",
            hint=f"did you mean '{nearest[0]}'?" if nearest else "see `modelyard config show` for all settings",
        )
    kind = kinds[key]
    try:
        return Path(value) if kind is Path else msgspec.convert(value, kind, strict=False)
    except (msgspec.ValidationError, TypeError) as error:
        name = getattr(kind, "__name__", str(get_args(kind)))
        raise InvalidInput(
            f"setting '{key}' from {origin} must be {name}, not {value!r}", code="settings.mistyped"
        ) from error


def _shown(name: str, value: Any) -> str:
    return "********" if name in SECRETS and value else str(value)
