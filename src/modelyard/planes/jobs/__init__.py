"""Jobs: commands with resources, queued, scheduled, tried, metered."""

from modelyard.planes.jobs.scheduler import Policy
from modelyard.planes.jobs.service import Jobs
from modelyard.planes.jobs.spec import check_spec

__all__ = ["Jobs", "Policy", "check_spec"]
