"""The cost plane: prices times metered usage, exactly, for jobs, runs, pipeline runs, model versions and projects."""

from modelyard.planes.cost.service import Cost

__all__ = ["Cost"]
