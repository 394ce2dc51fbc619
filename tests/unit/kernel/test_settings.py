"""Settings: which layer wins, where each value came from, and errors that name the nearest key."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.kernel.errors import InvalidInput
from modelyard.kernel.settings import DOCS, Settings, load, load_with_origin


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    (tmp_path / "modelyard.toml").write_text('port = 1\nhost = "::1"\nproject = "filed"\n')
    environ = {"MODELYARD_PORT": "2", "MODELYARD_PROJECT": "env", "OTHER": "x"}
    settings, origins = load_with_origin({"port": 3, "url": None}, environ, tmp_path)
    assert (settings.port, settings.project, settings.host, settings.cpus) == (3, "env", "::1", 0.0)
    by_name = {one.name: one.origin for one in origins}
    assert by_name["port"] == "flag"
    assert by_name["project"] == "MODELYARD_PROJECT"
    assert by_name["host"].endswith("modelyard.toml")
    assert by_name["cpus"] == "default"


def test_an_unknown_key_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="unknown setting 'prot'") as caught:
        load({}, {"MODELYARD_PROT": "1"}, tmp_path)
    assert "'port'" in caught.value.hint


@pytest.mark.parametrize("text", ["port = ", 'port = "x"', "\xff"])
def test_a_broken_file_or_value_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "modelyard.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidInput, match=r"modelyard\.toml"):
        load({}, {}, tmp_path)


def test_secrets_are_masked(tmp_path: Path) -> None:
    _, origins = load_with_origin({}, {"MODELYARD_TOKEN": "swordfish"}, tmp_path)
    assert "swordfish" not in str(origins)


def test_every_setting_is_documented() -> None:
    assert set(DOCS) == set(Settings.__struct_fields__)
