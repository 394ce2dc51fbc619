"""The composition root: settings -> engines -> planes. The only file that names concrete engines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from modelyard.engines.blobs.base import BlobStore
from modelyard.engines.blobs.local import LocalBlobs
from modelyard.engines.blobs.named import NamedFolder
from modelyard.engines.compute.process import ProcessEngine
from modelyard.engines.tables.delta import DeltaTables
from modelyard.kernel.auth import Scope
from modelyard.kernel.clock import Clock, SystemClock
from modelyard.kernel.database import Database
from modelyard.kernel.lineage import Newest
from modelyard.kernel.reconcile import ReconcileLoop
from modelyard.kernel.sealing import Sealer
from modelyard.kernel.settings import DEFAULT_PROJECT, Settings, process_environment
from modelyard.migrations import migrate
from modelyard.planes.automation import Automation
from modelyard.planes.cost import Cost
from modelyard.planes.data import Data, Files
from modelyard.planes.features import Features
from modelyard.planes.jobs import Jobs
from modelyard.planes.monitoring import Monitoring
from modelyard.planes.pipelines import Pipelines
from modelyard.planes.registry import Registry
from modelyard.planes.serving import LoggedFeatures, Serving
from modelyard.planes.storage import Storage
from modelyard.planes.tracking import Tracking


@dataclass(frozen=True)
class Yard:
    """Everything composed: what a server serves and an embedded client calls."""

    settings: Settings
    database: Database
    blobs: BlobStore
    data: Data
    files: Files
    tracking: Tracking
    jobs: Jobs
    registry: Registry
    features: Features
    pipelines: Pipelines
    serving: Serving
    monitoring: Monitoring
    automation: Automation
    cost: Cost
    storage: Storage
    newest: Newest
    loop: ReconcileLoop

    def close(self) -> None:
        """Stop the loop and give back the catalog's connections."""
        self.loop.stop()
        self.database.close()


def compose(settings: Settings, clock: Clock | None = None) -> Yard:
    """Build the platform over its home directory and catalog, migrating the catalog first where that is due."""
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    database = Database(settings.catalog_url, clock or SystemClock())
    migrate(database)
    blobs = LocalBlobs(settings.home / "blobs")
    tables = DeltaTables(settings.home / "tables")
    data = Data(database, tables, spill=settings.home / "spill", buffers=settings.home / "buffers", blobs=blobs)
    tracking = Tracking(database, blobs, *_shown(settings))
    engine = ProcessEngine(process_environment(), cpus=settings.cpus, memory_bytes=settings.memory_bytes)
    jobs = Jobs(database, engine, settings.home / "jobs", server_url=settings.public_url)
    sealer = Sealer(settings.home, settings.secret_key)
    registry = Registry(
        database,
        blobs,
        tracking,
        data,
        outbound_allow=settings.outbound_allow,
        sealer=sealer,
        jobs=jobs,
        folders=settings.home / "evaluations",
    )
    features = Features(database, data, spill=settings.home / "spill")
    features.attests_by(registry.statements.attest)
    pipelines = Pipelines(database, jobs, data, blobs)
    serving = Serving(database, registry, data, engine, settings.home / "endpoints")
    serving.verifies_by(LoggedFeatures(data, features).verify)
    registry.used_by(serving.versions_in_use)
    for in_force in (registry.in_force, serving.in_force, pipelines.in_force):
        data.contracts.relied_on_by(in_force)
    monitoring = Monitoring(database, data)
    automation = Automation(database, pipelines, registry)
    cost = Cost(database, jobs)
    files = Files(database, blobs)
    storage = Storage(
        database,
        blobs,
        # A version takes over the names of a run's files, so that the run is asked first.
        [tracking.kept_blobs, files.kept_blobs, registry.kept_blobs, pipelines.kept_blobs],
        spill=settings.home / "spill",
        project=settings.project,
    )
    acting = (tracking, data, jobs, registry, pipelines, serving, monitoring, automation, storage)
    hearing = (registry, pipelines, serving, monitoring, automation)
    loop = ReconcileLoop(
        database,
        [one for plane in acting for one in plane.reconcilers()],
        [one for plane in hearing for one in plane.readers()],
        interval_s=settings.reconcile_interval_s,
    )
    jobs.wake = loop.wake
    return Yard(
        settings=settings,
        database=database,
        blobs=blobs,
        data=data,
        files=files,
        tracking=tracking,
        jobs=jobs,
        registry=registry,
        features=features,
        pipelines=pipelines,
        serving=serving,
        monitoring=monitoring,
        automation=automation,
        cost=cost,
        storage=storage,
        newest=_newest(data, registry, features),
        loop=loop,
    )


def _newest(data: Data, registry: Registry, features: Features) -> Newest:
    def of_model(scope: Scope, name: str, limit: int) -> list[str]:
        return [f"model:{name}@{one.version}" for one in registry.versions.list(scope, name)[:limit]]

    return Newest(
        {
            "dataset": lambda scope, name, limit: [one.urn for one in data.versions(scope, name, limit=limit).items],
            "model": of_model,
            "feature-view": lambda scope, name, limit: [
                one.urn for one in features.versions(scope, name, limit=limit).items
            ],
        }
    )


def _shown(settings: Settings) -> tuple[NamedFolder | None, str | None]:
    """The folder that shows artifacts by name, if any, and the project whose they are, None for all projects."""
    if not settings.artifact_folder:
        return None, None
    root = settings.artifact_folder.removesuffix("/{project}")
    folder = NamedFolder(Path(root).expanduser().absolute(), str(settings.home))
    folder.claim()
    return folder, None if root != settings.artifact_folder else DEFAULT_PROJECT
