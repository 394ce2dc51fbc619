"""Files as pages show them: read as plain data, bounded, and never an error for what is odd."""

from __future__ import annotations

import io
import json

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.sdk import media
from modelyard.types.tracking import Artifact
from modelyard.ui import previews
from modelyard.ui.previews import Preview, galleries, kind_of, preview


def shown(path: str, content: bytes) -> Preview:
    return preview(Artifact(path=path, size_bytes=len(content), digest="0" * 64), io.BytesIO(content))


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("a/roc.PNG", "image"), ("drawing.svg", "image"), ("report.html", "html"), ("a.wav", "audio"),
        ("a.mp4", "video"), ("t.csv", "table"), ("t.parquet", "table"), ("MLmodel", "text"), ("a.py", "text"),
        ("model.pkl", "none"), ("archive.tar.gz", "none"),
    ],
)  # fmt: skip
def test_a_name_says_how_a_file_is_shown(path: str, kind: str) -> None:
    assert kind_of(path) == kind


def test_csv_shows_its_first_rows_with_quotes_and_ragged_lines() -> None:
    made = shown("t.csv", b'\xef\xbb\xbfid,note\n1,"a, ""b"""\n2\n3,x,extra\n')
    assert made.head == ("id", "note", "")
    assert made.rows == (("1", 'a, "b"', ""), ("2", "", ""), ("3", "x", "extra"))
    many = shown("t.csv", b"id\n" + b"".join(b"%d\n" % n for n in range(5_000)))
    assert len(many.rows) == previews.ROWS_MAX
    assert many.note == "the first 100 rows of 5,000"


def test_a_csv_too_long_to_be_read_whole_loses_only_its_cut_row() -> None:
    made = shown("t.tsv", b"id\tx\n" + b"12345\tabcdefgh\n" * 60_000)
    assert made.rows[-1] == ("12345", "abcdefgh")
    assert made.note == "the first 100 rows"


def test_json_is_a_table_where_it_is_one_and_else_text() -> None:
    logged = {"columns": ["id", "ok"], "data": [[1, True], [2, None]]}
    assert shown("t.json", json.dumps(logged).encode()).rows == (("1", "True"), ("2", ""))
    records = [{"a": 1, "b": {"c": [1]}}, {"a": 2, "d": "x"}]
    made = shown("t.json", json.dumps(records).encode())
    assert made.head == ("a", "b", "d")
    assert made.rows == (("1", '{"c":[1]}', ""), ("2", "", "x"))
    assert shown("t.json", b'{"a":{"b":1}}').lines[:2] == ("{", '  "a": {')
    assert shown("t.json", b"{broken").lines == ("{broken",)
    assert shown("t.jsonl", b'{"a":1}\n{"a":2}\n').rows == (("1",), ("2",))
    assert shown("deep.json", b"[" * 100_000).kind == "text"


def test_parquet_shows_its_first_rows_and_damage_is_said() -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"id": list(range(500)), "name": [f"row {n}" for n in range(500)]}), sink)
    made = shown("t.parquet", sink.getvalue())
    assert made.head == ("id", "name")
    assert made.rows[2] == ("2", "row 2")
    assert made.note == "the first 100 rows of 500"
    broken = shown("t.parquet", sink.getvalue()[:-40])
    assert broken.kind == "none"
    assert "cannot be read" in broken.note


def test_wide_tables_are_cut_and_say_so() -> None:
    wide = [{f"c{n:03}": n for n in range(200)}]
    made = shown("t.json", json.dumps(wide).encode())
    assert len(made.head) == previews.COLUMNS_MAX
    assert made.note == "60 of 200 columns"


def test_text_without_a_known_ending_is_text_and_bytes_are_not() -> None:
    assert shown("LICENSE", "für alle\n".encode()).lines == ("für alle",)
    assert shown("weights", b"\x00\x01").kind == "none"
    assert shown("empty.txt", b"").lines == ()


def test_images_of_a_key_stand_by_step() -> None:
    end = "%timestamp%1764160000000%0c4a1e00-5b7d-4f0e-9a55-0123456789ab"
    paths = [
        f"images/val#roc%step%10{end}.png", f"images/val#roc%step%2{end}.png",
        f"images/val#roc%step%2{end}%compressed.webp",
        f"images/other+step+-1{end.replace('%', '+')}.png", "images/plain.png", f"images/x%step%1{end}.txt",
    ]  # fmt: skip
    found = {one.key: one for one in galleries([Artifact(path=path, size_bytes=1) for path in paths])}
    assert list(found) == ["other", "val/roc"]
    assert [picture.step for picture in found["val/roc"].pictures] == [2, 10]
    assert found["val/roc"].pictures[0].thumbnail.endswith("%compressed.webp")
    assert found["val/roc"].pictures[0].path.endswith("ab.png")


def test_histograms_of_our_sdk_are_drawn_over_one_range() -> None:
    first, second = media.histogram([0.0, 0.0, 1.0], 0, bins=2), media.histogram([1.0, 3.0, float("nan")], 5, bins=300)
    files = {media.histogram_path("w/layer", one.step): msgspec.json.encode(one) for one in (second, first)}
    listed = [Artifact(path=path, size_bytes=len(content)) for path, content in files.items()]
    ((key, paths),) = previews.histogram_steps(listed).items()
    assert key == "w/layer"
    read = [previews.histogram(path, io.BytesIO(files[path])) for path in paths]
    assert [one.step for one in read if one] == [0, 5]
    whole = previews.spreads(key, [one for one in read if one], 9)
    assert whole is not None
    assert (whole.low, whole.high, whole.left_out) == (0.0, 3.0, 7)
    assert len(whole.histograms[1].counts) <= previews.BARS_MAX, "of many bars neighbours join"
    assert sum(whole.histograms[1].counts) == 2
    drawn = previews.bars(whole.histograms[0], 0, 3, 300, 90)
    assert [(bar.x, bar.height) for bar in drawn] == [(0, 90), (50, 45)]
    assert shown(paths[0], files[paths[0]]).kind == "histogram"


def test_values_all_alike_and_none_at_all_are_drawn_too() -> None:
    alike = shown("histograms/w/1.json", msgspec.json.encode(media.histogram([2.0, 2.0], 1))).histogram
    assert alike is not None
    assert len(previews.bars(alike, 2.0, 2.0, 100, 10)) == 1
    nothing = shown("histograms/w/1.json", msgspec.json.encode(media.histogram([], 1))).histogram
    assert nothing is not None
    assert previews.spreads("w", [nothing], 1) is None


@pytest.mark.parametrize(
    "content", [b"{}", b"[1]", b'{"edges":[2,1],"counts":[1],"count":1}', b'{"edges":[0,1],"counts":[-1],"count":1}']
)
def test_what_is_no_histogram_is_shown_as_what_it_is(content: bytes) -> None:
    assert shown("histograms/w/000000000001.json", content).kind in {"text", "table"}


def test_images_of_our_sdk_stand_by_step() -> None:
    files = [Artifact(path=media.image_path("a/b", step, 1_764_160_000_000), size_bytes=1) for step in (3, 1)]
    (gallery,) = galleries(files)
    assert gallery.key == "a/b"
    assert [picture.step for picture in gallery.pictures] == [1, 3]


@given(
    st.binary(max_size=400),
    st.sampled_from(["histograms/a/1.json", "a.csv", "a.json", "a.jsonl", "a.parquet", "a.txt", "a", "a.tsv"]),
)
def test_no_bytes_make_an_error(content: bytes, path: str) -> None:
    made = shown(path, content)
    assert made.kind in {"table", "text", "histogram", "none"}
