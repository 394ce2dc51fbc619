"""Which columns a table of runs shows: all that a run can have, chosen in the address, with a sensible beginning."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from msgspec import Struct

from modelyard.types.tracking import Key, Run

METRICS_DEFAULT = 4
PARAMS_DEFAULT = 4
COLUMNS_MAX = 40
SYSTEM = "system/"
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_TELLING = ("val", "test", "eval")
_KINDS = {"metrics": "metric", "params": "param", "tags": "tag"}
Value = float | str | None


class Column(Struct, frozen=True, kw_only=True):
    """A column: `key` is its name in the address, such as `metrics.auc`; `sort` what orders by it in MLflow's
    grammar; `runs` how many of the runs looked at have it."""

    key: str
    kind: str
    name: str
    sort: str
    runs: int = 0


def column(key: str, runs: int = 0) -> Column | None:
    """The column of a key in the address; None for what is no column."""
    kind, _, name = key.partition(".")
    if kind not in _KINDS or not name:
        return None
    return Column(key=key, kind=_KINDS[kind], name=name, sort=identifier(kind, name), runs=runs)


def identifier(kind: str, name: str) -> str:
    """A metric, param or tag in MLflow's grammar, quoted where it must be."""
    return f"{kind}.{name if _PLAIN.fullmatch(name) else f'`{name}`'}"


def offered(keys: Sequence[Key]) -> list[Column]:
    """The columns that some keys would give, without what only machines read."""
    found = [column(f"{key.kind}s.{key.name}", key.runs) for key in keys if not key.name.startswith("mlflow.")]
    return [one for one in found if one is not None]


def chosen(asked: Sequence[str] | None, keys: Sequence[Key]) -> tuple[Column, ...]:
    """The columns that the address asks for; without any, the telling metrics and the params that differ."""
    names = list(asked) if asked is not None else default(keys)
    found = [column(name) for name in dict.fromkeys(names)]
    return tuple(one for one in found if one is not None)[:COLUMNS_MAX]


def default(keys: Sequence[Key]) -> list[str]:
    """The columns of a table that nobody has chosen any for."""
    metrics = sorted(
        (key for key in keys if key.kind == "metric" and not key.name.startswith(SYSTEM)),
        key=lambda key: (-key.runs, not key.name.startswith(_TELLING), key.name),
    )
    params = [key for key in keys if key.kind == "param" and key.values > 1]
    params.sort(key=lambda key: (-key.runs, -min(key.values, 12), key.name))
    return [f"metrics.{key.name}" for key in metrics[:METRICS_DEFAULT]] + [
        f"params.{key.name}" for key in params[:PARAMS_DEFAULT]
    ]


def metric_names(columns: Sequence[Column]) -> list[str]:
    """The metrics among some columns."""
    return [one.name for one in columns if one.kind == "metric"]


def values_of(run: Run, columns: Sequence[Column]) -> tuple[Value, ...]:
    """The values of some columns for a run."""
    sources: dict[str, Mapping[str, Value]] = {"metric": run.latest, "param": dict(run.params), "tag": dict(run.tags)}
    return tuple(sources[one.kind].get(one.name) for one in columns)
