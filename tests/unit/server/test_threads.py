"""Threads behind the hot routes: what is returned and raised comes back, more work than threads waits its turn."""

from __future__ import annotations

import asyncio
import threading

import pytest

from modelyard.server.threads import Threads


def test_what_is_returned_or_raised_comes_back() -> None:
    def divide(what: int, by: int) -> float:
        assert threading.current_thread() is not threading.main_thread()
        return what / by

    async def ask() -> None:
        threads = Threads("test", 2)
        assert await threads.run(divide, 6, 3) == 2
        with pytest.raises(ZeroDivisionError):
            await threads.run(divide, 1, 0)
        assert await threads.run(divide, 8, 2) == 4

    asyncio.run(ask())


def test_more_work_than_threads_waits_its_turn() -> None:
    ran: set[str] = set()
    both = threading.Barrier(2, timeout=10)

    def work(at: int) -> int:
        # Only two at once get past it, so both threads are used, and no third is there to break it.
        both.wait()
        ran.add(threading.current_thread().name)
        return at

    async def ask() -> list[int]:
        threads = Threads("test", 2)
        return await asyncio.gather(*(threads.run(work, at) for at in range(20)))

    assert asyncio.run(ask()) == list(range(20))
    assert ran == {"test-1", "test-2"}


def test_who_gives_up_leaves_a_thread_at_work_and_nobody_waits_for_that() -> None:
    go = threading.Event()

    async def ask() -> int:
        threads = Threads("test", 2)
        first = asyncio.ensure_future(threads.run(go.wait, 60))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        found = await asyncio.wait_for(threads.run(int, "7"), 30)
        go.set()
        return found

    assert asyncio.run(ask()) == 7
