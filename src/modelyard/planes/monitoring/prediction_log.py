"""Reading the prediction log and the labels: which rows are new, which window each belongs to, which label it got."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard.engines.tables.base import Snapshot
from modelyard.kernel.errors import InvalidInput
from modelyard.planes.monitoring.performance import labels_of, parse_label
from modelyard.planes.monitoring.sketches import is_comparable
from modelyard.planes.monitoring.state import WindowKey
from modelyard.planes.monitoring.windows import WindowSize, window_starts
from modelyard.types.monitoring import Labels

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    Floats = np.ndarray[Any, np.dtype[np.float64]]

EVENT_TIME = "event_time"
MODEL = "model"
MODEL_VERSION = "version"
INPUT = "input."
OUTPUT = "output."
ROWS_AT_ONCE = 100_000


class Scored(msgspec.Struct, frozen=True):
    """The predictions of one window that have a label. `digest` is over scores and labels, in the log's order;
    empty where no label is known."""

    rows: int
    scores: Any
    labels: Any
    digest: str


def added_files(old: Snapshot | None, new: Snapshot) -> tuple[Path, ...] | None:
    """The files that a version has and an older one had not; None where it is no continuation of it."""
    if old is None:
        return new.files
    before = set(old.files)
    return tuple(file for file in new.files if file not in before) if before <= set(new.files) else None


def check_schema(schema: pa.Schema, dataset: str) -> None:
    """Raise InvalidInput for a dataset that is no prediction log."""
    missing = [name for name in (EVENT_TIME, MODEL_VERSION) if name not in schema.names]
    if missing:
        raise InvalidInput(
            f"dataset '{dataset}' is no prediction log: it has no column '{missing[0]}'",
            code="monitor.predictions_invalid",
            hint="monitor the dataset that the endpoint writes, `predictions.<endpoint>`",
        )


def input_columns(schema: pa.Schema, wanted: Sequence[str] | None) -> list[str]:
    """The comparable inputs of a log, without their prefix. Raises InvalidInput where a wanted one is missing."""
    found = [
        field.name.removeprefix(INPUT) for field in schema if field.name.startswith(INPUT) and is_comparable(field.type)
    ]
    if wanted is None:
        return found
    missing = [name for name in wanted if name not in found]
    if missing:
        raise InvalidInput(
            f"the prediction log has no comparable input '{missing[0]}'",
            code="monitor.input_unknown",
            hint=f"its inputs are: {', '.join(found) or 'none'}",
        )
    return list(wanted)


def score_column(schema: pa.Schema, wanted: str | None) -> str | None:
    """The log's column that holds the score; None where it has no numeric output. Raises InvalidInput if in doubt."""
    import pyarrow.types as at  # heavy: imported late

    outputs: dict[str, str] = {
        field.name.removeprefix(OUTPUT): field.name
        for field in schema
        if field.name.startswith(OUTPUT) and (at.is_floating(field.type) or at.is_decimal(field.type))
    }
    if wanted is not None:
        if wanted not in outputs:
            raise InvalidInput(
                f"the prediction log has no numeric output '{wanted}'",
                code="monitor.score_unknown",
                hint=f"its numeric outputs are: {', '.join(outputs) or 'none'}",
            )
        return outputs[wanted]
    classes = {f"{name.rpartition('.')[0]}.{place}" for place, name in enumerate(outputs)}
    if len(outputs) == 2 and classes == set(outputs):
        # The probabilities of class 0 and class 1, as a binary classifier gives them.
        return next(column for name, column in outputs.items() if name.endswith(".1"))
    if len(outputs) > 1:
        raise InvalidInput(
            f"the model has several numeric outputs: {', '.join(outputs)}",
            code="monitor.score_ambiguous",
            hint="name the probability of the positive class in the monitor's `score`",
        )
    return next(iter(outputs.values()), None)


def read_files(
    snapshot: Snapshot, files: Sequence[Path], columns: Sequence[str], since: datetime | None = None
) -> Iterator[pa.Table]:
    """Rows of some files of a snapshot, in moderate tables; with `since`, what is older is not read."""
    import pyarrow as pa  # heavy: imported late
    import pyarrow.compute as pc  # heavy: imported late
    import pyarrow.dataset as ds  # heavy: imported late

    schema = pa.schema([snapshot.schema.field(name) for name in columns])
    source = ds.dataset([str(file) for file in files], schema=snapshot.schema, format="parquet")
    held: list[pa.RecordBatch] = []
    rows = 0
    kind = snapshot.schema.field(EVENT_TIME).type if EVENT_TIME in snapshot.schema.names else None
    recent = None
    if since is not None and kind == pa.timestamp("us", "UTC"):
        recent = pc.field(EVENT_TIME) >= pa.scalar(since, kind)
    for batch in source.to_batches(columns=list(columns), filter=recent):
        held.append(batch)
        rows += batch.num_rows
        if rows >= ROWS_AT_ONCE:
            yield pa.Table.from_batches(held, schema=schema)
            held, rows = [], 0
    if rows:
        yield pa.Table.from_batches(held, schema=schema)


def by_window(table: pa.Table, size: WindowSize) -> Iterator[tuple[WindowKey, pa.Table]]:
    """The rows of each window and model version. Rows without an event time belong to none."""
    import numpy as np  # heavy: imported late
    import pyarrow as pa  # heavy: imported late
    import pyarrow.compute as pc  # heavy: imported late

    table = table.filter(pc.is_valid(table[EVENT_TIME]))
    if not table.num_rows:
        return
    starts = window_starts(size, instants(table[EVENT_TIME])).combine_chunks().dictionary_encode()
    versions = table[MODEL_VERSION].cast(pa.string()).fill_null("").combine_chunks().dictionary_encode()
    places = np.asarray(starts.indices, dtype=np.int64) * len(versions.dictionary) + np.asarray(versions.indices)
    order = np.argsort(places, kind="stable")
    distinct, firsts = np.unique(places[order], return_index=True)
    for place, rows in zip(distinct, np.split(order, firsts[1:]), strict=True):
        start, version = divmod(int(place), len(versions.dictionary))
        key = WindowKey(starts.dictionary[start].as_py().astimezone(UTC), versions.dictionary[version].as_py())
        yield key, table.take(pa.array(rows))


def newest_instant(table: pa.Table) -> datetime | None:
    """The latest event time of some rows."""
    import pyarrow.compute as pc  # heavy: imported late

    newest = pc.max(instants(table[EVENT_TIME])).as_py()
    return None if newest is None else newest.astimezone(UTC)


def instants(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of times as timestamps in UTC. Raises InvalidInput for another type."""
    import pyarrow as pa  # heavy: imported late
    import pyarrow.types as at  # heavy: imported late

    if at.is_timestamp(column.type):
        # A naive timestamp is UTC here as everywhere; casting one with a zone only changes how it is written.
        return column.cast(pa.timestamp("us", "UTC"), safe=False)
    raise InvalidInput(
        f"the column holds {column.type}, and a timestamp is needed",
        code="monitor.time_invalid",
        hint="store times as timestamps in UTC",
    )


class LabelTable(msgspec.Struct, frozen=True):
    """Labels by key, ready to be matched. Of several for one key, the first counts here."""

    keys: Any
    values: Any


def read_labels(table: pa.Table, spec: Labels, now: datetime) -> LabelTable:
    """The labels that are known now, the latest known one of each key first. Rows without key or label say nothing."""
    import numpy as np  # heavy: imported late
    import pyarrow as pa  # heavy: imported late
    import pyarrow.compute as pc  # heavy: imported late

    rule = parse_label(spec.label)
    if spec.known_at is not None:
        known = instants(table[spec.known_at])
        keep = pc.fill_null(pc.less_equal(known, pa.scalar(now, pa.timestamp("us", "UTC"))), False)
        table = table.filter(keep)
        order = pc.sort_indices(instants(table[spec.known_at]), sort_keys=[("", "ascending")])
        table = table.take(order)
    values = labels_of(rule, table[rule.column])
    keys = table[spec.key].cast(pa.string())
    said = np.flatnonzero(~np.isnan(values) & np.asarray(pc.is_valid(keys)))[::-1]
    return LabelTable(keys.take(pa.array(said)), values[said])


def label_columns(spec: Labels) -> list[str]:
    """The columns of the label dataset that are needed."""
    wanted = [spec.key, parse_label(spec.label).column, *([spec.known_at] if spec.known_at else [])]
    return list(dict.fromkeys(wanted))


def match(table: pa.Table, score: str, key: str, labels: LabelTable) -> Scored:
    """The predictions of a table that have a score and a label."""
    import numpy as np  # heavy: imported late
    import pyarrow as pa  # heavy: imported late
    import pyarrow.compute as pc  # heavy: imported late

    found = pc.index_in(table[key].cast(pa.string()), value_set=labels.keys, skip_nulls=True)
    scores = table[score].cast(pa.float64()).to_numpy()
    matched = np.asarray(pc.is_valid(found)) & ~np.isnan(scores)
    places = np.asarray(found.fill_null(0))[matched]
    scores, values = np.ascontiguousarray(scores[matched]), np.ascontiguousarray(labels.values[places])
    digest = hashlib.sha256(scores.tobytes() + values.tobytes()).hexdigest() if len(values) else ""
    return Scored(table.num_rows, scores, values, digest)
