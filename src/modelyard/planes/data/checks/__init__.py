"""Checks: declared as nouns, compiled to SQL, judged, and carried on over appends. `running` is the one that runs."""

from modelyard.planes.data.checks.compiling import compile_check, implied_by_key
from modelyard.planes.data.checks.facts import profiles_of, tables_of
from modelyard.planes.data.checks.question import BASE, BATCH, DATASET, Context, Provided, Question, reference_key
from modelyard.planes.data.checks.states import State, report_sent, states_of
from modelyard.planes.data.checks.values import is_float, is_number, is_time
from modelyard.planes.data.checks.verdicts import judge, name_of

__all__ = [
    "BASE",
    "BATCH",
    "DATASET",
    "Context",
    "Provided",
    "Question",
    "State",
    "compile_check",
    "implied_by_key",
    "is_float",
    "is_number",
    "is_time",
    "judge",
    "name_of",
    "profiles_of",
    "reference_key",
    "report_sent",
    "states_of",
    "tables_of",
]
