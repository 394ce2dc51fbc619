"""The data plane: datasets with immutable versions, guarded by checks."""

from modelyard.planes.data.checks import name_of
from modelyard.planes.data.column_lineage import columns_of_query
from modelyard.planes.data.consumption import ALL_ROWS, InForce, tie_columns
from modelyard.planes.data.files import Files
from modelyard.planes.data.refs import Ref
from modelyard.planes.data.service import Data

__all__ = ["ALL_ROWS", "Data", "Files", "InForce", "Ref", "columns_of_query", "name_of", "tie_columns"]
