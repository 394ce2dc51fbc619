"""SQL over tables, in a DuckDB that can reach nothing but them.

Texts come from users: external access is off, the configuration is locked, only the named files can be read, memory
and time are bounded, and a statement must be one SELECT.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from modelyard.engines.tables.arrow import partition_arrays
from modelyard.engines.tables.base import FILE_COLUMN, FileSet
from modelyard.engines.tables.databases import lent
from modelyard.engines.tables.foreign import ForeignRows
from modelyard.engines.tables.places import damaged, speaks_of_files, without_places
from modelyard.kernel.errors import EngineError, InvalidInput, LimitExceeded
from modelyard.kernel.ids import new_id

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

T = TypeVar("T")
GIB = 1024**3
_BATCH_ROWS = 64 * 1024
# DuckDB says some damage to a file as it says what a statement got wrong.
_DAMAGE = re.compile(r"No magic bytes found|too small to be a Parquet file|Footer length error|Failed to read file")


@dataclass(frozen=True, slots=True)
class SqlLimits:
    """What one session of SQL may take of the machine."""

    memory_bytes: int = 2 * GIB
    spill_bytes: int = 32 * GIB
    threads: int = 2
    timeout_s: float = 300.0


Later = Callable[[], FileSet]
"""A table that is costly to name, as one of ten thousand files is: asked for when a statement speaks of it."""


@dataclass(frozen=True, slots=True)
class _Opened:
    """A database that can read some tables. What is registered of them is known to one connection only; views and
    settings are known to all. `held`: the tables of the sandbox that are in memory."""

    connection: duckdb.DuckDBPyConnection
    in_memory: Mapping[str, pa.Table]
    held: Mapping[str, ForeignRows]
    file_sets: Sequence[FileSet] = ()

    def beside(self) -> duckdb.DuckDBPyConnection:
        """One more connection to the same tables."""
        connection = self.connection.cursor()
        for name, table in self.in_memory.items():
            connection.register(name, table)
        return connection


class _Shared:
    """What the sessions of one sandbox share. `later` names the tables that `reopen` adds, by another database, since
    what one can read is fixed when it opens."""

    def __init__(self, opened: _Opened, limits: SqlLimits, later: Sequence[str], reopen: Callable[[], _Opened]) -> None:
        self.opened = opened
        self.limits = limits
        self._later = [name.casefold() for name in later]
        self._reopen = reopen
        self._lock = threading.Lock()

    def prepare(self, texts: Sequence[str | None]) -> None:
        """Open what the texts may speak of."""
        if not any(name in text.casefold() for text in texts if text for name in self._later):
            return
        with self._lock:
            if self._later:
                self.opened, self._later = self._reopen(), []


class SqlSession:
    """An open sandbox. One statement at a time; `each` opens more over the same tables."""

    def __init__(self, shared: _Shared, *, beside: bool = False) -> None:
        self._shared = shared
        self._beside = beside
        self._opened = shared.opened
        self._connection = self._opened.beside() if beside else self._opened.connection

    def each(self, tasks: Sequence[Callable[[SqlSession], T]]) -> list[T]:
        """What each task returns, in their order. As many run at once as there are threads, each with a session of its
        own; when one raises, that is raised once those that run are done."""
        lanes = min(self._shared.limits.threads, len(tasks))
        if lanes < 2:
            return [task(self) for task in tasks]
        free: SimpleQueue[SqlSession] = SimpleQueue()
        beside = [SqlSession(self._shared, beside=True) for _ in range(lanes - 1)]
        for session in (self, *beside):
            free.put(session)

        def run(task: Callable[[SqlSession], T]) -> T:
            session = free.get()
            try:
                return task(session)
            finally:
                free.put(session)

        try:
            with ThreadPoolExecutor(lanes, thread_name_prefix="sql") as pool:
                return list(pool.map(run, tasks))
        finally:
            for session in beside:
                session._connection.close()

    def _prepare(self, *texts: str | None) -> None:
        """Open what the texts may speak of."""
        self._shared.prepare(texts)
        opened = self._shared.opened
        if self._opened is opened:
            return
        if self._beside:
            self._connection.close()
        self._opened, self._connection = opened, opened.beside() if self._beside else opened.connection

    def table(self, statement: str) -> pa.Table:
        """Run one SELECT and return all its rows. Raises InvalidInput, LimitExceeded."""
        self._prepare(statement)
        with self._bounded():
            return self._connection.sql(self._only(statement)).to_arrow_table()

    def rows(self, statement: str) -> list[dict[str, Any]]:
        """Run one SELECT and return its rows as dictionaries; for few rows."""
        return as_dictionaries(self.table(statement))

    def answers(self, statement: str) -> list[dict[str, Any]]:
        """As `rows`, for a statement that is costly to plan beside what it returns: it is planned once, not twice.
        Integers of any size are integers here."""
        self._prepare(statement)
        with self._bounded():
            ran = self._connection.execute(self._only(statement))
            names = [column[0] for column in ran.description]
            return [dict(zip(names, row, strict=True)) for row in ran.fetchall()]

    def one(self, statement: str) -> dict[str, Any]:
        """The only row of one SELECT."""
        return self.rows(statement)[0]

    def stream(
        self, table: str, columns: Sequence[str] | None, condition: str | None, schema: pa.Schema
    ) -> Iterator[pa.RecordBatch]:
        """Rows of a table that meet a condition (an expression, not a statement), in batches of bounded size.

        The time limit holds for each batch, since how long a reader takes between two is not the query's doing.
        """
        self._prepare(table, condition)
        with self._bounded():
            relation = self._connection.table(table)
            if condition is not None:
                relation = relation.filter(condition)
            relation = relation.project(", ".join(quoted(name) for name in columns or schema.names))
            reader = relation.to_arrow_reader(_BATCH_ROWS)
        yield from self._read(reader, schema)

    def batches(self, statement: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """As `stream`, of any SELECT whose columns fit the schema."""
        self._prepare(statement)
        with self._bounded():
            reader = self._connection.sql(self._only(statement)).to_arrow_reader(_BATCH_ROWS)
        yield from self._read(reader, schema)

    def _read(self, reader: pa.RecordBatchReader, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        while True:
            with self._bounded():
                batch = next(reader, None)
            if batch is None:
                return
            yield batch.cast(schema) if batch.schema != schema else batch

    @contextmanager
    def value_counts(self, table: str, column: str) -> Iterator[str | None]:
        """The name of a table of the different values `__v` of a text column, each with its count `__n`, while this is
        open. None for one that is not held in memory as it is, of which SQL must find them."""
        import pyarrow as pa  # heavy: imported late
        import pyarrow.compute as pc  # heavy: imported late

        values = self._column(table, column)
        if values is None or not _is_text(values.type):
            yield None
            return
        try:
            counted = pc.value_counts(values)
        except pa.ArrowException:
            # More bytes of different texts than one array holds: they repeat themselves less than was thought.
            yield None
            return
        with self._added(f"values of {column} of {table}", pa.table([*counted.flatten()], ["__v", "__n"])) as name:
            yield name

    def median(self, table: str, column: str) -> tuple[float | None, int] | None:
        """The median of a column of numbers and how many these are, NaN being none. None for a column that is not held
        in memory as it is, of which SQL must find it, which takes twice as long."""
        import pyarrow as pa  # heavy: imported late
        import pyarrow.compute as pc  # heavy: imported late

        values = self._column(table, column)
        if values is None or not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
            return None
        missing = values.null_count
        if pa.types.is_floating(values.type):
            missing += pc.sum(pc.is_nan(values)).as_py() or 0
        return pc.quantile(values, 0.5)[0].as_py(), len(values) - missing

    def _column(self, table: str, column: str) -> pa.ChunkedArray | None:
        """A column that is in memory as SQL sees it."""
        held = self._opened.held.get(table)
        return None if held is None or column in held.casts else _in_memory(held).column(column)

    def is_in_memory(self, table: str) -> bool:
        """Whether a table of the sandbox is no file."""
        return table in self._opened.held

    def places(self, table: str, condition: str, limit: int) -> list[int]:
        """Where in a table in memory the first rows are that meet a condition. No columns are read but those that it
        speaks of: where few of many rows meet it, that takes a tenth of selecting all of these."""
        number = _unlike("number", self._opened.held[table].kinds)
        numbered = f"(SELECT row_number() OVER () - 1 AS {number}, * FROM {table})"
        found = self.answers(f"SELECT {number} FROM {numbered} WHERE {condition} LIMIT {limit}")
        return [row[number] for row in found]

    def rows_at(self, table: str, places: Iterable[int]) -> pa.Table:
        """The rows at these places of a table in memory, as SQL sees them."""
        import pyarrow as pa  # heavy: imported late

        held = self._opened.held[table]
        rows = _in_memory(held)
        # `take` copies all of a column of texts.
        found = pa.concat_tables([rows.slice(0, 0), *(rows.slice(place, 1) for place in places)])
        with self._added(f"some of {table}", found.combine_chunks()) as name:
            return self.table(f"SELECT {', '.join(_columns(held))} FROM {name}")

    @contextmanager
    def _added(self, name: str, table: pa.Table) -> Iterator[str]:
        """One more table, while this is open; its name as SQL has it."""
        self._connection.register(name, table)
        try:
            yield quoted(name)
        finally:
            self._connection.unregister(name)

    def check_condition(self, table: str, condition: str) -> None:
        """Raise InvalidInput unless the text is one condition on rows of the table, and no more than that."""
        self._prepare(table, condition)
        with self._bounded():
            self._connection.table(table).filter(condition).limit(0).to_arrow_table()

    def checked(self, statement: str) -> str:
        """The statement, if it is exactly one SELECT. Raises InvalidInput."""
        self._only(statement)
        return statement

    def _only(self, statement: str) -> duckdb.Statement:
        """The one SELECT that the text is, parsed."""
        import duckdb  # heavy: imported late

        with _user_errors():
            found = self._connection.extract_statements(statement)
        if len(found) != 1 or found[0].type != duckdb.StatementType.SELECT:
            raise InvalidInput(
                "this must be exactly one SELECT statement",
                code="sql.not_a_select",
                hint="remove what is not the query",
            )
        return found[0]

    def columns_of(self, statement: str) -> list[tuple[str, str]]:
        """Name and type of each column that a SELECT gives, without running it."""
        self._prepare(statement)
        with self._bounded():
            relation = self._connection.sql(self._only(statement))
            return [(name, str(kind)) for name, kind in zip(relation.columns, relation.types, strict=True)]

    @contextmanager
    def _bounded(self) -> Iterator[None]:
        timer = threading.Timer(self._shared.limits.timeout_s, self._connection.interrupt)
        timer.daemon = True
        timer.start()
        try:
            with _user_errors(self._opened.file_sets):
                yield
        finally:
            timer.cancel()


@contextmanager
def sandbox(
    tables: Mapping[str, FileSet | pa.Table | ForeignRows | Later],
    *,
    spill: Path | None = None,
    limits: SqlLimits | None = None,
) -> Iterator[SqlSession]:
    """A session in which the named tables, and nothing else, can be read. `spill` is a directory for what does not fit
    in memory, made if it is missing."""
    bounds = limits or SqlLimits()
    later = [name for name, table in tables.items() if callable(table)]
    with ExitStack() as opened:

        def connect(names: Iterable[str]) -> _Opened:
            named = {name: tables[name] for name in names}
            found = {name: table() if callable(table) else table for name, table in named.items()}
            return opened.enter_context(_connection(found, spill, bounds))

        first = connect(name for name in tables if name not in later)
        yield SqlSession(_Shared(first, bounds, later, lambda: connect(tables)))


@contextmanager
def _connection(
    tables: Mapping[str, FileSet | pa.Table | ForeignRows], spill: Path | None, limits: SqlLimits
) -> Iterator[_Opened]:
    file_sets = [one for table in tables.values() if (one := _file_set_of(table)) is not None]
    files = [str(file) for one in file_sets for file in one.files]
    scratch = None
    if spill is not None:
        # DuckDB makes the last folder of a path only, and not before it needs it.
        spill.mkdir(parents=True, exist_ok=True)
        scratch = spill / new_id()
    with ExitStack() as held:
        if files or scratch:
            held.callback(_remove_spill, scratch)
            database = held.enter_context(closing(_database(limits, scratch, files)))
        else:
            database = held.enter_context(lent(limits, partial(_database, limits, None, ())))
            held.callback(_drop_views, database, [name for name, table in tables.items() if _is_view(table)])
        connection = held.enter_context(closing(database.cursor()))
        in_memory: dict[str, pa.Table] = {}
        with _user_errors(file_sets):
            for name, table in tables.items():
                in_memory |= _provide(connection, name, table)
        yield _Opened(connection, in_memory, _held(tables), file_sets)


def _database(limits: SqlLimits, scratch: Path | None, files: Sequence[str]) -> duckdb.DuckDBPyConnection:
    """A database that can read these files and no others, and whose configuration cannot be changed."""
    import duckdb  # heavy: imported late

    connection = duckdb.connect(":memory:")
    for setting in _settings(limits, scratch):
        connection.execute(setting)
    connection.execute(f"SET allowed_paths = [{', '.join(literal(file) for file in files)}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def as_dictionaries(table: pa.Table) -> list[dict[str, Any]]:
    """Its rows, with texts for times that Python has none for."""
    import pyarrow as pa  # heavy: imported late

    found: list[dict[str, Any]]
    try:
        found = table.to_pylist()
    except OverflowError:
        # A time after the year 9999, often meant for one without end, is none in Python: it is written out.
        written = [
            pa.field(one.name, pa.string() if pa.types.is_temporal(one.type) else one.type) for one in table.schema
        ]
        found = table.cast(pa.schema(written)).to_pylist()
    return found


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa  # heavy: imported late

    return bool(kind in (pa.string(), pa.large_string(), pa.string_view()))


def _is_view(table: FileSet | pa.Table | ForeignRows) -> bool:
    """Whether a table is known by a view, which other connections of the database know too."""
    if isinstance(table, ForeignRows):
        return bool(table.casts) or _is_view(table.rows)
    return isinstance(table, FileSet) and bool(table.files)


def _drop_views(database: duckdb.DuckDBPyConnection, names: Sequence[str]) -> None:
    for name in names:
        database.execute(f"DROP VIEW IF EXISTS {quoted(name)}")


def _held(tables: Mapping[str, FileSet | pa.Table | ForeignRows]) -> dict[str, ForeignRows]:
    """Those of the tables that are in memory."""
    found = {}
    for name, table in tables.items():
        if isinstance(table, ForeignRows) and not isinstance(table.rows, FileSet):
            found[name] = table
        elif not isinstance(table, (FileSet, ForeignRows)):
            found[name] = ForeignRows(table, dict.fromkeys(table.column_names, ""), {})
    return found


def _in_memory(held: ForeignRows) -> pa.Table:
    assert not isinstance(held.rows, FileSet)
    return held.rows


def _settings(limits: SqlLimits, scratch: Path | None) -> list[str]:
    settings = [
        # GLOBAL: for every connection to this database, of which `each` opens more.
        "SET GLOBAL TimeZone = 'UTC'",
        f"SET threads = {limits.threads}",
        f"SET memory_limit = '{limits.memory_bytes // 2**20}MiB'",
        # Hash-partitioned ASOF joins are misjudged as tiny and become nested loops unless this is 0.
        "SET GLOBAL asof_loop_join_threshold = 0",
        "SET autoinstall_known_extensions = false",
        "SET GLOBAL python_enable_replacements = false",
        # It would write to the standard output of whoever called.
        "SET enable_progress_bar = false",
        f"SET max_temp_directory_size = '{limits.spill_bytes // 2**20 if scratch else 0}MiB'",
    ]
    if scratch is not None:
        settings.append(f"SET temp_directory = {literal(str(scratch))}")
    return settings


def _file_set_of(table: FileSet | pa.Table | ForeignRows) -> FileSet | None:
    held = table.rows if isinstance(table, ForeignRows) else table
    return held if isinstance(held, FileSet) else None


def _provide(
    connection: duckdb.DuckDBPyConnection, name: str, table: FileSet | pa.Table | ForeignRows
) -> dict[str, pa.Table]:
    """Let SQL know a table. Returns what of it is known to this connection only, by name."""
    if isinstance(table, ForeignRows):
        if not table.casts:
            return _provide(connection, name, table.rows)
        in_memory = _provide(connection, f"{name} as it is", table.rows)
        columns = ", ".join(_columns(table))
        connection.execute(f"CREATE VIEW {quoted(name)} AS SELECT {columns} FROM {quoted(f'{name} as it is')}")
        return in_memory
    if not isinstance(table, FileSet):
        return _register(connection, name, table)
    if not table.files:
        import pyarrow as pa  # heavy: imported late

        empty = table.schema.empty_table()
        marks = pa.array([], pa.string())
        return _register(connection, name, empty.append_column(FILE_COLUMN, marks) if table.marked else empty)
    files = ", ".join(literal(str(file)) for file in table.files)
    # A writer leaves NaN out of the bounds that it notes of a column, so that those say nothing of floats.
    options = f"union_by_name = {str(not table.uniform).lower()}, can_have_nan = true"
    outside = list(table.partitions[0]) if table.partitions else []
    if outside or table.marked:
        options += f", filename = {literal(FILE_COLUMN)}"
    source = f"read_parquet([{files}], {options}) f"
    places = dict.fromkeys(table.schema.names, "f.") | dict.fromkeys(outside, "p.")
    registered: dict[str, pa.Table] = {}
    later = [] if table.uniform else _not_in(connection, source, [one for one in places if places[one] == "f."])
    nulls = f"{name} nulls"
    if later:
        registered |= _register(connection, nulls, table.schema.empty_table().select(later))
    names = [
        f"(SELECT {quoted(one)} FROM {quoted(nulls)}) AS {quoted(one)}" if one in later else place + quoted(one)
        for one, place in places.items()
    ]
    if outside:
        parts = f"{name} partitions"
        registered |= _register(connection, parts, partition_arrays(table))
        source += f" JOIN {quoted(parts)} p ON f.{FILE_COLUMN} = p.{FILE_COLUMN}"
    marked = [f"f.{FILE_COLUMN}"] if table.marked else []
    connection.execute(f"CREATE VIEW {quoted(name)} AS SELECT {', '.join(names + marked)} FROM {source}")
    return registered


def _not_in(connection: duckdb.DuckDBPyConnection, source: str, names: Sequence[str]) -> list[str]:
    """Those of the columns that came after all of these files were written."""
    described = connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()
    found = {str(row[0]).casefold() for row in described}
    return [name for name in names if name.casefold() not in found]


def _register(connection: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> dict[str, pa.Table]:
    connection.register(name, table)
    return {name: table}


def _columns(table: ForeignRows) -> list[str]:
    """Its columns as SQL that gives each its type."""
    names = {column: quoted(column) for column in table.kinds}
    casts = {column: cast.replace("{}", names[column]) for column, cast in table.casts.items()}
    return [f"{casts[column]} AS {name}" if column in casts else name for column, name in names.items()]


def _unlike(name: str, others: Iterable[str]) -> str:
    """A name that none of the others is."""
    taken = {one.casefold() for one in others}
    while name in taken:
        name += "_"
    return name


def _remove_spill(scratch: Path | None) -> None:
    if scratch is None or not scratch.exists():
        return
    for file in scratch.iterdir():
        file.unlink(missing_ok=True)
    scratch.rmdir()


@contextmanager
def _user_errors(tables: Sequence[FileSet] = ()) -> Iterator[None]:
    """Say DuckDB's errors as ours: what the text got wrong is the sender's, a damaged file is the engine's. `tables`:
    those whose files may be spoken of."""
    import duckdb  # heavy: imported late

    try:
        yield
    except duckdb.InterruptException as error:
        raise LimitExceeded(
            "the query took too long and was stopped", code="sql.timeout", hint="select fewer rows or columns"
        ) from error
    except duckdb.OutOfMemoryException as error:
        raise LimitExceeded(
            "the query needs more memory than it may take", code="sql.memory", hint="select fewer rows or columns"
        ) from error
    except (duckdb.IOException, duckdb.FatalException, duckdb.InternalException) as error:
        if speaks_of_files(str(error), tables):
            raise damaged(_brief(error), tables) from error
        raise EngineError(f"the query failed: {_brief(error)}", code="sql.engine_failed") from error
    except duckdb.Error as error:
        # A file that is gone is taken for a folder, which may not be looked into.
        gone = isinstance(error, duckdb.PermissionException) and speaks_of_files(str(error), tables)
        if gone or _DAMAGE.search(str(error)):
            raise damaged(_brief(error), tables) from error
        said = without_places(_brief(error), tables)
        raise InvalidInput(f"the SQL cannot be run: {said}", code="sql.invalid") from error


def _brief(error: Exception) -> str:
    """The message without DuckDB's drawing of the statement, which shows our wrapping and not the user's text."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    kept = [line for line in lines if not re.match(r"LINE \d+:|\s*\^", line)]
    return " ".join(kept[:2]) if kept else type(error).__name__


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as an SQL string."""
    return "'" + text.replace("'", "''") + "'"
