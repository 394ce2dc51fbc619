"""The data plane: datasets with immutable versions, guarded by checks."""

from modelyard.planes.data.service import Data, Ref

__all__ = ["Data", "Ref"]
