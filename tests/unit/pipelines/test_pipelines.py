"""Pipelines end to end, with real workers: results, the cache, failures and what they say, resume, cancel, lineage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Plant, Project

FLOW = """
    from modelyard.sdk.tasks import pipeline, task

    @task
    def load(n):
        return list(range(n))

    @task
    def total(values, scale=1):
        print("adding", len(values))
        return sum(values) * scale

    @task
    def pair(a, b):
        return {"a": a, "both": [a, b]}

    @pipeline
    def flow(n: int = 4, scale: int = 10):
        values = load(n)
        whole = total(values, scale=scale)
        both = pair(whole, total(values))
        return {"whole": whole, "last": both["both"][1]}
"""


def test_a_pipeline_runs_and_gives_its_result(plant: Plant, project: Project) -> None:
    project.write("flow.py", FLOW)
    run = plant.run(project.load("flow").flow)
    assert run.state == "succeeded", run
    assert run.result == {"whole": 60, "last": 6}
    assert [step.name for step in run.steps] == ["load", "total", "total-2", "pair"]
    assert all(step.state == "succeeded" and step.job_id for step in run.steps)
    assert run.params == {"n": 4, "scale": 10}
    again = plant.run("flow", scale=100)
    assert again.result == {"whole": 600, "last": 6}
    assert plant.states(again) == {"load": "cached", "total": "succeeded", "total-2": "cached", "pair": "succeeded"}
    assert again.steps[0].cached_from == run.id
