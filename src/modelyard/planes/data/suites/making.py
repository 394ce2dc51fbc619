"""Checks from loosely typed arguments. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from modelyard.types.checks import Check, Rule


def made(kind: type[Rule], **fields: Any) -> Check:
    """A check as if its declaration had come over the wire: every field is of the type that the noun says. Raises
    msgspec.ValidationError."""
    plain = {name: msgspec.to_builtins(value) for name, value in fields.items()}
    check: Check = msgspec.convert({"check": kind.__struct_config__.tag, **plain}, Check)
    return check
