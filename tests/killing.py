"""Processes that change a dataset and die at a named step of it: loaded once, and forked for every case.

`python killing.py serve` reads cases from its input, `append HOME FIRST` appends batch after batch until it is killed.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from modelyard.engines.tables import delta
from modelyard.engines.tables.delta import DeltaTables
from modelyard.kernel.auth import Principal, Role, Scope
from modelyard.kernel.database import Database, metadata
from modelyard.planes.data import (
    Data,
    buffers,
    layout,
    manifests,
    publish,
    retention_store,
    rewriting,
    segments,
    store,
    writing,
)
from modelyard.types.data import Retention
from modelyard.types.data_branches import Vacuum

SCOPE = Scope("default", Principal("ada", {"*": Role.ADMIN}))
BATCH = 100
DIED = 137
FAILED = 3
Kill = Callable[[Path, str, str], int]

PLACES: dict[str, tuple[Any, str]] = {
    "files": (delta, "write_files"),
    "staging": (DeltaTables, "stage"),
    "judged": (writing.Writer, "_judge"),
    "rewriting": (rewriting.Rewriter, "_rewrite"),
    "planned": (store, "insert_write"),
    "moved": (DeltaTables, "_move_in"),
    "entry": (delta, "write_entry"),
    "placed": (DeltaTables, "place"),
    "committed": (DeltaTables, "commit"),
    "manifests": (manifests, "insert"),
    "version": (store, "insert_version"),
    "advanced": (store, "advance"),
    "remembered": (publish, "record_write"),
    "branch moved": (store, "move"),
    "layout": (store, "update_version"),
    "finished": (store, "finish_write"),
    "carried": (publish.Publisher, "_carry_out"),
    "settled": (writing.Writer, "_settle"),
    "expired": (retention_store, "expire"),
    "unneeded": (manifests, "mark_unneeded"),
    "removed": (DeltaTables, "remove"),
    "forgotten": (manifests, "delete_unneeded"),
    "sealed": (buffers.Buffers, "_seal"),
    "read": (segments, "read"),
    "taken": (buffers.Buffers, "_take_in"),
    "written": (writing.Writer, "write"),
    "compacted": (layout.Layout, "_settle"),
}


def open_data(home: Path) -> Data:
    """The data plane over a home directory, as another process has it."""
    database = Database(f"sqlite:///{home}/catalog.db")
    metadata.create_all(database.engine)
    return Data(database, DeltaTables(home / "tables"), home / "spill")


def rows(*ids: int, x: float = 1.0) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64()), "x": [x] * len(ids)})


def batch_of(number: int) -> pa.Table:
    return pa.table({"batch": [number] * BATCH, "row": range(BATCH)})


OPERATIONS: dict[str, Callable[[Data], object]] = {
    "append": lambda data: data.write(SCOPE, "flights", rows(50), idempotency_key="k"),
    "overwrite": lambda data: data.write(SCOPE, "flights", rows(60, 61), mode="overwrite", idempotency_key="k"),
    "merge": lambda data: data.write(SCOPE, "flights", rows(2, 70, x=9.0), mode="merge", idempotency_key="k"),
    "delete": lambda data: data.delete_rows(SCOPE, "flights", "id = 2 OR id = 3", idempotency_key="k"),
    "revert": lambda data: data.branches.revert(SCOPE, "flights", 1),
    "branch write": lambda data: data.write(SCOPE, "flights", rows(80), branch="try", idempotency_key="k"),
    "branch merge": lambda data: data.branches.merge(SCOPE, "flights", "ahead"),
    "compact": lambda data: data.layout.compact(SCOPE, "flights"),
    "vacuum": lambda data: data.layout.vacuum(SCOPE, "flights", Vacuum(retention=Retention(versions=1), grace_s=0)),
    "flush": lambda data: data.buffers.flush(SCOPE, "flights"),
    "batch 1": lambda data: data.write(SCOPE, "flights", batch_of(1), idempotency_key="1"),
}


@contextmanager
def killing(*under: str) -> Iterator[Kill]:
    """A function that runs an operation over a home directory in a process that dies at a step, such as `after
    planned` (or, without one, at none), and returns the status that it ended with. `under`: the command, such as
    strace, under which these processes run. Raises ChildProcessError where they do not come up."""
    command = [*under, sys.executable, __file__, "serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        if program.stdout.readline() != "ready\n":
            raise ChildProcessError(f"{command[0]} did not come up")
        sink, source = program.stdin, program.stdout

        def kill(home: Path, operation: str, step: str) -> int:
            sink.write(f"{home}|{operation}|{step}\n")
            sink.flush()
            return int(source.readline())

        yield kill
        sink.close()


@contextmanager
def files_limited(limit_bytes: int) -> Iterator[None]:
    """As a full disk, without root: the kernel lets no file of this process grow past a size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


# --- in a process of its own ------------------------------------------------------------------------------------


def _die_at(step: str) -> None:
    when, _, place = step.partition(" ")
    owner, name = PLACES[place]
    original = getattr(owner, name)

    def dying(*args: Any, **named: Any) -> None:
        if when != "before":
            original(*args, **named)
        os._exit(DIED)

    setattr(owner, name, dying)


def _serve() -> None:
    # What is loaded now is not loaded by each child.
    import deltalake  # noqa: F401
    import duckdb  # noqa: F401
    import pyarrow.dataset
    import pyarrow.parquet  # noqa: F401

    print("ready", flush=True)
    for line in sys.stdin:
        home, operation, step = line.rstrip("\n").split("|")
        child = os.fork()
        if child == 0:
            try:
                if step:
                    _die_at(step)
                OPERATIONS[operation](open_data(Path(home)))
                os._exit(0)
            except Exception:  # noqa: BLE001  which error it is matters to nobody: it says that it failed
                traceback.print_exc()
                os._exit(FAILED)
            except BaseException:  # noqa: BLE001  whatever it was, the child ends here
                traceback.print_exc()
                os._exit(1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _append(home: Path, number: int) -> None:
    data = open_data(home)
    while True:
        made = data.append(SCOPE, "flights", batch_of(number), idempotency_key=str(number))
        print(number, made.version, flush=True)
        number += 1


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve"]:
            _serve()
        case ["append", home, first]:
            _append(Path(home), int(first))
