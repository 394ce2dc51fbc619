"""`@task` and `@pipeline`: plain functions that can also be compiled into a plan. Nothing here talks to a server.

Called as usual, tasks and pipelines are the functions that they wrap. `Pipeline.compile` calls the pipeline function
symbolically instead: its parameters and the results of its tasks are placeholders, and every call of a task becomes a
step. What a placeholder stands for is not known then, so it can be passed on but not looked into.
"""

from __future__ import annotations

import functools
import inspect
import math
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Generic, NoReturn, ParamSpec, TypeVar, cast, get_type_hints, overload

import msgspec

from modelyard.kernel.errors import InvalidInput
from modelyard.sdk.data import dataset as open_dataset
from modelyard.types.jobs import Resources
from modelyard.types.pipelines import (
    DatasetRef,
    Input,
    ListOf,
    MapOf,
    OutputRef,
    Param,
    ParamKind,
    ParamRef,
    Plan,
    Step,
    Value,
)

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

P = ParamSpec("P")
R = TypeVar("R")
STEPS_MAX = 1_000
TIMEOUT_S_DEFAULT = 3600.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_KINDS: dict[Any, ParamKind] = {bool: "bool", int: "int", float: "float", str: "str"}


class Dataset(msgspec.Struct, frozen=True):
    """A dataset as an input: `Dataset("flights")`. In a task it is pinned to one version, and can be read.

    `ref` is a version, a tag, or None for the newest at the time when the run starts.
    """

    name: str
    ref: int | str | None = None

    @property
    def urn(self) -> str:
        """The version in the lineage graph, once it is pinned."""
        return f"dataset:{self.name}@{self.ref}"

    def read(self, columns: list[str] | None = None, filter: str | None = None) -> pa.Table:
        """Its rows as an Arrow table; `filter` is an SQL condition."""
        return open_dataset(self.name).read(columns, filter, self.ref)

    def reader(
        self, columns: list[str] | None = None, filter: str | None = None
    ) -> AbstractContextManager[pa.RecordBatchReader]:
        """As `read`, batch by batch, for more than fits in memory: `with data.reader() as batches: …`."""
        return open_dataset(self.name).reader(columns, filter, self.ref)

    def to_pandas(self, columns: list[str] | None = None, filter: str | None = None) -> pd.DataFrame:
        """Its rows as a pandas frame."""
        return open_dataset(self.name).to_pandas(columns, filter, self.ref)


class Task(Generic[P, R]):
    """A function as a unit of work. Calling it calls the function; within `Pipeline.compile` it becomes a step."""

    def __init__(self, function: Callable[P, R], settings: TaskSettings) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.settings = settings

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        trace = _trace.get()
        if trace is None:
            return self.function(*args, **kwargs)
        return trace.add(self, args, kwargs)  # type: ignore[return-value]

    def named(self, name: str) -> Task[P, R]:
        """The same task, whose step is called so: `train.named("train-forest")(data)`."""
        return Task(self.function, msgspec.structs.replace(self.settings, name=check_name(name, "step")))

    def __repr__(self) -> str:
        return f"<task {self.settings.name}>"


class TaskSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a task is run as a step."""

    name: str
    resources: Resources
    timeout_s: float
    retries: int
    cache: bool


@overload
def task(function: Callable[P, R], /) -> Task[P, R]:
    """`@task` alone."""


@overload
def task(
    *,
    name: str | None = None,
    cpus: float = 1.0,
    memory_bytes: int = 0,
    timeout_s: float = TIMEOUT_S_DEFAULT,
    retries: int = 0,
    cache: bool = True,
) -> Callable[[Callable[P, R]], Task[P, R]]:
    """`@task(…)` with settings."""


def task(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    cpus: float = 1.0,
    memory_bytes: int = 0,
    timeout_s: float = TIMEOUT_S_DEFAULT,
    retries: int = 0,
    cache: bool = True,
) -> Any:
    """Make a function a task. `retries`: how often it is tried again when it fails. `cache=False`: always run it.

    `memory_bytes` 0: not limited. Arguments are plain values, datasets and results of other tasks; the result can be
    anything (plain values are kept as JSON, Arrow tables as Arrow, the rest pickled, for other tasks only).
    """

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        _check_signature(function)
        settings = TaskSettings(
            name=check_name(name or function.__name__, "task"),
            resources=Resources(cpus=cpus, memory_bytes=memory_bytes),
            timeout_s=timeout_s,
            retries=retries,
            cache=cache,
        )
        return Task(function, settings)

    return decorate if function is None else decorate(function)


class Pipeline(Generic[P, R]):
    """A function that ties tasks together. Calling it runs it here and now, without the platform."""

    def __init__(self, function: Callable[P, R], name: str) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.name = name

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def compile(self, hash_code: Callable[[Callable[..., Any]], str], name_of: Callable[[Any], str]) -> Plan:
        """The plan. `hash_code` gives the code hash of a task's function, `name_of` its `module:function`."""
        params, arguments = _placeholders(self.function)
        trace = Trace(hash_code, name_of)
        with _tracing(trace):
            returned = self.function(**cast(Any, arguments))  # type: ignore[call-arg]
        if not trace.steps:
            raise InvalidInput(
                f"pipeline '{self.name}' has no steps",
                code="pipeline.empty",
                hint="call at least one function decorated with @task in it",
            )
        return Plan(
            name=self.name,
            params=params,
            steps=trace.steps,
            result=_to_input(returned, f"the result of pipeline '{self.name}'"),
            description=inspect.getdoc(self.function) or "",
        )

    def __repr__(self) -> str:
        return f"<pipeline {self.name}>"


@overload
def pipeline(function: Callable[P, R], /) -> Pipeline[P, R]:
    """`@pipeline` alone."""


@overload
def pipeline(*, name: str | None = None) -> Callable[[Callable[P, R]], Pipeline[P, R]]:
    """`@pipeline(name=…)`."""


def pipeline(function: Callable[..., Any] | None = None, /, *, name: str | None = None) -> Any:
    """Make a function a pipeline. Its parameters are plain values or `Dataset(...)`; their defaults are the run's."""

    def decorate(function: Callable[P, R]) -> Pipeline[P, R]:
        _check_signature(function)
        return Pipeline(function, check_name(name or function.__name__, "pipeline"))

    return decorate if function is None else decorate(function)


def check_name(name: str, noun: str) -> str:
    """The name, if a task, step or pipeline may be called so. Raises InvalidInput."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{name[:120]!r} cannot name a {noun}",
            code=f"{noun}.name_invalid",
            hint="use at most 100 letters, digits, '_', '.' or '-', starting with a letter or digit",
        )
    return name


def _check_signature(function: Callable[..., Any]) -> None:
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise InvalidInput(
                f"'{function.__qualname__}' cannot be a task or pipeline: '{parameter}' has no fixed name",
                code="task.signature_invalid",
                hint="give every parameter a name; pass several values as one list or dict",
            )
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise InvalidInput(
            f"'{function.__qualname__}' cannot be a task or pipeline: it is a coroutine or generator",
            code="task.signature_invalid",
            hint="make it a plain function that returns its result",
        )


# --- tracing ------------------------------------------------------------------------------------------------------


class Trace:
    """The steps of one symbolic call, as they are met."""

    def __init__(self, hash_code: Callable[[Callable[..., Any]], str], name_of: Callable[[Any], str]) -> None:
        self._hash_code = hash_code
        self._name_of = name_of
        self.steps: list[Step] = []
        self._names: set[str] = set()

    def add(self, called: Task[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> OutputPlaceholder:
        """A call of a task: a new step, and the placeholder for what it will return."""
        if len(self.steps) >= STEPS_MAX:
            raise InvalidInput(f"a pipeline has at most {STEPS_MAX} steps", code="pipeline.too_many_steps")
        name = self._new_name(called.settings.name)
        try:
            bound = inspect.signature(called.function).bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidInput(f"step '{name}' is called wrongly: {error}", code="step.arguments_invalid") from error
        settings = called.settings
        self.steps.append(
            Step(
                name=name,
                task=self._name_of(called),
                code_hash=self._hash_code(called.function),
                inputs={
                    key: _to_input(value, f"argument '{key}' of step '{name}'")
                    for key, value in bound.arguments.items()
                },
                resources=settings.resources,
                timeout_s=settings.timeout_s,
                retries=settings.retries,
                cache=settings.cache,
            )
        )
        return OutputPlaceholder(OutputRef(name))

    def _new_name(self, wanted: str) -> str:
        name, number = wanted, 1
        while name in self._names:
            number += 1
            name = f"{wanted}-{number}"
        self._names.add(name)
        return name


_trace: ContextVar[Trace | None] = ContextVar("trace", default=None)


@contextmanager
def _tracing(trace: Trace) -> Iterator[None]:
    token = _trace.set(trace)
    try:
        yield
    finally:
        _trace.reset(token)


def _refuse(self: Placeholder, *_: Any, **__: Any) -> NoReturn:
    raise InvalidInput(
        f"{self._described} has no value while the pipeline is compiled, so the pipeline function cannot look into it "
        "(if, for, ==, arithmetic, formatting, attributes)",
        code="pipeline.value_unknown",
        hint="move that into a @task, which gets the value, or let a plain Python constant shape the pipeline",
    )


class Placeholder:
    """Stands for a value that is not known yet: it can be passed to tasks, in lists and dicts too, and returned."""

    def __init__(self, input: Input, described: str) -> None:
        self._input = input
        self._described = described

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return _refuse(self)

    __bool__ = __iter__ = __len__ = __contains__ = __call__ = __getitem__ = _refuse
    __str__ = __format__ = __int__ = __float__ = __index__ = __bytes__ = _refuse
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __pow__ = __rpow__ = __neg__ = __abs__ = _refuse
    __and__ = __rand__ = __or__ = __ror__ = __xor__ = __invert__ = __matmul__ = __rmatmul__ = _refuse
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<{self._described}>"


class OutputPlaceholder(Placeholder):
    """Stands for what a step returns. `output["name"]` and `output[0]` stand for a part of it."""

    def __init__(self, ref: OutputRef) -> None:
        path = "".join(f"[{part!r}]" for part in ref.path)
        super().__init__(ref, f"output{path} of step '{ref.step}'")
        self._ref = ref

    def __getitem__(self, key: str | int) -> OutputPlaceholder:  # type: ignore[override]
        if isinstance(key, bool) or not isinstance(key, str | int):
            _refuse(self)
        return OutputPlaceholder(OutputRef(self._ref.step, [*self._ref.path, key]))


def _placeholders(function: Callable[..., Any]) -> tuple[list[Param], dict[str, Placeholder]]:
    try:
        hints = get_type_hints(function)
    except (NameError, TypeError):
        hints = {}
    params, arguments = [], {}
    for name, parameter in inspect.signature(function).parameters.items():
        required = parameter.default is parameter.empty
        default = None if required else parameter.default
        kind = _kind(hints.get(name), default)
        if isinstance(default, Dataset):
            default = msgspec.to_builtins(DatasetRef(default.name, default.ref))
        elif not is_plain(default):
            raise InvalidInput(
                f"the default of parameter '{name}' is a {type(default).__name__}, which cannot be written as JSON",
                code="pipeline.default_invalid",
                hint='use plain values, or Dataset("name")',
            )
        params.append(Param(name=name, kind=kind, required=required, default=default))
        arguments[name] = Placeholder(ParamRef(name), f"parameter '{name}'")
    return params, arguments


def _kind(hint: Any, default: Any) -> ParamKind:
    if hint is Dataset or isinstance(default, Dataset):
        return "dataset"
    if hint is not None:
        return _KINDS.get(hint, "any")
    return _KINDS.get(type(default), "any")


def _to_input(value: Any, what: str) -> Input:
    if isinstance(value, Placeholder):
        return value._input
    if isinstance(value, Dataset):
        return DatasetRef(value.name, value.ref)
    if isinstance(value, list | tuple):
        inner = [_to_input(item, what) for item in value]
        known = [one.value for one in inner if isinstance(one, Value)]
        return Value(known) if len(known) == len(inner) else ListOf(inner)
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise InvalidInput(f"{what} is a dict with keys that are no text", code="step.arguments_invalid")
        named = {key: _to_input(item, what) for key, item in value.items()}
        given = {key: one.value for key, one in named.items() if isinstance(one, Value)}
        return Value(given) if len(given) == len(named) else MapOf(named)
    if is_plain(value):
        return Value(value)
    raise InvalidInput(
        f"{what} is a {type(value).__name__}; a plan can hold plain values, datasets and results of tasks only",
        code="step.arguments_invalid",
        hint="make it inside a @task and return it from there",
    )


def is_plain(value: Any) -> bool:
    """Whether JSON gives exactly this value back: no tuples, no NaN, no subclasses, no integers beyond 64 bits."""
    kind: type = type(value)
    if value is None or kind is bool:
        return True
    if kind is str:
        return not any("\ud800" <= character <= "\udfff" for character in value)
    if kind is int:
        return bool(-(2**63) <= value < 2**64)
    if kind is float:
        return math.isfinite(value)
    if kind is list:
        return all(is_plain(item) for item in value)
    if kind is dict:
        return all(type(key) is str and is_plain(item) for key, item in value.items())
    return False
