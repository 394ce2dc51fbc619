"""What clears away by itself, beside a wall clock that is moved: nothing goes that is protected, and nothing stops."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from modelyard.engines.tables.delta import DeltaTables
from modelyard.kernel.auth import Scope
from modelyard.kernel.clock import FixedClock
from modelyard.kernel.database import Database
from modelyard.kernel.reconcile import Reconciler
from modelyard.planes.data import Data
from modelyard.types.data import Retention

DAY_S = 86_400.0


class House:
    def __init__(self, database: Database, clock: FixedClock, scope: Scope, root: Path) -> None:
        self.clock, self.scope = clock, scope
        self.data = Data(database, DeltaTables(root / "tables"), spill=root / "spill")
        self._reconcilers = {one.name: one for one in self.data.reconcilers()}

    def reconciler(self, name: str) -> Reconciler:
        return self._reconcilers[name]

    def round(self) -> int:
        """What a round of the loop would do of the retention. Returns how many datasets were looked at."""
        vacuum = self.reconciler("data.retention")
        keys = vacuum.due(self.clock.now())
        for key in keys:
            vacuum.act(key, None)  # type: ignore[arg-type]
        return len(keys)

    def versions(self) -> list[int]:
        found = self.data.versions(self.scope, "flights").items
        return sorted(one.version for one in found if one.expired_at is None)


@pytest.fixture
def house(database: Database, clock: FixedClock, scope: Scope, tmp_path: Path) -> House:
    """Three versions in three days, of which those of the last week are to be kept."""
    house = House(database, clock, scope, tmp_path)
    house.data.create(scope, "flights")
    for number in range(3):
        house.data.write(scope, "flights", pa.table({"x": [number]}), mode="overwrite")
        clock.advance(DAY_S)
    house.data.update(scope, "flights", retention=Retention(days=7))
    return house


def test_a_vacuum_a_day_and_what_is_old_goes(house: House) -> None:
    assert (house.round(), house.versions()) == (1, [1, 2, 3])
    assert house.round() == 0
    house.clock.advance(DAY_S / 2)
    assert house.round() == 0
    house.clock.advance(DAY_S / 2)
    assert house.round() == 1
    house.clock.advance(3.5 * DAY_S)
    assert (house.round(), house.versions()) == (1, [2, 3])


@pytest.mark.parametrize("years", [1, 50])
def test_a_clock_that_is_moved_forward_makes_nothing_old(house: House, years: int) -> None:
    house.round()
    house.clock.jump(years * 365 * DAY_S)
    for _ in range(3):
        house.clock.advance(DAY_S / 3 - 60)
        house.round()
        assert house.versions() == [1, 2, 3]
    house.clock.jump(-years * 365 * DAY_S)
    house.clock.advance(DAY_S)
    assert (house.round(), house.versions()) == (1, [1, 2, 3])


def test_what_is_old_by_the_clock_as_it_was_goes_all_the_same(house: House) -> None:
    house.round()
    house.clock.advance(4.5 * DAY_S)
    house.reconciler("data.retention").due(house.clock.now())
    house.clock.jump(365 * DAY_S)
    assert (house.round(), house.versions()) == (1, [2, 3])


def test_a_clock_that_stays_where_it_was_moved_is_believed(house: House) -> None:
    """It may have been wrong before: retention goes on, a day later."""
    house.round()
    house.clock.jump(365 * DAY_S)
    for _ in range(4):
        house.clock.advance(DAY_S)
        house.round()
    assert house.versions() == [3], "the newest is main"


def test_a_clock_that_is_moved_back_stops_nothing(house: House) -> None:
    house.round()
    house.clock.jump(-10 * 365 * DAY_S)
    house.clock.advance(DAY_S)
    assert (house.round(), house.versions()) == (1, [1, 2, 3])
    house.clock.jump(10 * 365 * DAY_S)
    for _ in range(9):
        house.clock.advance(DAY_S)
        assert house.round() == 1
    assert house.versions() == [3]


@pytest.mark.parametrize("jump", [lambda clock: clock.jump(30 * DAY_S), lambda clock: clock.jump(-30 * DAY_S)])
def test_the_sweep_goes_on_hourly_and_takes_nothing_for_older(house: House, jump: Callable[[FixedClock], None]) -> None:
    sweep, clock = house.reconciler("data.sweep"), house.clock
    assert sweep.due(clock.now()) == [clock.now().isoformat()]
    before = clock.now()
    jump(clock)
    assert sweep.due(clock.now()) == []
    clock.advance(3_600)
    [asked] = sweep.due(clock.now())
    assert asked == min(clock.now(), before + timedelta(hours=1)).isoformat()
