"""The monitoring plane: monitors over prediction logs, their windows of results, and alerts."""

from modelyard.planes.monitoring.service import Monitoring

__all__ = ["Monitoring"]
