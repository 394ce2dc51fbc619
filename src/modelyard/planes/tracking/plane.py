"""The tracking plane, put together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from modelyard.engines.blobs.base import BlobStore
from modelyard.engines.blobs.named import NamedFolder
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
from modelyard.planes.tracking.shown import ShownArtifacts


class Tracking:
    """The tracking plane over a catalog and a store of blobs.

    `shown` is a folder that shows the artifacts by name: those of `shown_project`, or those of all projects."""

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        shown: NamedFolder | None = None,
        shown_project: str | None = None,
    ) -> None:
        self._shown = None if shown is None else ShownArtifacts(database, blobs, shown, shown_project)
        self.experiments = Experiments(database)
        self.runs = Runs(database, self.experiments)
        self.purges = Purges(database, self._shown)
        self.metrics = Metrics(database)
        self.overview = Overview(database)
        self.models = LoggedModels(database, self.experiments)
        self.artifacts = Artifacts(database, blobs, self._shown)
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
        """What runs in the background: the compaction of metric segments, and what keeps the folder of artifacts."""
        return [self._compactor] if self._shown is None else [self._compactor, self._shown]
