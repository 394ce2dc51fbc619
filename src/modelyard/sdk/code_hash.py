"""What a task's result depends on, as far as its own project goes: one hash over the source of all it refers to.

From the task's function on, every name that its source uses is looked up where the function would look it up. Functions
and classes of the project are followed into their own source; plain constants count by value; modules of the project
that are used otherwise than by an attribute count whole. What lies outside the project (the standard library, installed
packages) counts by name only: its version is part of the environment's hash. Comments, docstrings, layout and the
settings of `@task` do not count.

What is reached by text alone (`getattr`, `importlib.import_module`, files) is not seen.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import sys
import textwrap
import types
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.kernel.errors import InvalidInput
from modelyard.sdk.tasks import task

_MISSING = object()
_VENDORED = frozenset({"site-packages", "dist-packages"})
_MODULE_VARIABLES = frozenset({"__name__", "__file__", "__spec__", "__package__", "__doc__"})
_PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes})
IMPORT_HOPS_MAX = 16


@dataclass(frozen=True, slots=True)
class _Found:
    """A thing that source refers to, and where: `name` in `module`, in words `place`."""

    place: str
    thing: Any
    module: types.ModuleType | None = None
    name: str = ""


class CodeHasher:
    """Hashes of the code under one project root. Asked several times, it reads every source once."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._modules: dict[Path, ast.Module] = {}

    def hash(self, function: Callable[..., Any]) -> str:
        """The hash of a function and of all of the project that it refers to, in 64 hex digits.

        Raises InvalidInput where its source cannot be read, as for what was typed into a prompt.
        """
        parts: set[str] = set()
        seen: set[tuple[str, int]] = set()
        waiting = [_Found("", inspect.unwrap(function))]
        while waiting:
            found = waiting.pop()
            if (found.place, id(found.thing)) in seen:
                continue
            seen.add((found.place, id(found.thing)))
            text, further = self._look_at(found)
            parts.add(f"{self._title(found)}\0{text}")
            waiting += further
        return hashlib.sha256("\n".join(sorted(parts)).encode("utf-8", "surrogatepass")).hexdigest()

    def _title(self, found: _Found) -> str:
        if isinstance(found.thing, types.ModuleType):
            return f"module {self._module_title(found.thing.__name__)}"
        if _is_code(found.thing):
            return f"code {self._module_title(found.thing.__module__)} {found.thing.__qualname__}"
        return f"name {found.place}"

    def _module_title(self, name: str) -> str:
        """By file within the project: what is `__main__` when run as a script is the same module when imported."""
        file = self._own_file(getattr(sys.modules.get(name), "__file__", None))
        return name if file is None else file.relative_to(self._root).as_posix()

    def _look_at(self, found: _Found) -> tuple[str, list[_Found]]:
        """What counts of a thing, and what it refers to further."""
        thing = found.thing
        if isinstance(thing, types.ModuleType):
            file = self._own_file(getattr(thing, "__file__", None))
            if file is None:
                return "", []
            tree = self._module_tree(file)
            return _dump(tree), self._references(tree, vars(thing), {}, "")
        if _is_code(thing):
            if self._own_file(_file_of(thing)) is None:
                return "", []
            source = _source_tree(thing)
            _drop_task_decorators(source, _globals_of(thing))
            return _dump(source), self._references(source, _globals_of(thing), _closure_of(thing), thing.__qualname__)
        plain = _plain_text(thing)
        return (plain, []) if plain is not None else self._look_at_object(found)

    def _look_at_object(self, found: _Found) -> tuple[str, list[_Found]]:
        """An object that was built: its class, and the statements of its module that built it."""
        kind = type(found.thing)
        text, further = f"{kind.__module__}.{kind.__qualname__}", [_Found("", kind)]
        module, name = found.module, found.name
        for _ in range(IMPORT_HOPS_MAX):
            file = self._own_file(getattr(module, "__file__", None))
            if module is None or file is None:
                break
            tree = self._module_tree(file)
            for statement in [one for one in tree.body if name in _assigned(one)]:
                text += "\n" + _dump(statement)
                referred = self._references(statement, vars(module), {}, "")
                further += [one for one in referred if one.place != found.place]
            module, name = _origin(tree, module.__name__, name)
        return text, further

    def _references(
        self, tree: ast.AST, namespace: dict[str, Any], closure: dict[str, Any], owner: str
    ) -> list[_Found]:
        """The things that the names of a piece of source stand for."""
        module_name = str(namespace.get("__name__", ""))
        found: list[_Found] = []
        lookup = {**namespace, **closure, **_imported_within(tree, module_name)}
        for root, *attributes in sorted(_names(tree)):
            thing = lookup.get(root, _MISSING)
            if thing is _MISSING or root in _MODULE_VARIABLES:
                continue
            module, name = sys.modules.get(module_name), root
            inner = f" {owner}" if root in closure else ""
            thing = _undecorated(thing)
            for attribute in attributes:
                # Not into modules of others: what of them is loaded, and so has which attributes, differs by process.
                if not isinstance(thing, types.ModuleType) or self._own_file(getattr(thing, "__file__", None)) is None:
                    break
                module, name, inner = thing, attribute, ""
                thing = _undecorated(getattr(thing, attribute, _MISSING))
            if thing is not _MISSING:
                title = self._module_title(module.__name__ if module is not None else module_name)
                found.append(_Found(f"{title}{inner} {name}", thing, module, name))
        return found

    def _own_file(self, file: str | None) -> Path | None:
        """The file, if it belongs to the project."""
        if not file:
            return None
        path = Path(file).resolve()
        if not path.is_relative_to(self._root) or _VENDORED.intersection(path.relative_to(self._root).parts):
            return None
        return path

    def _module_tree(self, file: Path) -> ast.Module:
        if file not in self._modules:
            self._modules[file] = ast.parse(file.read_bytes())
        return self._modules[file]


def _is_code(thing: Any) -> bool:
    return isinstance(thing, types.FunctionType | type)


def _undecorated(thing: Any) -> Any:
    """The function within a task, a pipeline or whatever keeps what it wraps in `__wrapped__`."""
    if isinstance(thing, type | types.ModuleType):
        return thing
    with suppress(ValueError, AttributeError, TypeError):
        unwrapped = inspect.unwrap(thing)
        if isinstance(unwrapped, types.FunctionType):
            return unwrapped
    return thing


def _file_of(thing: Any) -> str | None:
    if isinstance(thing, types.FunctionType):
        return thing.__code__.co_filename
    return getattr(sys.modules.get(thing.__module__), "__file__", None)


def _globals_of(thing: Any) -> dict[str, Any]:
    if isinstance(thing, types.FunctionType):
        return thing.__globals__
    return vars(sys.modules[thing.__module__])


def _closure_of(thing: Any) -> dict[str, Any]:
    if not isinstance(thing, types.FunctionType) or thing.__closure__ is None:
        return {}
    found = {}
    for name, cell in zip(thing.__code__.co_freevars, thing.__closure__, strict=True):
        with suppress(ValueError):  # a cell that is not filled yet
            found[name] = cell.cell_contents
    return found


def _source_tree(thing: Any) -> ast.AST:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(thing)))
    except (OSError, TypeError, SyntaxError, IndentationError) as error:
        raise InvalidInput(
            f"the source of '{thing.__qualname__}' cannot be read: {error}",
            code="task.source_missing",
            hint="define tasks and what they use in files, with `def`, one definition a line",
        ) from error


def _drop_task_decorators(tree: ast.AST, namespace: dict[str, Any]) -> None:
    """Resources, timeouts and retries of a task say how it is run, not what it returns."""
    for node in getattr(tree, "body", []):
        if isinstance(node, ast.FunctionDef):
            node.decorator_list = [one for one in node.decorator_list if not _is_task_decorator(one, namespace)]


def _is_task_decorator(decorator: ast.expr, namespace: dict[str, Any]) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
        return getattr(namespace.get(called.value.id), called.attr, None) is task
    return isinstance(called, ast.Name) and namespace.get(called.id) is task


def _dump(tree: ast.AST) -> str:
    return ast.dump(_Stripped().visit(ast.parse(ast.unparse(tree))))


class _Stripped(ast.NodeTransformer):
    """Takes docstrings out."""

    def _strip(self, node: Any) -> Any:
        self.generic_visit(node)
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        return node

    visit_Module = visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _strip


def _names(tree: ast.AST) -> set[tuple[str, ...]]:
    """Every name that is read, with the attributes that follow it: `a.b.c` gives ("a", "b", "c")."""
    found: set[tuple[str, ...]] = set()
    inner: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in inner:
            chain: list[str] = []
            at: ast.expr = node
            while isinstance(at, ast.Attribute):
                chain.append(at.attr)
                at = at.value
                inner.add(id(at))
            if isinstance(at, ast.Name):
                found.add((at.id, *reversed(chain)))
        elif isinstance(node, ast.Name) and id(node) not in inner and isinstance(node.ctx, ast.Load):
            found.add((node.id,))
    return found


def _imported_within(tree: ast.AST, module_name: str) -> dict[str, Any]:
    """What import statements inside of functions bind; importing is what the function itself would do."""
    found: dict[str, Any] = {}
    for node in ast.walk(tree):
        with suppress(ImportError, ValueError):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    name = alias.name if alias.asname else alias.name.partition(".")[0]
                    if _may_import(name):
                        found[alias.asname or name] = importlib.import_module(name)
            elif isinstance(node, ast.ImportFrom):
                full = _imported_from(node, module_name)
                if not _may_import(full):
                    continue
                module = importlib.import_module(full)
                for alias in node.names:
                    found[alias.asname or alias.name] = getattr(module, alias.name, _MISSING)
    return {name: thing for name, thing in found.items() if thing is not _MISSING}


def _may_import(name: str) -> bool:
    """Not what is installed, loaded or not: that counts by name, and may be heavy to import."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names:
        return False
    # Only of the top: finding a module within a package imports the package.
    spec = importlib.util.find_spec(top)
    if spec is None:
        return False
    places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or [])
    return bool(places) and not any(_VENDORED.intersection(Path(place).parts) for place in places)


def _origin(tree: ast.Module, module_name: str, name: str) -> tuple[types.ModuleType | None, str]:
    """Where a module got a name from, if it imported it: `from config import MODEL as m` gives (config, "MODEL")."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return sys.modules.get(_imported_from(node, module_name)), alias.name
    return None, name


def _imported_from(node: ast.ImportFrom, module_name: str) -> str:
    if not node.level:
        return node.module or ""
    module = sys.modules.get(module_name)
    package = str(getattr(module, "__package__", None) or module_name.rpartition(".")[0])
    return importlib.util.resolve_name("." * node.level + (node.module or ""), package)


def _assigned(statement: ast.stmt) -> set[str]:
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign | ast.AugAssign):
        targets = [statement.target]
    return {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}


def _plain_text(value: Any) -> str | None:
    """A constant as text that is the same in every process; None for what is not plain data."""
    if type(value) in _PLAIN:
        return f"{type(value).__name__} {value!r}"
    if type(value) in (list, tuple):
        return _joined(type(value).__name__, [_plain_text(item) for item in value])
    if type(value) in (set, frozenset):
        items = [_plain_text(item) for item in value]
        return None if None in items else _joined(type(value).__name__, sorted(str(item) for item in items))
    if type(value) is dict:
        return _joined("dict", [_plain_text(part) for item in value.items() for part in item])
    return None


def _joined(kind: str, items: list[str | None] | list[str]) -> str | None:
    return None if None in items else f"{kind} [{', '.join(str(item) for item in items)}]"
