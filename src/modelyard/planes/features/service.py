"""The verbs of feature views."""

from __future__ import annotations

import builtins
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from modelyard.engines.tables.base import FileSet
from modelyard.engines.tables.sql import SqlLimits, sandbox
from modelyard.kernel.auth import Action, Scope, check
from modelyard.kernel.database import Database
from modelyard.kernel.errors import InvalidInput, ModelyardError, NotFound
from modelyard.kernel.limits import PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX
from modelyard.planes.data import ALL_ROWS, Data, columns_of_query, tie_columns
from modelyard.planes.features import store
from modelyard.planes.features.binding import Binding, bind
from modelyard.planes.features.entities import feature_refs, lookup_table, read_frame, with_features
from modelyard.planes.features.pit_join import ENTITIES, compile_join
from modelyard.planes.features.skew import check_served, compare
from modelyard.types.contracts import ConsumedColumn
from modelyard.types.features import (
    NAME_SEPARATOR,
    DatasetPin,
    DefineFeatureView,
    FeatureVerification,
    FeatureView,
    JoinRecord,
)
from modelyard.types.page import Page
from modelyard.types.registry import Attestation, AttestVersion

if TYPE_CHECKING:
    import pyarrow as pa

METADATA_KEY = b"modelyard"
RULES = 1
"""Part of every view's version: raised when the meaning of definitions changes, so that no version changes meaning."""
TOLERANCE = 1e-6
_JOB = "job:"


class Attest(Protocol):
    """Records a statement about a model version."""

    def __call__(self, scope: Scope, name: str, version: str | int, stated: AttestVersion) -> Attestation: ...


class Features:
    """Feature views and their point-in-time join over datasets.

    `spill` is where a join may put what does not fit in memory.
    """

    def __init__(
        self, database: Database, data: Data, spill: Path | None = None, limits: SqlLimits | None = None
    ) -> None:
        self._database = database
        self._data = data
        self._spill = spill
        self._limits = limits
        self._attest: Attest | None = None

    def apply(self, scope: Scope, definition: DefineFeatureView) -> FeatureView:
        """Make the definition the current version of its view; what is so already stays as it is.

        It is checked against its source's newest version. Raises NotFound for a dataset that does not exist or has no
        version yet, InvalidInput for SQL that is wrong or not row-wise, and for columns that are missing or unsuited.
        """
        read, snapshot = self._data.snapshot(scope, definition.source)
        binding = bind(definition, snapshot.schema)
        version = version_of(definition)
        sources = sources_of(definition, snapshot.schema.names)
        uses = [
            ConsumedColumn(name=one, type=str(snapshot.schema.field(one).type))
            for one in used_columns(definition, snapshot.schema.names)
        ]
        with self._database.transaction(scope) as tx:
            new = store.add_version(tx, definition, version, binding.features)
            before = store.set_current(tx, definition.name, version, definition.description)
            self._data.contracts.note_use(tx, definition.source, f"feature-view:{definition.name}", uses)
            urn = f"feature-view:{definition.name}@{version}"
            tx.link(urn, "derived", read.urn)
            tie_columns(tx, urn, "derived", read.urn, [one.name for one in uses] if sources else [])
            for feature, columns in sources.items():
                tie_columns(tx, f"{urn}#{feature}", "derived", read.urn, columns)
            if before != version:
                kind = "feature_view.created" if before is None else "feature_view.updated"
                tx.event(kind, urn, {"source": definition.source, "replaces": before, "new_version": new})
        return self.get(scope, definition.name)

    def get(self, scope: Scope, ref: str) -> FeatureView:
        """A view by its name (the current version), or `name@version`. Raises NotFound."""
        name, _, version = ref.partition("@")
        with self._database.reading(scope) as tx:
            found = store.view(tx, name, version or None)
        if found is None:
            raise NotFound(
                f"feature view {ref[:160]!a} does not exist in project '{scope.project}'",
                code="feature_view.not_found",
                hint="list them with `modelyard feature list`, or make it with `modelyard feature apply`",
            )
        return found

    def list(self, scope: Scope, *, after: str | None = None, limit: int = PAGE_ITEMS_DEFAULT) -> Page[FeatureView]:
        """Current versions by name."""
        limit = _page_size(limit)
        with self._database.reading(scope) as tx:
            found = store.current_views(tx, after or "", limit + 1)
        return Page(found[:limit], found[limit - 1].name if len(found) > limit else None)

    def versions(self, scope: Scope, name: str, *, limit: int = PAGE_ITEMS_DEFAULT) -> Page[FeatureView]:
        """Versions of a view, newest first. Raises NotFound."""
        self.get(scope, name)
        with self._database.reading(scope) as tx:
            return Page(store.versions_of(tx, name, _page_size(limit)))

    def historical(
        self,
        scope: Scope,
        entities: pa.RecordBatchReader,
        features: Sequence[str],
        *,
        timestamp: str,
        pins: Mapping[str, int | str] | None = None,
    ) -> pa.Table:
        """The entity frame with the features as they stood, for each row, at its own instant in column `timestamp`.

        `features`: views (`origin_delays`, `origin_delays@<version>`) or single features (`origin_delays:late_rate`).
        Their columns are named `<view>__<feature>`. Every row comes back, in its order, with all its columns. `pins`
        says which version of a dataset to read, else the newest. The schema's metadata holds a `JoinRecord`. A job that
        asks gets the edges `used` to views and dataset versions. Raises NotFound, InvalidInput, TooLarge.
        """
        wanted = self._wanted(scope, feature_refs(features))
        frame = read_frame(entities)
        sources, read = self._sources(scope, [view for view, _ in wanted], pins or {})
        bindings = [_bound(view, sources[view.definition.source]) for view, _ in wanted]
        keys, columns = _keys(bindings)
        views = [
            binding.join_view(
                tuple(columns[name] for name in binding.definition.entities),
                {name: f"{view.name}{NAME_SEPARATOR}{name}" for name in names},
            )
            for binding, (view, names) in zip(bindings, wanted, strict=True)
        ]
        lookup = lookup_table(frame, timestamp, keys)
        with sandbox({**sources, ENTITIES: lookup}, spill=self._spill, limits=self._limits) as session:
            joined = session.table(compile_join(views))
        self._record_use(scope, wanted, sources, read)
        record = JoinRecord(
            views=[view.urn for view, _ in wanted], datasets=read, features=joined.column_names, rows=joined.num_rows
        )
        return with_features(frame, joined, {METADATA_KEY: msgspec.json.encode(record)})

    def verify(
        self,
        scope: Scope,
        served: pa.RecordBatchReader,
        features: Sequence[str],
        *,
        timestamp: str,
        pins: Mapping[str, int | str] | None = None,
        tolerance: float = TOLERANCE,
        model: str = "",
        served_by: Sequence[str] = (),
    ) -> FeatureVerification:
        """Recompute features that were served (columns `<view>__<feature>` of the frame) as of each row's instant, and
        say what differs.

        With `model` (`name@version`) the outcome is attested of that version, as evidence for its feature gate; that
        takes the right to write. `served_by` names what the frame was read from, as part of that evidence. Raises as
        `historical`, and InvalidInput for a frame of no rows.
        """
        name, _, version = model.partition("@")
        if model:
            check(scope.principal, Action.WRITE, scope.project)
        if model and (not name or not version):
            raise InvalidInput(f"{model[:160]!a} names no version", code="features.model", hint="write name@version")
        frame = read_frame(served)
        wanted = self._wanted(scope, feature_refs(features))
        columns = [f"{view.name}{NAME_SEPARATOR}{one}" for view, names in wanted for one in names]
        check_served(frame, columns)
        if frame.num_rows == 0:
            raise InvalidInput("the frame has no rows, so nothing was verified", code="features.no_rows")
        bare = frame.drop_columns(columns)
        joined = self.historical(scope, bare.to_reader(), features, timestamp=timestamp, pins=pins)
        record = msgspec.json.decode(joined.schema.metadata[METADATA_KEY], type=JoinRecord)
        found = [compare(frame.column(one), joined.column(one), one, tolerance) for one in columns]
        different = sum(one.different for one in found)
        outcome = FeatureVerification(
            passed=different == 0, rows=frame.num_rows, different=different, tolerance=tolerance, features=found,
            views=record.views, datasets=record.datasets,
        )  # fmt: skip
        return outcome if not model else self._attested(scope, name, version, outcome, served_by)

    def served_columns(self, scope: Scope, features: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
        """What a frame of served rows has to hold: the columns of these features, and those of their entities. Raises
        NotFound, InvalidInput."""
        wanted = self._wanted(scope, feature_refs(features))
        columns = [f"{view.name}{NAME_SEPARATOR}{one}" for view, names in wanted for one in names]
        return columns, list(dict.fromkeys(one for view, _ in wanted for one in view.definition.entities))

    def _attested(
        self, scope: Scope, model: str, version: str, outcome: FeatureVerification, served_by: Sequence[str]
    ) -> FeatureVerification:
        if self._attest is None:
            raise InvalidInput("there is no registry here to attest to", code="features.model")
        worst = max(outcome.features, key=lambda one: one.different)
        said = (
            f"{len(outcome.features)} served features are those of the point-in-time join on all {outcome.rows} rows"
            if outcome.passed
            else f"{outcome.different} values differ, most of {worst.feature}: {worst.different} of {outcome.rows} rows"
        )
        read = [f"dataset:{one.dataset}@{one.version}" for one in outcome.datasets]
        stated = AttestVersion(
            kind="features", passed=outcome.passed, summary=said, value=f"{outcome.different}",
            evidence=" ".join([*served_by, *outcome.views, *read])[:1000],
        )  # fmt: skip
        made = self._attest(scope, model, version, stated)
        return msgspec.structs.replace(outcome, attestation=made.id)

    def attests_by(self, attest: Attest) -> None:
        """Let verifications of a model version be recorded by this function."""
        self._attest = attest

    def spool(self) -> Path:
        """The name of a new file for an entity frame that is being received."""
        return self._data.spool()

    def _wanted(self, scope: Scope, refs: Sequence[tuple[str, str]]) -> Sequence[tuple[FeatureView, Sequence[str]]]:
        """Each view once, with the features that are wanted of it."""
        views: dict[str, FeatureView] = {}
        names: dict[str, builtins.list[str]] = {}
        for ref, feature in refs:
            view = self.get(scope, ref)
            if views.setdefault(view.name, view).version != view.version:
                raise InvalidInput(
                    f"two versions of feature view '{view.name}' are asked for at once",
                    code="features.two_versions",
                    hint="join them one after the other",
                )
            known = [one.name for one in view.features]
            if feature and feature not in known:
                raise InvalidInput(
                    f"feature view '{view.name}' has no feature '{feature[:128]}'",
                    code="features.feature_unknown",
                    hint=f"its features are: {', '.join(known)}",
                )
            listed = names.setdefault(view.name, [])
            listed += [name for name in ([feature] if feature else known) if name not in listed]
        return [(view, names[name]) for name, view in views.items()]

    def _sources(
        self, scope: Scope, views: Sequence[FeatureView], pins: Mapping[str, int | str]
    ) -> tuple[Mapping[str, FileSet], builtins.list[DatasetPin]]:
        names = list(dict.fromkeys(view.definition.source for view in views))
        unused = [name for name in pins if name not in names]
        if unused:
            raise InvalidInput(
                f"dataset '{unused[0]}' is pinned, but no view reads it",
                code="features.pin_unused",
                hint=f"the views read: {', '.join(names)}",
            )
        snapshots = {name: self._data.snapshot(scope, name, pins.get(name)) for name in names}
        read = [DatasetPin(name, version.version) for name, (version, _) in snapshots.items()]
        return {name: snapshot.file_set for name, (_, snapshot) in snapshots.items()}, read

    def _record_use(
        self,
        scope: Scope,
        wanted: Sequence[tuple[FeatureView, Sequence[str]]],
        tables: Mapping[str, FileSet],
        read: Sequence[DatasetPin],
    ) -> None:
        """Tie a job to the features that it asked for, and to the columns behind them of what was read."""
        if not scope.actor.startswith(_JOB):
            return
        versions = {pin.dataset: f"dataset:{pin.dataset}@{pin.version}" for pin in read}
        with self._database.transaction(scope) as tx:
            for view, names in wanted:
                source = view.definition.source
                behind = sources_of(view.definition, tables[source].schema.names)
                tx.link(scope.actor, "used", view.urn)
                for name in names:
                    tx.link(scope.actor, "used", f"{view.urn}#{name}")
                columns = {one for name in (ALL_ROWS, *names) for one in behind.get(name, ())}
                tie_columns(tx, scope.actor, "used", versions[source], sorted(columns))


def sources_of(definition: DefineFeatureView, columns: Sequence[str]) -> dict[str, list[str]]:
    """The columns of its source behind each feature of a view, and under `*` those that decide which rows count; empty
    where its SQL does not tell."""
    needs = {name: {name} for name in definition.columns}
    needs |= {one.feature: {one.column} for one in definition.aggregates}
    needs[ALL_ROWS] = {*definition.entities, definition.event_time, definition.known_at}
    if not definition.sql:
        return {name: [one for one in columns if one in wanted] for name, wanted in needs.items()}
    query = columns_of_query(definition.sql, {definition.source: columns})
    if query is None:
        return {}
    outputs = {output.casefold(): made for output, made in query.outputs.items()}
    found = {
        name: {column for output in wanted for _, column in outputs.get(output.casefold(), ())}
        for name, wanted in needs.items()
    }
    found[ALL_ROWS] |= {column for _, column in query.rows}
    return {name: [one for one in columns if one in behind] for name, behind in found.items()}


def used_columns(definition: DefineFeatureView, columns: Sequence[str]) -> Sequence[str]:
    """The columns of its source that a view uses; all that it may use, where its SQL does not tell."""
    behind = sources_of(definition, columns)
    named = {column for sources in behind.values() for column in sources}
    return [column for column in columns if column in named] if behind else list(columns)


def version_of(definition: DefineFeatureView) -> str:
    """The hash of what a definition means. Its description is no part of that."""
    meaning = msgspec.structs.replace(definition, description="")
    return hashlib.sha256(b"%d:" % RULES + msgspec.json.encode(meaning)).hexdigest()[:12]


def _bound(view: FeatureView, source: FileSet) -> Binding:
    """The view over the version of its source that is read now, whose schema may have changed since it was applied."""
    try:
        return bind(view.definition, source.schema)
    except ModelyardError as error:
        raise InvalidInput(
            f"feature view '{view.name}' no longer fits dataset '{view.definition.source}': {error.message}",
            code="feature_view.source_changed",
            hint="read an older version of the dataset, or apply the view anew",
            details=error.details,
        ) from error


def _keys(bindings: Sequence[Binding]) -> tuple[dict[str, tuple[str, pa.DataType]], dict[str, str]]:
    """For each column of the lookup table the frame's column and its type, and the reverse by the frame's column."""
    types: dict[str, pa.DataType] = {}
    for binding in bindings:
        for name, kind in zip(binding.definition.entities, binding.key_types, strict=True):
            if types.setdefault(name, kind) != kind:
                raise InvalidInput(
                    f"entity '{name}' is {types[name]} in one view and {kind} in '{binding.definition.name}'",
                    code="features.entity_type",
                    hint="cast it in the SQL of one of them",
                )
    columns = {name: f"e{index}" for index, name in enumerate(types)}
    return {columns[name]: (name, kind) for name, kind in types.items()}, columns


def _page_size(limit: int) -> int:
    if not 1 <= limit <= PAGE_ITEMS_MAX:
        raise InvalidInput(f"a page has 1 to {PAGE_ITEMS_MAX} items, not {limit}", code="page.limit_invalid")
    return limit
