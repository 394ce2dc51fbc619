"""The artifact tree as a plain folder of names, where the setting `artifact_folder` asks for one.

It follows the catalog and is never read: a name is brought in line with what the catalog says of it at that moment
(`settle`), after each change and for every name when the loop starts. So whatever was missed, by a full disk, a kill
or somebody's hand in the folder, is made up for, and no upload fails by it.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import literal, select, true, tuple_

from modelyard.engines.blobs.base import BlobStore
from modelyard.engines.blobs.named import NamedFolder, is_ours
from modelyard.kernel.auth import system_scope
from modelyard.kernel.clock import to_us
from modelyard.kernel.database import Database
from modelyard.kernel.errors import ModelyardError, Unavailable
from modelyard.kernel.paths import safe_relative
from modelyard.kernel.portions import portions
from modelyard.kernel.reconcile import Lease
from modelyard.planes.tracking import store
from modelyard.planes.tracking.owners import Owner, locate, tree_path

_TABLE = store.artifacts
_AT_ONCE = 500
_STAGED = timedelta(days=1)
"""So long copying one file may take."""
_BY_NAME = frozenset({errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ENOTEMPTY, errno.EILSEQ})
"""What a name cannot be shown for however often it is tried: another file or directory stands there."""
_log = logging.getLogger("modelyard.tracking")


class _File(NamedTuple):
    digest: str
    size_bytes: int
    written_ns: int


class ShownArtifacts:
    """Keeps a folder in step with the artifacts of one project, or of all, each project's below its own name."""

    name = "artifact-folder"

    def __init__(self, database: Database, blobs: BlobStore, folder: NamedFolder, project: str | None) -> None:
        self._database = database
        self._blobs = blobs
        self._folder = folder
        self._project = project
        self._behind = True

    def changed(self, project: str, owner: Owner, path: str) -> None:
        """Show what became of a file, or of a directory with all below it. Raises nothing: what fails is repeated."""
        if self._project not in (None, project):
            return
        try:
            name = self._name(project, owner, path)
            if name is not None:
                self._settle([name, *self._folder.names(name)], always=True)
        except (OSError, ModelyardError) as error:
            self._fell_behind(error)

    def look_again(self) -> None:
        """Look at all names soon."""
        self._behind = True

    def due(self, now: datetime) -> Sequence[str]:  # noqa: ARG002
        """One key, from the start and wherever something failed, until all names were looked at."""
        return ["all"] if self._behind else []

    def act(self, key: str, lease: Lease) -> None:  # noqa: ARG002
        """Bring every name in line. Raises Unavailable where that failed; it is tried again then."""
        self._behind = False
        done = False
        try:
            self._look_at_all()
            done = True
        except OSError as error:
            raise Unavailable(
                f"the folder of artifacts {self._folder.root} is behind: {error}",
                code="artifact_folder.behind",
                hint="it is made up for once the folder can be written to; nothing is lost",
            ) from error
        finally:
            # Not `= not done`: an upload may have fallen behind meanwhile.
            if not done:
                self._behind = True

    def _look_at_all(self) -> None:
        self._folder.clear(self._database.clock.now() - _STAGED)
        # What is there first: what should not be may stand in the way of what should.
        for some in portions(self._folder.names(), _AT_ONCE):
            self._settle(some, always=False)
        for some in portions(self._wanted_names(), _AT_ONCE):
            self._settle(some, always=False)

    def _settle(self, names: Iterable[str], *, always: bool) -> None:
        """Bring some names in line; those that are there as they should be are left unless `always`."""
        for name in dict.fromkeys(one for one in names if not is_ours(one)):
            try:
                self._settle_one(name, always)
            except (OSError, ModelyardError) as error:
                # Of ours: an unsafe name that somebody put there, a link in the way, or a blob that is no more.
                if isinstance(error, OSError) and error.errno not in _BY_NAME:
                    raise
                _log.warning("artifact %r cannot be shown in %s: %s", name, self._folder.root, error)

    def _settle_one(self, name: str, always: bool) -> None:
        safe_relative(name)
        wanted = self._find(name)
        if wanted is not None and not always and self._folder.holds(name, wanted.size_bytes, wanted.written_ns):
            return
        while wanted is not None:
            with (
                self._blobs.open(wanted.digest) as content,
                self._folder.staged(content, wanted.written_ns) as aside,
                self._folder.lock(),
            ):
                # Copied without the lock: meanwhile another file may have come in its place, or it may be deleted.
                found = self._find(name)
                if found == wanted:
                    self._folder.take(aside, name)
                    return
                wanted = found
        with self._folder.lock():
            if self._find(name) is None:
                self._folder.remove(name)
                return
        self._settle_one(name, always)

    def _find(self, name: str) -> _File | None:
        project, path = (self._project, name) if self._project is not None else _split(name)
        owner, below = locate(path)
        if not below or not project:
            return None
        with self._database.reading(system_scope(project)) as tx:
            found = select(_TABLE.c.digest, _TABLE.c.size_bytes, _TABLE.c.updated_at).where(
                _TABLE.c.project == project, _TABLE.c.owner_kind == owner.kind, _TABLE.c.owner_id == owner.id,
                _TABLE.c.path == below,
            )  # fmt: skip
            row = tx.one(found)
            if row is None or tree_path(tx, owner, below) != path:
                return None
        return _File(row.digest, row.size_bytes, to_us(row.updated_at) * 1_000)

    def _wanted_names(self) -> Iterator[str]:
        key = (_TABLE.c.project, _TABLE.c.owner_kind, _TABLE.c.owner_id, _TABLE.c.path)
        mine = true() if self._project is None else _TABLE.c.project == self._project
        last = ("", "", "", "")
        while True:
            with self._database.reading(system_scope("*")) as tx:
                after = mine & (tuple_(*key) > tuple_(*(literal(one) for one in last)))
                rows = tx.all(select(*key).where(after).order_by(*key).limit(_AT_ONCE))
            if not rows:
                return
            for row in rows:
                name = self._name(row.project, Owner(row.owner_kind, row.owner_id), row.path)
                if name is not None:
                    yield name
            last = tuple(rows[-1])

    def _name(self, project: str, owner: Owner, path: str) -> str | None:
        with self._database.reading(system_scope(project)) as tx:
            below = tree_path(tx, owner, path)
        if below is None:
            return None
        return below if self._project is not None else f"{project}/{below}"

    def _fell_behind(self, error: Exception) -> None:
        self._behind = True
        _log.warning("the folder of artifacts %s is behind: %s", self._folder.root, error)


def _split(name: str) -> tuple[str, str]:
    project, _, path = name.partition("/")
    return project, path
