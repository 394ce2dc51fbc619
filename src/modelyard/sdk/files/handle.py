"""A dataset of files by its name: `modelyard.files("scans").add("raw/")`."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import quote

from modelyard.kernel import settings
from modelyard.kernel.errors import Conflict, InvalidInput, NotFound
from modelyard.kernel.ids import new_id
from modelyard.kernel.paths import require_safe, safe_join
from modelyard.sdk.client import Client
from modelyard.sdk.files import dvc, transfer
from modelyard.sdk.files.hashing import Found, Hashed, hash_batches, hash_files, single, walk
from modelyard.sdk.files.placing import Link
from modelyard.sdk.handle import Handle
from modelyard.types.data import CreateDataset, Dataset, DatasetVersion
from modelyard.types.files import CommitFiles, FileEntry, FilesDiff, FilesResult, FolderStatus, Verified
from modelyard.types.page import Page

Ref = int | str | None
Progress = Callable[[str, int, int], None]
"""Called with what is being done, and how many files and bytes of it are done; of an add by the threads that hash and
that send, one at a time."""
_PAGE = 10_000
_SHOWN_MAX = 1_000


class FilesHandle(Handle):
    """A dataset of files, which need not exist yet: the first `add` makes it."""

    _NOUN = "files"
    _AT = "/api/datasets"

    def add(
        self,
        source: str | os.PathLike[str],
        to: str = "",
        *,
        replace: bool = True,
        message: str = "",
        branch: str = "main",
        link: Link = "auto",
        progress: Progress | None = None,
    ) -> FilesResult:
        """Make the files below a folder (or one file) the next version, under `to`.

        With `replace`, what is below `to` and not in the folder is gone from the new version; without, it stays. Bytes
        that the dataset holds are not sent again. `link`: how a server on the same disk gets them: `auto` shares blocks
        where the disk can, else links the files, which then become read-only, else copies them.
        Raises InvalidInput for symbolic links and unsafe names, Conflict for a file that changed meanwhile.
        """
        root = Path(source)
        if not root.exists():
            raise NotFound(f"there is no file or folder {str(root)!a}", code="files.no_source")
        found = walk(root) if root.is_dir() else [single(root)]
        if to:
            require_safe(to)
            found = [one._replace(path=f"{to.rstrip('/')}/{one.path}") for one in found]
        below = to if replace and root.is_dir() else None
        return self._commit(found, below, message or f"add {root.name}", branch, link, progress)

    def import_dvc(
        self, dvc_file: str | os.PathLike[str], *, branch: str = "main", progress: Progress | None = None
    ) -> FilesResult:
        """Make what a `.dvc` file stands for the next version, from DVC's own cache, each file checked by its MD5.

        Raises InvalidInput, NotFound for what the cache lacks, Conflict for a file that is not what DVC says.
        """
        cached = dvc.read(Path(dvc_file))
        found = []
        for at, one in enumerate(cached, start=1):
            with one.file.open("rb") as source:
                if hashlib.file_digest(source, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() != (
                    one.md5.removesuffix(".dir")
                ):
                    raise Conflict(
                        f"DVC's cache is damaged: {one.file} is not {one.path!a}",
                        code="dvc.damaged",
                        hint="remove it and run `dvc fetch`",
                    )
            found.append(single(one.file)._replace(path=one.path))
            if progress is not None:
                progress("checking", at, 0)
        return self._commit(found, "", f"import {Path(dvc_file).name}", branch, "auto", progress)

    def remove(self, paths: Sequence[str], *, message: str = "", branch: str = "main") -> FilesResult:
        """Make a version without these files, or directories with all below. Raises InvalidInput where one is not."""
        asked = CommitFiles(remove=list(paths), branch=branch, message=message or f"remove {', '.join(paths)}"[:200])
        return self._client.patient.post(f"{self._path}/files/commits", asked, FilesResult)

    def version(self, ref: Ref = None) -> DatasetVersion:
        """One version: a number, tag, branch or instant; the newest by default."""
        return self._client.get(f"{self._path}/versions/{quote(str(ref or 'latest'), safe='')}", DatasetVersion)

    def list(self, ref: Ref = None, prefix: str = "") -> Iterator[FileEntry]:
        """The files of a version by path, those below a prefix."""
        after: str | None = ""
        number = self.version(ref).version
        while after is not None:
            params = {"ref": str(number), "prefix": prefix, "after": after, "limit": _PAGE}
            page = self._client.get(f"{self._path}/files", Page[FileEntry], params)
            yield from page.items
            after = page.next

    def read(self, path: str, ref: Ref = None) -> bytes:
        """The bytes of one file."""
        params = {"ref": None if ref is None else str(ref)}
        return self._client.get_bytes(f"{self._path}/files/content/{quote(path)}", params)

    def diff(self, before: Ref, after: Ref = None) -> FilesDiff:
        """What differs between two versions, by path."""
        params = {"before": str(before), "after": None if after is None else str(after)}
        return self._client.get(f"{self._path}/files/diff", FilesDiff, params)

    def status(
        self, source: str | os.PathLike[str], ref: Ref = None, *, prefix: str = "", progress: Progress | None = None
    ) -> FolderStatus:
        """How a folder differs from what a version has below a prefix, which is what `add` would change. Only files
        whose size, time or inode are not remembered are read."""
        version = self.version(ref)
        tell = None if progress is None else partial(progress, "hashing")
        hashed = hash_files(walk(Path(source)), settings.load().home / "cache" / "digests.db", tell)
        below = f"{prefix.rstrip('/')}/" if prefix else ""
        here = {below + one.found.path: one for one in hashed}
        removed, changed = [], []
        for one in self.list(version.version, below):
            found = here.pop(one.path, None)
            if found is None:
                removed.append(one.path)
            elif not _same(found, one):
                changed.append(one.path)
        return FolderStatus(
            dataset=self.name,
            version=version.version,
            files=len(hashed),
            added=len(here),
            removed=len(removed),
            changed=len(changed),
            added_paths=list(here)[:_SHOWN_MAX],
            removed_paths=removed[:_SHOWN_MAX],
            changed_paths=changed[:_SHOWN_MAX],
        )

    def verify(self, ref: Ref = None) -> Verified:
        """Have the server read every byte of a version."""
        params = {"ref": None if ref is None else str(ref)}
        return self._client.patient.post(f"{self._path}/files/verify", None, Verified, params)

    def checkout(
        self,
        target: str | os.PathLike[str],
        ref: Ref = None,
        *,
        prefix: str = "",
        link: Link = "auto",
        update: bool = False,
        progress: Progress | None = None,
    ) -> DatasetVersion:
        """Put the files of a version below `target`, which is new, whole or not at all; or with `update` bring an
        existing folder to it: files that differ are replaced, what the version does not have is left alone.

        `link`: on the server's disk, `auto` shares blocks where the disk can, else links the files, which are then
        read-only and cost no bytes, else copies them. Raises Conflict where the target exists.
        """
        folder = Path(target)
        version = self.version(ref)
        entries = list(self.list(version.version, prefix))
        for one in entries:
            require_safe(one.path)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            if not update:
                raise Conflict(
                    f"{folder} exists already",
                    code="files.target_exists",
                    hint="choose another folder, or bring this one to the version with --update",
                )
            self._update(folder, version, entries, link, progress)
        else:
            self._checkout_new(folder, version, entries, link, progress)
        return version

    # --- within -----------------------------------------------------------------------------------------------

    def _commit(
        self,
        found: Sequence[Found],
        replace_below: str | None,
        message: str,
        branch: str,
        link: Link,
        progress: Progress | None,
    ) -> FilesResult:
        for one in found:
            require_safe(one.path)
        self._ensure()
        progress = None if progress is None else _one_at_a_time(progress)
        tell = None if progress is None else partial(progress, "hashing")
        cache = settings.load().home / "cache" / "digests.db"
        put: list[FileEntry] = []
        with transfer.Sender(self._client, self._path, link, _counted("sending", progress)) as sender:
            for batch in hash_batches(found, cache, tell):
                sender.add(batch)
                put.extend(FileEntry(one.path, digest, one.size_bytes, one.executable) for one, digest in batch)
        asked = CommitFiles(
            put=put,
            replace_below=replace_below,
            branch=branch,
            message=message,
        )
        return self._client.patient.post(f"{self._path}/files/commits", asked, FilesResult)

    def _ensure(self) -> None:
        try:
            self._client.get(self._path, Dataset)
        except NotFound:
            self._client.post("/api/datasets", CreateDataset(name=self.name, kind="files"), Dataset)

    def _checkout_new(
        self, folder: Path, version: DatasetVersion, entries: Sequence[FileEntry], link: Link, progress: Progress | None
    ) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = folder.with_name(f".{folder.name}.{new_id()[-12:]}")
        partial.mkdir()
        try:
            self._fetch(partial, version, entries, link, progress)
            # An empty folder gives way to the whole one.
            partial.replace(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise

    def _update(
        self, folder: Path, version: DatasetVersion, entries: Sequence[FileEntry], link: Link, progress: Progress | None
    ) -> None:
        cache = settings.load().home / "cache" / "digests.db"
        here = {one.found.path: one for one in hash_files(walk(folder), cache)}
        stale = [one for one in entries if not _same(here.get(one.path), one)]
        for one in stale:
            safe_join(folder, one.path).unlink(missing_ok=True)
        self._fetch(folder, version, stale, link, progress)

    def _fetch(
        self, folder: Path, version: DatasetVersion, entries: Sequence[FileEntry], link: Link, progress: Progress | None
    ) -> None:
        tell = _counted("fetching", progress)
        transfer.fetch(self._client, self._path, version.version, entries, folder, link, tell)


def files(name: str, client: Client | None = None) -> FilesHandle:
    """The dataset of files of a name, which need not exist yet."""
    if not name:
        raise InvalidInput("a dataset has a name", code="dataset.name_invalid")
    return FilesHandle(name, client)


def _same(here: Hashed | None, entry: FileEntry) -> bool:
    return here is not None and (here.digest, here.found.executable) == (entry.digest, entry.executable)


def _one_at_a_time(progress: Progress) -> Progress:
    lock = threading.Lock()

    def tell(what: str, files: int, size_bytes: int) -> None:
        with lock:
            progress(what, files, size_bytes)

    return tell


def _counted(what: str, progress: Progress | None) -> transfer.Tell:
    done = [0, 0]

    def tell(files: int, size_bytes: int) -> None:
        done[0] += files
        done[1] += size_bytes
        if progress is not None:
            progress(what, done[0], done[1])

    return tell
