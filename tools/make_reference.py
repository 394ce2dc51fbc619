"""`python tools/make_reference.py`: write docs/reference/ from the code; `tests/tidy/test_docs.py` holds it true."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import typer
from litestar import Litestar

from modelyard.app import compose
from modelyard.cli.main import NOUNS
from modelyard.kernel import settings
from modelyard.kernel.routing import REQUIRES
from modelyard.planes.data import suites
from modelyard.planes.data.suites import dbt
from modelyard.server.app import App, create_app
from modelyard.types import checks

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "reference"
HEAD = "<!-- Written by tools/make_reference.py; do not edit. -->\n\n"


def pages() -> dict[str, str]:
    """Every page of the reference, by file name."""
    return {
        "settings.md": settings_page(),
        "cli.md": cli_page(),
        "api.md": api_page(),
        "errors.md": errors_page(),
        "checks.md": checks_page(),
    }


def settings_page() -> str:
    defaults = settings.Settings()
    rows = [
        f"| `{name}` | `{settings.ENV_PREFIX}{name.upper()}` | `{getattr(defaults, name)}` | {settings.DOCS[name]} |"
        for name in settings.Settings.__struct_fields__
    ]
    head = "| in `modelyard.toml` | in the environment | default | meaning |\n|---|---|---|---|"
    return "\n".join([f"{HEAD}# Settings\n\nFlag > environment > `modelyard.toml` > default.\n", head, *rows, ""])


def cli_page() -> str:
    parts = [f"{HEAD}# Command line\n"]
    for noun, (module, summary) in NOUNS.items():
        command = typer.main.get_command(importlib.import_module(module).app)
        parts.append(f"## `modelyard {noun}`\n\n{summary}\n")
        parts += list(_commands(command, f"modelyard {noun}"))
    return "\n".join(parts)


def checks_page() -> str:
    shared = {field.name for field in msgspec.structs.fields(checks.Rule)}
    parts = [f"{HEAD}# Checks\n\nEvery check may also have {', '.join(f'`{name}`' for name in sorted(shared))}.\n"]
    for kind in sorted(get_args(checks.Check), key=lambda one: one.__struct_config__.tag):
        own = [field for field in msgspec.structs.fields(kind) if field.name not in shared]
        fields = ", ".join(f"`{field.name}`{'' if field.required else '?'}" for field in own)
        parts.append(f"## `{kind.__struct_config__.tag}`\n\n{inspect.cleandoc(kind.__doc__ or '')}\n\n{fields}\n")
    named = "\n".join(f"- `{name}`" for name in suites.SUPPORTED)
    parts.append(f"## Expectations of Great Expectations that are supported\n\n{named}\n")
    listed = "\n".join(f"- `{name}`" for name in dbt.SUPPORTED)
    parts.append(f"## Tests of dbt that are supported\n\n{listed}\n")
    return "\n".join(parts)


def _commands(command: Any, path: str) -> Iterator[str]:
    children = getattr(command, "commands", None)
    if children:
        for name in sorted(children):
            yield from _commands(children[name], f"{path} {name}")
        return
    yield f"### `{path}`\n\n{inspect.cleandoc(command.help or '').partition(chr(12))[0].strip()}\n"
    for one in command.params:
        names = ", ".join(one.opts) if one.param_type_name == "option" else f"<{one.name}>"
        if one.name != "help":
            yield f"- `{names}`: {(getattr(one, 'help', None) or '').strip()}"
    yield ""


def api_page() -> str:
    with tempfile.TemporaryDirectory() as directory:
        yard = compose(settings.load({"home": directory}, environ={}, directory=Path(directory)))
        app: Any = create_app(yard)
        while not isinstance(app, App):
            app = app._app
        app.register_all()
        rows = sorted(_routes(app))
        yard.close()
    head = "| route | requires | what |\n|---|---|---|"
    intro = "Every path may stand behind `/p/<project>`. The full schema is at `/api/schema/openapi.json`.\n"
    return "\n".join([f"{HEAD}# HTTP API\n\n{intro}", head, *rows, ""])


def _routes(app: Litestar) -> Iterator[str]:
    for route in app.routes:
        for handler in getattr(route, "route_handlers", []):
            requires = handler.opt.get(REQUIRES)
            for method in sorted(str(m) for m in handler.http_methods if m != "OPTIONS"):
                summary = (handler.fn.__doc__ or "").strip().split("\n")[0]
                if requires is not None:
                    yield f"| `{route.path_format}` `{method}` | {requires.value} | {summary} |"


def errors_page() -> str:
    """Every stable error code in the code, with the status of its kind."""
    codes: dict[str, set[str]] = {}
    for file in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            for code in _codes(node):
                kind = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
                codes.setdefault(code, set()).add("Unavailable" if kind == "full_disk" else kind)
    rows = [f"| `{code}` | {', '.join(sorted(kinds - {''})) or '-'} |" for code, kinds in sorted(codes.items())]
    intro = "`code` is stable; the message is for people. Statuses are listed at the head of `kernel/errors.py`.\n"
    return "\n".join([f"{HEAD}# Error codes\n\n{intro}", "| code | kind |\n|---|---|", *rows, ""])


def _codes(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Call):
        for keyword in node.keywords:
            value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
            if keyword.arg == "code" and isinstance(value, str) and re.fullmatch(r"[a-z_.-]+", value):
                yield value


if __name__ == "__main__":
    TARGET.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (TARGET / name).write_text(text, "utf-8")
