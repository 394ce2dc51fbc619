"""Tracking: experiments, runs, metrics, logged models and artifacts, on a store made to stay fast.

`Tracking` is the face: `.experiments`, `.runs`, `.metrics`, `.models`, `.artifacts`. `Owner` says whose an
artifact is.
"""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.engines.blobs.base import BlobStore
from modelyard.kernel.database import Database
from modelyard.kernel.reconcile import Reconciler
from modelyard.planes.tracking import transfer
from modelyard.planes.tracking.filters import ModelOrder, order_model, page_offset, page_token
from modelyard.planes.tracking.reconcile import Compactor
from modelyard.planes.tracking.rules import check_batch_sizes, check_params_unique, check_run_id, check_time_ms
from modelyard.planes.tracking.services.artifacts import Artifacts, Owner, below_uri, locate
from modelyard.planes.tracking.services.experiments import Experiments
from modelyard.planes.tracking.services.metrics import Metrics, OfModel
from modelyard.planes.tracking.services.models import LoggedModels
from modelyard.planes.tracking.services.runs import Runs

__all__ = [
    "Artifacts",
    "Experiments",
    "LoggedModels",
    "Metrics",
    "ModelOrder",
    "OfModel",
    "Owner",
    "Runs",
    "Tracking",
    "below_uri",
    "check_batch_sizes",
    "check_params_unique",
    "check_run_id",
    "check_time_ms",
    "locate",
    "order_model",
    "page_offset",
    "page_token",
    "transfer",
]


class Tracking:
    """The tracking plane over a catalog and a store of blobs."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self.experiments = Experiments(database)
        self.runs = Runs(database, self.experiments)
        self.metrics = Metrics(database)
        self.models = LoggedModels(database, self.experiments)
        self.artifacts = Artifacts(database, blobs)
        self._compactor = Compactor(database)

    def reconcilers(self) -> Sequence[Reconciler]:
        """What runs in the background: the compaction of metric segments."""
        return [self._compactor]
