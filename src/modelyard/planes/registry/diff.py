"""In what two versions differ. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from modelyard.planes.registry.metrics import LARGER_IS_BETTER, metric_of
from modelyard.types.registry import Evaluation, ModelFile, ModelVersion, VersionChange

_SHOWN_CHARACTERS_MAX = 300
_SLICE_GAP_SHOWN = 0.005
_REQUIREMENT = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*(?:\[[^\]]*\])?)\s*((?:[=<>!~@].*)?)$")


def changes(
    before: ModelVersion,
    after: ModelVersion,
    files: tuple[Sequence[ModelFile], Sequence[ModelFile]],
    evaluations: tuple[Evaluation | None, Evaluation | None],
    runs: tuple[Mapping[str, str], Mapping[str, str]],
    packages: tuple[Mapping[str, str], Mapping[str, str]] = ({}, {}),
) -> list[VersionChange]:
    """All differences: provenance, params of the runs, metrics and slices on the same rows, packages of the
    environment, inputs and outputs, size, files. `packages` are those that the models ask for."""
    return [
        *_metrics(*evaluations),
        *_of_mappings("provenance", _provenance(before), _provenance(after)),
        *_of_mappings("params", runs[0], runs[1]),
        *_of_mappings("environment", *packages),
        *_of_mappings("signature", _columns(before), _columns(after)),
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
        "size_bytes": f"{version.size_bytes:,}",
        "files": str(version.files),
        "licence": version.license,
        "input example": version.input_example,
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


def _columns(version: ModelVersion) -> dict[str, str]:
    """The columns of the inputs and outputs, each with its type."""
    found: dict[str, str] = {}
    for part, columns in (version.signature or {}).items():
        for place, column in enumerate(columns if isinstance(columns, list) else []):
            if isinstance(column, dict):
                optional = "" if column.get("required", True) else ", may be left out"
                tensor = column.get("tensor-spec")
                kind = (
                    f"{tensor.get('dtype')} {tensor.get('shape')}" if isinstance(tensor, dict) else column.get("type")
                )
                found[f"{part.removesuffix('s')} {column.get('name', f'#{place}')}"] = f"{kind}{optional}"
    return found


def packages_of(requirements: str) -> dict[str, str]:
    """What a requirements file asks for, by package."""
    found: dict[str, str] = {}
    for line in requirements.splitlines():
        text = line.partition("#")[0].partition(";")[0].strip()
        match = _REQUIREMENT.match(text)
        if match is not None:
            found[match[1].lower().replace("_", "-")] = match[2].strip() or "any"
    return found


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS_MAX else text[: _SHOWN_CHARACTERS_MAX - 1] + "…"
