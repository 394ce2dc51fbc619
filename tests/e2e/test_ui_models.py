"""The pages of models in a real browser: approve, promote, override, roll back, trust, look up, compare, download."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from e2e.browsing import NEEDS_CHROMIUM, Browser, WebDriver, wait_until
from modelyard.kernel.auth import Role
from modelyard.sdk.client import Client
from modelyard.sdk.registry import ModelHandle
from modelyard.server.run import Server
from modelyard.types.registry import ApprovalRule, Policy
from running import client_of, raw_client, running_server, token_for

pytestmark = NEEDS_CHROMIUM
MLMODEL = b"""flavors: {lightgbm: {data: model.txt}}
saved_input_example_info: {artifact_path: input_example.json}
signature: {inputs: '[{"type": "double", "name": "distance"}]'}
"""
POLICY = Policy(aliases=["champion"], signature=True, safe_format=True, approvals=ApprovalRule(count=1))


class Site:
    """A server with a model of two versions under a policy, and one without."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.admin = client_of(server)
        self.ben = Client(server.url, token=token_for(server, "ben", Role.CONTRIBUTOR))
        for name, policy in (("late", POLICY), ("taxi", None)):
            ModelHandle(name, self.admin).create(description="Late flights", policy=policy)
            for number in range(3):
                self.version(name, number)

    def version(self, name: str, number: int) -> None:
        made = self.ben.post("/api/2.0/mlflow/runs/create", {"experiment_id": "0", "start_time": 1})
        run = made["run"]["info"]["run_id"]
        files = {
            "MLmodel": MLMODEL,
            "model.txt": b"tree\nversion=v4\n" + b"x" * number,
            "input_example.json": b'{"distance": [1.0]}',
            "requirements.txt": f"lightgbm==4.{number}\n".encode(),
        }
        if number == 2:
            files["model.pkl"] = b"\x80\x04\x8c\x02os\x94."
        for path, content in files.items():
            address = f"/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/model/{path}"
            self.ben.send_bytes("PUT", address, content)
        ModelHandle(name, self.ben).register(f"runs:/{run}/model", run=run)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_server(tmp_path_factory.mktemp("models") / "home") as server:
        yield Site(server)


def fill(browser: Browser, dialog: str, reason: str) -> None:
    """Open a dialog, say why, and send it."""
    browser.click(f"[data-open={dialog}]")
    browser.find(f"#{dialog} textarea").send_keys(reason)
    browser.click(f"#{dialog} button[type=submit]")


def test_evidence_stands_beside_the_button_and_the_button_does_it(browser: Browser) -> None:
    browser.open("/models/late")
    first = next(one for one in browser.all(".candidate") if "Version 1" in one.text)
    assert "0 of 1" in first.text
    assert "2 gates passed" in first.text
    fill(browser, "approve-1", "read the training code")
    browser.wait_for_text("main", "read the training code")
    fill(browser, "promote-1", "the first one")
    browser.wait_for_text(".notice", "This version is the champion")
    browser.open("/models/late")
    standing = browser.find(".standing").text
    assert "Version 1" in standing
    assert "2 gates passed, approved by" in standing


def test_an_override_names_what_it_goes_over_and_is_shown_ever_after(browser: Browser) -> None:
    browser.open("/models/late/versions/2")
    browser.click("[data-open=override-2]")
    assert "1 approvals are needed" in browser.find("#override-2 .over").text
    browser.find("#override-2 textarea").send_keys("the feed is down")
    browser.click("#override-2 button[type=submit]")
    browser.wait_for_text(".notice", "by an override of")
    assert any("the feed is down" in text for text in browser.texts(".notice"))
    browser.open("/models/late")
    assert "Went over" in browser.find(".standing .over").text
    fill(browser, "rollback-1", "the feed is back")
    browser.wait_for_text(".standing .what", "Version 1")
    browser.open("/models/late?tab=history")
    assert browser.all(".lanes rect.override")
    assert [text for text in browser.texts(".lanes a") if text] != []
    assert any("the feed is down" in text for text in browser.texts("tbody tr"))
    browser.open("/models/late/versions/2")
    assert any("the feed is down" in text for text in browser.texts(".notice"))


def test_who_was_champion_at_a_time_is_looked_up(browser: Browser) -> None:
    browser.open("/models/late?tab=history")
    browser.script("document.querySelector('#at').value = '2020-01-31T12:00'")
    browser.click(".lookup button")
    browser.wait_for_text(".answer", "no version was champion then")
    browser.script("document.querySelector('#at').value = '2090-01-31T12:00'")
    browser.click(".lookup button")
    browser.wait_for_text(".answer", "version 1 was champion then")


def test_unsafe_files_are_named_and_trusted_by_a_dialog(browser: Browser) -> None:
    browser.open("/models/late/versions/3?tab=files")
    row = next(text for text in browser.texts("tbody tr") if text.startswith("model.pkl"))
    assert "unpickling runs code" in row
    assert browser.texts("td .tag.bad") == ["pickle"]
    fill(browser, "trust", "made by our own pipeline")
    browser.open("/models/late/versions/3?tab=about")
    assert "made by our own pipeline" in browser.find(".facts").text
    assert "distance" in browser.find("pre.block").text


def test_two_versions_are_compared(browser: Browser) -> None:
    browser.open("/models/late")
    browser.click_link("Compare versions")
    browser.find("#before").send_keys("1")
    browser.find("#after").send_keys("2")
    browser.click(".lookup button")
    wait_until(lambda: "before=1" in browser.path, "the address says what is compared")
    assert browser.title == "late: version 1 to 2"
    shown = browser.find("main").text
    assert "==4.0" in shown
    assert "==4.1" in shown
    assert "model.txt" in shown


def test_card_and_bill_of_materials_are_there_to_take(browser: Browser, site: Site) -> None:
    browser.open("/models/late/versions/1?tab=card")
    assert "Where it comes from" in browser.find(".card-text").text
    links = {one.text: one.get_attribute("href") or "" for one in browser.all("a[download]")}
    with raw_client(site.server, site.server.token) as http:
        bill = json.loads(http.get(links["Bill of materials (CycloneDX)"]).content)
        card = http.get(links["Download as Markdown"]).text
    assert bill["metadata"]["component"]["name"] == "late"
    assert card.startswith("# late, version 1")


def test_rules_are_told_in_words(browser: Browser) -> None:
    browser.open("/models/late?tab=policy")
    rules = browser.find(".rules").text
    assert "1 by people with the role approver, never by who submitted it" in rules
    assert "Nothing: every version is kept" in browser.find("main").text
    browser.open("/models/taxi?tab=policy")
    assert "No policy" in browser.find("main").text


def test_a_dropped_version_keeps_its_page(browser: Browser, site: Site) -> None:
    ModelHandle("taxi", site.admin).drop(1, "trained on the wrong month")
    browser.open("/models/taxi")
    browser.click("tbody tr:last-child th a")
    assert browser.title == "taxi, version 1"
    assert "trained on the wrong month" in browser.find(".notice").text
    assert browser.all("[data-open]") == []


def test_a_contributor_sees_no_button_of_approvers(driver: WebDriver, site: Site) -> None:
    browser = Browser(driver, site)
    browser.sign_in(token_for(site.server, "carl", Role.CONTRIBUTOR))
    browser.open("/models/late/versions/2")
    assert browser.title == "late, version 2"
    assert [one.get_attribute("data-open") for one in browser.all("[data-open]")] == []


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 390)])
def test_no_page_overflows_or_breaks_the_content_security_policy(browser: Browser, theme: str, width: int) -> None:
    browser.theme(theme)
    browser.width(width)
    version = "/models/late/versions/2"
    for path in (
        "/models", "/models/late", "/models/late?tab=history", "/models/late?tab=policy", "/models/late/diff",
        version, f"{version}?tab=about", f"{version}?tab=files", f"{version}?tab=card",
    ):  # fmt: skip
        browser.open(path)
        wide = browser.script("return document.documentElement.scrollWidth")
        assert wide <= width, f"{path} is {wide} wide on {width}"
