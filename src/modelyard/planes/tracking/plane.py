"""The tracking plane, put together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from modelyard.engines.blobs.base import BlobStore
from modelyard.kernel.database import Database
from modelyard.kernel.reconcile import Reconciler
from modelyard.planes.tracking.reconcile import Compactor
from modelyard.planes.tracking.services.artifacts import Artifacts
from modelyard.planes.tracking.services.assessments import Assessments
from modelyard.planes.tracking.services.evaluation_datasets import EvaluationDatasets
from modelyard.planes.tracking.services.experiments import Experiments
from modelyard.planes.tracking.services.imports import Imports
from modelyard.planes.tracking.services.issues import Issues
from modelyard.planes.tracking.services.metrics import Metrics
from modelyard.planes.tracking.services.models import LoggedModels
from modelyard.planes.tracking.services.overview import Overview
from modelyard.planes.tracking.services.purges import Purges
from modelyard.planes.tracking.services.runs import Runs
from modelyard.planes.tracking.services.scorers import Scorers
from modelyard.planes.tracking.services.spans import Spans
from modelyard.planes.tracking.services.traces import Traces
from modelyard.planes.tracking.services.uploads import Uploads


class Tracking:
    """The tracking plane over a catalog and a store of blobs."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self.experiments = Experiments(database)
        self.runs = Runs(database, self.experiments)
        self.purges = Purges(database)
        self.metrics = Metrics(database)
        self.overview = Overview(database)
        self.models = LoggedModels(database, self.experiments)
        self.artifacts = Artifacts(database, blobs)
        self.uploads = Uploads(database, blobs, self.artifacts)
        self.imports = Imports(database, self.experiments, self.runs)
        self.traces = Traces(database, self.experiments)
        self.spans = Spans(database, self.experiments)
        self.assessments = Assessments(database)
        self.issues = Issues(database, self.experiments)
        self.scorers = Scorers(database, self.experiments)
        self.evaluation = EvaluationDatasets(database, self.experiments)
        self._compactor = Compactor(database)

    def kept_blobs(self) -> Iterator[str]:
        """The digests of all blobs that this plane names, of all projects; some more than once."""
        return self.artifacts.kept_blobs()

    def reconcilers(self) -> Sequence[Reconciler]:
        """What runs in the background: the compaction of metric segments."""
        return [self._compactor]
