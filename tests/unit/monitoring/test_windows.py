from datetime import UTC, datetime, timedelta, timezone

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.kernel.errors import InvalidInput
from modelyard.planes.monitoring.windows import parse_window, window_end, window_start, window_starts

SIZES = ["month", "week", "day", "1h", "6h", "12h"]
instants = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))


@settings(deadline=None)
@given(st.sampled_from(SIZES), instants)
def test_an_instant_lies_in_exactly_its_window(text: str, at: datetime) -> None:
    size = parse_window(text)
    start = window_start(size, at)
    end = window_end(size, start)
    assert start <= at < end
    assert window_start(size, end) == end, "the next window starts where this one ends"
    assert window_start(size, end - timedelta(microseconds=1)) == start


@settings(deadline=None)
@given(st.sampled_from(SIZES), st.lists(instants, min_size=1, max_size=20))
def test_arrow_and_python_cut_alike(text: str, at: list[datetime]) -> None:
    size = parse_window(text)
    column = pa.chunked_array([pa.array(at, pa.timestamp("us", "UTC"))])
    assert window_starts(size, column).to_pylist() == [window_start(size, one) for one in at]


def test_windows_are_in_utc_whatever_zone_the_instant_is_written_in() -> None:
    at = datetime(2013, 6, 30, 22, 0, tzinfo=timezone(timedelta(hours=-4)))
    assert window_start(parse_window("month"), at) == datetime(2013, 7, 1, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "year", "5h", "0h", "24", "25h", "-1h", "1d", "month ", "٣h"])
def test_other_windows_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="is no window"):
        parse_window(text)
