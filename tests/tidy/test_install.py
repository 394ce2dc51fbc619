"""`tools/install.py` takes pip's settings over, so that uv asks the same indexes under the same constraints."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).parents[2] / "tools" / "install.py"
LISTED = """\
:env:.cert='/etc/ssl/ours.crt'
:env:.timeout='60'
freeze.timeout='10'
global.constraint='/etc/constraints.txt'
global.extra-index-url='\\nfile:///one/simple\\nfile:///two/simple'
global.index-url='https://mirror.invalid/simple'
global.require-hashes='false'
global.timeout='15'
install.trusted-host='mirror.invalid'
"""


@pytest.fixture
def install() -> Any:
    spec = importlib.util.spec_from_file_location("install", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_pip_is_set_up_to_use_is_used(install: Any) -> None:
    assert install.of_pip(LISTED) == {
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_CONSTRAINT": "/etc/constraints.txt",
        "UV_DEFAULT_INDEX": "https://mirror.invalid/simple",
        "UV_INDEX": "file:///one/simple file:///two/simple",
        "UV_INSECURE_HOST": "mirror.invalid",
        "UV_HTTP_TIMEOUT": "60",
        "SSL_CERT_FILE": "/etc/ssl/ours.crt",
    }


@pytest.mark.parametrize("has", [True, False])
def test_where_uv_fails_or_is_not_there_pip_is_asked(install: Any, monkeypatch: pytest.MonkeyPatch, has: bool) -> None:
    asked = []
    monkeypatch.setattr(install, "find_uv", lambda: Path("/bin/false") if has else None)
    monkeypatch.setattr(install, "pip_settings", lambda: "")
    monkeypatch.setattr(
        install, "pip", lambda *arguments: asked.append(arguments) or type("Done", (), {"returncode": 0})
    )
    monkeypatch.setattr("sys.argv", ["install.py", "some/python", "-r", "some.txt"])
    assert install.main() == 0
    assert asked == [("--python", "some/python", "install", "--quiet", "-r", "some.txt")]
