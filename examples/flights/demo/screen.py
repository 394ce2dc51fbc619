"""What a person sees while it runs: the step, what goes on now, and each result on a line of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.status import Status

STEPS = 8


class Screen:
    """Lines and a status below them. Without a terminal, the lines alone."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        self.began = time.monotonic()
        self._status: Status | None = None
        self._lock = threading.Lock()

    @contextmanager
    def step(self, number: int, title: str) -> Iterator[Screen]:
        """A step, with how long it took."""
        began = time.monotonic()
        self.console.print(f"\n[bold cyan]{number}/{STEPS}[/]  [bold]{escape(title)}[/]")
        with self.console.status("…") as self._status:
            yield self
        self._status = None
        self.console.print(f"     [dim]{time.monotonic() - began:.1f} s[/]")

    def now(self, text: str) -> None:
        """What goes on at the moment."""
        with self._lock:
            if self._status is not None:
                self._status.update(escape(text))

    def say(self, text: str, style: str = "") -> None:
        """A result."""
        with self._lock:
            self.console.print(f"     {escape(text)}", style=style)

    def good(self, text: str) -> None:
        """A result as it should be."""
        self.say(f"✓ {text}", "green")

    def alarm(self, text: str) -> None:
        """Something that needs an answer."""
        self.say(f"! {text}", "yellow")
