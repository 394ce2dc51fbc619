"""What made a run, as far as it is on record: code, environment, seeds and data, from its tags, params and files."""

from __future__ import annotations

from collections.abc import Mapping

from modelyard.kernel.auth import Scope
from modelyard.planes.tracking import Owner, Tracking
from modelyard.types.tracking import Run
from modelyard.ui.views.columns import Value

_CODE = {
    "mlflow.source.name": "program",
    "mlflow.source.type": "started as",
    "mlflow.source.git.commit": "commit",
    "mlflow.source.git.branch": "branch",
    "mlflow.source.git.repoURL": "repository",
    "mlflow.source.git.dirty": "uncommitted changes",
    "modelyard.git.changed": "uncommitted changes",
    "mlflow.project.entryPoint": "entry point",
}
_SHOWN_ELSEWHERE = ("modelyard.git.", "modelyard.seed", "modelyard.archived")
_ENVIRONMENT = {"mlflow.docker.image.name": "image", "mlflow.databricks.cluster.info": "cluster"}
_SEED_PARAMS = ("seed", "random_state", "random_seed", "rng_seed")
_FILES = ("requirements.txt", "python_env.yaml", "conda.yaml", "environment.yml", "packages.txt", "freeze.txt")
_DIFFS = (".diff", ".patch")
_FILES_MAX, _DEPTH_MAX = 8, 3
TEXT_BYTES_MAX = 256 * 1024


def code_facts(run: Run) -> dict[str, Value]:
    """The program, its commit and its state."""
    found: dict[str, Value] = {label: run.tags[tag] for tag, label in _CODE.items() if run.tags.get(tag)}
    return found


def environment_facts(run: Run) -> dict[str, Value]:
    """Python, host, packages: whatever the client put on record about where the run ran."""
    found: dict[str, Value] = {label: run.tags[tag] for tag, label in _ENVIRONMENT.items() if run.tags.get(tag)}
    for tag, value in run.tags.items():
        if tag.startswith("modelyard.") and not tag.startswith(_SHOWN_ELSEWHERE):
            found[tag.removeprefix("modelyard.").removeprefix("env.").replace("_", " ").replace(".", " ")] = value
    return found


def seed_facts(run: Run) -> dict[str, str]:
    """The seeds that are on record, by where they were set."""
    found = {name: value for name, value in run.params.items() if name.lower().rsplit(".", 1)[-1] in _SEED_PARAMS}
    for tag, value in run.tags.items():
        if tag.startswith("modelyard.seed"):
            found[tag.removeprefix("modelyard.").replace("_", " ").replace(".", " ")] = value
    return found


def data_facts(run: Run) -> Mapping[str, Value]:
    """The datasets that were read, with their version or digest."""
    found: dict[str, Value] = {}
    for one in run.inputs:
        context = one.tags.get("mlflow.data.context", "")
        found[f"{one.dataset.name} ({context})" if context else one.dataset.name] = one.dataset.digest
    return found


def files_of_note(caller: Scope, tracking: Tracking, run_id: str) -> dict[str, str]:
    """The files that say what made the run, path by name: lists of packages and uncommitted differences."""
    found: dict[str, str] = {}
    for one in tracking.artifacts.tree(caller, Owner("run", run_id)):
        name = one.path.rsplit("/", 1)[-1].lower()
        if one.path.count("/") <= _DEPTH_MAX and (name in _FILES or name.endswith(_DIFFS)):
            found.setdefault(one.path, one.path)
    return dict(list(found.items())[:_FILES_MAX])


def text_of(caller: Scope, tracking: Tracking, run_id: str, path: str) -> str:
    """The beginning of a file of a run as text; empty for no path."""
    if not path:
        return ""
    _, content = tracking.artifacts.open(caller, Owner("run", run_id), path)
    with content:
        return content.read(TEXT_BYTES_MAX).decode("utf-8", "replace")
