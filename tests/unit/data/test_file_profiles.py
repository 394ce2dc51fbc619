"""A write that rewrites some files looks at those, and says of all rows what looking at all of them says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelyard.engines.tables.base import DataFile
from modelyard.engines.tables.delta import DeltaTables
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database, metadata
from modelyard.planes.data import Data, file_profiles
from modelyard.planes.data.profiling import profile_of
from modelyard.types.data import Profile, Retention
from modelyard.types.data_branches import Vacuum
from unit.data.small_files import PER_FILE, batch


@pytest.fixture(autouse=True)
def _files_of_few_rows_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_profiles, "KEPT_ROWS_MIN", 20)


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of each look at files."""
    found: list[int] = []
    look = file_profiles._look

    def counting(schema: pa.Schema, paths: Sequence[Path], files: Sequence[DataFile]) -> Profile:
        found.append(sum(one.rows for one in files))
        return look(schema, paths, files)

    monkeypatch.setattr(file_profiles, "_look", counting)
    return found


@pytest.fixture
def data(database: Database, tmp_path: Path) -> Data:
    return Data(database, DeltaTables(tmp_path / "tables"), tmp_path / "spill")


def told(data: Data, scope: Scope) -> Profile:
    found = data.profile(scope, "flights")
    seen = data.read(scope, "flights")
    whole = profile_of(seen.schema, seen.to_batches())
    assert found.rows == whole.rows == len(seen)
    assert [one.name for one in found.columns] == seen.schema.names
    for one, other in zip(found.columns, whole.columns, strict=True):
        assert (one.type, one.count, one.nulls, one.min, one.max) == (
            other.type, other.count, other.nulls, other.min, other.max
        )  # fmt: skip
        assert one.mean == pytest.approx(other.mean)
        assert one.distinct == other.distinct
        assert one.lengths == other.lengths
        if one.exact:
            assert dict(zip(one.top, one.top_counts, strict=True)) == dict(
                zip(other.top, other.top_counts, strict=True)
            )
    return found


def filled(data: Data, scope: Scope, files: int = 10) -> None:
    data.create(scope, "flights", key=["id"])
    for at in range(files):
        data.write(scope, "flights", batch(at * PER_FILE))


def test_a_delete_looks_at_the_file_that_it_rewrites(data: Data, scope: Scope, looked_at: list[int]) -> None:
    filled(data, scope)
    data.delete_rows(scope, "flights", "id = 123")
    assert looked_at == [PER_FILE - 1]
    told(data, scope)
    data.delete_rows(scope, "flights", "id = 124 OR id = 305")
    assert looked_at[1:] == [PER_FILE - 2 + PER_FILE - 1] or sorted(looked_at[1:]) == [48, 49]
    told(data, scope)


def test_a_merge_looks_at_the_file_that_it_rewrites(data: Data, scope: Scope, looked_at: list[int]) -> None:
    filled(data, scope)
    data.write(scope, "flights", batch(495, 10), mode="merge")
    assert looked_at == [PER_FILE - 5]
    assert told(data, scope).rows == 505


def test_what_was_not_kept_is_looked_at_once(
    data: Data, scope: Scope, looked_at: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_profiles, "of_one_file", lambda *_: ())
    monkeypatch.setattr("modelyard.planes.data.writing.of_one_file", lambda *_: ())
    filled(data, scope, 3)
    data.write(scope, "flights", batch(1_000, 5))
    data.write(scope, "flights", batch(2_000, 5))
    data.delete_rows(scope, "flights", "id = 0")
    assert sorted(looked_at) == [10, PER_FILE - 1, PER_FILE, PER_FILE], "small ones together"
    looked_at.clear()
    data.delete_rows(scope, "flights", "id = 1")
    assert sorted(looked_at) == [10, PER_FILE - 2]
    told(data, scope)


def test_a_column_that_came_later_is_null_in_older_files(data: Data, scope: Scope) -> None:
    filled(data, scope, 3)
    data.write(scope, "flights", batch(1_000, more=[1.5] * PER_FILE), evolve=True)
    data.delete_rows(scope, "flights", "id = 7")
    more = next(one for one in told(data, scope).columns if one.name == "more")
    assert (more.count, more.nulls) == (PER_FILE, 3 * PER_FILE - 1)
    data.delete_rows(scope, "flights", "id >= 1000")
    assert next(one for one in told(data, scope).columns if one.name == "more").count == 0


def test_a_vacuum_forgets_what_files_looked_like_that_are_gone(data: Data, scope: Scope, database: Database) -> None:
    filled(data, scope, 3)
    data.delete_rows(scope, "flights", "id = 7")
    data.layout.vacuum(scope, "flights", Vacuum(retention=Retention(versions=1), grace_s=0))
    with database.reading(scope) as tx:
        kept = {row.name for row in tx.all(file_profiles.profiles.select())}
    assert kept == {file.name for file in map(Path, data.files(scope, "flights").files)}


ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 60)),
        st.tuples(st.just("merge"), st.integers(0, 200)),
        st.tuples(st.just("delete"), st.integers(0, 200)),
    ),
    min_size=2,
    max_size=5,
)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(acts=ACTS)
def test_whatever_was_written_the_profile_is_that_of_all_rows(
    acts: list[tuple[str, int]], scope: Scope, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("acts")
    database = Database(f"sqlite:///{home}/catalog.db")
    metadata.create_all(database.engine)
    data = Data(database, DeltaTables(home / "tables"), home / "spill")
    filled(data, scope, 2)
    first = 2 * PER_FILE
    for what, number in acts:
        match what:
            case "append":
                data.write(scope, "flights", batch(first, number))
                first += number
            case "merge":
                data.write(scope, "flights", batch(number, 30), mode="merge")
                first = max(first, number + 30)
            case _:
                data.delete_rows(scope, "flights", f"id BETWEEN {number} AND {number + 40}")
        told(data, scope)
    database.close()
