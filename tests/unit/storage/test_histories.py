"""Random histories of writes, deletions and collections: what is reachable is readable, and at the end nothing else is
left."""

from __future__ import annotations

import random
import tempfile
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.kernel.auth import Principal, Role, Scope
from modelyard.kernel.clock import FixedClock
from modelyard.kernel.database import Database, metadata
from modelyard.kernel.errors import ModelyardError, NotFound
from modelyard.planes.storage import Storage
from modelyard.planes.tracking import Owner
from modelyard.types.storage import Collect

from .conftest import DAY, Yard

ADA = Scope("default", Principal("ada", {"*": Role.ADMIN}))
# Few contents, so that planes share blobs and what goes in one comes again in another.
CONTENTS = [bytes([at]) * (at + 1) for at in range(6)]
CONTENT = st.integers(0, len(CONTENTS) - 1)
ACT = st.one_of(
    st.tuples(st.just("put"), CONTENT),
    st.tuples(st.just("delete"), CONTENT),
    st.tuples(st.just("register"), CONTENT),
    st.tuples(st.just("drop"), CONTENT),
    st.tuples(st.just("send"), CONTENT),
    st.tuples(st.just("commit"), CONTENT),
    st.tuples(st.just("wait"), st.integers(1, 50)),
    st.tuples(st.just("collect"), st.just(0)),
    st.tuples(st.just("cut off"), st.integers(0, 255)),
)


class History:
    """Carries acts out, and knows what must be readable."""

    def __init__(self, yard: Yard) -> None:
        self.yard = yard
        self.run_id = yard.run()
        self.source = yard.tracking.runs.get(ADA, self.run_id).artifact_uri
        self.artifacts: dict[str, bytes] = {}
        self.versions: dict[int, dict[str, bytes]] = {}
        self.committed: dict[int, list[bytes]] = {}
        yard.registry.models.create(ADA, "m")
        yard.dataset("scans")

    def act(self, kind: str, number: int) -> None:
        yard, content = self.yard, CONTENTS[number % len(CONTENTS)]
        path = f"f{number}.bin"
        if kind == "put":
            yard.put(self.run_id, path, content)
            self.artifacts[path] = content
        elif kind == "delete" and self.artifacts.pop(path, None):
            yard.tracking.artifacts.delete(ADA, Owner("run", self.run_id), path)
        elif kind == "register" and self.artifacts:
            made = yard.registry.versions.create(ADA, "m", self.source, run=self.run_id)
            self.versions[made.version] = dict(self.artifacts)
        elif kind == "drop" and self.versions:
            version, _ = self.versions.popitem()
            yard.registry.versions.drop(ADA, "m", version, "old")
            yard.registry.versions.purge(ADA, "m", version, "old")
        elif kind == "send":
            yard.send("scans", content)
        elif kind == "commit":
            version = yard.commit("scans", yard.send("scans", content))
            self.committed.setdefault(version, [content])
        elif kind == "wait":
            yard.clock.advance(number * 3_600)
        elif kind == "collect":
            yard.collect()
        elif kind == "cut off":
            self.collect_until(number)

    def collect_until(self, part: int) -> None:
        """A collection that ends in the middle, its removals done and not written down."""
        settle, seen = Storage._settle, [0]

        def killed(storage: Storage, *args: object) -> None:
            seen[0] += 1
            if seen[0] > part:
                raise KeyboardInterrupt
            settle(storage, *args)  # type: ignore[arg-type]

        Storage._settle = killed  # type: ignore[method-assign,assignment]
        try:
            self.yard.collect()
        except KeyboardInterrupt:
            pass
        finally:
            Storage._settle = settle  # type: ignore[method-assign]

    def check(self) -> None:
        yard = self.yard
        for path, content in self.artifacts.items():
            _, file = yard.tracking.artifacts.open(ADA, Owner("run", self.run_id), path)
            with file:
                assert file.read() == content
        for version, files in self.versions.items():
            for path, content in files.items():
                _, file = yard.registry.versions.open(ADA, "m", version, path)
                with file:
                    assert file.read() == content
        for version in self.committed:
            assert yard.files.verify(ADA, "scans", version).problems == []


def with_yard(play: Callable[[Yard], None]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        clock = FixedClock(datetime.fromisoformat("2026-01-01T12:00:00+00:00"))
        database = Database(f"sqlite:///{directory}/catalog.db", clock)
        metadata.create_all(database.engine)
        try:
            play(Yard(database, clock, ADA, Path(directory)))
        finally:
            database.close()


@pytest.mark.slow
@settings(max_examples=15)
@given(acts=st.lists(ACT, min_size=4, max_size=25))
def test_what_is_reachable_is_readable_and_in_the_end_nothing_else_is_left(acts: list[tuple[str, int]]) -> None:
    def play(yard: Yard) -> None:
        history = History(yard)
        for kind, number in acts:
            history.act(kind, number)
            history.check()
        for _ in range(3):
            yard.clock.advance(DAY + 1)
            yard.collect()
        history.check()
        assert set(yard.blobs.digests()) == {one for keeper in yard.keepers for one in keeper()}

    with_yard(play)


class Paces:
    """A clock that moves while others work, yet never so far that a single act of theirs takes the whole grace."""

    def __init__(self, clock: FixedClock) -> None:
        self._clock = clock
        self._turn = 0
        self._working: dict[int, int] = {}
        self._changed = threading.Condition()

    def begin(self) -> None:
        with self._changed:
            self._working[threading.get_ident()] = self._turn

    def end(self) -> None:
        with self._changed:
            del self._working[threading.get_ident()]
            self._changed.notify_all()

    def move(self, seconds: float) -> None:
        """Move once all that began before the last move has ended: an act sees at most two moves begin."""
        with self._changed:
            self._changed.wait_for(lambda: all(turn >= self._turn for turn in self._working.values()))
            self._turn += 1
            self._clock.advance(seconds)


@pytest.mark.slow
def test_writers_and_two_collectors_at_once_lose_nothing() -> None:
    def play(yard: Yard) -> None:
        paces, ended = Paces(yard.clock), threading.Event()
        failures: list[BaseException] = []
        histories = [History.__new__(History) for _ in range(4)]
        yard.registry.models.create(ADA, "m")
        for at, history in enumerate(histories):
            history.yard, history.run_id = yard, yard.run()
            history.source = yard.tracking.runs.get(ADA, history.run_id).artifact_uri
            history.artifacts, history.versions, history.committed = {}, {}, {}
            yard.dataset(f"scans{at}")

        def write(seed: int) -> None:
            draw, history = random.Random(seed), histories[seed]
            kinds = ["put", "put", "delete", "register", "drop"]
            try:
                for turn in range(20):
                    paces.begin()
                    history.act(draw.choice(kinds), draw.randrange(len(CONTENTS)))
                    yard.put(history.run_id, "once.bin", b"%d of %d" % (turn, seed))
                    yard.commit(f"scans{seed}", yard.send(f"scans{seed}", draw.choice(CONTENTS)))
                    paces.end()
                    history.check()
            except (AssertionError, ModelyardError, OSError, KeyError) as error:
                failures.append(error)
                paces.end()

        def collect() -> None:
            try:
                while not ended.is_set():
                    yard.storage.collect(ADA, Collect(grace_s=DAY))
                    paces.move(DAY / 3)
            except (ModelyardError, OSError, KeyError) as error:
                failures.append(error)

        writers = [threading.Thread(target=write, args=(at,)) for at in range(4)]
        collectors = [threading.Thread(target=collect) for _ in range(2)]
        for thread in (*writers, *collectors):
            thread.start()
        for thread in writers:
            thread.join()
        ended.set()
        for thread in collectors:
            thread.join()
        assert failures == []
        for at, history in enumerate(histories):
            history.check()
            assert yard.files.verify(ADA, f"scans{at}").problems == []
        assert any(one.freed for one in yard.storage.collections(ADA)), "the collectors had something to take"

    with_yard(play)


def test_what_was_collected_is_not_there(yard: Yard) -> None:
    """So that `check` can fail."""
    history = History(yard)
    history.act("put", 1)
    history.check()
    yard.blobs.delete(yard.put(history.run_id, "f1.bin", CONTENTS[1]))
    with pytest.raises(NotFound):
        history.check()
