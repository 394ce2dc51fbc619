"""`modelyard job`: commands with resources, queued, scheduled, metered."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from modelyard.cli.context import JsonFlag, client, current_settings, show_fields, show_items, show_json, show_table
from modelyard.cli.options import pairs, size_bytes
from modelyard.sdk import jobs as sdk
from modelyard.types.jobs import DAY_S, Job, JobState

app = typer.Typer(add_completion=False, no_args_is_help=True)

JobId = Annotated[str, typer.Argument(help="The job's id.")]
EXIT_JOB_FAILED = 1


@app.callback()
def job() -> None:
    """A job is a command with resources. It waits until there is room, is tried again where it may, and is metered.

    \b
    modelyard job submit --cpus 2 --cwd . -- python train.py --epochs 3
    modelyard job get JOB          why it waits, what it uses
    modelyard job logs JOB --follow
    """


@app.command("list")
def list_jobs(
    state: Annotated[JobState | None, typer.Option(help="Only those in this state.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=1000)] = 50,
    as_json: JsonFlag = False,
) -> None:
    """The jobs of the project, newest first."""
    page = sdk.list_jobs(state=state, limit=limit, client=client())
    columns = {
        "ID": lambda one: one.id,
        "NAME": lambda one: one.name,
        "STATE": lambda one: one.state.value,
        "TRIES": lambda one: len(one.attempts),
        "CPU S": lambda one: round(one.usage.cpu_s, 2),
        "SUBMITTED": lambda one: one.submitted_at,
        "REASON": lambda one: one.reason,
    }
    empty = "no job yet; submit one with `modelyard job submit -- COMMAND`"
    show_items(page.items, columns, as_json=as_json, empty=empty, more=page.next)


@app.command()
def get(job_id: JobId, as_json: JsonFlag = False) -> None:
    """One job: its attempts, what it uses, why it waits."""
    found = sdk.get_job(job_id, client())
    if as_json:
        show_json(found)
        return
    _show(found)


@app.command()
def submit(
    command: Annotated[list[str], typer.Argument(help="The command and its arguments, after `--`.")],
    name: Annotated[str, typer.Option(help="How to call it. Default: the program's name.")] = "",
    cpus: Annotated[float, typer.Option(help="CPUs that it may use.")] = 1.0,
    memory: Annotated[str, typer.Option(help="Memory that it may use at most, such as 4GiB. Default: no limit.")] = "0",
    cwd: Annotated[Path | None, typer.Option(help="Folder to run in. Default: an empty one of its own.")] = None,
    env: Annotated[list[str] | None, typer.Option(help="NAME=VALUE of its environment; may be repeated.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="NAME=VALUE to find and bill it by.")] = None,
    priority: Annotated[int, typer.Option(help="A point outranks ten minutes of waiting; from -100 to 100.")] = 0,
    timeout_s: Annotated[float, typer.Option(help="Seconds after which it is ended.")] = DAY_S,
    attempts: Annotated[int, typer.Option(help="How often it is tried at most when it fails.")] = 1,
    key: Annotated[str | None, typer.Option(help="Submitting again under this key gives the same job.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show its output and wait for its end.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Put a command into the queue.

    With --wait this command's exit code says how the job ended, and where no server runs, it is one meanwhile.
    """
    environment, labels, memory_bytes = pairs(env), pairs(label), size_bytes(memory)
    with sdk.serving_client(current_settings()) if wait else nullcontext(client()) as chosen:
        made = sdk.submit_job(
            command,
            name=name,
            cpus=cpus,
            memory_bytes=memory_bytes,
            cwd=None if cwd is None else str(cwd.absolute()),
            env=environment,
            labels=labels,
            priority=priority,
            timeout_s=timeout_s,
            max_attempts=attempts,
            idempotency_key=key,
            client=chosen,
        )
        if wait:
            typer.echo(f"job {made.id}", err=True)
            for text in sdk.follow_job_log(made.id, client=chosen):
                if not as_json:
                    sys.stdout.write(text)
                    sys.stdout.flush()
            made = sdk.wait_job(made.id, client=chosen)
        else:
            made = sdk.get_job(made.id, chosen)
    if as_json:
        show_json(made)
    elif wait:
        typer.echo(f"job {made.id} {_ended(made)}", err=True)
    else:
        typer.echo(f"job {made.id} {made.state.value}: {made.reason}" if made.reason else f"job {made.id}")
    if wait and made.state is not JobState.SUCCEEDED:
        raise typer.Exit(EXIT_JOB_FAILED)


@app.command()
def cancel(job_id: JobId, as_json: JsonFlag = False) -> None:
    """Ask a job to end: its processes get SIGTERM, and SIGKILL after their grace."""
    found = sdk.cancel_job(job_id, client())
    if as_json:
        show_json(found)
    else:
        typer.echo(f"job {found.id} {'is being cancelled' if not found.state.final else found.state.value}")


@app.command()
def logs(
    job_id: JobId,
    attempt: Annotated[int | None, typer.Option(help="Which attempt. Default: the latest.", min=1)] = None,
    tail_bytes: Annotated[int | None, typer.Option(help="Only the last so many bytes.", min=1)] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
) -> None:
    """What a job wrote, with control characters made harmless."""
    chosen = client()
    if follow:
        for text in sdk.follow_job_log(job_id, client=chosen):
            sys.stdout.write(text)
            sys.stdout.flush()
        return
    offset = 0 if tail_bytes is None else -tail_bytes
    while True:
        piece = sdk.read_job_log(job_id, attempt=attempt, offset=offset, limit=262_144, client=chosen)
        if piece.skipped_bytes:
            typer.echo(f"… {piece.skipped_bytes:,} bytes were not kept …", err=True)
        sys.stdout.write(piece.text)
        if piece.complete or not piece.text:
            return
        offset = piece.next


def _show(found: Job) -> None:
    show_fields(
        [
            ("id", found.id),
            ("name", found.name),
            ("command", " ".join(found.command)),
            ("state", found.state.value),
            ("reason", found.reason),
            ("resources", f"{found.resources.cpus:g} CPUs, memory {_limit(found.resources.memory_bytes)}"),
            ("used", _used(found)),
            ("priority", found.priority),
            ("timeout", f"{found.timeout_s:g} s"),
            ("labels", ", ".join(f"{name}={value}" for name, value in sorted(found.labels.items()))),
            ("submitted", f"{found.submitted_at:%Y-%m-%d %H:%M:%S} by {found.submitted_by}"),
            ("ended", found.ended_at),
        ]
    )
    if found.attempts:
        typer.echo("")
    columns = {
        "ATTEMPT": lambda one: one.number,
        "STATE": lambda one: one.state.value,
        "STARTED": lambda one: one.started_at,
        "WALL S": lambda one: round(one.usage.wall_s, 2),
        "CPU S": lambda one: round(one.usage.cpu_s, 2),
        "MESSAGE": lambda one: one.message,
    }
    show_table(found.attempts, columns, empty="")


def _limit(size_bytes: int) -> str:
    return f"at most {size_bytes:,} bytes" if size_bytes else "not limited"


def _used(found: Job) -> str:
    used = found.usage
    return f"{used.cpu_s:.2f} CPU s in {used.wall_s:.2f} s, at most {used.peak_rss_bytes / 2**20:.0f} MiB"


def _ended(found: Job) -> str:
    return f"{found.state.value}{f': {found.reason}' if found.reason else ''} ({_used(found)})"
