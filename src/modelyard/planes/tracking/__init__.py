"""Tracking: experiments, runs, metrics, logged models and artifacts, on a store made to stay fast.

`Tracking` is the face: `.experiments`, `.runs`, `.metrics`, `.overview`, `.models`, `.artifacts`, `.uploads`,
`.imports`, `.purges`, `.traces`, `.spans`, `.assessments`, `.issues`, `.evaluation`. `Owner` says whose an artifact is.
"""

from __future__ import annotations

from modelyard.planes.tracking import transfer
from modelyard.planes.tracking.filters import ModelOrder, order_model, page_offset, page_token
from modelyard.planes.tracking.owners import Owner, locate
from modelyard.planes.tracking.plane import Tracking
from modelyard.planes.tracking.points import PointColumns
from modelyard.planes.tracking.rules import check_batch_sizes, check_params_unique, check_run_id, check_time_ms
from modelyard.planes.tracking.services.artifacts import Artifacts, below_uri
from modelyard.planes.tracking.services.assessments import Assessments
from modelyard.planes.tracking.services.evaluation_datasets import EvaluationDatasets
from modelyard.planes.tracking.services.experiments import ARTIFACT_ROOT, Experiments
from modelyard.planes.tracking.services.issues import Issues
from modelyard.planes.tracking.services.metrics import Metrics, OfModel
from modelyard.planes.tracking.services.models import LoggedModels
from modelyard.planes.tracking.services.overview import Overview
from modelyard.planes.tracking.services.runs import Runs
from modelyard.planes.tracking.services.scorers import Scorers
from modelyard.planes.tracking.services.spans import HERE, STATS_KEY, WHERE_TAG, Spans, expected
from modelyard.planes.tracking.services.traces import Traces
from modelyard.planes.tracking.services.uploads import Uploads

__all__ = [
    "ARTIFACT_ROOT",
    "HERE",
    "STATS_KEY",
    "WHERE_TAG",
    "Artifacts",
    "Assessments",
    "EvaluationDatasets",
    "Experiments",
    "Issues",
    "LoggedModels",
    "Metrics",
    "ModelOrder",
    "OfModel",
    "Overview",
    "Owner",
    "PointColumns",
    "Runs",
    "Scorers",
    "Spans",
    "Traces",
    "Tracking",
    "Uploads",
    "below_uri",
    "check_batch_sizes",
    "check_params_unique",
    "check_run_id",
    "check_time_ms",
    "expected",
    "locate",
    "order_model",
    "page_offset",
    "page_token",
    "transfer",
]
