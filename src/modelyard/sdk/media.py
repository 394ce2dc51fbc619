"""What a run shows beside numbers, as files: images, tables, figures and histograms. Pure: objects in, bytes out.

Names and forms are those of MLflow's clients where it has them, so that either's pages show what the other logged.
"""

from __future__ import annotations

import io
import math
import re
import struct
import uuid
import zlib
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import msgspec

from modelyard.kernel.errors import InvalidInput

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# PNG, 3rd edition, section 11.2.1: the colour type for so many channels.
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
TABLE_CELLS_MAX = 1_000_000
BINS_MAX = 512


class Histogram(msgspec.Struct, frozen=True, kw_only=True):
    """How values are spread: `counts[i]` of them lie from `edges[i]` up to `edges[i + 1]`, the last edge included."""

    step: int
    edges: list[float]
    counts: list[int]
    count: int
    nans: int = 0


def image_bytes(image: Any) -> bytes:
    """A PNG of an image: of PIL, or an array of height x width (x 1 to 4 channels).

    Integers count from 0 to 255, floats from 0 to 1; booleans are black and white. Raises InvalidInput.
    """
    if hasattr(image, "save") and hasattr(image, "mode"):
        target = io.BytesIO()
        image.save(target, format="PNG")
        return target.getvalue()
    return _png(_pixels(image))


def image_path(key: str, step: int, timestamp_ms: int) -> str:
    """Where an image of a key at a step lies, as `mlflow.log_image` names it."""
    if not re.fullmatch(r"[\w\-. /]+", key):
        raise InvalidInput(
            f"{key[:80]!a} cannot name an image",
            code="image.key_invalid",
            hint="use letters, digits, '_', '-', '.', ' ' or '/'",
        )
    return f"images/{key.replace('/', '~')}+step+{step}+timestamp+{timestamp_ms}+{uuid.uuid4()}.png"


def table_bytes(table: Any) -> bytes:
    """A table as MLflow's `log_table` writes it, `{"columns": […], "data": [[…], …]}`.

    `table`: columns by name, a list of rows by name, or a frame of pandas, Polars or Arrow. Raises InvalidInput.
    """
    columns = _columns(table)
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InvalidInput(f"the columns of the table differ in length: {lengths}", code="table.ragged")
    if sum(lengths.values()) > TABLE_CELLS_MAX:
        raise InvalidInput(
            f"a logged table has at most {TABLE_CELLS_MAX:,} cells, not {sum(lengths.values()):,}",
            code="table.too_large",
            hint="write it as a dataset: modelyard.dataset(name).write(table)",
        )
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    return msgspec.json.encode({"columns": list(columns), "data": rows}, enc_hook=_plain)


def figure_bytes(figure: Any, path: str) -> bytes:
    """A figure of matplotlib in the format of the path's ending, or of plotly as HTML. Raises InvalidInput."""
    ending = PurePosixPath(path).suffix.lower()
    if hasattr(figure, "savefig"):
        target = io.BytesIO()
        figure.savefig(target, format=ending.lstrip(".") or "png", bbox_inches="tight")
        return target.getvalue()
    if hasattr(figure, "to_html"):
        if ending != ".html":
            raise InvalidInput("a plotly figure is logged as '.html'", code="figure.format_invalid")
        return str(figure.to_html(include_plotlyjs=True)).encode()
    raise InvalidInput(
        f"{type(figure).__name__} is no figure",
        code="figure.unknown",
        hint="log a matplotlib or plotly figure, or its file with log_artifact",
    )


def histogram(values: Any, step: int, bins: int = 64) -> Histogram:
    """Values counted in `bins` stretches of equal width between the least and the greatest finite one.

    Raises InvalidInput for what is no number.
    """
    import numpy as np  # heavy: imported late

    if not 1 <= bins <= BINS_MAX:
        raise InvalidInput(f"a histogram has 1 to {BINS_MAX} bins, not {bins}", code="histogram.bins_invalid")
    try:
        numbers = np.asarray(_detached(values), dtype=np.float64).ravel()
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"a histogram is of numbers: {error}", code="histogram.not_numbers") from error
    finite = numbers[np.isfinite(numbers)]
    nans = int(np.isnan(numbers).sum())
    if not len(finite):
        return Histogram(step=step, edges=[], counts=[], count=len(numbers), nans=nans)
    low, high = float(finite.min()), float(finite.max())
    with np.errstate(over="ignore"):
        edges = np.linspace(low, high, bins + 1) if math.isfinite(high - low) else np.array([low, high])
    if not bool((edges[1:] > edges[:-1]).all()):
        # All alike, or so close that doubles have no room for edges between them.
        edges = np.array([low, high])
    counts = np.histogram(finite, bins=edges)[0] if low < high else np.array([len(finite)])
    return Histogram(step=step, edges=edges.tolist(), counts=counts.tolist(), count=len(numbers), nans=nans)


def histogram_path(key: str, step: int) -> str:
    """Where a histogram of a key at a step lies. Steps are padded, so that a listing is in their order."""
    return f"histograms/{key}/{step:012d}.json"


def _pixels(image: Any) -> Any:
    import numpy as np  # heavy: imported late

    pixels = np.asarray(_detached(image))
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.shape[2] not in _COLOUR_TYPES or 0 in pixels.shape:
        raise InvalidInput(
            f"an array of shape {pixels.shape} is no image",
            code="image.shape_invalid",
            hint="its shape is height x width, or height x width x channels with 1 to 4 channels",
        )
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8) * 255
    if np.issubdtype(pixels.dtype, np.floating):
        low, high, limit = 0.0, 1.0, "floats lie from 0 to 1"
    elif np.issubdtype(pixels.dtype, np.integer):
        low, high, limit = 0, 255, "integers lie from 0 to 255"
    else:
        raise InvalidInput(f"an image cannot be of {pixels.dtype}", code="image.values_invalid")
    # Written so that NaN fails it too.
    if not bool(((pixels >= low) & (pixels <= high)).all()):
        raise InvalidInput(f"values of the image are out of range: {limit}", code="image.values_invalid")
    if high == 1.0:
        return np.round(pixels * 255).astype(np.uint8)
    return pixels.astype(np.uint8)


def _png(pixels: Any) -> bytes:
    """A PNG of `uint8` pixels (height x width x channels), unfiltered: PNG, 3rd edition, section 5."""
    import numpy as np  # heavy: imported late

    height, width, channels = pixels.shape
    rows = np.zeros((height, 1 + width * channels), np.uint8)
    rows[:, 1:] = pixels.reshape(height, -1)
    head = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b""))
    return PNG_SIGNATURE + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def _detached(values: Any) -> Any:
    # A tensor that takes part in training, or lies on another device, is no array by itself.
    return values.detach().cpu() if hasattr(values, "detach") else values


def _columns(table: Any) -> dict[str, Sequence[Any]]:
    if hasattr(table, "to_pydict"):
        return dict(table.to_pydict())
    if hasattr(table, "to_dict") and hasattr(table, "columns"):
        by_name: dict[Any, Any] = table.to_dict(orient="list") if hasattr(table, "iloc") else table.to_dict()
        return {str(name): list(values) for name, values in by_name.items()}
    if isinstance(table, Mapping):
        return {
            str(name): list(values) if isinstance(values, Sequence) and not isinstance(values, str) else [values]
            for name, values in table.items()
        }
    if isinstance(table, Sequence) and all(isinstance(row, Mapping) for row in table):
        names = list(dict.fromkeys(name for row in table for name in row))
        return {str(name): [row.get(name) for row in table] for name in names}
    raise InvalidInput(
        f"{type(table).__name__} is no table",
        code="table.unknown",
        hint="log columns by name, a list of rows by name, or a frame",
    )


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        number = value.item()
        return None if isinstance(number, float) and math.isnan(number) else number
    return str(value)
