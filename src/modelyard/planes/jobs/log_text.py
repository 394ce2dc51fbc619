"""What a program wrote, made safe to show: text that can neither drive a terminal nor hide what it says."""

from __future__ import annotations

import re

_CONTROL_STRINGS = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\x1b[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?"  # OSC, DCS, SOS, PM, APC: titles, links, clipboard
    r"|\x1b[ -/]*[0-~]"  # two and three character escapes
    r"|\x9b[0-?]*[ -/]*[@-~]"
)
_LINE_ENDS = re.compile(r"\r\n?|[\x85\u2028\u2029\x0b\x0c]")
_INVISIBLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]")


def neutralise(text: str) -> str:
    """The text without terminal sequences; other control and direction characters become visible signs."""
    text = _CONTROL_STRINGS.sub("", text)
    text = _LINE_ENDS.sub("\n", text)
    return _INVISIBLE.sub(_sign, text)


def _sign(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else "\ufffd"


def whole_lines(content: bytes, end: bool) -> bytes:
    """The part of a piece that ends with a line, so that neither a character nor a sequence is cut in two.

    All of it at the end of a log, or where it is one long line.
    """
    if end or b"\n" not in content:
        return content
    return content[: content.rindex(b"\n") + 1]
