"""Features as an endpoint was given them: from its prediction log to the frame that a verification takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from msgspec.structs import replace

from modelyard.engines.tables.sql import literal, quoted
from modelyard.kernel.auth import Scope
from modelyard.kernel.errors import InvalidInput
from modelyard.planes.data import Data
from modelyard.planes.features import Features
from modelyard.planes.serving.log_table import INPUT
from modelyard.types.features import DatasetPin, FeatureVerification, VerifyLogged

if TYPE_CHECKING:
    import pyarrow as pa

INSTANT = "modelyard.instant"
_ID = "modelyard.id"
_PLACE = "modelyard.place"


class Verifier(Protocol):
    """Verifies the served features of an endpoint."""

    def __call__(self, scope: Scope, endpoint: str, dataset: str, asked: VerifyLogged) -> FeatureVerification: ...


class LoggedFeatures:
    """Reads served features from prediction logs, and has them verified by the features plane."""

    def __init__(self, data: Data, features: Features) -> None:
        self._data = data
        self._features = features

    def verify(self, scope: Scope, endpoint: str, dataset: str, asked: VerifyLogged) -> FeatureVerification:
        """What differs between the features in a prediction log and the point-in-time join. Raises NotFound,
        InvalidInput where the log does not hold them, does not say whom its rows are about, or has no such rows."""
        columns, entities = self._features.served_columns(scope, asked.features)
        version, log = self._data.snapshot(scope, dataset)
        looked_up, refs = self._looked_up(scope, asked, entities, log.schema.names)
        statement = _statement(asked, dataset, columns, entities, log.schema.names, looked_up)
        rows = self._data.query(scope, statement, {dataset: version.version, **refs})
        frame, unmatched = _told(rows, asked, entities if looked_up else ())
        if frame.num_rows == 0:
            raise InvalidInput(
                f"no row of '{dataset}' says what was served to whom: {rows.num_rows} fit, of {unmatched} it is not "
                "known whom they are about",
                code="features.no_rows",
                hint="predictions arrive in the log some seconds after they were made; widen what is asked for",
            )
        found = self._features.verify(
            scope, frame.drop_columns([_ID, _PLACE]).to_reader(), asked.features, timestamp=INSTANT, pins=asked.pins,
            tolerance=asked.tolerance, model=asked.model, served_by=[f"endpoint:{endpoint}", version.urn],
        )  # fmt: skip
        ids = frame.column(_ID)
        named = [
            replace(one, examples=[replace(each, id=ids[each.row].as_py() or "") for each in one.examples])
            for one in found.features
        ]
        return replace(found, features=named, log=DatasetPin(dataset, version.version), unmatched=unmatched)

    def _looked_up(
        self, scope: Scope, asked: VerifyLogged, entities: Sequence[str], logged: Sequence[str]
    ) -> tuple[Sequence[str], dict[str, int]]:
        """Which entities a dataset has to tell, and that dataset at its newest version."""
        lacking = [one for one in entities if INPUT + asked.inputs.get(one, one) not in logged]
        if not lacking:
            return [], {}
        if not asked.entities:
            raise InvalidInput(
                f"the log has no input '{asked.inputs.get(lacking[0], lacking[0])}', so whom its rows are about is not "
                "known",
                code="features.entity_missing",
                hint="say which input it is, or name a dataset that has it by the rows' own ids (`entities`, `key`)",
            )
        version, keys = self._data.snapshot(scope, asked.entities)
        for one in (asked.key, *lacking):
            if one not in keys.schema.names:
                raise InvalidInput(
                    f"dataset '{asked.entities}' has no column '{one[:128]}'",
                    code="features.entity_missing",
                    hint=f"its columns are: {', '.join(keys.schema.names)[:400]}",
                )
        return lacking, {asked.entities: version.version}


def _statement(
    asked: VerifyLogged,
    dataset: str,
    columns: Sequence[str],
    entities: Sequence[str],
    logged: Sequence[str],
    looked_up: Sequence[str],
) -> str:
    """The SELECT of the newest rows: the features and entities by their own names, the instant, the id, the place."""
    lacking = [one for one in columns if INPUT + asked.inputs.get(one, one) not in logged]
    if lacking:
        raise InvalidInput(
            f"the log has no input '{asked.inputs.get(lacking[0], lacking[0])}': which value was served is not known",
            code="features.served_missing",
            hint=f"say which input holds '{lacking[0]}', or verify fewer features",
        )
    told = [one for one in (*columns, *entities) if one not in looked_up]
    chosen = [f"l.{quoted(INPUT + asked.inputs.get(one, one))} AS {quoted(one)}" for one in told]
    chosen += [f"e.{quoted(one)} AS {quoted(one)}" for one in looked_up]
    chosen += [f'l."{asked.timestamp}" AS "{INSTANT}"', f'l."id" AS "{_ID}"']
    chosen.append(f'l."{_PLACE}"')
    joined = ""
    if looked_up:
        names = ", ".join(quoted(one) for one in looked_up)
        joined = (
            f' LEFT JOIN (SELECT DISTINCT CAST({quoted(asked.key)} AS VARCHAR) AS "{_ID}", {names}'
            f' FROM {quoted(asked.entities)}) e ON e."{_ID}" = l."id"'
        )
    # Numbered here: a caller may give two requests one id.
    numbered = f'SELECT *, row_number() OVER () AS "{_PLACE}" FROM {quoted(dataset)}{_where(asked)}'
    newest = f'{numbered} ORDER BY "at" DESC, "row" LIMIT {asked.rows}'
    return f'SELECT {", ".join(chosen)} FROM ({newest}) l{joined} ORDER BY l."at", l."row"'


def _where(asked: VerifyLogged) -> str:
    bounds = [
        f'"{asked.timestamp}" {sign} TIMESTAMPTZ {literal(instant.isoformat())}'
        for sign, instant in ((">=", asked.since), ("<", asked.until))
        if instant is not None
    ]
    if asked.model:
        name, _, version = asked.model.partition("@")
        if not name or not version.isdecimal():
            raise InvalidInput(
                f"{asked.model[:160]!a} names no version by its number", code="features.model", hint="write name@3"
            )
        bounds += [f'"model" = {literal(name)}', f'"version" = {int(version)}']
    return f" WHERE {' AND '.join(bounds)}" if bounds else ""


def _told(rows: pa.Table, asked: VerifyLogged, entities: Sequence[str]) -> tuple[pa.Table, int]:
    """The rows of which it is known whom they are about, and how many are not."""
    import pyarrow.compute as pc  # heavy: imported late

    if len(pc.unique(rows.column(_PLACE))) < rows.num_rows:
        raise InvalidInput(
            f"dataset '{asked.entities}' has rows of one '{asked.key}' with different entities",
            code="features.entity_ambiguous",
            hint="name a dataset that has each id once",
        )
    known = rows
    for one in entities:
        known = known.filter(pc.is_valid(known.column(one)))
    return known, rows.num_rows - known.num_rows
