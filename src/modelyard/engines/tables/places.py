"""Errors about files of a table, told by dataset, version and the file's name in the table: where they lie on the
server's disk is nobody's business who reads them."""

from __future__ import annotations

from collections.abc import Iterable

from modelyard.engines.tables.base import FileSet
from modelyard.kernel.errors import EngineError


def damaged(text: str, tables: Iterable[FileSet]) -> EngineError:
    """The error for a file that cannot be read, of which a library says this."""
    held = list(tables)
    whose = next((table.of for table in held if table.of and any(root in text for root in _roots(table))), "a table")
    return EngineError(
        f"{whose} has a file that cannot be read: {without_places(text, held)}",
        code="table.file_damaged",
        hint="restore the file from a backup; older versions that do not hold it are not affected",
    )


def speaks_of_files(text: str, tables: Iterable[FileSet]) -> bool:
    """Whether a text names a file of the tables."""
    return any(str(file) in text for table in tables for file in table.files)


def without_places(text: str, tables: Iterable[FileSet]) -> str:
    """A text in which files of tables are called by their names below their table."""
    for table in tables:
        for root in _roots(table):
            text = text.replace(root, "")
    return text


def _roots(table: FileSet) -> list[str]:
    """The folders that the names of the files are relative to; the longest first."""
    if table.names:
        pairs = zip(map(str, table.files), table.names, strict=True)
        found = {path.removesuffix(name) for path, name in pairs if path.endswith(f"/{name}")}
    else:
        found = {f"{file.parent}/" for file in table.files}
    return sorted(found, key=len, reverse=True)
