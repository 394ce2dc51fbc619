"""What the process counts, in Prometheus' text form."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096)


class VariantMetrics:
    """The series of one variant, looked up once instead of at each request."""

    def __init__(self, owner: Metrics, endpoint: str, variant: str, version: str) -> None:
        labels = (endpoint, variant, version)
        self.latency = owner.latency.labels(*labels)
        self.rows = owner.rows.labels(*labels)
        self.batch_rows = owner.batch_rows.labels(*labels)


class Metrics:
    """All series of the process."""

    def __init__(self, rows_logged: Callable[[], float], rows_dropped: Callable[[], float]) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        by_variant = ("endpoint", "variant", "model_version")
        self.requests = Counter(
            "modelyard_endpoint_requests", "Inference requests by status code; no variant where none was chosen.",
            ("endpoint", "variant", "code"), registry=self._registry,
        )  # fmt: skip
        self.latency = Histogram(
            "modelyard_endpoint_request_duration_seconds", "Time from a request's arrival to its reply.",
            by_variant, buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip
        self.rows = Counter("modelyard_endpoint_rows", "Rows predicted.", by_variant, registry=self._registry)
        self.batch_rows = Histogram(
            "modelyard_endpoint_batch_rows", "Rows per call of the model.",
            by_variant, buckets=_ROWS, registry=self._registry,
        )  # fmt: skip
        self.revision = Gauge(
            "modelyard_endpoint_revision", "The configuration revision served.", ("endpoint",), registry=self._registry
        )
        self.reload_failures = Counter(
            "modelyard_endpoint_reload_failures", "Configurations that were not taken.", ("endpoint",),
            registry=self._registry,
        )  # fmt: skip
        logged = Gauge("modelyard_endpoint_log_rows_written", "Rows written to the log.", registry=self._registry)
        logged.set_function(rows_logged)
        dropped = Gauge("modelyard_endpoint_log_rows_dropped", "Rows answered but not logged.", registry=self._registry)
        dropped.set_function(rows_dropped)

    def of(self, endpoint: str, variant: str, version: str) -> VariantMetrics:
        """The series of one variant."""
        return VariantMetrics(self, endpoint, variant, version)

    def count(self, endpoint: str, variant: str, code: int) -> None:
        """Count a request."""
        self.requests.labels(endpoint, variant, str(code)).inc()

    def text(self) -> bytes:
        """All series now."""
        return generate_latest(self._registry)
