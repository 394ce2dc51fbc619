"""`modelyard dataset check`: suites over versions that are there, of ours or as other tools wrote them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

import modelyard
from modelyard.cli.context import JsonFlag, client, show_fields, show_items, show_json
from modelyard.sdk import data_checks
from modelyard.types.data import Check, CheckReport, CheckResult, CheckRun, Unsupported

Name = Annotated[str, typer.Argument(help="The dataset's name.")]
Model = Annotated[str, typer.Option("--model", help="Which model of a dbt file. Default: the dataset's name.")]


def check(
    name: Name,
    suite: Annotated[
        Path | None,
        typer.Option("--suite", help="Checks (YAML), a Great Expectations suite (JSON) or a dbt schema.yml."),
    ] = None,
    version: Annotated[str | None, typer.Option("--version", help="A number or a tag. Default: the newest.")] = None,
    model: Model = "",
    output: Annotated[
        Path | None, typer.Option("--failing", help="Write all failing rows to this folder, a Parquet file a check.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run checks over a version, by default the dataset's own; exits with 1 where a blocking one fails.

    \b
    modelyard dataset check flights --suite gx.json
    modelyard dataset check orders --suite models/schema.yml --model orders
    """
    found = None if suite is None else data_checks.read_suite(suite, model or name, client())
    run = data_checks.check(
        name,
        None if found is None else found.checks,
        version=version,
        suite="" if suite is None or found is None else found.name or suite.name,
        client=client(),
    )
    if as_json:
        show_json(run)
    else:
        _show(run)
    if output is not None:
        _save_failing(run, output)
    if not run.report.passed:
        raise typer.Exit(1)


def check_file(
    files: Annotated[
        list[Path], typer.Argument(help="A Parquet, Arrow or CSV file; several, or a folder, of Parquet.")
    ],
    suite: Annotated[
        Path, typer.Option("--suite", help="Checks (YAML), a Great Expectations suite (JSON) or a dbt schema.yml.")
    ],
    model: Annotated[str, typer.Option("--model", help="Which model of a dbt file.")] = "",
    dataset: Annotated[str, typer.Option("--dataset", help="The dataset that a check means which names none.")] = "",
    output: Annotated[
        Path | None, typer.Option("--failing", help="Write all failing rows to this folder, a Parquet file a check.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run checks over files that are in no dataset, here and without a server; exits with 1 where a blocking one fails.

    \b
    modelyard dataset check-file flights.parquet --suite checks.yaml
    modelyard dataset check-file export.csv --suite gx.json --failing out/
    """
    from modelyard.sdk import checks_here  # the data plane, in this process: only this command needs it

    data = checks_here.opened(files[0] if len(files) == 1 else files)
    checks = modelyard.read_suite(suite, model).checks
    report = modelyard.check(data, checks, dataset=dataset)
    if as_json:
        show_json(report)
    else:
        typer.echo(f"{report.rows} rows, {len(checks)} checks, of which {len(report.failed)} do not pass")
        show_report(report)
        _name_unsupported([one for one in checks if isinstance(one, Unsupported)])
    if output is not None:
        places = [place for place, found in enumerate(report.results) if found.sample]
        failing = modelyard.failing_rows(data, [checks[place] for place in places], dataset=dataset)
        _write_failing(report, dict(zip(places, failing, strict=True)), output)
    if not report.passed:
        raise typer.Exit(1)


def check_runs(
    name: Name,
    run: Annotated[str | None, typer.Argument(help="A run, to see its report.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many, newest first.", min=1, max=100)] = 20,
    as_json: JsonFlag = False,
) -> None:
    """The newest runs of checks over versions; with RUN, what that one found."""
    runs = data_checks.check_runs(name, limit=100 if run else limit, client=client())
    if run is not None:
        [chosen, *_] = [one for one in runs if one.id == run] or [data_checks.check_run(name, run, client())]
        show_json(chosen) if as_json else _show(chosen)
        return
    columns = {
        "RUN": lambda one: one.id,
        "VERSION": lambda one: one.version,
        "SUITE": lambda one: one.suite or "the dataset's own",
        "VERDICT": lambda one: "passed" if one.report.passed else "failed",
        "FAILED": lambda one: len(one.report.failed),
        "CREATED": lambda one: one.created_at,
        "BY": lambda one: one.created_by,
    }
    show_items(runs, columns, as_json=as_json, empty=f"no run yet; make one with `modelyard dataset check {name}`")


def suite(
    name: Name,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write it to this file.")] = None,
) -> None:
    """The dataset's checks as a suite of Great Expectations 1.x, as JSON."""
    written = data_checks.export_suite(name, client())
    if output is None:
        show_json(written)
        return
    output.write_text(_json(written), "utf-8")
    left_out = written["meta"]["modelyard"]["not_exported"]
    typer.echo(f"{len(written['expectations'])} expectations written to {output}")
    for one in left_out:
        typer.echo(f"  not among them, since there is no such expectation: {one}")


def read_checks(file: Path | None, model: str) -> list[Check] | None:
    """The checks of a file of any known format. What is not supported is named on standard error."""
    if file is None:
        return None
    found = data_checks.read_suite(file, model, client())
    _name_unsupported(found.unsupported)
    return found.checks


def show_report(report: CheckReport, *, only_failed: bool = False) -> None:
    """The results as a table."""
    results: list[CheckResult] = report.failed if only_failed else report.results
    columns = {
        "CHECK": lambda one: one.name,
        "VERDICT": _verdict,
        "LOOKED AT": lambda one: one.evaluated or None,
        "FAILING": lambda one: one.failing,
        "OBSERVED": lambda one: one.observed if isinstance(one.observed, (int, float, str)) else None,
        "WHY": lambda one: one.message,
    }
    if results:
        typer.echo("")
        show_items(results, columns, as_json=False, empty="")


def _verdict(one: CheckResult) -> str:
    return one.status if one.severity == "block" or one.status == "passed" else "warning"


def _show(run: CheckRun) -> None:
    failed = len(run.report.failed)
    show_fields(
        [
            ("dataset", f"{run.dataset} version {run.version}"),
            ("suite", run.suite or "the dataset's own checks"),
            ("verdict", "passed" if run.report.passed else "failed"),
            ("checks", f"{len(run.checks)}, of which {failed} do not pass"),
            ("rows", run.report.rows),
            ("run", run.id),
        ]
    )
    show_report(run.report)
    _name_unsupported([one for one in run.checks if isinstance(one, Unsupported)])


def _name_unsupported(unsupported: list[Unsupported]) -> None:
    if unsupported:
        typer.echo(f"\n{len(unsupported)} not supported, and not run:", err=True)
    for one in unsupported:
        typer.echo(f"  {one.what}: {one.reason}", err=True)


def _save_failing(run: CheckRun, folder: Path) -> None:
    places = [place for place, found in enumerate(run.report.results) if found.sample]
    fetched = {place: data_checks.failing_rows(run.dataset, run.id, place, client()) for place in places}
    _write_failing(run.report, fetched, folder)


def _write_failing(report: CheckReport, failing: dict[int, Any], folder: Path) -> None:
    import pyarrow.parquet as pq  # heavy: imported late

    folder.mkdir(parents=True, exist_ok=True)
    for place, rows in failing.items():
        found = report.results[place]
        file = folder / f"{place:03}-{found.check}.parquet"
        pq.write_table(rows, file)
        typer.echo(f"{rows.num_rows} rows that fail {found.name} written to {file}", err=True)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
