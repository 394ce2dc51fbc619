"""Tests of the code itself: sizes, imports, broad excepts, what is documented."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "modelyard"
# What Alembic writes is read by nobody and changed by nobody.
FILES = sorted(file for file in SOURCE.rglob("*.py") if file.parent.name != "versions")
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
PUBLIC_METHODS_MAX = 24
BROAD_EXCEPT_ALLOWED = {
    "kernel/database.py",  # what fails in a shared commit is raised again in its caller's thread
    "server/direct.py",  # the boundary: every fault becomes a reply
    "server/threads.py",  # what fails in a thread is raised again where it is awaited
    "kernel/reconcile.py",  # the loop outlives any fault of what it runs
    "sdk/asgi.py",  # hands the app's exception to the caller's thread
    "sdk/worker.py",  # the user's code may raise anything
    "engines/models/worker.py",  # so may the code of a model
    "endpoint/batcher.py",  # a model may raise anything; the request gets the answer
}
LAZY_IMPORT_HOMES = ("engines/", "endpoint/")
LAZY_HEAVY = {
    "cryptography", "httpcore", "model_signing",
    "alembic", "cloudpickle", "deltalake", "duckdb", "mlflow", "numpy", "onnx", "onnxruntime", "pandas", "polars",
    "psutil", "pyarrow", "markdown_it", "sklearn", "sqlglot", "rich", "scipy", "yaml", "jinja2", "uvicorn",
}  # fmt: skip
LAZY_OWN_ALLOWED = {
    ("sdk/client.py", "modelyard.sdk.embedded"),
    ("cli/up.py", "modelyard.sdk.embedded"),
    ("cli/dataset_check.py", "modelyard.sdk"),
    ("sdk/embedded.py", "modelyard.sdk.asgi"),
    ("kernel/http.py", "modelyard.kernel.vetting"),
    ("cli/context.py", "modelyard.sdk.client"),
    ("sdk/jobs.py", "modelyard.sdk.embedded"),
}
PUBLIC = (
    "kernel/",
    "types/",
    "sdk/",
    "app.py",
    *(f"engines/{kind.name}/base.py" for kind in (SOURCE / "engines").iterdir()),
)
"""Where others look for what a thing means. The verbs of the planes are documented through docs/reference."""
ENVIRON_HOMES = {"kernel/settings.py", "engines/compute/process.py", "engines/compute/supervise.py"}


def name(file: Path) -> str:
    return file.relative_to(SOURCE).as_posix()


@cache
def trees() -> list[tuple[str, ast.Module]]:
    return [(name(file), ast.parse(file.read_text("utf-8"))) for file in FILES]


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_files_fit() -> None:
    too_long = {name(f): n for f in FILES if (n := len(f.read_text("utf-8").splitlines())) > FILE_LINES_MAX}
    assert too_long == {}


def test_functions_fit_on_a_screen() -> None:
    too_long = {
        f"{file}:{one.name}": size
        for file, tree in trees()
        for one in functions(tree)
        if (size := (one.end_lineno or 0) - one.lineno + 1) > FUNCTION_LINES_MAX
    }
    assert too_long == {}


def test_classes_have_few_public_methods() -> None:
    too_many = {}
    for file, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                public = [f for f in node.body if isinstance(f, ast.FunctionDef) and not f.name.startswith("_")]
                if len(public) > PUBLIC_METHODS_MAX:
                    too_many[f"{file}:{node.name}"] = len(public)
    assert too_many == {}


def test_broad_excepts_only_at_named_boundaries() -> None:
    found = set()
    for file, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler):
                caught = "" if node.type is None else ast.unparse(node.type)
                if caught in {"", "Exception", "BaseException"} and file not in BROAD_EXCEPT_ALLOWED:
                    reraises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
                    if not reraises:
                        found.add(f"{file}:{node.lineno}")
    assert found == set()


def test_imports_inside_functions_are_only_of_heavy_libraries() -> None:
    found = set()
    for file, tree in trees():
        for function in functions(tree):
            for node in ast.walk(function):
                if isinstance(node, ast.Import):
                    modules = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    modules = [node.module or ""]
                else:
                    continue
                for module in modules:
                    heavy = module.split(".")[0] in LAZY_HEAVY or file.startswith(LAZY_IMPORT_HOMES)
                    if not heavy and (file, module) not in LAZY_OWN_ALLOWED:
                        found.add(f"{file}:{node.lineno} {module}")
    assert found == set()


def test_the_environment_is_read_in_one_place() -> None:
    found = {
        f"{file}:{node.lineno}"
        for file, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr in {"environ", "getenv"}
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
        and file not in ENVIRON_HOMES
    }
    assert found == set()


def test_nothing_is_left_for_later() -> None:
    word = re.compile(r"\b(TODO|FIXME|XXX)\b|raise NotImplementedError")
    found = [
        f"{name(f)}:{n}"
        for f in FILES
        for n, line in enumerate(f.read_text("utf-8").splitlines(), 1)
        if word.search(line)
    ]
    assert found == []


def test_event_kinds_are_a_noun_as_in_its_urn_and_what_happened() -> None:
    kind = re.compile(r"[a-z]+([_-][a-z]+)*\.[a-z]+(_[a-z]+)*")
    kinds = {
        f"{file}:{node.lineno} {node.args[0].value}": node.args[0].value
        for file, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "event"
        and node.args
        and isinstance(node.args[0], ast.Constant)
    }
    assert len(kinds) > 50
    assert [place for place, value in kinds.items() if not kind.fullmatch(value)] == []


def test_no_drawer_modules() -> None:
    drawers = {"utils", "util", "helpers", "helper", "common", "misc", "manager"}
    assert [name(f) for f in FILES if f.stem in drawers] == []


def test_other_planes_only_through_their_face() -> None:
    found = set()
    for file, tree in trees():
        if not file.startswith("planes/"):
            continue
        plane = file.split("/")[1]
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("modelyard.planes."):
                parts = (node.module or "").split(".")
                if parts[2] != plane and len(parts) > 3:
                    found.add(f"{file}:{node.lineno} {node.module}")
    assert found == set()


def test_public_functions_and_classes_say_what_they_are() -> None:
    found = []
    for file, tree in trees():
        if not file.startswith(PUBLIC):
            continue
        for node in tree.body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            overload = any(isinstance(one, ast.Name) and one.id == "overload" for one in node.decorator_list)
            if not overload and ast.get_docstring(node) is None:
                found.append(f"{file}:{node.name}")
    assert found == []


@pytest.mark.parametrize("module", ["modelyard", "modelyard.cli.main", "modelyard.server.app"])
def test_starting_loads_nothing_heavy(module: str) -> None:
    heavy = ["pyarrow", "duckdb", "deltalake", "numpy", "scipy", "pandas", "sklearn", "mlflow", "onnxruntime"]
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_registry_host_is_written_down() -> None:
    hosts = re.compile(r"(pypi\.org|pythonhosted|registry\.npmjs|deb\.debian\.org)")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    found = []
    for path in tracked:
        file = ROOT / path
        if path and file.is_file() and not path.startswith("tests/tidy/"):
            try:
                text = file.read_text("utf-8")
            except UnicodeDecodeError:
                continue
            if hosts.search(text):
                found.append(path)
    assert found == []
