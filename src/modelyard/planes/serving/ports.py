"""What serving needs of the registry, by its methods: versions by reference, and their files."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from modelyard.kernel.auth import Scope
from modelyard.types.registry import ModelVersion


class Versions(Protocol):
    """Model versions."""

    def resolve(self, scope: Scope, name: str, reference: str | int) -> ModelVersion:
        """The version that a number or an alias names. Raises NotFound."""
        ...

    def materialize(self, scope: Scope, name: str, version: int, into: Path) -> ModelVersion:
        """Write all files of a version below an empty directory, each checked against its digest."""
        ...
