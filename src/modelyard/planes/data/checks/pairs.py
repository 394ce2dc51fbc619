"""Checks of rows against other rows: of the same table, in their order, or of another dataset. Pure."""

from __future__ import annotations

from modelyard.engines.tables.sql import quoted
from modelyard.planes.data.checks.question import (
    BATCH,
    DATASET,
    Append,
    Context,
    Measure,
    OfTable,
    Question,
    condition,
    count_of,
    every,
    filtered,
    present,
    regarded,
)
from modelyard.planes.data.checks.ranks import Numbers, linear
from modelyard.planes.data.checks.values import Unfit, is_float, is_number, is_ordered
from modelyard.types.checks import Monotonic, Outliers, References, Sql, Unique, ZScore


def unique(check: Unique, context: Context) -> Question:
    """Groups of rows that agree, counted. Of an append only the groups of its own keys are looked at before it."""
    has_value = [present(column, context, check) for column in check.columns]
    names = [quoted(column) for column in check.columns]
    looked_at = regarded(check.ignore_row_if, has_value)
    all_names = [*names, *([quoted(check.by)] if check.by and check.by not in check.columns else [])]
    keys = ", ".join(all_names)
    where = every(condition(check), looked_at)
    filter_only = condition(check) or "true"
    kept = f"coalesce({looked_at}, false)" if looked_at else "true"

    def source(table: str) -> str:
        return f"(SELECT {keys}, {kept} AS __kept, count(*) AS __n FROM {table} WHERE {filter_only} GROUP BY ALL)"

    def rows(table: str) -> str:
        groups = f"SELECT {keys} FROM {table} WHERE {where} GROUP BY ALL HAVING count(*) > 1"
        alike = " AND ".join(f"t.{name} IS NOT DISTINCT FROM g.{name}" for name in all_names)
        return f"SELECT t.* FROM (SELECT * FROM {table} WHERE {where}) t SEMI JOIN ({groups}) g ON {alike}"

    counts = {
        "elements": Measure("coalesce(sum(__n), 0)::BIGINT"),
        "present": Measure("coalesce(sum(__n) FILTER (WHERE __kept), 0)::BIGINT"),
    }
    whole = {
        **counts,
        "failing": Measure("coalesce(sum(__n) FILTER (WHERE __kept AND __n > 1), 0)::BIGINT"),
        "groups": Measure("count(*) FILTER (WHERE __kept AND __n > 1)"),
    }
    added = "sum(CASE WHEN __m = 0 AND __n = 1 THEN 0 WHEN __m = 1 THEN __n + 1 ELSE __n END) FILTER (WHERE __kept)"

    def appended(batch: str, base: str) -> str:
        alike = " AND ".join(f"a.{name} IS NOT DISTINCT FROM b.{name}" for name in all_names)
        mine = ", ".join(f"a.{name}" for name in all_names)
        before = f"(SELECT {keys} FROM {base} WHERE {where}) b"
        met = f"(SELECT {mine}, count(*) AS __m FROM {source(batch)} a JOIN {before} ON {alike} GROUP BY ALL)"
        return (
            f"(SELECT a.*, coalesce(b.__m, 0) AS __m FROM {source(batch)} a LEFT JOIN {met} b ON {alike} "
            f"{'AND a.__kept' if looked_at else ''})"
        )

    delta = {
        **counts,
        "failing": Measure(f"coalesce({added}, 0)::BIGINT"),
        "groups": Measure("count(*) FILTER (WHERE __kept AND (__m = 1 OR (__m = 0 AND __n > 1)))"),
    }
    clean = {"elements": count_of(check, ""), "present": count_of(check, looked_at)}
    alone = len(check.columns) == 1 and not check.where and not check.by and check.ignore_row_if != "never"
    kind = context.kind(check.columns[0])
    rising = check.columns[0] if alone and is_ordered(kind) and "isnan" not in has_value[0] else ""
    return Question(
        check,
        DATASET,
        source,
        whole,
        alone=True,
        rows=rows,
        # Slices with no row to look at are not there where groups are counted.
        append=Append(appended, delta, {} if check.by else clean),
        rising=rising,
        of_texts=rising != "" and kind == "string",
    )


def references(check: References, context: Context) -> Question:
    """Rows of the batch for which the other dataset has none."""
    other = context.table(check.dataset, check.ref)
    to = check.to or check.columns
    if len(to) != len(check.columns):
        raise Unfit(f"{len(check.columns)} columns refer to {len(to)}")
    for column, wanted in zip(check.columns, to, strict=True):
        if wanted not in other.columns:
            raise Unfit(f"dataset '{check.dataset}' has no column '{wanted}'")
        _need_comparable(column, context.kind(column), wanted, other.columns[wanted])
    has_value = every(*(f"t.{present(column, context, check)}" for column in check.columns))
    keys = ", ".join(f"{quoted(one)} AS __k{place}" for place, one in enumerate(to))
    alike = " AND ".join(f"t.{quoted(one)} = r.__k{place}" for place, one in enumerate(check.columns))
    only = f" WHERE ({check.to_where}\n)" if check.to_where else ""

    def source(table: str) -> str:
        known = f"(SELECT DISTINCT {keys}, true AS known FROM {other.table}{only}) r"
        where = condition(check) or "true"
        return (
            f"(SELECT t.*, {has_value} AS __present, r.known AS __known FROM (SELECT * FROM {table} WHERE {where}) t "
            f"LEFT JOIN {known} ON {alike})"
        )

    def rows(table: str) -> str:
        return f"SELECT * EXCLUDE (__present, __known) FROM {source(table)} WHERE __present AND __known IS NULL"

    measures = {
        "elements": Measure("count(*)"),
        "present": Measure("count_if(__present)"),
        "failing": Measure("count_if(__present AND __known IS NULL)"),
    }
    return Question(check, BATCH, source, measures, {}, True, rows)


def _need_comparable(column: str, kind: str, wanted: str, other: str) -> None:
    if kind != other and not (is_number(kind) and is_number(other)):
        raise Unfit(f"column '{column}' is {kind} and '{wanted}' of the other dataset is {other}")


def monotonic(check: Monotonic, context: Context) -> Question:
    """Neighbours in the wrong order. What an append adds at its seam is known from the last value before it."""
    kind, name = context.kind(check.column), quoted(check.column)
    if not is_ordered(kind) and kind != "bool":
        raise Unfit(f"column '{check.column}' is {kind}, which has no order")
    if check.order_by and not is_ordered(context.kind(check.order_by)):
        raise Unfit(f"column '{check.order_by}' is {context.kind(check.order_by)}, which has no order")
    has_value = present(check.column, context, check)
    order = f"ORDER BY {quoted(check.order_by)}" if check.order_by else ""
    slices = f"PARTITION BY {quoted(check.by)}" if check.by else ""
    wrong = {"increasing": "<", "decreasing": ">"}[check.direction] + ("=" if check.strictly else "")
    out_of_order = f"{name} {wrong} __previous"
    where = every(condition(check), f"({has_value})")

    def source(table: str) -> str:
        if not (order or slices):
            return f"(SELECT *, lag({name}) OVER () AS __previous FROM {table} WHERE {where})"
        # Rows of a slice keep the order in which they are stored.
        numbered = f"(SELECT *, row_number() OVER () AS __at FROM {table} WHERE {where})"
        ordered = f"{order}, __at" if order else "ORDER BY __at"
        return f"(SELECT *, lag({name}) OVER ({slices} {ordered}) AS __previous FROM {numbered})"

    measures = {"failing": Measure(f"count_if({out_of_order})"), "present": Measure("count(*)")}
    # Which row is first and last is only known where rows come as they are stored.
    mergeable = not check.by and not check.order_by
    measures["first"] = Measure(f"first({name})", "first" if mergeable else "rescan")
    measures["last"] = Measure(f"last({name})", "last" if mergeable else "rescan")
    return Question(
        check,
        DATASET,
        source,
        measures,
        {"elements": count_of(check, "")},
        True,
        lambda table: f"SELECT * FROM {source(table)} WHERE {out_of_order}",
    )


def spread(check: ZScore | Outliers, context: Context) -> Question:
    """Values far from the middle of all: the middle is found first, then each is held against it."""
    kind, name = context.kind(check.column), quoted(check.column)
    if not is_number(kind):
        raise Unfit(f"column '{check.column}' is {kind}, not a number")
    has_value = present(check.column, context, check)
    where = every(condition(check), f"({has_value})")
    by = quoted(check.by) if check.by else ""
    finite = filtered(f"isfinite({name})") if is_float(kind) else ""
    infinite = f"count_if(isinf({name}))" if is_float(kind) else "0"
    number = f"{name}::DOUBLE"
    middle = f"avg({number}){finite} AS __mean, stddev_samp({number}){finite} AS __std, {infinite} AS __infinite"
    looked_at: OfTable | None = None
    if isinstance(check, Outliers) and check.method == "iqr":
        quartiles = linear(Numbers(number, every(where, f"{name} IS NOT NULL"), check.by, context.rows), [0.25, 0.75])
        middle = f"({quartiles.linear})[1] AS __low, ({quartiles.linear})[2] AS __high"
        looked_at = quartiles.source
    sliced = f"{by}, " if by else ""

    def source(table: str) -> str:
        among = looked_at(table) if looked_at else f"{table} WHERE {where}"
        statistics = f"(SELECT {sliced}{middle} FROM {among}{f' GROUP BY {by}' if by else ''}) s"
        joined = f"LEFT JOIN {statistics} ON t.{by} IS NOT DISTINCT FROM s.{by}" if by else f", {statistics}"
        shown = f"t.*, s.* EXCLUDE ({by})" if by else "t.*, s.*"
        rows = f"(SELECT * FROM {table} WHERE {condition(check) or 'true'}) t"
        return f"(SELECT {shown} FROM {rows} {joined})"

    far = f"({has_value}) AND ({_far(check, number)})"
    measures = {
        "elements": Measure("count(*)", "rescan"),
        "present": Measure(f"count_if({has_value})", "rescan"),
        "failing": Measure(f"count_if({far})", "rescan"),
    }
    return Question(
        check, DATASET, source, measures, {}, True, lambda table: f"SELECT * FROM {source(table)} WHERE {far}"
    )


def _far(check: ZScore | Outliers, number: str) -> str:
    if isinstance(check, ZScore):
        score = f"(({number} - __mean) / __std)"
        threshold = abs(check.threshold) if check.both_sides else check.threshold
        far = f"{f'abs{score}' if check.both_sides else score} >= {threshold!r}"
        return f"__infinite = 0 AND __std > 0 AND {far}"
    if check.method == "iqr":
        step = f"({check.multiplier!r} * (__high - __low))"
        return f"{number} < __low - {step} OR {number} > __high + {step}"
    step = f"({check.multiplier!r} * __std)"
    return (
        f"__infinite = 0 AND __std IS NOT NULL AND "
        f"CASE WHEN {step} <= 0 THEN {number} <> __mean ELSE abs({number} - __mean) >= {step} END"
    )


def own_sql(check: Sql, context: Context) -> Question:
    """The rows that the user's own SELECT returns."""
    for name, wanted in check.tables.items():
        if not name.isidentifier() or name in (BATCH, DATASET):
            raise Unfit(f"{name!r} cannot name a table here")
        dataset, _, ref = wanted.partition("@")
        context.table(dataset, ref)
    named = ", ".join(
        f"{quoted(name)} AS (FROM {context.table(*_parted(wanted)).table})" for name, wanted in check.tables.items()
    )
    query = f"{f'WITH {named} ' if named else ''}SELECT * FROM ({check.query}\n)"
    measures = {"failing": Measure("count(*)", "rescan")}
    return Question(check, DATASET, lambda _: f"({query})", measures, {}, True, lambda _: query)


def _parted(wanted: str) -> tuple[str, str]:
    dataset, _, ref = wanted.partition("@")
    return dataset, ref
