"""What is served right now: an immutable set of loaded variants, replaced as a whole and never changed in place."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from modelyard.endpoint.metrics import Metrics
from modelyard.endpoint.prediction_log import PredictionLog
from modelyard.endpoint.router import Router
from modelyard.endpoint.runner import Runner
from modelyard.engines.models.base import LoadedModel
from modelyard.engines.models.loading import open_model
from modelyard.engines.models.pyfunc import zeros
from modelyard.kernel.errors import ModelyardError, NotFound
from modelyard.types.serving import EndpointConfig, VariantConfig

_log = logging.getLogger("modelyard.endpoint")
WARM_UP_ROWS = 3


class Loaded:
    """A model that was loaded and tried. `batches`: that more rows give more rows was seen, not only promised."""

    def __init__(self, variant: VariantConfig, model: LoadedModel) -> None:
        self.variant = variant
        self.model = model
        self.batches = warm_up(model)


def warm_up(model: LoadedModel) -> bool:
    """Ask a model for one row and for three; whether the outputs have as many.

    A model may refuse inputs of zeros. That is no fault of it, but then its rows are not put together with others.
    """
    if not model.batches:
        return False
    try:
        for rows in (1, WARM_UP_ROWS):
            outputs = model.predict(zeros(model.inputs, rows))
            if any(array.shape[:1] != (rows,) for array in outputs.values()):
                return False
    except ModelyardError as error:
        _log.warning("the model cannot be tried with zeros, so it runs without batching: %s", error)
        return False
    return True


def key_of(variant: VariantConfig) -> tuple[str, int, str, str, bool]:
    """Equal for two variants that the same loaded model serves; the weight is not part of it."""
    return variant.model, variant.version, variant.digest, variant.directory, variant.trusted


def load_variants(config: EndpointConfig, base: Path, have: frozenset[tuple[object, ...]]) -> list[Loaded]:
    """Load the variants that are not there yet. Raises what loading raises, having closed what it had loaded."""
    loaded: list[Loaded] = []
    try:
        for variant in config.variants:
            if (variant.name, *key_of(variant)) in have:
                continue
            directory = base / variant.directory
            timeout_s = config.options.predict_timeout_s
            model = open_model(directory, trusted=variant.trusted, answer_timeout_s=timeout_s)
            loaded.append(Loaded(variant, model))
    except ModelyardError:
        for one in loaded:
            one.model.close()
        raise
    return loaded


class Serving:
    """One revision as it is served."""

    def __init__(self, config: EndpointConfig, runners: Mapping[str, Runner]) -> None:
        self.config = config
        self.router = Router([(one.name, one.weight) for one in config.variants])
        self.runners = runners
        self.first = max(config.variants, key=lambda one: one.weight).name

    @property
    def keys(self) -> frozenset[tuple[object, ...]]:
        """The variants with what they have loaded."""
        return frozenset((name, *key_of(runner.variant)) for name, runner in self.runners.items())

    @property
    def versions(self) -> list[str]:
        """The model versions that can be asked for by number."""
        return sorted({str(one.variant.version) for one in self.runners.values()}, key=int)

    def pick(self, key: str, version: str | None = None) -> Runner:
        """The variant for a key; with a version, the variant of it. Raises NotFound."""
        return self.runners[self.router.choose(key)] if version is None else self.by_version(version)

    def by_version(self, version: str) -> Runner:
        """The variant of a version. Raises NotFound where that version is not served."""
        for runner in self.runners.values():
            if str(runner.variant.version) == version:
                return runner
        raise NotFound(
            f"endpoint '{self.config.endpoint}' does not serve version '{version[:40]}'",
            code="endpoint.version_not_found",
            hint=f"it serves {', '.join(self.versions)}",
        )


def assemble(
    config: EndpointConfig, loaded: Sequence[Loaded], now: Serving | None, log: PredictionLog, metrics: Metrics
) -> tuple[Serving, list[Runner]]:
    """The next serving set and the runners that it no longer needs. Only from the event loop."""
    fresh = {one.variant.name: one for one in loaded}
    kept = now.runners if now is not None else {}
    runners: dict[str, Runner] = {}
    for variant in config.variants:
        one = fresh.get(variant.name)
        if one is None:
            runners[variant.name] = kept[variant.name]
            continue
        runners[variant.name] = Runner(
            config.endpoint, variant, one.model, config.options, log,
            metrics.of(config.endpoint, variant.name, str(variant.version)), batches=one.batches,
        )  # fmt: skip
    dropped = [runner for runner in kept.values() if runner not in runners.values()]
    return Serving(config, runners), dropped
