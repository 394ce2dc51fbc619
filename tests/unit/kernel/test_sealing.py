"""What is sealed opens with its key at its place only; keys are made once, private, and can be changed."""

from __future__ import annotations

import base64
import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelyard.kernel.errors import InvalidInput, Unavailable
from modelyard.kernel.sealing import KEY_FILE, Sealer, is_sealed


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(text=st.text(), place=st.text())
def test_what_is_sealed_opens_at_its_place(tmp_path: Path, text: str, place: str) -> None:
    sealer = Sealer(tmp_path)
    stored = sealer.seal(text, place)
    assert Sealer(tmp_path).open(stored, place) == text
    if text:
        assert is_sealed(stored)
        assert len(text) < 3 or text not in stored
        with pytest.raises(Unavailable):
            sealer.open(stored, f"{place}x")
        assert sealer.seal(text, place) != stored


def test_a_change_shows(tmp_path: Path) -> None:
    sealer = Sealer(tmp_path)
    stored = sealer.seal("secret", "webhook:1")
    head, _, body = stored.rpartition(":")
    raw = bytearray(base64.b64decode(body))
    for at in range(len(raw)):
        changed = bytes([*raw[:at], raw[at] ^ 1, *raw[at + 1 :]])
        with pytest.raises(Unavailable) as caught:
            sealer.open(f"{head}:{base64.b64encode(changed).decode()}", "webhook:1")
        assert caught.value.code == "secret.damaged"
    for broken in (f"{head}:", f"{head}:%%%", f"{head}:AAAA"):
        with pytest.raises(Unavailable):
            sealer.open(broken, "webhook:1")


def test_the_key_is_private_and_made_once_however_many_begin(tmp_path: Path) -> None:
    stored: list[str] = []
    threads = [
        threading.Thread(target=lambda: stored.append(Sealer(tmp_path / "home").seal("x", "p"))) for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    file = tmp_path / "home" / KEY_FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [one.name for one in file.parent.iterdir()] == [KEY_FILE]
    assert [Sealer(tmp_path / "home").open(one, "p") for one in stored] == ["x"] * 16


def test_keys_change_without_a_moment_at_which_something_cannot_be_opened(tmp_path: Path) -> None:
    sealer, other = Sealer(tmp_path), Sealer(tmp_path)
    old = sealer.seal("x", "p")
    sealer.add_key()
    assert sealer.open(old, "p") == "x"
    assert not sealer.is_newest(old)
    new = sealer.seal("x", "p")
    assert other.open(new, "p") == "x", "another process reads the file again"
    sealer.add_key()
    assert sealer.open(new, "p") == "x"
    assert not sealer.is_newest(new)
    with pytest.raises(Unavailable) as caught:
        Sealer(tmp_path).open(old, "p")
    assert caught.value.code == "secret.key_lost"


def test_keys_by_setting_take_the_place_of_the_file(tmp_path: Path) -> None:
    first, second = (base64.b64encode(os.urandom(32)).decode() for _ in range(2))
    old = Sealer(tmp_path, first).seal("x", "p")
    both = Sealer(tmp_path, f"{second},{first}")
    assert both.open(old, "p") == "x"
    assert not both.is_newest(old)
    assert Sealer(tmp_path, second).open(both.seal("x", "p"), "p") == "x"
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InvalidInput):
        Sealer(tmp_path, "short").seal("x", "p")


def test_what_was_stored_in_clear_is_read_as_it_is(tmp_path: Path) -> None:
    assert Sealer(tmp_path).open("in clear", "p") == "in clear"
    assert Sealer(tmp_path).seal("", "p") == ""
