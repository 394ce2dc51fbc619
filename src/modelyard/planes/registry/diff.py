"""In what two versions differ. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from modelyard.planes.registry.metrics import LARGER_IS_BETTER, metric_of
from modelyard.types.registry import Evaluation, ModelFile, ModelVersion, VersionChange

_SHOWN_CHARACTERS_MAX = 300
_SLICE_GAP_SHOWN = 0.005


def changes(
    before: ModelVersion,
    after: ModelVersion,
    files: tuple[Sequence[ModelFile], Sequence[ModelFile]],
    evaluations: tuple[Evaluation | None, Evaluation | None],
    runs: tuple[Mapping[str, str], Mapping[str, str]],
) -> list[VersionChange]:
    """All differences: provenance, params of the runs, metrics and slices on the same rows, files, signature, size."""
    return [
        *_of_mappings("provenance", _provenance(before), _provenance(after)),
        *_of_mappings("params", runs[0], runs[1]),
        *_metrics(*evaluations),
        *_of_mappings("model", _described(before), _described(after)),
        *_of_mappings("files", _listed(files[0]), _listed(files[1])),
        *_of_mappings("tags", before.tags, after.tags),
    ]


def _of_mappings(plane: str, before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[VersionChange]:
    for name in sorted({*before, *after}):
        old, new = before.get(name, ""), after.get(name, "")
        if old != new:
            yield VersionChange(plane=plane, name=name, before=_short(old), after=_short(new))


def _provenance(version: ModelVersion) -> dict[str, str]:
    known = version.provenance
    return {
        "run": known.run,
        "data": ", ".join(known.data),
        "code": known.code,
        "environment": known.environment,
        "created by": version.created_by,
    }


def _described(version: ModelVersion) -> dict[str, str]:
    return {
        "format": version.format,
        "trusted": "yes" if version.trusted else "no",
        "size_bytes": str(version.size_bytes),
        "signature": _text(version.signature),
        "flavors": ", ".join(sorted(version.flavors)),
        "description": version.description,
    }


def _listed(files: Sequence[ModelFile]) -> dict[str, str]:
    return {one.path: f"{one.digest[:12]} ({one.size_bytes:,} bytes)" for one in files}


def _metrics(before: Evaluation | None, after: Evaluation | None) -> Iterator[VersionChange]:
    if before is None or after is None:
        return
    for metric in LARGER_IS_BETTER:
        old, new = metric_of(before.overall, metric), metric_of(after.overall, metric)
        if old is not None and new is not None and old != new:
            yield VersionChange(plane="metrics", name=metric, before=f"{old:.4f}", after=f"{new:.4f}")
    earlier = {(cut.column, cut.value): cut.scores for cut in before.slices}
    for cut in after.slices:
        scores = earlier.get((cut.column, cut.value))
        if scores is None or scores.auc is None or cut.scores.auc is None:
            continue
        if abs(scores.auc - cut.scores.auc) >= _SLICE_GAP_SHOWN:
            name = f"auc where {cut.column}={cut.value}"
            yield VersionChange(plane="slices", name=name, before=f"{scores.auc:.4f}", after=f"{cut.scores.auc:.4f}")


def _text(value: Any) -> str:
    return "" if value is None else msgspec.json.encode(value).decode()


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS_MAX else text[: _SHOWN_CHARACTERS_MAX - 1] + "…"
