"""The serving plane: endpoints, the processes behind them, and the predictions that they logged."""

from modelyard.planes.serving.served_features import LoggedFeatures
from modelyard.planes.serving.service import Serving

__all__ = ["LoggedFeatures", "Serving"]
