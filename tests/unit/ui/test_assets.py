"""Static files: vendored ones are what they say, ours stay within the policy, colours are legible in both themes."""

from __future__ import annotations

import hashlib
import re

import pytest

from modelyard.ui.assets import ROOT, asset_url, assets

VENDOR = ROOT / "vendor"


def test_vendored_files_are_exactly_those_listed() -> None:
    listed = dict(reversed(line.split()) for line in (VENDOR / "HASHES").read_text().splitlines())  # type: ignore[misc]
    found = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in VENDOR.iterdir() if file.name != "HASHES"
    }
    assert found == listed


def test_every_vendored_library_has_its_licence() -> None:
    libraries = {file.name.split("-")[0] for file in VENDOR.iterdir() if file.suffix == ".js"}
    assert libraries == {"htmx", "uplot"}
    assert all((VENDOR / f"{name}-LICENSE.txt").stat().st_size > 100 for name in libraries)


def test_our_scripts_evaluate_nothing_and_call_nobody_else() -> None:
    for file in ROOT.glob("*.js"):
        text = file.read_text()
        assert not re.search(r"\beval\(|new Function|innerHTML|document\.write", text), file.name
        assert not re.search(r"https?://", text), file.name


def test_styles_load_nothing_from_elsewhere() -> None:
    for file in ROOT.rglob("*.css"):
        assert "url(" not in file.read_text(), file.name
        assert "@import" not in file.read_text(), file.name


def test_an_address_changes_with_the_content() -> None:
    assert asset_url("app.css").endswith(assets()["app.css"].digest)
    with pytest.raises(KeyError):
        asset_url("../../kernel/auth.py")


def test_the_whole_payload_stays_small() -> None:
    scripts_and_styles = sum(len(asset.body) for name, asset in assets().items() if not name.endswith(".txt"))
    assert scripts_and_styles < 260_000, "and no page loads all of it"


def palette(dark: bool) -> dict[str, str]:
    css = (ROOT / "app.css").read_text()
    pairs = re.findall(r"--([a-z0-9-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", css)
    return {name: pair[1 if dark else 0] for name, *pair in pairs}


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa(dark: bool) -> None:
    colours = palette(dark)
    on_ground = [
        (text, ground)
        for text in ("text", "text-2", "text-3", "accent", "good", "warn", "bad", "live", "quiet")
        for ground in ("bg", "bg-side", "bg-raised", "bg-hover")
    ]
    on_tint = [(tone, f"{tone}-bg") for tone in ("good", "warn", "bad", "live")] + [("text-2", "quiet-bg")]
    for text, ground in [*on_ground, *on_tint, ("button-text", "button"), ("text", "bg-code")]:
        assert contrast(colours[text], colours[ground]) >= 4.5, f"{text} on {ground}"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_lines_of_charts_stand_out(dark: bool) -> None:
    colours = palette(dark)
    assert all(contrast(colours[f"series-{n}"], colours["bg-raised"]) >= 3 for n in range(1, 9))
