"""Where MLflow keeps files: what an artifact URI means on the disk of whoever reads the database or the folder."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from modelyard.kernel.paths import safe_join
from modelyard.sdk.imports.files import files_below, local_path, pieces_of
from modelyard.sdk.imports.source import Owner, SourceFile, Unreachable

_MODEL = re.compile(r"(?:^models:/|/models/)(m-[0-9a-f]{32})(?:/artifacts)?(?:/(.*))?$")
_RUN = re.compile(r"(?:^runs:/([0-9a-f]{32})|/([0-9a-f]{32})/artifacts)(?:/(.*))?$")


def owner_of(uri: str) -> tuple[Owner, str] | None:
    """The logged model or run whose files a version's source or location names, and the path below it."""
    found = _MODEL.search(uri)
    if found:
        return Owner("model", found[1]), (found[2] or "").strip("/")
    found = _RUN.search(uri)
    return (Owner("run", found[1] or found[2]), (found[3] or "").strip("/")) if found else None


class Places:
    """Folders of artifact URIs. `artifacts`: where the server's proxied artifacts (`mlflow-artifacts:`) lie;
    `relative_to`: what relative paths start from."""

    def __init__(self, artifacts: Path | None, relative_to: Path) -> None:
        self._artifacts = artifacts
        self._relative_to = relative_to

    def folder(self, uri: str) -> Path:
        """The folder of a URI. Raises Unreachable for what is not on this disk."""
        parts = urlsplit(uri)
        if parts.scheme == "mlflow-artifacts":
            if self._artifacts is None:
                raise Unreachable(
                    f"{uri} lies in the artifact store of a server; say where that is with --artifacts FOLDER"
                )
            below = unquote(parts.path).strip("/")
            return safe_join(self._artifacts, below) if below else self._artifacts
        path = local_path(uri)
        if path is None:
            raise Unreachable(f"{uri} is in a store that an import does not read; import from the server instead")
        return path if path.is_absolute() else self._relative_to / path

    def files(self, uri: str) -> Sequence[SourceFile]:
        """All files below a URI. Raises Unreachable."""
        return files_below(self.folder(uri))

    def open(self, uri: str, path: str) -> AbstractContextManager[Iterator[bytes]]:
        """One of them. Raises Unreachable."""
        return pieces_of(self.folder(uri) / path)
