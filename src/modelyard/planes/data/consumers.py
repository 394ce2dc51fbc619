"""Who uses a dataset: those who said so, those whom SQL shows, and what is in force and was made of it."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.kernel.database import Transaction
from modelyard.planes.data import history_store, store
from modelyard.planes.data.consumption import Found, InForce, Upstream, Uses
from modelyard.types.contracts import ConsumedColumn, Consumer

_VERSIONS_TYPED_MAX = 50


class Consumers:
    """The users of datasets. What is in force is asked of the planes that know it, at the moment it matters."""

    def __init__(self) -> None:
        self._in_force: list[InForce] = []

    def relied_on_by(self, in_force: InForce) -> None:
        """Ask this function, too, what is in force: whoever relies on it is a consumer of the data behind it."""
        self._in_force.append(in_force)

    def of(self, tx: Transaction, dataset: store.DatasetRow) -> list[Consumer]:
        """All users of a dataset, by name. What somebody said of himself counts for more than what lineage shows."""
        said = history_store.consumers_of(tx, dataset.id)
        known = {one.consumer for one in said}
        shown = [one for one in self._shown(tx, dataset) if one.consumer not in known]
        return sorted([*said, *shown], key=lambda one: one.consumer)

    def _shown(self, tx: Transaction, dataset: store.DatasetRow) -> list[Consumer]:
        relying: dict[str, list[str]] = {}
        for ask in self._in_force:
            for urn, names in ask(tx).items():
                relying.setdefault(urn, []).extend(names)
        if not relying:
            return []
        upstream = Upstream(tx, list(relying), through=False)
        columns: dict[str, dict[str, str]] = {}
        whole: set[str] = set()
        types = _Types(tx, dataset)
        for urn, names in relying.items():
            used = _of_dataset(upstream.of(urn), dataset.noun.name)
            if not used:
                continue
            if any(one.is_whole for one in used.values()):
                whole.update(names)
            typed = {
                name: kind
                for version, one in sorted(used.items(), key=lambda entry: entry[0])
                for name, kind in types.of(version, sorted(one.columns)).items()
            }
            for name in names:
                columns.setdefault(name, {}).update(typed)
        return [
            Consumer(
                consumer=name,
                columns=[ConsumedColumn(name=column, type=kind) for column, kind in sorted(uses.items())],
                origin="lineage",
                whole=name in whole,
            )
            for name, uses in columns.items()
        ]


class _Types:
    """The columns of a dataset's versions with their types, each version read once."""

    def __init__(self, tx: Transaction, dataset: store.DatasetRow) -> None:
        self._tx = tx
        self._dataset = dataset
        self._known: dict[int, dict[str, str]] = {}

    def of(self, version: int, names: Sequence[str]) -> dict[str, str]:
        """Those of the names that the version has, each with its type; of very many versions only the names."""
        if version not in self._known and len(self._known) >= _VERSIONS_TYPED_MAX:
            return dict.fromkeys(names, "")
        if version not in self._known:
            row = store.version_row(self._tx, self._dataset, version)
            self._known[version] = {} if row is None else {one.name: one.type for one in row.noun.columns}
        return {name: kind for name in names if (kind := self._known[version].get(name)) is not None}


def _of_dataset(found: Found, name: str) -> dict[int, Uses]:
    """What is used of a dataset, by version."""
    return {version: uses for (dataset, version), uses in found.items() if dataset == name}
