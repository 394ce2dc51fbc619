"""The tables of tracking. Runs have a number of their own: what belongs to a run is many rows, and a number is short.

Metric points live in `metric_segments`, packed (see `points.py`); `latest_metrics` holds what search needs of them.
Times that MLflow's clients filter by are milliseconds in BIGINT, exactly as they were sent.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    bindparam,
    func,
    literal_column,
    select,
)

from modelyard.kernel import schema
from modelyard.kernel.database import Transaction
from modelyard.kernel.prepared import Prepared
from modelyard.kernel.schema import Instant, Json, metadata

LAST_KEY = "\U0010ffff"
"""Orders behind every key."""
# SQLite counts rows only in a column that is INTEGER PRIMARY KEY.
_Number = BigInteger().with_variant(Integer, "sqlite")

INDEXED_CHARACTERS = 64


def beginning(column: Any) -> Any:
    """As much of a value as is in its index."""
    # The numbers are part of the text: with parameters no database would take it for the indexed expression.
    return func.substr(column, literal_column("1"), literal_column(str(INDEXED_CHARACTERS)))


def beginning_of(value: str) -> str:
    """As much of a value as is in its index."""
    return value[:INDEXED_CHARACTERS]


experiments = Table(
    "experiments",
    metadata,
    Column("project", String(64), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("name", String(500), nullable=False),
    Column("artifact_location", Text, nullable=False),
    Column("stage", String(8), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    UniqueConstraint("project", "name", name="uq_experiments_name"),
)
experiment_tags = Table(
    "experiment_tags",
    metadata,
    Column("project", String(64), primary_key=True),
    Column("experiment", BigInteger, primary_key=True, autoincrement=False),
    Column("key", String(250), primary_key=True),
    Column("value", Text, nullable=False),
)
counters = Table(
    "tracking_counters",
    metadata,
    Column("project", String(64), primary_key=True),
    Column("name", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
)
runs = Table(
    "runs",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=True),
    Column("project", String(64), nullable=False),
    Column("id", String(32), nullable=False, unique=True),
    Column("experiment", BigInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("user", String(255), nullable=False),
    Column("status", String(16), nullable=False),
    Column("stage", String(8), nullable=False),
    Column("start_ms", BigInteger, nullable=False),
    Column("end_ms", BigInteger),
    Column("artifact_uri", Text, nullable=False),
    # Since when it is deleted; what was imported as deleted has none.
    Column("deleted_ms", BigInteger),
    # Whether there is anything in run_inputs or run_models, so that reading a run need not look there in vain.
    Column("has_links", Boolean, nullable=False, default=False),
    Index("runs_by_start", "project", "experiment", "stage", "start_ms", "id"),
)
params = Table(
    "params",
    metadata,
    Column("run", BigInteger, primary_key=True, autoincrement=False),
    Column("key", String(250), primary_key=True),
    Column("project", String(64), nullable=False),
    Column("value", Text, nullable=False),
    sqlite_with_rowid=False,
)
run_tags = Table(
    "run_tags",
    metadata,
    Column("run", BigInteger, primary_key=True, autoincrement=False),
    Column("key", String(250), primary_key=True),
    Column("project", String(64), nullable=False),
    Column("value", Text, nullable=False),
    sqlite_with_rowid=False,
)
# The beginnings of values, since PostgreSQL indexes no long text. The number of the run makes the index enough.
for _table in (params, run_tags):
    Index(f"{_table.name}_by_value", _table.c.project, _table.c.key, beginning(_table.c.value), _table.c.run)
latest_metrics = Table(
    "latest_metrics",
    metadata,
    Column("run", BigInteger, primary_key=True, autoincrement=False),
    Column("key", String(250), primary_key=True),
    Column("project", String(64), nullable=False),
    Column("is_nan", Boolean, nullable=False),
    # Zero where it is not a number, since no database orders NaN as the others do.
    Column("value", Double, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("timestamp_ms", BigInteger, nullable=False),
    Index("latest_metrics_by_value", "project", "key", "is_nan", "value", "run"),
    sqlite_with_rowid=False,
)
# By bytes, as Python orders texts: PostgreSQL would ask the language of its cluster.
_Bytewise = String(250).with_variant(String(250, collation="C"), "postgresql")
metric_segments = Table(
    "metric_segments",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=True),
    Column("project", String(64), nullable=False),
    Column("run", BigInteger, nullable=False),
    # Reading one key of a run touches only the segments whose range it is in.
    Column("first_key", _Bytewise, nullable=False, server_default=""),
    Column("last_key", _Bytewise, nullable=False, server_default=LAST_KEY),
    # How often its points were put together; see `compaction.py`.
    Column("level", SmallInteger, nullable=False, server_default="0"),
    Column("points", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("metric_segments_by_run", "run", "first_key", "last_key", "level", "points"),
)
# A settled segment thinned beforehand, so that a chart of a million points reads some thousands. In a table of its own,
# since SQLite would have to walk over the body to come to a column behind it.
metric_sketches = Table(
    "metric_sketches",
    metadata,
    Column("segment", BigInteger, primary_key=True, autoincrement=False),
    Column("project", String(64), nullable=False),
    Column("body", LargeBinary, nullable=False),
)
# Runs whose segments are worth a look by the compactor.
compactions = Table(
    "metric_compactions",
    metadata,
    Column("run", BigInteger, primary_key=True, autoincrement=False),
    Column("project", String(64), nullable=False),
)
input_datasets = Table(
    "input_datasets",
    metadata,
    Column("project", String(64), primary_key=True),
    Column("experiment", BigInteger, primary_key=True, autoincrement=False),
    Column("name", String(500), primary_key=True),
    Column("digest", String(36), primary_key=True),
    Column("source_type", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("schema", Text),
    Column("profile", Text),
)
run_inputs = Table(
    "run_inputs",
    metadata,
    Column("run", BigInteger, primary_key=True, autoincrement=False),
    Column("name", String(500), primary_key=True),
    Column("digest", String(36), primary_key=True),
    Column("project", String(64), nullable=False),
    Column("experiment", BigInteger, nullable=False),
    Column("context", Text),
    Column("tags", Json, nullable=False),
    Index("run_inputs_by_experiment", "project", "experiment"),
)
run_models = Table(
    "run_models",
    metadata,
    Column("run", BigInteger, primary_key=True, autoincrement=False),
    Column("direction", String(6), primary_key=True),
    Column("model_id", String(64), primary_key=True),
    Column("project", String(64), nullable=False),
    Column("step", BigInteger, nullable=False),
)
logged_models = Table(
    "logged_models",
    metadata,
    Column("project", String(64), primary_key=True),
    Column("id", String(64), primary_key=True),
    Column("experiment", BigInteger, nullable=False),
    Column("name", String(500), nullable=False),
    Column("artifact_location", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("stage", String(8), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Column("model_type", Text),
    Column("source_run_id", String(64)),
    Index("logged_models_by_experiment", "project", "experiment", "created_ms"),
)
model_params = Table(
    "logged_model_params",
    metadata,
    Column("project", String(64), primary_key=True),
    Column("model_id", String(64), primary_key=True),
    Column("key", String(250), primary_key=True),
    Column("value", Text, nullable=False),
)
model_tags = Table(
    "logged_model_tags",
    metadata,
    Column("project", String(64), primary_key=True),
    Column("model_id", String(64), primary_key=True),
    Column("key", String(250), primary_key=True),
    Column("value", Text, nullable=False),
)
# A model has few values (a checkpoint is one step), and search asks for each with its dataset: rows, not segments.
model_metrics = Table(
    "logged_model_metrics",
    metadata,
    Column("project", String(64), primary_key=True),
    Column("model_id", String(64), primary_key=True),
    Column("key", String(250), primary_key=True),
    Column("run_id", String(32), primary_key=True),
    Column("dataset_name", String(500), primary_key=True),
    Column("dataset_digest", String(36), primary_key=True),
    Column("step", BigInteger, primary_key=True, autoincrement=False),
    Column("timestamp_ms", BigInteger, nullable=False),
    Column("is_nan", Boolean, nullable=False),
    Column("value", Double, nullable=False),
)
artifacts = Table(
    "artifacts",
    metadata,
    Column("project", String(64), primary_key=True),
    Column("owner_kind", String(8), primary_key=True),
    Column("owner_id", String(64), primary_key=True),
    Column("path", String(1024), primary_key=True),
    # The path as a file system without case would know it.
    Column("folded", String(2048), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("updated_at", Instant, nullable=False),
    Index("artifacts_by_digest", "digest"),
    Index("artifacts_by_folded", "project", "owner_kind", "owner_id", "folded"),
)

artifact_uploads = Table(
    "artifact_uploads",
    metadata,
    Column("project", String(64), primary_key=True),
    Column("id", String(32), primary_key=True),
    Column("owner_kind", String(8), nullable=False),
    Column("owner_id", String(64), nullable=False),
    Column("path", String(1024), nullable=False),
    Column("parts", Integer, nullable=False),
    Column("created_at", Instant, nullable=False),
)
artifact_parts = Table(
    "artifact_parts",
    metadata,
    Column("project", String(64), primary_key=True),
    Column("upload", String(32), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("digest", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
)


def inserting(tx: Transaction, table: Table) -> Any:
    """An INSERT that knows ON CONFLICT, in the transaction's dialect."""
    return schema.inserting(tx.dialect, table)


def put_rows(tx: Transaction, table: Table, rows: Sequence[Mapping[str, Any]], changed: Sequence[str]) -> None:
    """Insert rows; where the key exists, set the named columns."""
    if rows:
        tx.run_many(_putting(table, tuple(changed)), rows)


@functools.cache
def _putting(table: Table, changed: tuple[str, ...]) -> Prepared:
    def make(dialect: str) -> Any:
        statement = schema.inserting(dialect, table).values({column.name: bindparam(column.name) for column in table.c})
        return statement.on_conflict_do_update(
            index_elements=list(table.primary_key.columns),
            set_={name: statement.excluded[name] for name in changed},
        )

    return Prepared(make)


def next_number(tx: Transaction, name: str) -> int:
    """The next number of a counter of this project; the first is 1. Gaps come from what was rolled back."""
    statement = inserting(tx, counters).values(project=tx.project, name=name, value=1)
    statement = statement.on_conflict_do_update(
        index_elements=[counters.c.project, counters.c.name], set_={"value": counters.c.value + 1}
    ).returning(counters.c.value)
    return int(tx.scalar(statement))


def raise_counter(tx: Transaction, name: str, value: int) -> None:
    """See that the next number of a counter lies above a value."""
    statement = inserting(tx, counters).values(project=tx.project, name=name, value=value)
    statement = statement.on_conflict_do_update(
        index_elements=[counters.c.project, counters.c.name],
        set_={"value": value},
        where=counters.c.value < value,
    )
    tx.execute(statement)


def key_values(tx: Transaction, table: Table, owner: Any) -> dict[str, str]:
    """The key-value rows that a condition picks."""
    rows = tx.all(select(table.c.key, table.c.value).where(table.c.project == tx.project, owner))
    return {row.key: row.value for row in rows}
