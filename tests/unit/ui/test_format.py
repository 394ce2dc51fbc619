"""How values read: the words of ages, durations, sizes and numbers."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.ui import format as formats

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def plain(text: str) -> str:
    return text.replace("\u202f", " ")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (3, "just now"),
        (42, "42 s ago"),
        (240, "4 min ago"),
        (7300, "2 h ago"),
        (86400 * 5, "5 d ago"),
        (86400 * 90, "3 mo ago"),
        (86400 * 800, "2 y ago"),
        (-7300, "in 2 h"),
    ],
)
def test_ages(seconds: float, text: str) -> None:
    assert plain(formats.relative(NOW - timedelta(seconds=seconds), NOW)) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.82, "820 ms"),
        (0.9996, "1.0 s"),
        (4.2, "4.2 s"),
        (59.97, "1 min"),
        (60, "1 min"),
        (192, "3 min 12 s"),
        (7500, "2 h 5 min"),
        (3 * 86400 + 4 * 3600, "3 d 4 h"),
        (-4.2, "−4.2 s"),
        (None, "–"),
        (math.inf, "–"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert plain(formats.duration(seconds)) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0 B"), (512, "512 B"), (1536, "1.5 KiB"), (5 * 1024**3, "5.0 GiB"), (None, "–")]
)
def test_sizes(value: int | None, text: str) -> None:
    assert plain(formats.size(value)) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.731249, "0.7312"),
        (0.5, "0.5"),
        (0.0, "0"),
        (336776, "336,776"),
        (1006.83, "1,006.8"),
        (12345.678, "12,346"),
        (1e-9, "1.000e-09"),
        (math.nan, "NaN"),
        (-math.inf, "−∞"),
        (True, "True"),
        ("text", "text"),
        (None, "–"),
    ],
)
def test_numbers(value: float | str | None, text: str) -> None:
    assert formats.number(value) == text


def test_measures_keep_their_zeros_so_that_a_column_lines_up() -> None:
    assert [formats.measure(value) for value in (0.728, 0.711, 0.66)] == ["0.7280", "0.7110", "0.6600"]


@given(st.floats(allow_nan=True, allow_infinity=True) | st.integers())
def test_any_number_has_a_text(value: float) -> None:
    assert formats.number(value)
    assert formats.measure(value)


@given(st.integers(0, 2**63))
def test_any_size_has_a_short_text(value: int) -> None:
    assert len(formats.size(value)) < 16


def test_ids_are_shortened_to_what_tells_them_apart() -> None:
    assert formats.short_id("01932a107b2c7000a1b2c3d4e5f60ab1") == "e5f60ab1"
    assert formats.short_id("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08") == "9f86d081"
    assert formats.short_id("flights") == "flights"


@given(st.text(max_size=80), st.integers(4, 40))
def test_truncation_never_exceeds_and_keeps_both_ends(text: str, characters: int) -> None:
    short = formats.truncated(text, characters)
    assert len(short) <= max(characters, 0) or short == text
    assert short == text or (short[0] == text[0] and short[-1] == text[-1])


def test_plurals() -> None:
    counted = [formats.plural(n, noun) for n, noun in [(1, "run"), (2, "run"), (3, "batch"), (2, "query"), (0, "day")]]
    assert counted == ["1 run", "2 runs", "3 batches", "2 queries", "0 days"]


def test_who_did_something_is_named_shortly() -> None:
    assert formats.actor("job:01932a107b2c7000a1b2c3d4e5f60ab1") == "job e5f60ab1"
    assert formats.actor("automation:retrain") == "automation:retrain"


def test_states_have_tones() -> None:
    assert [formats.tone(s) for s in ("FINISHED", "running", "timed_out", "quarantined", "whatever")] == [
        "good",
        "live",
        "bad",
        "warn",
        "quiet",
    ]
