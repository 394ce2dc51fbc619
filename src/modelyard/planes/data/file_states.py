"""What checks say of each data file, so that the audit of a write that rewrites one file of a hundred reads that one.

A file never changes, so what a check says of its rows holds for as long as it is asked of the same columns. It is kept
where it was found anyway (a write that made one file), and otherwise once it was needed, of some files a write. Small
files are looked at again. What is kept is for speed alone: without it, the same is found by reading.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import Column, String, Table, Text, select

from modelyard.engines.tables.base import DataFile, FileSet, Staged, StagedFile, TableStore, file_set
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database, Transaction, insert_missing, metadata
from modelyard.kernel.portions import portions
from modelyard.planes.data.checks import State
from modelyard.planes.data.checks.parts import PartQuestions, of_batch, part_questions
from modelyard.planes.data.checks.running import Seen
from modelyard.planes.data.checks.statements import Hints
from modelyard.planes.data.checks.states import packed, unpacked
from modelyard.planes.data.file_profiles import drop, worth_keeping
from modelyard.planes.data.references import Referenced
from modelyard.planes.data.rewriting import OpenSession
from modelyard.planes.data.store import DatasetRow
from modelyard.types.data import Check
from modelyard.types.data import Column as DataColumn

if TYPE_CHECKING:
    import pyarrow as pa

FILES_MAX = 1_000
"""Of more files, putting states together is no longer surely cheaper than reading."""
LOOKS_MAX = 32
"""How many files a write looks at one by one, to know them from then on; what else is not known is read as one."""
STATE_BYTES_MAX = 4 * 1024
_AT_ONCE = 500

states = Table(
    "dataset_file_states",
    metadata,
    Column("dataset_id", String(32), primary_key=True),
    # The file's path below the table.
    Column("name", String(1024), primary_key=True),
    # A digest of the columns under which the file was read.
    Column("columns", String(32), nullable=False),
    # JSON: states as text by the key of their check, empty where there is none that can be kept.
    Column("states", Text, nullable=False),
)
_DECODER = msgspec.json.Decoder(dict[str, str])


class FileStates(msgspec.Struct, frozen=True):
    """What checks say of the rows of a file, read under some columns."""

    name: str
    columns: str
    states: dict[str, str]


@dataclass(frozen=True, slots=True)
class Staying:
    """The files whose rows stay in a write: `kept` as they are, and what is written anew of others."""

    kept: Sequence[DataFile]
    rewritten: Staged | None
    schema: pa.Schema


@dataclass(frozen=True, slots=True)
class Told:
    """States of all rows that stay, by key, as far as they can be had; with what is to be kept of rewritten files."""

    states: Mapping[str, State] = field(default_factory=dict)
    new: tuple[FileStates, ...] = ()


def of_one_file(files: Sequence[StagedFile], seen: Seen, schema: pa.Schema) -> tuple[FileStates, ...]:
    """The states of a write's only file, which are those of its rows."""
    if len(files) != 1 or not worth_keeping([files[0].as_held]) or not seen:
        return ()
    return (FileStates(files[0].name, digest_of(schema), _texts(of_batch(seen))),)


class StateKeeper:
    """Says what checks say of the rows that stay when some files of a table go."""

    def __init__(self, database: Database, tables: TableStore, open_session: OpenSession) -> None:
        self._database = database
        self._tables = tables
        self._open_session = open_session

    def of_what_stays(
        self,
        scope: Scope,
        dataset: DatasetRow,
        staying: Staying,
        checks: Sequence[Check],
        others: Referenced,
        *,
        whole: bool,
        before: Mapping[str, State],
        hints: Hints,
        looks: int | None = None,
    ) -> Told:
        """The states of the checks over what stays, read where they are not known. `whole`: also those of checks that
        otherwise look at new rows; `before`: the states over the table that loses rows. `looks`: how many files are
        looked at one by one, so that what they say is kept."""
        if len(staying.kept) > FILES_MAX or not worth_keeping(staying.kept):
            return Told()
        columns = [DataColumn(one.name, str(one.type)) for one in staying.schema]
        questions = part_questions(
            _Lazily(self._open_session, others), checks, columns,
            whole=whole, before=before, provided=others.provided, profiles=others.profiles,
        )  # fmt: skip
        if not questions.questions:
            return Told()
        digest, large = digest_of(staying.schema), worth_keeping(staying.kept)
        with self._database.reading(scope) as tx:
            known = read(tx, dataset.id, [one.name for one in large], digest)
        # What cannot be kept of one file must be asked of all rows.
        lost = {key for texts in known.values() for key, text in texts.items() if not text}
        keys = [key for key in questions.questions if key not in lost]
        parts = _parts(staying, known, keys, LOOKS_MAX if looks is None else looks)
        if looks == 0 and all(one.wanted == keys for one in parts.values()):
            return Told()
        found = self._look(dataset, staying, parts, questions, others, hints)
        new = [one.told(found[table], questions.keys, digest) for table, one in parts.items() if one.was_there]
        if new:
            # Whatever becomes of the write: these files are there.
            with self._database.transaction(scope) as tx:
                keep(tx, dataset.id, new)
        states = {key: _together(key, questions, parts, found) for key in keys}
        return Told(
            {key: state for key, state in states.items() if state is not None},
            tuple(one.told(found[table], questions.keys, digest) for table, one in parts.items() if one.is_new),
        )

    def _look(
        self,
        dataset: DatasetRow,
        staying: Staying,
        parts: Mapping[str, _Part],
        questions: PartQuestions,
        others: Referenced,
        hints: Hints,
    ) -> dict[str, dict[str, State]]:
        """What the tables of the parts say, by key."""
        wanted = {table: one.wanted for table, one in parts.items() if one.wanted}
        if not wanted:
            return {table: {} for table in parts}
        tables: dict[str, FileSet | pa.Table] = dict(others.tables)
        for table in wanted:
            files, of = parts[table].files, f"dataset '{dataset.noun.name}'"
            tables[table] = file_set(staying.schema, self._paths(dataset, staying, files), files, of=of)
        with self._open_session(tables) as session:
            return {table: {} for table in parts} | questions.look(session, wanted, hints)

    def _paths(self, dataset: DatasetRow, staying: Staying, files: Sequence[DataFile]) -> tuple[Any, ...]:
        aside = set() if staying.rewritten is None else {one.name for one in staying.rewritten.files}
        found: list[Any] = []
        for one in files:
            if one.name in aside and staying.rewritten is not None:
                found += self._tables.staged_paths(dataset.location, staying.rewritten.write_id, [one.name])
            else:
                found += self._tables.paths(dataset.location, [one])
        return tuple(found)


@dataclass(frozen=True, slots=True)
class _Part:
    """Files that are read as one, the checks that are asked of them, and what is known of the others, as text.

    `was_there`, `is_new`: it is one file, which was there or is written anew, of which what is found is kept.
    """

    files: Sequence[DataFile]
    wanted: Sequence[str]
    known: Mapping[str, str] = field(default_factory=dict)
    was_there: bool = False
    is_new: bool = False

    def told(self, found: Mapping[str, State], suite: Collection[str], columns: str) -> FileStates:
        """What is to be kept of its file: what was found, and what was known of other checks of the suite."""
        known = {key: text for key, text in self.known.items() if key in suite}
        return FileStates(
            self.files[0].name, columns, {**known, **_texts({key: found.get(key) for key in self.wanted})}
        )


def _parts(
    staying: Staying, known: Mapping[str, Mapping[str, str]], keys: Sequence[str], looks_max: int
) -> dict[str, _Part]:
    """The files in parts, by the names of their tables. Those of which all is known are not to be read."""
    written = [] if staying.rewritten is None else [one.as_held for one in staying.rewritten.files]
    found: list[_Part] = []
    rest: list[DataFile] = []
    for files, new in ((staying.kept, False), (written, True)):
        looks = 0
        for one in files:
            texts = known.get(one.name, {})
            wanted = [key for key in keys if key not in texts]
            if not worth_keeping([one]) or (wanted and looks >= looks_max):
                rest.append(one)
                continue
            looks += bool(wanted)
            found.append(_Part([one], wanted, texts, was_there=bool(wanted) and not new, is_new=new))
    parts = {f"part_{at}": one for at, one in enumerate(found)}
    return parts | ({"rest": _Part(rest, keys)} if rest else {})


@dataclass(frozen=True, slots=True)
class _Lazily:
    """A session that is opened for each statement, of which there are none as a rule."""

    open_session: OpenSession
    others: Referenced

    def one(self, statement: str) -> dict[str, Any]:
        with self.open_session(self.others.tables) as session:
            return session.one(statement)


def _together(
    key: str, questions: PartQuestions, parts: Mapping[str, _Part], found: Mapping[str, Mapping[str, State]]
) -> State | None:
    """The state over all parts; None where one has none."""
    states: list[State] = []
    for table, one in parts.items():
        state = found[table].get(key) if key in one.wanted else unpacked(one.known[key])
        if state is None:
            return None
        states.append(state)
    return questions.together(key, states)


def _texts(found: Mapping[str, State | None]) -> dict[str, str]:
    texts = {key: "" if state is None else packed(State(state.slices)) for key, state in found.items()}
    return {key: text if len(text) <= STATE_BYTES_MAX else "" for key, text in texts.items()}


def digest_of(schema: pa.Schema) -> str:
    """Columns by names and types, in whatever order, as a short text."""
    text = "\n".join(sorted(f"{one.name!r} {one.type}" for one in schema))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


# --- kept ---------------------------------------------------------------------------------------------------------


def read(tx: Transaction, dataset_id: str, names: Sequence[str], columns: str) -> dict[str, dict[str, str]]:
    """What is kept of files that were read under these columns: states as text by key, by name."""
    found: dict[str, dict[str, str]] = {}
    for some in portions(names, _AT_ONCE):
        asked = select(states.c.name, states.c.states).where(
            states.c.dataset_id == dataset_id, states.c.columns == columns, states.c.name.in_(some)
        )
        found.update({row.name: _DECODER.decode(row.states) for row in tx.execute(asked)})
    return found


def keep(tx: Transaction, dataset_id: str, found: Sequence[FileStates]) -> None:
    """Keep states of files in place of those that are kept."""
    drop(tx, dataset_id, [one.name for one in found], of=states)
    rows = [
        {
            "dataset_id": dataset_id,
            "name": one.name,
            "columns": one.columns,
            "states": msgspec.json.encode(one.states).decode(),
        }
        for one in found
    ]
    # Another writer may have kept some at the same moment.
    insert_missing(tx, states, rows)
