"""What is known about a version, for people (a model card in Markdown) and for tools (a CycloneDX ML-BOM). Pure.

Both say only what is on record. What is not known is said to be unknown, never left out to look better.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from modelyard.planes.registry.metrics import LARGER_IS_BETTER, metric_of
from modelyard.types.registry import (
    AliasMove,
    Approval,
    Attestation,
    Decision,
    Evaluation,
    Latency,
    Model,
    ModelFile,
    ModelVersion,
    SignatureCheck,
)

BOM_SPEC = "1.6"
_NAMESPACE = uuid.UUID("6f0f4f0e-6b0a-5d0c-9d7e-0d9b1a5c2f10")
_SPDX = (
    "Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "GPL-2.0-only", "GPL-3.0-only", "LGPL-3.0-only",
    "AGPL-3.0-only", "MPL-2.0", "CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0", "Unlicense",
)  # fmt: skip
_WORST_SLICES_SHOWN = 10
_MARKUP = str.maketrans({"|": "\\|", "<": "&lt;", ">": "&gt;", "`": "'", "[": "\\[", "]": "\\]", "\n": " ", "\r": " "})


@dataclass(frozen=True)
class Record:
    """All that is known about one version."""

    model: Model
    version: ModelVersion
    files: Sequence[ModelFile]
    evaluations: Sequence[Evaluation]
    latencies: Sequence[Latency]
    attestations: Sequence[Attestation]
    signatures: Sequence[SignatureCheck]
    approvals: Sequence[Approval]
    moves: Sequence[AliasMove]
    decision: Decision


def model_card(record: Record) -> str:
    """The model card."""
    version = record.version
    parts = [
        f"# {_plain(version.model)}, version {version.version}",
        _plain(version.description or record.model.description) or "*No description.*",
        *_section("Identity", _identity(record)),
        *_section("Where it comes from", _provenance(version)),
        *_section("Inputs and outputs", _signature(version)),
        *_section("How good it is", _quality(record.evaluations)),
        *_section("How fast it is", _speed(record.latencies)),
        *_section("What others attest", _attested(record.attestations)),
        *_section("Who signed its files", _signed(record.signatures)),
        *_section("Gates now", _gates(record.decision)),
        *_section("Who approved it", _approvals(record.approvals)),
        *_section("What it was", _history(record)),
    ]
    return "\n\n".join(parts) + "\n"


def _section(title: str, lines: Iterable[str]) -> list[str]:
    body = "\n".join(lines)
    return [f"## {title}", body or "*Nothing is on record.*"]


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    shown = [f"| {' | '.join(_plain(str(cell)) for cell in row)} |" for row in rows]
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *shown] if shown else []


def _identity(record: Record) -> list[str]:
    version = record.version
    trusted = f", trusted by {version.trusted_by}: {version.trusted_reason}" if version.trusted else ""
    rows = [
        ("digest", version.digest or "unknown: the files lie elsewhere"),
        ("files", f"{version.files} with {version.size_bytes:,} bytes"),
        ("format", f"{version.format} ({version.format_reason}){trusted}"),
        ("flavors", ", ".join(sorted(version.flavors)) or "unknown"),
        ("licence", version.license or "not declared"),
        ("aliases", ", ".join(version.aliases) or "none"),
        ("registered", f"{version.created_at:%Y-%m-%d %H:%M} UTC by {version.created_by}"),
    ]
    if version.dropped_at is not None:
        rows.append(("dropped", f"{version.dropped_at:%Y-%m-%d} by {version.dropped_by}: {version.dropped_reason}"))
    return _table(("", ""), rows)


def _provenance(version: ModelVersion) -> list[str]:
    known = version.provenance
    return _table(
        ("", ""),
        [
            ("source", known.source or "unknown"),
            ("run", known.run or "unknown"),
            ("data", ", ".join(known.data) or "unknown"),
            ("code", known.code or "unknown"),
            ("environment", known.environment or "unknown"),
        ],
    )


def _signature(version: ModelVersion) -> list[str]:
    rows = []
    for part in ("inputs", "outputs"):
        columns = (version.signature or {}).get(part)
        for column in columns if isinstance(columns, list) else []:
            if isinstance(column, dict):
                required = "yes" if column.get("required", True) else "no"
                rows.append((part, column.get("name", ""), column.get("type", ""), required))
    lines = _table(("", "name", "type", "required"), rows)
    example = version.input_example
    return [*lines, *(["", f"An example of its input lies in `{_plain(example)}`."] if example else [])]


def _quality(evaluations: Sequence[Evaluation]) -> list[str]:
    if not evaluations:
        return []
    newest = evaluations[0]
    overall = newest.overall
    lines = [
        f"On {overall.rows:,} rows ({overall.positives:,} positive) of {_plain(newest.dataset or 'unnamed data')}, "
        f"measured by the server on {newest.at:%Y-%m-%d} from scores that {_whose(newest)}: {overall.verdict}. "
        f"{_plain(overall.reason)}".rstrip(),
        "",
        *_table(("metric", "value"), [(metric, _number(metric_of(overall, metric))) for metric in LARGER_IS_BETTER]),
    ]
    judged = [cut for cut in newest.slices if cut.scores.auc is not None]
    worst = sorted(judged, key=lambda cut: cut.scores.auc or 0.0)[:_WORST_SLICES_SHOWN]
    if worst:
        rows = [(cut.column, cut.value, f"{cut.scores.rows:,}", _number(cut.scores.auc)) for cut in worst]
        lines += ["", "The slices on which it ranks worst:", "", *_table(("by", "value", "rows", "auc"), rows)]
    return lines


def _whose(evaluation: Evaluation) -> str:
    if evaluation.made_by == "platform":
        return f"the model said in job {_plain(evaluation.job)} of the platform"
    return f"{_plain(evaluation.by)} sent"


def _speed(latencies: Sequence[Latency]) -> list[str]:
    rows = [
        (f"{one.at:%Y-%m-%d}", f"{one.p50_ms:.2f}", f"{one.p95_ms:.2f}", f"{one.requests:,}", one.measured_on)
        for one in latencies[:3]
    ]
    return _table(("on", "p50 ms", "p95 ms", "requests", "where"), rows)


def _attested(attestations: Sequence[Attestation]) -> list[str]:
    rows = [
        (f"{one.at:%Y-%m-%d}", one.kind, "yes" if one.passed else "no", one.value, one.summary, one.by)
        for one in attestations
    ]
    return _table(("on", "what", "", "value", "in words", "by"), rows)


def _signed(signatures: Sequence[SignatureCheck]) -> list[str]:
    rows = [(one.key[:16], "valid" if one.valid else "not valid", one.reason, one.by) for one in signatures]
    return _table(("key", "", "why", "recorded by"), rows)


def _gates(decision: Decision) -> list[str]:
    if not decision.guarded:
        return ["No policy guards this model: its aliases move freely."]
    return _table(("gate", "status", "reason"), [(one.name, one.status, one.reason) for one in decision.gates])


def _approvals(approvals: Sequence[Approval]) -> list[str]:
    rows = [
        (f"{one.at:%Y-%m-%d}", one.by, one.reason, f"revoked by {one.revoked_by}" if one.revoked_at else "stands")
        for one in approvals
    ]
    return _table(("on", "by", "reason", ""), rows)


def _history(record: Record) -> list[str]:
    number = record.version.version
    rows = [
        (
            f"{move.at:%Y-%m-%d %H:%M}",
            f"became {move.alias}" if move.version == number else f"was {move.alias} until then",
            move.kind + (f", over: {'; '.join(move.unmet)}" if move.unmet else ""),
            move.by,
            move.reason,
        )
        for move in record.moves
        if number in (move.version, move.previous)
    ]
    return _table(("at (UTC)", "", "how", "by", "reason"), rows)


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4f}"


def _plain(text: str) -> str:
    """Text of others as text: no table, link or HTML of a card comes from it."""
    return text.translate(_MARKUP).strip()


# --- the bill of materials --------------------------------------------------------------------------------------


def bill_of_materials(record: Record) -> dict[str, Any]:
    """The CycloneDX ML-BOM of a version, as JSON has it. The same record always gives the same document."""
    version = record.version
    reference = version.urn
    component: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": reference,
        "name": version.model,
        "version": str(version.version),
        "modelCard": _bom_card(record),
        "properties": _properties(version),
    }
    if version.description or record.model.description:
        component["description"] = version.description or record.model.description
    licenses = [_bom_license(version.license)] if version.license else []
    if licenses:
        component["licenses"] = licenses
    if version.digest:
        component["hashes"] = [{"alg": "SHA-256", "content": version.digest}]
    files = [
        {
            "type": "file",
            "bom-ref": f"{reference}#{one.path}",
            "name": one.path,
            "hashes": [{"alg": "SHA-256", "content": one.digest}],
        }
        for one in record.files
    ]
    data = [{"type": "data", "bom-ref": urn, "name": urn} for urn in version.provenance.data]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": BOM_SPEC,
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, f'{record.model.id}@{version.version}')}",
        "version": 1,
        "metadata": {"timestamp": version.created_at.isoformat().replace("+00:00", "Z"), "component": component},
        "components": [*files, *data],
        "dependencies": [
            {"ref": reference, "dependsOn": [*(one["bom-ref"] for one in files), *version.provenance.data]}
        ],
    }


def _bom_license(license: str) -> dict[str, Any]:
    """By its SPDX id where it is one of the common ones; a made-up id would make the document invalid."""
    known = next((one for one in _SPDX if one.lower() == license.lower()), "")
    return {"license": {"id": known} if known else {"name": license}}


def _bom_card(record: Record) -> dict[str, Any]:
    card: dict[str, Any] = {}
    if record.version.provenance.data:
        card["modelParameters"] = {"datasets": [{"ref": urn} for urn in record.version.provenance.data]}
    measured = [
        {"type": metric, "value": f"{value:.6g}", "slice": "all rows"}
        for one in record.evaluations[:1]
        for metric in LARGER_IS_BETTER
        if (value := metric_of(one.overall, metric)) is not None
    ]
    if measured:
        card["quantitativeAnalysis"] = {"performanceMetrics": measured}
    return card


def _properties(version: ModelVersion) -> list[dict[str, str]]:
    known = version.provenance
    named = {
        "input-example": version.input_example,
        "format": version.format,
        "format-reason": version.format_reason,
        "trusted": "yes" if version.trusted else "no",
        "run": known.run,
        "code": known.code,
        "environment": known.environment,
        "flavors": ", ".join(sorted(version.flavors)),
    }
    return [{"name": f"modelyard:{name}", "value": value} for name, value in named.items() if value]
