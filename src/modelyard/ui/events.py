"""How an event reads: `model.promoted` on `model:delay@3` as "promoted", with the colour of what it means."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from modelyard.kernel.event import Event
from modelyard.ui.format import number, short_id, truncated, words
from modelyard.ui.urns import address_of, kind_of, label_of

_BAD = ("failed", "rejected", "refused", "quarantined", "lost", "raised", "timed_out", "killed", "blocked", "crashed")
_GOOD = ("promoted", "published", "approved", "finished", "succeeded", "ready", "resolved", "passed", "completed")
_WARN = ("retried", "preempted", "rolled_back", "dropped", "cancelled", "revoked", "stale", "paused")
_SHOWN_MAX = 4


class Sentence(Struct, frozen=True):
    """An event for a reader: subject with its page, verb, a few details, and a tone."""

    kind: str
    label: str
    href: str
    verb: str
    details: str
    tone: str


def sentence(event: Event) -> Sentence:
    """An event in words."""
    noun, _, verb = event.kind.partition(".")
    subject = kind_of(event.subject)
    phrase = words(verb or noun)
    # `version.created` on a dataset says more as "version created" than as "created".
    if noun not in (event.subject.partition(":")[0], subject.replace(" ", "_")) and verb:
        phrase = f"{words(noun)} {phrase}"
    return Sentence(
        subject, label_of(event.subject), address_of(event.subject), phrase, details(event), tone_of(event.kind)
    )


class Folded(Struct, frozen=True):
    """The newest of several events of one kind about one thing, and how many more there were."""

    event: Event
    again: int


def folded(events: Sequence[Event]) -> list[Folded]:
    """Events of one kind about one thing, whatever its version, by one actor as one, at the place of the newest: a
    dataset that gets a version every second does not hide what else happened."""
    counts: dict[tuple[str, str, str], int] = {}
    newest: dict[tuple[str, str, str], Event] = {}
    for event in events:
        key = (event.kind, event.subject.partition("@")[0], event.actor)
        newest.setdefault(key, event)
        counts[key] = counts.get(key, 0) + 1
    return [Folded(event, counts[key] - 1) for key, event in newest.items()]


def details(event: Event) -> str:
    """The first few plain values of an event's data that its subject does not say already: `alias champion`."""
    name, _, version = event.subject.partition(":")[2].partition("@")
    said = event.data.get("anomalies")
    if isinstance(said, list) and said and isinstance(said[0], dict) and isinstance(said[0].get("reason"), str):
        more = f", and {len(said) - 1} more" if len(said) > 1 else ""
        return truncated(said[0]["reason"], 140) + more
    parts = []
    for key, value in event.data.items():
        if value in (name, version) or str(value) == version:
            continue
        if value is False or value in (None, "", [], {}) or isinstance(value, list | dict):
            continue
        parts.append(_detail(key, value))
        if len(parts) == _SHOWN_MAX:
            break
    return ", ".join(parts)


def _detail(key: str, value: str | float | bool) -> str:
    if value is True:
        return words(key)
    text = number(value) if isinstance(value, float | int) else str(value)
    text = short_id(text) if len(text) in (32, 40, 64) and text.isalnum() else truncated(text, 90)
    return text if key in ("reason", "why") else f"{words(key)} {text}"


def tone_of(kind: str) -> str:
    """The colour family of an event's kind."""
    for endings, tone in ((_BAD, "bad"), (_WARN, "warn"), (_GOOD, "good")):
        if kind.endswith(endings):
            return tone
    return "quiet"
