"""Datasets in a program: `modelyard.dataset("flights").read()`."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import msgspec

from modelyard.kernel.errors import Conflict, InvalidInput, NotFound
from modelyard.sdk.client import Client, connect
from modelyard.sdk.quality import Quality
from modelyard.types.data import (
    Check,
    CheckReport,
    CreateDataset,
    Dataset,
    DatasetVersion,
    Quarantined,
    Rows,
    TagVersion,
    UpdateDataset,
    VersionDiff,
    WriteMode,
    WriteResult,
)
from modelyard.types.page import Page

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

ARROW_STREAM = "application/vnd.apache.arrow.stream"
Ref = int | str | None


class DatasetHandle(Quality):
    """A dataset by its name, which need not exist yet: the first write makes it."""

    def __init__(self, name: str, client: Client | None = None) -> None:
        self.name = name
        self._given = client

    def __repr__(self) -> str:
        return f"dataset({self.name!r})"

    @property
    def _client(self) -> Client:
        # Asked for at each call: a server may come up on the same home in the meantime.
        return self._given or connect()

    @property
    def _path(self) -> str:
        return f"/api/datasets/{quote(self.name, safe='')}"

    def create(self, *, description: str = "", key: Sequence[str] = (), checks: Sequence[Check] = ()) -> Dataset:
        """Make the dataset. Raises Conflict (`dataset.exists`)."""
        body = CreateDataset(name=self.name, description=description, key=list(key), checks=list(checks))
        return self._client.post("/api/datasets", body, Dataset)

    def get(self) -> Dataset:
        """What the platform knows of it. Raises NotFound."""
        return self._client.get(self._path, Dataset)

    def exists(self) -> bool:
        """Whether there is such a dataset."""
        try:
            self.get()
        except NotFound:
            return False
        return True

    def update(
        self,
        *,
        description: str | None = None,
        key: Sequence[str] | None = None,
        checks: Sequence[Check] | None = None,
    ) -> Dataset:
        """Change what is not None."""
        body = UpdateDataset(
            description=description,
            key=None if key is None else list(key),
            checks=None if checks is None else list(checks),
        )
        changed: Dataset = self._client.patch(self._path, body, Dataset)
        return changed

    def checks(self, checks: Sequence[Check]) -> Dataset:
        """Let these checks, and no others, guard every write from now on."""
        return self.update(checks=checks)

    def write(
        self,
        data: Any,
        *,
        mode: WriteMode = "append",
        checks: Sequence[Check] | None = None,
        key: str | None = None,
        source: str = "",
        evolve: bool = False,
        create: bool = True,
        breaking: bool = False,
        on_reject: Literal["raise", "return"] = "raise",
    ) -> WriteResult:
        """Write rows: they are checked, then published as the next version, or kept in quarantine.

        `data`: an Arrow table, reader or iterable of batches, a pandas or Polars frame. `key` makes a repeated write
        have the result of the first. A batch that its checks turn down raises Conflict (`dataset.quarantined`), so
        that it cannot be overlooked; with `on_reject="return"` the result says so. A schema that would break
        consumers is turned down with their names, unless `breaking`.
        """
        params = {
            "mode": mode,
            "key": key,
            "source": source or None,
            "evolve": evolve or None,
            "create": create or None,
            "breaking": breaking or None,
            "checks": None if checks is None else msgspec.json.encode(list(checks)).decode(),
        }
        written: WriteResult = self._client.send_bytes(
            "POST", f"{self._path}/data", ipc_stream(data), media_type=ARROW_STREAM, type=WriteResult, params=params
        )
        if written.status == "quarantined" and on_reject == "raise":
            raise rejected(self.name, written)
        return written

    def append(self, data: Any, **options: Any) -> WriteResult:
        """Write more rows. See `write`."""
        return self.write(data, mode="append", **options)

    def overwrite(self, data: Any, **options: Any) -> WriteResult:
        """Write rows that take the place of all before them; older versions stay readable. See `write`."""
        return self.write(data, mode="overwrite", **options)

    def read(self, columns: Sequence[str] | None = None, filter: str | None = None, version: Ref = None) -> pa.Table:
        """Rows as an Arrow table. `filter`: an SQL condition. `version`: a number, a tag, or None for the newest."""
        with self.reader(columns, filter, version) as reader:
            return reader.read_all()

    @contextmanager
    def reader(
        self, columns: Sequence[str] | None = None, filter: str | None = None, version: Ref = None
    ) -> Iterator[pa.RecordBatchReader]:
        """As `read`, but batch by batch, for more than fits in memory: `with dataset.reader() as batches: …`."""
        params = {"ref": version, "column": columns, "filter": filter}
        with arrow_reader(self._client, f"{self._path}/data", params) as reader:
            yield reader

    def to_pandas(
        self, columns: Sequence[str] | None = None, filter: str | None = None, version: Ref = None
    ) -> pd.DataFrame:
        """Rows as a pandas frame."""
        return self.read(columns, filter, version).to_pandas()

    def version(self, ref: Ref = None) -> DatasetVersion:
        """One version with its check report and profile."""
        shown = "latest" if ref is None else str(ref)
        return self._client.get(f"{self._path}/versions/{quote(shown, safe='')}", DatasetVersion)

    def versions(self, limit: int = 100) -> list[DatasetVersion]:
        """The newest versions, newest first."""
        return self._client.get(f"{self._path}/versions", Page[DatasetVersion], {"limit": limit}).items

    def rows(self, version: Ref = None, *, filter: str | None = None, limit: int = 100) -> Rows:
        """Some rows as plain values, for looking at."""
        return self._client.get(f"{self._path}/rows", Rows, {"ref": version, "filter": filter, "limit": limit})

    def diff(self, before: int | str, after: Ref = None, *, key: Sequence[str] | None = None) -> VersionDiff:
        """What differs between two versions. `key`: columns by which rows are matched; None takes the dataset's own."""
        params = {"before": before, "after": after, "key": None if key is None else list(key)}
        return self._client.get(f"{self._path}/diff", VersionDiff, params)

    def tag(self, tag: str, version: int) -> DatasetVersion:
        """Let a tag name a version; a tag that exists moves."""
        tagged: DatasetVersion = self._client.put(
            f"{self._path}/tags/{quote(tag, safe='')}", TagVersion(version=version), DatasetVersion
        )
        return tagged

    def untag(self, tag: str) -> None:
        """Remove a tag."""
        self._client.delete(f"{self._path}/tags/{quote(tag, safe='')}")

    def quarantine(self) -> list[Quarantined]:
        """Batches that were turned down, newest first."""
        return self._client.get(f"{self._path}/quarantine", Page[Quarantined]).items

    def quarantined(self, quarantine_id: str) -> Quarantined:
        """One such batch with its report."""
        return self._client.get(f"{self._path}/quarantine/{quote(quarantine_id, safe='')}", Quarantined)

    def quarantined_rows(self, quarantine_id: str, *, filter: str | None = None, limit: int = 100) -> Rows:
        """Rows of such a batch."""
        path = f"{self._path}/quarantine/{quote(quarantine_id, safe='')}/rows"
        return self._client.get(path, Rows, {"filter": filter, "limit": limit})

    def discard(self, quarantine_id: str) -> None:
        """Remove such a batch with its rows."""
        self._client.delete(f"{self._path}/quarantine/{quote(quarantine_id, safe='')}")


@contextmanager
def arrow_reader(client: Client, path: str, params: dict[str, Any] | None = None) -> Iterator[pa.RecordBatchReader]:
    """The Arrow stream that a path answers with, batch by batch."""
    import pyarrow as pa  # heavy: imported late

    with client.stream(path, params or {}) as chunks:
        yield pa.ipc.open_stream(pa.PythonFile(io.BufferedReader(_Reading(chunks)), mode="r"))


def dataset(name: str, client: Client | None = None) -> DatasetHandle:
    """A dataset by its name."""
    return DatasetHandle(name, client)


def send_file(
    client: Client,
    name: str,
    file: Path,
    *,
    media_type: str,
    mode: str = "append",
    checks: Sequence[Check] | None = None,
    key: str | None = None,
    source: str = "",
    evolve: bool = False,
    breaking: bool = False,
) -> WriteResult:
    """Write a Parquet, Arrow or CSV file as it is, streamed. The result says where it was turned down."""
    params = {
        "mode": mode,
        "key": key,
        "source": source or None,
        "evolve": evolve or None,
        "create": True,
        "breaking": breaking or None,
        "checks": None if checks is None else msgspec.json.encode(list(checks)).decode(),
    }
    path = f"/api/datasets/{quote(name, safe='')}/data"
    with file.open("rb") as content:
        chunks = iter(lambda: content.read(1024 * 1024), b"")
        sent: WriteResult = client.send_bytes(
            "POST", path, chunks, media_type=media_type, type=WriteResult, params=params
        )
    return sent


def save_parquet(handle: DatasetHandle, file: Path, columns: Sequence[str] | None, filter: str | None, ref: Ref) -> int:
    """Write rows of a version to a Parquet file, batch by batch. Returns how many."""
    import pyarrow.parquet as pq  # heavy: imported late

    rows = 0
    with handle.reader(columns, filter, ref) as reader, pq.ParquetWriter(file, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def list_datasets(client: Client | None = None, *, after: str | None = None, limit: int = 100) -> Page[Dataset]:
    """Datasets of the project by name."""
    return (client or connect()).get("/api/datasets", Page[Dataset], {"after": after, "limit": limit})


def rejected(name: str, written: WriteResult) -> Conflict:
    """The error that says why a batch was turned down."""
    return Conflict(
        f"the batch was not added to dataset '{name}': {reasons(written.report)}",
        code="dataset.quarantined",
        hint=f"look at it with `modelyard dataset quarantine get {name} {written.quarantine_id}`",
        details={"quarantine_id": written.quarantine_id},
    )


def reasons(report: CheckReport) -> str:
    """Why a report does not pass, in a line."""
    blocking = [one for one in report.failed if one.severity == "block"]
    more = f"; and {len(blocking) - 3} more" if len(blocking) > 3 else ""
    return "; ".join(f"{one.name}: {one.message}" for one in blocking[:3]) + more


def ipc_stream(data: Any) -> Iterator[bytes]:
    """Tabular data as the bytes of an Arrow stream, a piece for each batch. Raises InvalidInput."""
    import pyarrow as pa  # heavy: imported late

    if isinstance(data, pa.RecordBatch):
        data = pa.Table.from_batches([data])
    if isinstance(data, pa.Table):
        data = data.to_reader(max_chunksize=64 * 1024)
    elif type(data).__module__.partition(".")[0] == "pandas":
        # The index is a name for the row and not a column of the data.
        data = pa.Table.from_pandas(data, preserve_index=False).to_reader(max_chunksize=64 * 1024)
    elif hasattr(data, "__arrow_c_stream__"):
        data = pa.RecordBatchReader.from_stream(data)
    elif hasattr(data, "__iter__") and not isinstance(data, (str, bytes, dict)):
        data = _of_batches(iter(data))
    else:
        raise InvalidInput(
            f"{type(data).__name__} is not tabular data",
            code="dataset.not_tabular",
            hint="pass a pyarrow Table or batches, or a pandas or Polars frame",
        )
    return _pieces(data)


def _of_batches(batches: Iterator[Any]) -> pa.RecordBatchReader:
    import pyarrow as pa  # heavy: imported late

    first = next(batches, None)
    if not isinstance(first, pa.RecordBatch):
        found = "nothing" if first is None else type(first).__name__
        raise InvalidInput(
            f"an iterable of {found} is not tabular data",
            code="dataset.not_tabular",
            hint="yield at least one pyarrow record batch",
        )

    def all_of_them() -> Iterator[pa.RecordBatch]:
        yield first
        yield from batches

    return pa.RecordBatchReader.from_batches(first.schema, all_of_them())


def _pieces(reader: pa.RecordBatchReader) -> Iterator[bytes]:
    import pyarrow as pa  # heavy: imported late

    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)
            yield sink.getvalue()
            sink.seek(0)
            sink.truncate()
    yield sink.getvalue()


class _Reading(io.RawIOBase):
    """A file over pieces that arrive."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        while not self._held:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._held = memoryview(piece)
        taken = min(len(target), len(self._held))
        target[:taken] = self._held[:taken]
        self._held = self._held[taken:]
        return taken
