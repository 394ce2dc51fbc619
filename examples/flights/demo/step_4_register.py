"""Register: the best candidate before its gates, an approval, and the alias `champion`."""

from __future__ import annotations

from pathlib import Path

from flights.pipeline import MODEL

import modelyard
from demo.screen import Screen
from modelyard.sdk.client import Client, connect
from modelyard.sdk.registry import ModelHandle
from modelyard.types.kernel import IssuedToken, IssueToken
from modelyard.types.pipelines import PipelineRun
from modelyard.types.registry import ModelVersion

REVIEWER = "reviewer"
POLICY = Path(__file__).parents[1] / "policy.yaml"
ALIAS = "champion"


def run(screen: Screen, trained: PipelineRun) -> ModelVersion:
    """Declare the policy, look at the gates, approve, and move the alias."""
    model = modelyard.model(MODEL)
    model.set_policy(POLICY.read_text("utf-8"), "the flights project's rules")
    version = trained.result["version"]
    refused = model.gates(version, ALIAS)
    assert not refused.promotable, "a version without an approval could be promoted"
    for gate in refused.gates:
        (screen.good if gate.status == "passed" else screen.alarm)(f"{gate.name}: {gate.reason}")
    reviewer().approve(version, "gates looked at, slices are even; good for April")
    champion = model.promote(version, ALIAS, "the first model")
    screen.good(f"{champion.urn} ({trained.result['candidate']}) approved, and now {ALIAS}")
    return champion


def reviewer() -> ModelHandle:
    """The model in the hands of somebody else: nobody approves what a run of their own made."""
    mine = connect()
    issued = mine.post("/api/tokens", IssueToken(REVIEWER, "approver", ttl_s=3_600), IssuedToken)
    return modelyard.model(MODEL, Client(mine.base_url, token=issued.token, project=mine.project))
