"""From a URN to what a reader sees of it: its kind, its label, and the address of its page."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from modelyard.ui.format import short_id

_BY_NAME = {"endpoint": "/endpoints/", "monitor": "/monitors/", "pipeline": "/pipelines/"}
_LISTED = {"trigger": "/automation", "response": "/automation"}
_BY_ID = {"run": "/runs/", "job": "/jobs/", "pipeline-run": "/pipelines/runs/", "alert": "/alerts/"}
_IDS = frozenset({"token", "evaluation", "latency", "approval", "response", "step"})
_WITH_PARTS = ("dataset:", "feature-view:")
_KINDS = {"env": "environment", "pipeline-run": "pipeline run", "feature-view": "feature view"}


def kind_of(urn: str) -> str:
    """The noun of a URN in a reader's words."""
    kind = urn.partition(":")[0]
    return _KINDS.get(kind, kind)


def whole_of(urn: str) -> tuple[str, str]:
    """A URN without its column or feature, and that part; empty where it names none."""
    if urn.startswith(_WITH_PARTS):
        whole, _, part = urn.partition("#")
        return whole, part
    return urn, ""


def label_of(urn: str) -> str:
    """What tells a URN from others of its kind, short."""
    kind, _, rest = urn.partition(":")
    name, at, version = rest.rpartition("@")
    if at and kind in ("dataset", "feature-view") and "#" in version:
        number, _, part = version.partition("#")
        return f"{name}.{part} @{number[:7]}"
    if at:
        return f"{name} @{version[:7]}" if len(version) > 10 else f"{name} @{version}"
    if kind in ("code", "env"):
        return rest[:10]
    return short_id(rest) if kind in _BY_ID or kind in _IDS else rest


def address_of(urn: str) -> str:
    """The path of the page that shows a URN; of one that has no page of its own, its lineage."""
    kind, _, rest = urn.partition(":")
    name, at, version = rest.rpartition("@")
    if not at:
        name, version = rest, ""
    if kind in _BY_ID:
        return _BY_ID[kind] + quote(rest, safe="")
    if kind in _BY_NAME:
        return _BY_NAME[kind] + quote(rest, safe="")
    if kind == "experiment":
        return f"/runs?experiment={quote(rest, safe='')}"
    if kind in _LISTED:
        return _LISTED[kind]
    if kind in ("dataset", "feature-view") and "#" in version:
        return lineage_of(urn)
    if kind == "dataset":
        return f"/datasets/{quote(name, safe='')}" + (f"?version={quote(version)}" if version else "")
    if kind == "model":
        page = f"/models/{quote(name, safe='')}"
        return f"{page}/versions/{quote(version)}" if version else page
    if kind == "feature-view":
        return f"/features/{quote(name, safe='')}" + (f"?version={quote(version)}" if version else "")
    return lineage_of(urn)


def lineage_of(urn: str) -> str:
    """The path of the graph around a URN."""
    return "/lineage?" + urlencode({"urn": urn})
