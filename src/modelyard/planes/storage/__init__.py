"""The storage plane: which blobs no plane names any more, and their removal. It knows the planes by what they keep."""

from modelyard.planes.storage.service import Keeper, Storage

__all__ = ["Keeper", "Storage"]
