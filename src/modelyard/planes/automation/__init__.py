"""The automation plane: triggers that start pipelines on events, and what became of the challengers that they made."""

from modelyard.planes.automation.service import Automation

__all__ = ["Automation"]
