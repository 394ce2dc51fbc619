"""Pipelines: compiled plans of tasks, run as jobs, cached by content, resumed where they failed."""

from modelyard.planes.pipelines.service import Pipelines

__all__ = ["Pipelines"]
