"""What a file looks like on a page: from its name and its first bytes to rows, lines or pictures. Pure, bounded.

A file was written by a run and is not to be trusted: only plain data is read (CSV, JSON, text, Parquet by its own
reader with a bound on what one row group may hold), and nothing of it is ever executed here.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, BinaryIO

import msgspec
from msgspec import Struct

from modelyard.types.tracking import Artifact
from modelyard.ui.format import cell

ROWS_MAX, COLUMNS_MAX, CELL_CHARACTERS_MAX = 100, 60, 300
TEXT_BYTES_MAX = 512 * 1024
JSON_BYTES_MAX = 8 * 1024 * 1024
ROW_GROUP_BYTES_MAX = 256 * 1024 * 1024
PICTURES_MAX = 200
MEDIA_TYPES = {
    "png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "gif": "image/gif", "webp": "image/webp",
    "bmp": "image/bmp", "avif": "image/avif", "svg": "image/svg+xml", "html": "text/html", "htm": "text/html",
    "mp3": "audio/mpeg", "wav": "audio/wav", "ogg": "audio/ogg", "flac": "audio/flac", "m4a": "audio/mp4",
    "mp4": "video/mp4", "webm": "video/webm",
}  # fmt: skip
_TEXT = frozenset(
    "txt log md rst yaml yml toml ini cfg conf py r sh sql js ts css xml diff patch ipynb tex env properties lock "  # noqa: SIM905
    "gitignore dockerfile mlmodel proto go rs java c h cpp".split()
)
# `mlflow.log_image(key=, step=)` names its files so; a slash of the key is written `#` (older clients: `~`).
_STEPPED = re.compile(
    r"(?P<key>.+?)[%+]step[%+](?P<step>-?\d+)[%+]timestamp[%+](?P<at>\d+)[%+][0-9A-Za-z-]{8,40}"
    r"(?P<small>[%+]compressed)?\.\w+"
)
# `run.log_histogram(key, values, step)` of our SDK.
_HISTOGRAM = re.compile(r"histograms/(?P<key>.+)/(?P<step>-?\d+)\.json")
HISTOGRAMS_SHOWN, BARS_MAX = 24, 128


class Histogram(Struct, frozen=True, kw_only=True):
    """How values were spread at a step: so many from each edge to the next. Of more than 128 bars, neighbours join."""

    step: int = 0
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    count: int
    nans: int = 0
    path: str = ""


class Preview(Struct, frozen=True, kw_only=True):
    """A file to be shown: `kind` is image, audio, video, html, table, text, histogram or none. `note` says what is
    left out."""

    path: str
    kind: str
    size_bytes: int
    digest: str
    lines: tuple[str, ...] = ()
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    note: str = ""
    histogram: Histogram | None = None


class Picture(Struct, frozen=True, kw_only=True):
    """An image of a key at a step. `thumbnail` is the smaller file, where the client wrote one."""

    step: int
    path: str
    thumbnail: str


class Gallery(Struct, frozen=True, kw_only=True):
    """The images of one key, by step."""

    key: str
    pictures: tuple[Picture, ...]
    left_out: int = 0


class Spreads(Struct, frozen=True, kw_only=True):
    """The histograms of one key, by step, all to be drawn over the same range."""

    key: str
    histograms: tuple[Histogram, ...]
    low: float
    high: float
    left_out: int = 0


def suffix(path: str) -> str:
    """The last part of a name after its dot, in lower case; of a name without, the name."""
    return path.rsplit("/", 1)[-1].rsplit(".", 1)[-1].lower()


def kind_of(path: str) -> str:
    """How a file of this name is shown."""
    ending = suffix(path)
    media = MEDIA_TYPES.get(ending, "")
    if media == "text/html":
        return "html"
    if media:
        return media.partition("/")[0]
    if ending in {"csv", "tsv", "json", "jsonl", "ndjson", "parquet"}:
        return "table"
    return "text" if ending in _TEXT else "none"


def preview(artifact: Artifact, content: BinaryIO) -> Preview:
    """A file with as much of it as a page shows."""
    size, kind = artifact.size_bytes or 0, kind_of(artifact.path)
    made = Preview(path=artifact.path, kind=kind, size_bytes=size, digest=artifact.digest or "")
    if _HISTOGRAM.fullmatch(artifact.path) and (found := histogram(artifact.path, content)) is not None:
        return _with(made, kind="histogram", histogram=found)
    if kind == "table":
        content.seek(0)
        return _table(made, content)
    if kind == "text":
        return _text(made, content)
    if kind == "none" and size <= TEXT_BYTES_MAX and _reads_as_text(content):
        content.seek(0)
        return _text(made, content)
    return made


def _with(made: Preview, **changes: Any) -> Preview:
    return msgspec.structs.replace(made, **changes)


def _reads_as_text(content: BinaryIO) -> bool:
    start = content.read(4096)
    return bool(start) and b"\0" not in start and not _decoded(start).count("\ufffd")


def _decoded(content: bytes) -> str:
    # A bound may have cut a character in two.
    return content.decode("utf-8", "ignore" if len(content) >= 4096 else "replace")


def _text(made: Preview, content: BinaryIO) -> Preview:
    text = content.read(TEXT_BYTES_MAX).decode("utf-8", "replace")
    cut = made.size_bytes > TEXT_BYTES_MAX
    note = f"the first {TEXT_BYTES_MAX // 1024} KiB" if cut else ""
    return _with(made, kind="text", lines=tuple(text.splitlines()), note=note)


def _table(made: Preview, content: BinaryIO) -> Preview:
    ending = suffix(made.path)
    if ending == "parquet":
        return _parquet(made, content)
    if ending in {"csv", "tsv"}:
        return _csv(made, content, "\t" if ending == "tsv" else ",")
    if made.size_bytes > JSON_BYTES_MAX:
        return _text(made, content)
    body = content.read(JSON_BYTES_MAX)
    try:
        if ending == "json":
            return _json(made, msgspec.json.decode(body))
        records = [msgspec.json.decode(line) for line in body.splitlines()[:ROWS_MAX] if line.strip()]
    except (msgspec.DecodeError, RecursionError):
        return _text(made, io.BytesIO(body))
    found = _of_records(made, records)
    return found if found is not None else _text(made, io.BytesIO(body))


def _json(made: Preview, value: Any) -> Preview:
    match value:
        # What `mlflow.log_table` writes, and pandas with orient="split".
        case {"columns": [*names], "data": [*rows]} if all(isinstance(one, list) for one in rows[:ROWS_MAX]):
            return _rows(made, [str(name) for name in names], rows, len(rows))
        case [*records] if (found := _of_records(made, records)) is not None:
            return found
    pretty = msgspec.json.format(msgspec.json.encode(value), indent=2)
    return _text(_with(made, size_bytes=made.size_bytes), io.BytesIO(pretty))


def _of_records(made: Preview, records: Sequence[Any]) -> Preview | None:
    if not records or not all(isinstance(one, dict) for one in records[:ROWS_MAX]):
        return None
    names = list(dict.fromkeys(str(name) for one in records[:ROWS_MAX] for name in one))
    return _rows(made, names, [[one.get(name) for name in names] for one in records[:ROWS_MAX]], len(records))


def _rows(made: Preview, names: Sequence[str], rows: Sequence[Sequence[Any]], total: int | None) -> Preview:
    notes = []
    if total is None or total > ROWS_MAX:
        notes.append(f"the first {min(len(rows), ROWS_MAX)} rows" + (f" of {total:,}" if total else ""))
    if len(names) > COLUMNS_MAX:
        notes.append(f"{COLUMNS_MAX} of {len(names):,} columns")
    return _with(
        made,
        kind="table",
        head=tuple(names[:COLUMNS_MAX]),
        rows=tuple(tuple(_cell(value) for value in one[:COLUMNS_MAX]) for one in rows[:ROWS_MAX]),
        note=", ".join(notes),
    )


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict | list):
        value = msgspec.json.encode(value).decode()
    text = cell(value)
    return text if len(text) <= CELL_CHARACTERS_MAX else f"{text[:CELL_CHARACTERS_MAX]}…"


def _csv(made: Preview, content: BinaryIO, delimiter: str) -> Preview:
    body = content.read(TEXT_BYTES_MAX)
    whole = made.size_bytes <= TEXT_BYTES_MAX
    text = body.decode("utf-8-sig", "replace")
    try:
        rows = list(csv.reader(io.StringIO(text), delimiter=delimiter, strict=False))
    except csv.Error:
        return _text(made, io.BytesIO(body))
    # The last row of a part may be cut in two.
    rows = [one for one in (rows if whole else rows[:-1]) if one]
    if not rows:
        return _text(made, io.BytesIO(body))
    width = max(len(one) for one in rows[: ROWS_MAX + 1])
    head = rows[0] + [""] * (width - len(rows[0]))
    filled = [one + [""] * (width - len(one)) for one in rows[1 : ROWS_MAX + 1]]
    return _rows(made, head, filled, len(rows) - 1 if whole else None)


def _parquet(made: Preview, content: BinaryIO) -> Preview:
    import pyarrow as pa  # heavy: imported late
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(content)
        meta = file.metadata
        groups = [meta.row_group(at).total_byte_size for at in range(min(meta.num_row_groups, 1))]
        if any(size > ROW_GROUP_BYTES_MAX for size in groups):
            return _with(made, kind="none", note="its first row group is too large to be read here")
        names = [field.name for field in file.schema_arrow][:COLUMNS_MAX]
        batch = next(iter(file.iter_batches(batch_size=ROWS_MAX, columns=names)), None)
        rows = [] if batch is None else [list(one.values()) for one in batch.to_pylist()]
    except (pa.ArrowException, OSError, ValueError) as error:
        return _with(made, kind="none", note=f"it cannot be read as Parquet: {str(error)[:200]}")
    made = _rows(made, names, rows, meta.num_rows)
    if len(file.schema_arrow) > COLUMNS_MAX:
        made = _with(made, note=f"{made.note}, {COLUMNS_MAX} of {len(file.schema_arrow):,} columns".lstrip(", "))
    return made


def galleries(artifacts: Sequence[Artifact]) -> tuple[Gallery, ...]:
    """The images among files that were logged by key and step, each key's by step."""
    found: dict[str, dict[tuple[int, str], dict[bool, str]]] = {}
    for one in artifacts:
        name = one.path.rsplit("/", 1)[-1]
        match = _STEPPED.fullmatch(name)
        if match is None or kind_of(one.path) != "image":
            continue
        key = match["key"].replace("#", "/").replace("~", "/")
        found.setdefault(key, {}).setdefault((int(match["step"]), match["at"]), {})[bool(match["small"])] = one.path
    made = []
    for key, steps in sorted(found.items()):
        pictures = [
            Picture(step=step, path=paths.get(False) or paths[True], thumbnail=paths.get(True) or paths[False])
            for (step, _), paths in sorted(steps.items())
        ]
        made.append(
            Gallery(key=key, pictures=tuple(pictures[-PICTURES_MAX:]), left_out=max(len(pictures) - PICTURES_MAX, 0))
        )
    return tuple(made)


def histogram(path: str, content: BinaryIO) -> Histogram | None:
    """The histogram in a file; None where it holds none that can be drawn."""
    try:
        found = msgspec.json.decode(content.read(JSON_BYTES_MAX), type=Histogram)
    except (msgspec.DecodeError, RecursionError):
        return None
    edges, counts = found.edges, found.counts
    drawable = len(edges) == len(counts) + 1 and all(a <= b for a, b in pairwise(edges)) and min(counts, default=0) >= 0
    if not drawable and (edges or counts):
        return None
    joined = max(1, -(-len(counts) // BARS_MAX))
    if joined > 1:
        edges = (*edges[:-1:joined], edges[-1])
        counts = tuple(sum(counts[at : at + joined]) for at in range(0, len(counts), joined))
    return msgspec.structs.replace(found, path=path, edges=edges, counts=counts)


def histogram_steps(artifacts: Sequence[Artifact]) -> dict[str, list[str]]:
    """The paths of histograms among files, by key, in the order of their steps; of each the last 24."""
    found: dict[str, list[tuple[int, str]]] = {}
    for one in artifacts:
        if match := _HISTOGRAM.fullmatch(one.path):
            found.setdefault(match["key"], []).append((int(match["step"]), one.path))
    return {key: [path for _, path in sorted(steps)][-HISTOGRAMS_SHOWN:] for key, steps in sorted(found.items())}


def spreads(key: str, histograms: Sequence[Histogram], total: int) -> Spreads | None:
    """Histograms of a key over one range; None without a value in any."""
    known = [one for one in histograms if one.counts]
    if not known:
        return None
    return Spreads(
        key=key,
        histograms=tuple(known),
        low=min(one.edges[0] for one in known),
        high=max(one.edges[-1] for one in known),
        left_out=max(total - len(histograms), 0),
    )


class Bar(Struct, frozen=True):
    """A bar of a drawn histogram."""

    x: float
    y: float
    width: float
    height: float


def bars(one: Histogram, low: float, high: float, width: float, height: float) -> list[Bar]:
    """The bars of a histogram over a range, in a box of that size; the fullest is as tall as the box."""
    tall, span, made = max(one.counts, default=0) or 1, high - low, []
    for (left, right), count in zip(pairwise(one.edges), one.counts, strict=True):
        if not count:
            continue
        # Values that are all alike have no width: one bar in the middle.
        x, wide = ((left - low) / span, (right - left) / span) if span > 0 else (0.4, 0.2)
        up = count / tall * height
        made.append(
            Bar(round(x * width, 2), round(height - up, 2), round(max(wide * width - 0.3, 0.6), 2), round(up, 2))
        )
    return made
