"""Suites of other tools, read into checks and written from them. Pure."""

from modelyard.planes.data.suites.export import gx_suite
from modelyard.planes.data.suites.great_expectations import SUPPORTED
from modelyard.planes.data.suites.reading import read_suite

__all__ = ["SUPPORTED", "gx_suite", "read_suite"]
