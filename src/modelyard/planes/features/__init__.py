"""The features plane: feature views, and the point-in-time join that training and serving share."""

from modelyard.planes.features.service import METADATA_KEY, Features

__all__ = ["METADATA_KEY", "Features"]
