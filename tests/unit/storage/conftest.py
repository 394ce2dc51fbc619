"""Storage over real planes and a real store, whose times are those of the test's clock."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import pytest

from modelyard.engines.blobs.base import Blob
from modelyard.engines.blobs.local import LocalBlobs
from modelyard.engines.tables.delta import DeltaTables
from modelyard.kernel import frames
from modelyard.kernel.auth import Scope
from modelyard.kernel.clock import FixedClock
from modelyard.kernel.database import Database
from modelyard.planes.data import Data, Files
from modelyard.planes.registry import Registry
from modelyard.planes.storage import Storage
from modelyard.planes.tracking import Owner, Tracking
from modelyard.types.files import CommitFiles, FileEntry
from modelyard.types.storage import Collect, Collection
from modelyard.types.tracking import CreateRun

DAY = 86_400


class Timed(LocalBlobs):
    """The store of the disk, but that files have the time of the test's clock at which they were written."""

    def __init__(self, root: Path, clock: FixedClock) -> None:
        super().__init__(root)
        self._clock = clock
        self._times: dict[int, float] = {}

    def _receive(
        self, file: Path, source: BinaryIO | Iterable[bytes], size_bytes_max: int | None, durable: bool
    ) -> Blob:
        blob = super()._receive(file, source, size_bytes_max, durable)
        self._times[file.stat().st_ino] = self._clock.now().timestamp()
        return blob

    def _written_s(self, status: os.stat_result) -> float:
        return self._times[status.st_ino]

    def clear(self, older_than: datetime) -> int:
        # A file that is being written has no time of the test's clock yet; the engine's own suite looks at this.
        return 0


@dataclass
class Yard:
    """The planes that name blobs, and the storage over them."""

    database: Database
    clock: FixedClock
    scope: Scope
    home: Path
    blobs: Timed = field(init=False)

    def __post_init__(self) -> None:
        self.blobs = Timed(self.home / "blobs", self.clock)
        tables = DeltaTables(self.home / "tables")
        self.data = Data(self.database, tables, spill=self.home / "spill", blobs=self.blobs)
        self.files = Files(self.database, self.blobs)
        self.tracking = Tracking(self.database, self.blobs)
        self.registry = Registry(self.database, self.blobs, self.tracking, self.data)
        self.keepers = [self.tracking.kept_blobs, self.files.kept_blobs, self.registry.kept_blobs]
        self.storage = Storage(self.database, self.blobs, self.keepers, spill=self.home / "spill", project="default")

    def collect(self, *, dry_run: bool = False) -> Collection:
        return self.storage.collect(self.scope, Collect(dry_run=dry_run))

    def run(self) -> str:
        return self.tracking.runs.create(self.scope, CreateRun(experiment_id="0")).id

    def put(self, run: str, path: str, content: bytes) -> str:
        made = self.tracking.artifacts.put(self.scope, Owner("run", run), path, io.BytesIO(content))
        assert made.digest is not None
        return made.digest

    def dataset(self, name: str) -> None:
        self.data.create(self.scope, name, kind="files")

    def send(self, name: str, content: bytes) -> FileEntry:
        digest = hashlib.sha256(content).hexdigest()
        if self.files.missing(self.scope, name, [digest]):
            self.files.receive(self.scope, name, io.BytesIO(frames.head(digest, len(content)) + content))
        return FileEntry(path=f"{content[:8].hex()}.bin", digest=digest, size_bytes=len(content))

    def commit(self, name: str, *put: FileEntry) -> int:
        made = self.files.commit(self.scope, name, CommitFiles(put=list(put), replace_below=""))
        return made.version.version


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(datetime.fromisoformat("2026-01-01T12:00:00+00:00"))


@pytest.fixture
def yard(database: Database, clock: FixedClock, scope: Scope, tmp_path: Path) -> Yard:
    return Yard(database, clock, scope, tmp_path)
