"""Datasets in a program: `modelyard.dataset("flights").read()`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, unquote

import msgspec

from modelyard.kernel.errors import Conflict, NotFound
from modelyard.sdk import reads
from modelyard.sdk.arrow_wire import ARROW_STREAM, ipc_stream, received
from modelyard.sdk.client import Client, connect
from modelyard.sdk.data_changes import Branching, Frames, Upkeeping
from modelyard.sdk.quality import Quality
from modelyard.types.data import (
    READ_HEADER,
    Check,
    CheckReport,
    CreateDataset,
    Dataset,
    DatasetVersion,
    Quarantined,
    ReadNote,
    Retention,
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

Ref = int | str | None


class DatasetHandle(Quality, Branching, Upkeeping, Frames):
    """A dataset by its name, which need not exist yet: the first write makes it."""

    _NOUN = "dataset"
    _AT = "/api/datasets"

    def create(
        self,
        *,
        description: str = "",
        key: Sequence[str] = (),
        checks: Sequence[Check] = (),
        partition_by: Sequence[str] = (),
    ) -> Dataset:
        """Make the dataset. `partition_by`: columns by whose values its files are split. Raises Conflict
        (`dataset.exists`)."""
        body = CreateDataset(
            name=self.name,
            description=description,
            key=list(key),
            checks=list(checks),
            partition_by=list(partition_by),
        )
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
        retention: Retention | None = None,
    ) -> Dataset:
        """Change what is not None."""
        body = UpdateDataset(
            description=description,
            key=None if key is None else list(key),
            checks=None if checks is None else list(checks),
            retention=retention,
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
        replace_schema: bool = False,
        create: bool = True,
        breaking: bool = False,
        branch: str | None = None,
        where: str | None = None,
        on: Sequence[str] = (),
        on_reject: Literal["raise", "return"] = "raise",
    ) -> WriteResult:
        """Write rows: they are checked, then published as the next version, or kept in quarantine.

        `data`: an Arrow table, reader or iterable of batches, a pandas or Polars frame. `key` makes a repeated write
        have the result of the first. `branch`: where to write, by default `main`. With `where` an overwrite replaces
        the rows that meet that SQL condition; a merge replaces those that have a key of the rows, which is `on` or the
        dataset's. `evolve` lets a write add columns, and an overwrite of all rows widen them; `replace_schema` lets
        that bring any other schema. A batch that its checks turn down raises Conflict (`dataset.quarantined`), so that
        it cannot be overlooked; with `on_reject="return"` the result says so. A schema that would break consumers is
        turned down with their names, unless `breaking`.
        """
        params = {
            "mode": mode,
            "key": key,
            "source": source or None,
            "evolve": evolve or None,
            "replace_schema": replace_schema or None,
            "create": create or None,
            "breaking": breaking or None,
            "checks": None if checks is None else msgspec.json.encode(list(checks)).decode(),
            "branch": branch,
            "where": where,
            "on": list(on) or None,
        }
        written: WriteResult = self._client.patient.send_bytes(
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

    def merge_rows(self, data: Any, **options: Any) -> WriteResult:
        """Replace the rows that have a key of these, add the others. See `write`."""
        return self.write(data, mode="merge", **options)

    def read(self, columns: Sequence[str] | None = None, filter: str | None = None, version: Ref = None) -> pa.Table:
        """Rows as an Arrow table. `filter`: an SQL condition. `version`: a number, a tag, a branch, an instant
        such as `2013-04-01T00:00Z`, or None for the newest. A run that goes on in this thread has it on record."""
        with self.reader(columns, filter, version) as reader:
            return reader.read_all()

    @contextmanager
    def reader(
        self, columns: Sequence[str] | None = None, filter: str | None = None, version: Ref = None
    ) -> Iterator[pa.RecordBatchReader]:
        """As `read`, but batch by batch, for more than fits in memory: `with dataset.reader() as batches: …`."""
        params = {"ref": version, "column": columns, "filter": filter}
        path, listener = f"{self._path}/data", reads.listener()
        if listener is None:
            with arrow_reader(self._client, path, params) as reader:
                yield reader
            return

        def told(headers: Mapping[str, str]) -> None:
            note = msgspec.json.decode(unquote(headers[READ_HEADER]), type=ReadNote)
            listener(self.name, note.version, note.columns)

        with arrow_reader(self._client, path, {**params, "noted": True}, told) as reader:
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
        return self._client.patient.get(f"{self._path}/diff", VersionDiff, params)

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
def arrow_reader(
    client: Client,
    path: str,
    params: dict[str, Any] | None = None,
    told: Callable[[Mapping[str, str]], None] | None = None,
) -> Iterator[pa.RecordBatchReader]:
    """The Arrow stream that a path answers with, batch by batch."""
    with client.stream(path, params or {}, told) as chunks:
        yield received(chunks)


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
    replace_schema: bool = False,
    breaking: bool = False,
) -> WriteResult:
    """Write a file of Parquet, Arrow, CSV, TSV or JSON lines, streamed. The result says where it was turned down."""
    params = {
        "mode": mode,
        "key": key,
        "source": source or None,
        "evolve": evolve or None,
        "replace_schema": replace_schema or None,
        "create": True,
        "breaking": breaking or None,
        "checks": None if checks is None else msgspec.json.encode(list(checks)).decode(),
    }
    path = f"/api/datasets/{quote(name, safe='')}/data"
    with file.open("rb") as content:
        chunks = iter(lambda: content.read(1024 * 1024), b"")
        sent: WriteResult = client.patient.send_bytes(
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
