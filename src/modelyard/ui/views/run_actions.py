"""What can be done with runs by hand: what can be undone (archive, tag, rename, annotate), and the end of one."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from litestar import Response
from litestar.enums import RequestEncodingType
from litestar.params import Body
from msgspec import Struct

from modelyard.kernel.auth import Action, Scope
from modelyard.kernel.errors import InvalidInput
from modelyard.kernel.routing import post
from modelyard.planes.tracking import Tracking
from modelyard.types.tracking import Purge, UpdateRun
from modelyard.ui.format import plural
from modelyard.ui.render import project_path, render_part
from modelyard.ui.views.run import NOTE_TAG

RUNS_MAX = 1_000
_ID = re.compile(r"[0-9a-f]{32}")


class RunsForm(Struct, frozen=True, kw_only=True):
    """What the bar of chosen runs sends: run ids with commas, and for `tag` the tag."""

    action: Literal["archive", "restore", "tag"]
    runs: str
    key: str = ""
    value: str = ""


class RenameForm(Struct, frozen=True, kw_only=True):
    name: str


class NoteForm(Struct, frozen=True, kw_only=True):
    note: str = ""


class TagForm(Struct, frozen=True, kw_only=True):
    """A tag to set, or with `remove` to take away."""

    key: str
    value: str = ""
    remove: str = ""


class MoveForm(Struct, frozen=True, kw_only=True):
    to: Literal["active", "deleted"]


class PurgeForm(Struct, frozen=True, kw_only=True):
    """What cannot be undone is ticked first."""

    sure: Literal["yes"]


@post("/runs/actions", requires=Action.WRITE)
def act_on_runs(
    caller: Scope, tracking: Tracking, data: Annotated[RunsForm, Body(media_type=RequestEncodingType.URL_ENCODED)]
) -> Response[bytes]:
    """Archive, restore or tag some runs. The answer says what was done and offers to undo it."""
    ids = list(dict.fromkeys(one for one in data.runs.split(",") if _ID.fullmatch(one)))
    if not ids or len(ids) > RUNS_MAX:
        raise InvalidInput(
            f"{len(ids)} runs cannot be changed at once", code="runs.count_invalid", hint=f"choose 1 to {RUNS_MAX}"
        )
    for one in ids:
        if data.action == "tag":
            tracking.runs.log(caller, one, tags={data.key: data.value})
        elif data.action == "archive":
            tracking.runs.delete(caller, one)
        else:
            tracking.runs.restore(caller, one)
    undo = {"archive": "restore", "restore": "archive", "tag": ""}[data.action]
    done = {"archive": "archived", "restore": "restored", "tag": f"tagged {data.key}"}[data.action]
    body = render_part(
        "toast.html",
        text=f"{plural(len(ids), 'run')} {done}",
        action=project_path(caller.project, "/runs/actions"),
        undo=undo,
        runs=",".join(ids),
    )
    return Response(body.encode(), media_type="text/html", headers={"HX-Trigger": "runs-changed"})


@post("/runs/{run_id:str}/rename", requires=Action.WRITE, status_code=303)
def rename_run(
    caller: Scope,
    tracking: Tracking,
    run_id: str,
    data: Annotated[RenameForm, Body(media_type=RequestEncodingType.URL_ENCODED)],
) -> Response[None]:
    """Rename a run by the form."""
    if not data.name.strip():
        raise InvalidInput("a run cannot be without a name", code="run.name_empty", hint="write one")
    tracking.runs.update(caller, run_id, UpdateRun(name=data.name.strip()))
    return _back_to(caller, run_id)


@post("/runs/{run_id:str}/note", requires=Action.WRITE, status_code=303)
def annotate_run(
    caller: Scope,
    tracking: Tracking,
    run_id: str,
    data: Annotated[NoteForm, Body(media_type=RequestEncodingType.URL_ENCODED)],
) -> Response[None]:
    """Write the note of a run, where MLflow's clients find it too."""
    tracking.runs.log(caller, run_id, tags={NOTE_TAG: data.note.replace("\r\n", "\n")})
    return _back_to(caller, run_id)


@post("/runs/{run_id:str}/tags", requires=Action.WRITE, status_code=303)
def tag_run(
    caller: Scope,
    tracking: Tracking,
    run_id: str,
    data: Annotated[TagForm, Body(media_type=RequestEncodingType.URL_ENCODED)],
) -> Response[None]:
    """Set a tag of a run, or take it away."""
    if data.remove:
        tracking.runs.delete_tag(caller, run_id, data.key)
    else:
        tracking.runs.log(caller, run_id, tags={data.key.strip(): data.value})
    return _back_to(caller, run_id)


@post("/runs/{run_id:str}/move", requires=Action.WRITE, status_code=303)
def move_run(
    caller: Scope,
    tracking: Tracking,
    run_id: str,
    data: Annotated[MoveForm, Body(media_type=RequestEncodingType.URL_ENCODED)],
) -> Response[None]:
    """Archive a run, or restore it; it is shown again either way."""
    (tracking.runs.delete if data.to == "deleted" else tracking.runs.restore)(caller, run_id)
    return _back_to(caller, run_id)


@post("/runs/{run_id:str}/purge", requires=Action.ADMIN, status_code=303)
def purge_run(
    caller: Scope,
    tracking: Tracking,
    run_id: str,
    data: Annotated[PurgeForm, Body(media_type=RequestEncodingType.URL_ENCODED)],  # noqa: ARG001  it was ticked
) -> Response[None]:
    """End an archived run for good."""
    tracking.purges.purge(caller, Purge(runs=[run_id]))
    return Response(None, status_code=303, headers={"Location": project_path(caller.project, "/runs")})


def _back_to(caller: Scope, run_id: str) -> Response[None]:
    return Response(None, status_code=303, headers={"Location": project_path(caller.project, f"/runs/{run_id}")})


ROUTES: list[Any] = [act_on_runs, rename_run, annotate_run, tag_run, move_run, purge_run]
