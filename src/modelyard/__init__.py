"""Modelyard: one machine-learning platform on one event log and one lineage graph."""

from __future__ import annotations

__version__ = "0.1.0"
__all__ = ["__version__"]
