"""What the registry does by itself: tell webhooks what the event log says, and let go what retention says."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime

from modelyard.kernel.errors import Unavailable
from modelyard.kernel.event import Event
from modelyard.kernel.leases import Lease
from modelyard.planes.registry.services.evaluation_jobs import EvaluationJobs
from modelyard.planes.registry.services.retention import Retentions
from modelyard.planes.registry.services.webhooks import Webhooks
from modelyard.planes.registry.webhooks import KINDS

_log = logging.getLogger("modelyard.registry")


class WebhookReader:
    """Follows the event log and writes down what has to be delivered."""

    name = "registry.webhooks"
    kinds = KINDS

    def __init__(self, webhooks: Webhooks) -> None:
        self._webhooks = webhooks

    def handle(self, event: Event) -> None:
        """Write down the deliveries of one event; those that are there stay."""
        self._webhooks.queue(event)


class WebhookDeliveries:
    """Makes the deliveries that are due."""

    name = "registry.webhook_deliveries"

    def __init__(self, webhooks: Webhooks) -> None:
        self._webhooks = webhooks
        self._sealed = False

    def due(self, now: datetime) -> Sequence[str]:
        """Deliveries to make now. At its first look it seals what an older version stored in clear."""
        if not self._sealed:
            self._sealed = True
            try:
                self._webhooks.seal_all()
            except Unavailable as error:
                _log.warning("secrets of webhooks stay as they are: %s; %s", error, error.hint)
        return self._webhooks.due(now)

    def act(self, key: str, lease: Lease) -> None:
        """Make one delivery."""
        self._webhooks.deliver(key, lease)


class EvaluationsCarriedOn:
    """Lays out what evaluation jobs need, and takes in what they wrote."""

    name = "registry.evaluation_jobs"

    def __init__(self, jobs: EvaluationJobs) -> None:
        self._jobs = jobs

    def due(self, now: datetime) -> Sequence[str]:  # noqa: ARG002  their jobs say it
        """Those that can go on."""
        return self._jobs.due()

    def act(self, key: str, lease: Lease) -> None:
        """Take one step."""
        self._jobs.carry_on(key, lease)


class RetentionKeeper:
    """Carries the retention of models out."""

    name = "registry.retention"

    def __init__(self, retentions: Retentions) -> None:
        self._retentions = retentions

    def due(self, now: datetime) -> Sequence[str]:
        """Models whose retention looks now."""
        return self._retentions.due(now)

    def act(self, key: str, lease: Lease) -> None:  # noqa: ARG002  each step is one guarded transaction of its own
        """Look at one model."""
        self._retentions.carry_out(key)
