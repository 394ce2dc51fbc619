"""What all handles are: a thing by its name, and the way to it."""

from __future__ import annotations

from typing import ClassVar
from urllib.parse import quote

from modelyard.sdk.client import Client, connect


class Handle:
    """A thing by its name, which need not exist yet. `_NOUN` is what it is called, `_AT` where its kind lies."""

    _NOUN: ClassVar[str]
    _AT: ClassVar[str]

    def __init__(self, name: str, client: Client | None = None) -> None:
        self.name = name
        self._given = client

    def __repr__(self) -> str:
        return f"{self._NOUN}({self.name!r})"

    @property
    def _client(self) -> Client:
        # Asked for at each call: a server may come up on the same home in the meantime.
        return self._given or connect()

    @property
    def _path(self) -> str:
        return f"{self._AT}/{quote(self.name, safe='')}"
