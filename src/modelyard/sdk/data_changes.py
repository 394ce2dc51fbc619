"""What a dataset handle does besides reading and writing: branches, small appends, upkeep, frames of other engines."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from modelyard.kernel.errors import InvalidInput
from modelyard.sdk.arrow_wire import ARROW_STREAM, ipc_stream
from modelyard.sdk.handle import Handle
from modelyard.types.data import Retention, WriteResult
from modelyard.types.data_branches import (
    Branch,
    BranchMerge,
    Buffered,
    BufferState,
    Compact,
    Compaction,
    CreateBranch,
    DatasetFiles,
    DeleteRows,
    MergeBranch,
    Register,
    RevertTo,
    Vacuum,
    VacuumReport,
)

if TYPE_CHECKING:
    import duckdb
    import polars as pl
    import pyarrow as pa

Ref = int | str | None


class _Readable(Handle, ABC):
    """A dataset by its name, and its rows."""

    @abstractmethod
    def read(self, columns: Sequence[str] | None = None, filter: str | None = None, version: Ref = None) -> pa.Table:
        """See `DatasetHandle.read`."""
        ...


class Branching(_Readable):
    """Branches, and going back."""

    def branch(self, branch: str, at: Ref = None) -> Branch:
        """Make a branch that names a version, by default the newest. It copies nothing."""
        made: Branch = self._client.put(self._branch_path(branch), CreateBranch(at=at), Branch)
        return made

    def branches(self) -> list[Branch]:
        """The branches besides `main`."""
        return self._client.get(f"{self._path}/branches", list[Branch])

    def delete_branch(self, branch: str) -> None:
        """Remove a branch; its versions stay readable by number until a vacuum."""
        self._client.delete(self._branch_path(branch))

    def merge(self, branch: str, into: str = "main") -> BranchMerge:
        """Let `into` name what `branch` names. Raises Conflict (`dataset.merge_conflict`) where both moved."""
        return self._client.patient.post(f"{self._branch_path(branch)}/merge", MergeBranch(into=into), BranchMerge)

    def revert(self, to: int | str, branch: str = "main") -> WriteResult:
        """Make a version with the rows of an older one."""
        return self._client.patient.post(f"{self._path}/revert", RevertTo(to=to, branch=branch), WriteResult)

    def _branch_path(self, branch: str) -> str:
        return f"{self._path}/branches/{quote(branch, safe='')}"


class Upkeeping(_Readable):
    """Rows that go, small appends, files that lie better, tables of others."""

    def delete_rows(self, where: str, *, branch: str = "main", source: str = "", key: str | None = None) -> WriteResult:
        """Make a version without the rows that meet an SQL condition; `unchanged` where none does."""
        body = DeleteRows(where=where, branch=branch, source=source, key=key)
        return self._client.patient.post(f"{self._path}/delete-rows", body, WriteResult)

    def append_buffered(self, data: Any, *, source: str = "", create: bool = True) -> Buffered:
        """Append few rows cheaply: durable when this returns, and in a version after the next flush.

        A flush comes by itself when enough has gathered or waited, or with `flush`. The checks run then.
        """
        params = {"source": source or None, "create": create or None}
        body = b"".join(ipc_stream(data))
        sent: Buffered = self._client.send_bytes(
            "POST", f"{self._path}/buffer", body, media_type=ARROW_STREAM, type=Buffered, params=params
        )
        return sent

    def buffer(self) -> BufferState:
        """What waits for the next flush."""
        return self._client.get(f"{self._path}/buffer", BufferState)

    def flush(self) -> list[WriteResult]:
        """Make what waits a version. The results say which appends went to quarantine."""
        return self._client.patient.post(f"{self._path}/flush", None, list[WriteResult])

    def compact(self, branch: str = "main") -> Compaction:
        """Let the newest version lie in fewer files. It stays the same version."""
        return self._client.patient.post(f"{self._path}/compact", Compact(branch=branch), Compaction)

    def vacuum(
        self, *, retention: Retention | None = None, grace_s: float = 3600.0, dry_run: bool = False
    ) -> VacuumReport:
        """Give up versions that the retention does not keep and nothing points at, and files that none names."""
        body = Vacuum(retention=retention, grace_s=grace_s, dry_run=dry_run)
        return self._client.patient.post(f"{self._path}/vacuum", body, VacuumReport)

    def register(self, path: str | os.PathLike[str], description: str = "") -> WriteResult:
        """Make the dataset one that reads a folder on the server's machine where it lies: a Delta table, or Parquet."""
        body = Register(path=os.fspath(path), description=description)
        return self._client.patient.post(f"{self._path}/register", body, WriteResult)

    def sync(self) -> WriteResult:
        """Check what others wrote to the table since its newest version, and make it one."""
        return self._client.patient.post(f"{self._path}/sync", None, WriteResult)


class Frames(_Readable):
    """A version in other engines."""

    def files(self, version: Ref = None) -> DatasetFiles:
        """The Parquet files of a version, where this machine has them."""
        return self._client.get(f"{self._path}/parquet", DatasetFiles, {"ref": version})

    def to_polars(
        self, columns: Sequence[str] | None = None, filter: str | None = None, version: Ref = None
    ) -> pl.DataFrame:
        """Rows as a Polars frame. Raises InvalidInput where Polars is not installed."""
        try:
            import polars as pl  # heavy: imported late
        except ImportError as error:
            raise InvalidInput(
                "Polars is not installed", code="dataset.polars_missing", hint="pip install polars"
            ) from error
        made = pl.from_arrow(self.read(columns, filter, version))
        assert isinstance(made, pl.DataFrame)
        return made

    def to_duckdb(
        self, connection: duckdb.DuckDBPyConnection | None = None, version: Ref = None
    ) -> duckdb.DuckDBPyRelation:
        """A DuckDB relation over a version. Where this machine has the files, DuckDB reads them itself, and only the
        columns and row groups that a query needs; else the rows are fetched first."""
        import duckdb  # heavy: imported late

        held = self.files(version)
        to = connection or duckdb.connect()
        if not held.files or held.partitions or not all(os.access(file, os.R_OK) for file in held.files):
            return to.from_arrow(self.read(version=held.version))
        columns = ", ".join('"' + column.name.replace('"', '""') + '"' for column in held.columns)
        to.execute("SET TimeZone = 'UTC'")
        files = ", ".join("'" + str(file).replace("'", "''") + "'" for file in held.files)
        # A writer leaves NaN out of the bounds that it notes of a column: those say nothing of floats.
        options = f"union_by_name = {str(not held.uniform).lower()}, can_have_nan = true"
        return to.sql(f"SELECT {columns} FROM read_parquet([{files}], {options})")
