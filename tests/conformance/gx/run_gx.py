"""Run in the foreign environment `gx`: the real Great Expectations over each case, its results to standard output.

A case is a Parquet file with expectations; what is asked of is a pandas frame of it, or a table of SQLite with `sql`.
"""

from __future__ import annotations

import json
import math
import sqlite3
import sys
import tempfile
from pathlib import Path

import great_expectations as gx
import pandas as pd
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration


def plain(value):
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(inner) for inner in value]
    if isinstance(value, float):
        return str(value) if not math.isfinite(value) else value
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "item"):
        return plain(value.item())
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value)


def batch_of(context, frame, sql, number):
    if not sql:
        source = context.data_sources.add_pandas(f"frames{number}")
        asset = source.add_dataframe_asset("frame")
        return asset.add_batch_definition_whole_dataframe("whole"), {"dataframe": frame}
    file = Path(tempfile.mkdtemp()) / "table.db"
    with sqlite3.connect(file) as connection:
        frame.to_sql("t", connection, index=False)
    source = context.data_sources.add_sqlite(f"sqlite{number}", connection_string=f"sqlite:///{file}")
    asset = source.add_table_asset("t", table_name="t")
    return asset.add_batch_definition_whole_table("whole"), {}


def main() -> None:
    cases = json.loads(Path(sys.argv[1]).read_text())
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    answers = []
    for number, case in enumerate(cases):
        frame = pd.read_parquet(case["parquet"])
        for column in frame.select_dtypes("datetimetz"):
            frame[column] = frame[column].dt.tz_localize(None)
        definition, parameters = batch_of(context, frame, case.get("sql", False), number)
        batch = definition.get_batch(batch_parameters=parameters or None)
        for entry in case["expectations"]:
            try:
                made = ExpectationConfiguration(type=entry["type"], kwargs=entry["kwargs"]).to_domain_obj()
                found = batch.validate(made, result_format="BASIC")
                answer = {"success": found.success, "result": plain(found.result)}
                raised = found.exception_info or {}
                infos = [raised] if "raised_exception" in raised else list(raised.values())
                if any(info.get("raised_exception") for info in infos):
                    answer = {"error": str(infos[0].get("exception_message"))[:200]}
            except Exception as error:  # noqa: BLE001 - whatever the real one says is the answer
                answer = {"error": f"{type(error).__name__}: {str(error)[:200]}"}
            answers.append(answer)
    sys.stdout.write("\nANSWERS" + json.dumps(plain(answers)))


main()
