"""From what was asked for to the versions that answer: checked here, so that nothing unservable reaches a process."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.kernel.auth import Scope
from modelyard.kernel.errors import Conflict, Forbidden, InvalidInput
from modelyard.planes.serving.ports import Versions
from modelyard.types.registry import ModelVersion
from modelyard.types.serving import Variant, VariantSpec

MAIN = "main"
CHAMPION = "champion"


def specs_of(alias: str, version: int | None, variants: Sequence[VariantSpec]) -> list[VariantSpec]:
    """The variants that a request means; an alias or a version alone means one variant with all traffic."""
    if variants and (alias or version is not None):
        raise InvalidInput(
            "give either `variants`, or one `alias` or `version` for all traffic", code="endpoint.target_invalid"
        )
    specs = list(variants) or [VariantSpec(name=MAIN, alias=alias, version=version)]
    names = [one.name for one in specs]
    if len(set(names)) != len(names):
        raise InvalidInput(f"two variants have one name: {', '.join(names)}", code="endpoint.variant_twice")
    for one in specs:
        if bool(one.alias) == (one.version is not None):
            raise InvalidInput(
                f"variant '{one.name}' needs either an alias or a version",
                code="endpoint.target_invalid",
                hint=f"follow an alias such as '{CHAMPION}', or name a version number",
            )
    if not any(one.weight > 0 for one in specs):
        raise InvalidInput("no variant has a weight above 0, so nothing could answer", code="endpoint.weight_invalid")
    return specs


def resolve(scope: Scope, versions: Versions, model: str, specs: Sequence[VariantSpec]) -> list[Variant]:
    """The version that each variant stands for now. Raises NotFound, and what `check_servable` raises."""
    variants = []
    for spec in specs:
        version = versions.resolve(scope, model, spec.version if spec.version is not None else spec.alias)
        check_servable(version)
        variants.append(
            Variant(
                name=spec.name, model=version.model, version=version.version, digest=version.digest,
                weight=spec.weight, alias=spec.alias,
            )
        )  # fmt: skip
    return variants


def check_servable(version: ModelVersion) -> None:
    """Raise unless a version can be served: it was not dropped, its files are here, it has a signature, it is safe."""
    what = f"model '{version.model}' version {version.version}"
    if version.dropped_at is not None:
        raise Conflict(f"{what} was dropped: {version.dropped_reason}", code="endpoint.version_dropped")
    if not version.digest:
        raise Conflict(
            f"the files of {what} are not in this platform",
            code="endpoint.files_unknown",
            hint="log the model to this server and register it from there",
        )
    if version.signature is None or not version.signature.get("inputs"):
        raise InvalidInput(
            f"{what} has no signature, so nothing says what it takes and gives",
            code="endpoint.signature_missing",
            hint="log it again with `signature=mlflow.models.infer_signature(inputs, outputs)`",
        )
    if version.format != "safe" and not version.trusted:
        raise Forbidden(
            f"{what} may run code when it is loaded ({version.format}: {version.format_reason or 'unknown format'}), "
            "and nobody has trusted it",
            code="endpoint.version_untrusted",
            hint=f"log it as ONNX, or let an approver run `modelyard model trust {version.model} {version.version}`",
        )
