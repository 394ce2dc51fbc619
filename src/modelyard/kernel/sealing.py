"""Secrets that the catalog holds for others, sealed: whoever reads the catalog, or a copy of it, does not read them.

The key is a file of its own beside the catalog, or a setting; a backup of the catalog alone gives no secret away. What
is sealed is bound to where it belongs, so that it cannot be moved to another row, and says with which key.
"""

from __future__ import annotations

import base64
import hashlib
import os
from contextlib import suppress
from pathlib import Path

from modelyard.kernel.errors import InvalidInput, Unavailable
from modelyard.kernel.home import write_private
from modelyard.kernel.paths import make_private

KEY_FILE = "secrets.key"
_KEY_BYTES = 32
_NONCE_BYTES = 12
_PREFIX = "sealed:1:"


class Sealer:
    """Seals and opens texts by AES-256-GCM. `given`: keys by setting, with commas, the newest first; else those of the
    file in `home`, which is made when the first text is sealed."""

    def __init__(self, home: Path, given: str = "") -> None:
        self._file = home / KEY_FILE
        self._given = given
        self._keys: dict[str, bytes] = {}

    def seal(self, text: str, place: str) -> str:
        """The text, readable only with the key and for the same place; an empty one stays empty."""
        if not text:
            return ""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # heavy: imported late

        name, key = self._newest()
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + AESGCM(key).encrypt(nonce, text.encode(), place.encode())
        return f"{_PREFIX}{name}:{base64.b64encode(sealed).decode()}"

    def open(self, stored: str, place: str) -> str:
        """The text that was sealed for the place; what was stored in clear, as it is.

        Raises Unavailable: `secret.key_lost` without its key, `secret.damaged` for what was changed or moved.
        """
        if not is_sealed(stored):
            return stored
        from cryptography.exceptions import InvalidTag  # heavy: imported late
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        name, _, body = stored.removeprefix(_PREFIX).partition(":")
        key = self._key(name)
        try:
            sealed = base64.b64decode(body, validate=True)
            return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], place.encode()).decode()
        except (InvalidTag, ValueError) as error:
            raise Unavailable(
                f"the secret of {place} was changed in the catalog, and cannot be opened",
                code="secret.damaged",
                hint="set it anew",
            ) from error

    def is_newest(self, stored: str) -> bool:
        """Whether a text is sealed, and with the newest key."""
        return is_sealed(stored) and stored.startswith(f"{_PREFIX}{self._newest()[0]}:")

    def add_key(self) -> None:
        """Make a new key the newest, and keep the one before it; to be called once everything is sealed with that.
        With keys by setting this is done by whoever sets them."""
        if not self._given:
            self._write([os.urandom(_KEY_BYTES), self._newest()[1]])

    def _newest(self) -> tuple[str, bytes]:
        keys = self._load()
        if not keys:
            make_private(self._file.parent)
            self._create(os.urandom(_KEY_BYTES))
            keys = self._load()
        return next(iter(keys.items()))

    def _key(self, name: str) -> bytes:
        # Read again for a key that is not known: another process may have made it.
        key = self._keys.get(name) or self._load().get(name)
        if key is None:
            where = "the setting secret_key" if self._given else str(self._file)
            raise Unavailable(
                f"the key {name[:16]} that this secret was sealed with is not in {where}",
                code="secret.key_lost",
                hint="restore that key from a backup, or set the secret anew",
            )
        return key

    def _load(self) -> dict[str, bytes]:
        lines = self._given.split(",") if self._given else self._read()
        self._keys = {_name_of(key): key for key in (_decoded(one.strip()) for one in lines if one.strip())}
        return self._keys

    def _read(self) -> list[str]:
        try:
            return self._file.read_text("ascii").splitlines()
        except FileNotFoundError:
            return []

    def _create(self, key: bytes) -> None:
        """Make the file, unless another process does so at the same time: then its key is the one."""
        temporary = self._file.with_name(f".{KEY_FILE}.{os.getpid()}.{os.urandom(4).hex()}")
        write_private(temporary, base64.b64encode(key) + b"\n")
        try:
            with suppress(FileExistsError):
                os.link(temporary, self._file)
        finally:
            temporary.unlink()

    def _write(self, keys: list[bytes]) -> None:
        write_private(self._file, b"".join(base64.b64encode(key) + b"\n" for key in keys))


def is_sealed(stored: str) -> bool:
    """Whether a stored text is a sealed one."""
    return stored.startswith(_PREFIX)


def _name_of(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()[:16]


def _decoded(text: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise InvalidInput(
            "a key for secrets is not 32 bytes in base64",
            code="secret.key_invalid",
            hint="make one with `openssl rand -base64 32`",
        )
    return key
