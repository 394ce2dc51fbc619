"""Uploads in parts: nothing shows before all is there, and what nobody completes goes away."""

from __future__ import annotations

import pytest

from modelyard.kernel.auth import Scope
from modelyard.kernel.clock import FixedClock
from modelyard.kernel.errors import InvalidInput, NotFound
from modelyard.planes.tracking import Owner, Tracking


def test_parts_come_in_any_order_and_a_part_may_come_twice(tracking: Tracking, scope: Scope, run_id: str) -> None:
    owner, uploads = Owner("run", run_id), tracking.uploads
    upload = uploads.begin(scope, owner, "d/x", 3)
    tags = {number: uploads.put_part(scope, upload, number, [text]) for number, text in ((3, b"c"), (1, b"?"))}
    with pytest.raises(InvalidInput, match="part 2 of 3"):
        uploads.complete(scope, upload, tags)
    tags[2] = uploads.put_part(scope, upload, 2, [b"b"])
    tags[1] = uploads.put_part(scope, upload, 1, [b"a"])
    assert tracking.artifacts.tree(scope, owner) == []
    assert set(tags.values()) <= set(tracking.kept_blobs())
    made = uploads.complete(scope, upload, tags)
    with tracking.artifacts.open(scope, owner, "d/x")[1] as file:
        assert file.read() == b"abc"
    assert set(tracking.kept_blobs()) == {made.digest}
    with pytest.raises(NotFound):
        uploads.complete(scope, upload, tags)


def test_what_cannot_be_is_refused_before_anything_is_sent(tracking: Tracking, scope: Scope, run_id: str) -> None:
    owner = Owner("run", run_id)
    tracking.artifacts.put(scope, owner, "d/x", [b"1"])
    for path, parts in (("../x", 1), ("x", 0), ("x", 10_001)):
        with pytest.raises(InvalidInput):
            tracking.uploads.begin(scope, owner, path, parts)
    upload = tracking.uploads.begin(scope, owner, "x", 1)
    for number in (0, 2):
        with pytest.raises(InvalidInput):
            tracking.uploads.put_part(scope, upload, number, [b"x"])
    other = Scope("other", scope.principal)
    with pytest.raises(NotFound):
        tracking.uploads.put_part(other, upload, 1, [b"x"])


def test_an_upload_is_forgotten_after_a_week(tracking: Tracking, scope: Scope, run_id: str, clock: FixedClock) -> None:
    owner = Owner("run", run_id)
    old = tracking.uploads.begin(scope, owner, "x", 1)
    tracking.uploads.put_part(scope, old, 1, [b"x"])
    clock.advance(8 * 24 * 3600)
    tracking.uploads.begin(scope, owner, "y", 1)
    assert set(tracking.kept_blobs()) == set()
    with pytest.raises(NotFound):
        tracking.uploads.complete(scope, old, {})
