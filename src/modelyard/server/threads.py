"""Threads for work that talks to the catalog, near enough that the way there and back is not the longer part.

`run_in_executor` hands over by two futures, a condition and a semaphore; here one queue and one future do.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
_Work = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[..., Any], tuple[Any, ...]]


class Threads:
    """At most so many threads, started as they are needed. Called from one event loop."""

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._waiting: SimpleQueue[_Work] = SimpleQueue()
        self._threads = 0
        self._busy = 0

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """What the function returns or raises, called in a thread."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._busy += 1
        if self._busy > self._threads < self._most:
            self._threads += 1
            threading.Thread(target=self._work, name=f"{self._name}-{self._threads}", daemon=True).start()
        self._waiting.put((loop, answer, function, args))
        return await answer

    def _work(self) -> None:
        while True:
            loop, answer, function, args = self._waiting.get()
            try:
                found = function(*args)
            except BaseException as error:  # noqa: BLE001  raised again where it is awaited
                self._tell(loop, answer, None, error)
                del error
            else:
                self._tell(loop, answer, found, None)
                del found
            # An idle thread keeps nothing of the last request alive.
            del loop, answer, function, args

    def _tell(
        self, loop: asyncio.AbstractEventLoop, answer: asyncio.Future[Any], found: Any, error: BaseException | None
    ) -> None:
        try:
            loop.call_soon_threadsafe(self._settle, answer, found, error)
        except RuntimeError:
            # The loop was closed in the meantime: nobody waits any more.
            return

    def _settle(self, answer: asyncio.Future[Any], found: Any, error: BaseException | None) -> None:
        # Only now is the thread free, also where who asked went away long before.
        self._busy -= 1
        if answer.done():
            return
        if error is None:
            answer.set_result(found)
        else:
            answer.set_exception(error)
