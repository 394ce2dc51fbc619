"""The UI in a real browser, over a real server: pages are opened, clicked, typed into and read.

State is made through the API, as clients make it. Without Chromium and its driver (Debian: `chromium`,
`chromium-driver`) the whole module is skipped.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from e2e.browsing import NEEDS_CHROMIUM, Browser, Keys, WebDriver, wait_until
from modelyard.kernel.auth import Role
from modelyard.sdk.client import Client
from modelyard.sdk.data import DatasetHandle
from modelyard.server.run import Server
from modelyard.types.data import InSet, NotNull, Range
from modelyard.types.registry import ApprovalRule, CreateModel, CreateVersion, Policy
from running import client_of, raw_client, running_server, token_for

pytestmark = NEEDS_CHROMIUM


# --- the platform, with something in it -------------------------------------------------------------------------------


class Site:
    """A server with a small project on it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.client = client_of(server)
        # The run that the model comes from is by another person than the one who approves.
        self.ben = Client(server.url, token=token_for(server, "ben", Role.CONTRIBUTOR))
        self.run_ids = [log_run(self.client if n < 3 else self.ben, n) for n in range(4)]
        self.batch_id = write_batches(self.client)
        self.job_id = failing_job(self.client)
        register_model(self.client, self.ben, self.run_ids[3])


def mlflow(client: Client, path: str, **body: Any) -> Any:
    return client.post(f"/api/2.0/mlflow/{path}", body)


def log_run(client: Client, number: int) -> str:
    experiments = mlflow(client, "experiments/search", max_results=100).get("experiments", [])
    known = [one["experiment_id"] for one in experiments if one["name"] == "delays"]
    experiment = known[0] if known else mlflow(client, "experiments/create", name="delays")["experiment_id"]
    made = mlflow(client, "runs/create", experiment_id=experiment, run_name=f"candidate-{number}", start_time=1000)
    run_id = str(made["run"]["info"]["run_id"])
    metrics = [
        {"key": "loss", "value": 0.7 / (1 + step * (number + 1) / 20), "step": step, "timestamp": 1000 + step}
        for step in range(40)
    ]
    metrics.append({"key": "auc", "value": 0.65 + number / 50, "step": 0, "timestamp": 1000})
    params = [{"key": "depth", "value": str(number)}, {"key": "seed", "value": "7"}]
    mlflow(client, "runs/log-batch", run_id=run_id, metrics=metrics, params=params, tags=[])
    client.send_bytes(
        "PUT", f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run_id}/artifacts/model/MLmodel",
        b"flavors:\n  python_function:\n    loader_module: none\n",
    )  # fmt: skip
    mlflow(client, "runs/update", run_id=run_id, status="FAILED" if number == 0 else "FINISHED", end_time=9000)
    return run_id


def write_batches(client: Client) -> str:
    import pyarrow as pa

    flights = DatasetHandle("flights", client)
    flights.create(
        key=["id"],
        checks=[NotNull(column="id"), Range(column="distance", min=0), InSet(column="carrier", values=["UA", "B6"])],
    )
    for month in range(3):
        ids = [f"{month}-{n}" for n in range(50)]
        flights.append(pa.table({"id": ids, "carrier": ["UA", "B6"] * 25, "distance": [float(n) for n in range(50)]}))
    broken = pa.table({"id": ["x", "y"], "carrier": ["ZZ", "UA"], "distance": [-5.0, 1.0]})
    result = flights.append(broken, on_reject="return")
    assert result.quarantine_id
    return str(result.quarantine_id)


def failing_job(client: Client) -> str:
    command = [sys.executable, "-c", "print('reading flights'); raise SystemExit(3)"]
    job = client.post("/api/jobs", {"command": command, "name": "nightly import"})
    wait_until(lambda: client.get(f"/api/jobs/{job['id']}")["state"] == "failed", "the job has failed")
    return str(job["id"])


def register_model(client: Client, ben: Client, run_id: str) -> None:
    policy = Policy(aliases=["champion"], approvals=ApprovalRule(count=1))
    client.post("/api/models", CreateModel(name="delay", description="Late flights", policy=policy))
    ben.post("/api/models/delay/versions", CreateVersion(source=f"runs:/{run_id}/model", run=run_id))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_server(tmp_path_factory.mktemp("ui") / "home") as server:
        yield Site(server)


# --- signing in -------------------------------------------------------------------------------------------------------


def test_the_sign_in_link_signs_in_and_leaves_no_token_in_the_address(driver: WebDriver, site: Site) -> None:
    browser = Browser(driver, site)
    browser.open("/sign-in")
    browser.driver.delete_all_cookies()
    browser.driver.get(site.server.sign_in_link())
    browser.wait_for_text("h1", "Home")
    assert browser.path == "/"
    cookie = browser.driver.get_cookie("modelyard_session")
    assert cookie is not None
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"


def test_without_a_session_one_is_asked_to_sign_in(driver: WebDriver, site: Site) -> None:
    browser = Browser(driver, site)
    browser.open("/sign-in")
    browser.driver.delete_all_cookies()
    browser.open("/runs")
    assert browser.title == "Sign in"
    browser.find("#token").send_keys("myd_wrong" + Keys.ENTER)
    browser.wait_for_text(".notice", "not valid")


# --- home -------------------------------------------------------------------------------------------------------------


def test_home_leads_to_what_needs_somebody(browser: Browser) -> None:
    browser.open("/")
    needs = browser.texts(".needs li")
    assert any("quarantined" in need and "flights" in need for need in needs)
    assert any("failed" in need and "nightly import" in need for need in needs)
    assert any("waiting" in need and "delay, version 1" in need for need in needs)
    browser.click_link("flights")
    assert browser.path == f"/datasets/flights/quarantine/{browser.site.batch_id}"
    assert browser.title == f"Batch {browser.site.batch_id[-8:]}"
    page = browser.find("main").text
    assert "-5" in page, "the failing row is shown"
    assert "ZZ" in page


# --- datasets, jobs ---------------------------------------------------------------------------------------------------


def test_a_dataset_shows_versions_checks_and_profile(browser: Browser) -> None:
    browser.open("/datasets")
    browser.click_link("flights")
    assert browser.texts("tbody th") == ["3", "2", "1"]
    browser.click_link("2")
    assert "version 2" in browser.title
    assert "passed" in browser.find("tbody").text
    browser.open("/datasets/flights?tab=profile")
    assert "distance" in browser.find("tbody").text
    browser.open("/datasets/flights?tab=quarantine")
    assert browser.site.batch_id[-8:] in browser.find("tbody").text


def test_a_failed_job_shows_why_and_what_it_wrote(browser: Browser) -> None:
    browser.open("/jobs?state=failed")
    browser.click_link("nightly import")
    assert browser.path == f"/jobs/{browser.site.job_id}"
    assert "3" in browser.find(".notice").text
    assert "reading flights" in browser.find("pre").text
    assert browser.all(".timeline rect")


# --- models -----------------------------------------------------------------------------------------------------------


def test_a_version_is_approved_and_promoted_by_its_buttons(browser: Browser) -> None:
    browser.open("/models/delay")
    assert "0 of 1" in browser.find(".candidate").text
    browser.open("/models/delay/versions/1")
    assert "May not be promoted" in browser.find(".notice").text
    browser.click("[data-open=approve-1]")
    browser.find("#approve-reason-1").send_keys("looked at the slices")
    browser.click("#approve-1 button[type=submit]")
    browser.wait_for_text("main", "looked at the slices")
    assert browser.path == "/models/delay/versions/1"
    browser.click("[data-open=promote-1]")
    browser.find("#promote-reason-1").send_keys("first champion")
    browser.click("#promote-1 button[type=submit]")
    browser.wait_for_text(".notice", "This version is the champion")
    browser.open("/models/delay?tab=history")
    assert "first champion" in browser.find("tbody").text
    browser.open("/")
    assert not any("approval" in need for need in browser.texts(".needs li"))


def test_an_action_of_another_site_is_refused(site: Site) -> None:
    with raw_client(site.server, site.server.token) as http:
        reply = http.post(
            "/models/delay/versions/1/approve", data={"reason": "x"}, headers={"Origin": "https://evil.example"}
        )
    assert reply.status_code == 403


# --- lineage ----------------------------------------------------------------------------------------------------------


def test_the_lineage_graph_is_walked_by_clicking(browser: Browser) -> None:
    run_id = browser.site.run_ids[3]
    browser.open("/lineage")
    browser.find("#urn").send_keys("model:delay@1" + Keys.ENTER)
    wait_until(lambda: browser.all(".graph svg a"), "the graph is drawn")
    browser.find(f".graph svg a[href='/runs/{run_id}']").click()
    wait_until(lambda: browser.path == f"/runs/{run_id}", "the run is open")
    browser.click_link("Open graph")
    assert browser.path == f"/lineage?urn=run%3A{run_id}"


# --- what holds on every page -----------------------------------------------------------------------------------------


def pages(site: Site) -> list[str]:
    return [
        "/",
        "/datasets",
        "/datasets/flights",
        "/datasets/flights?tab=profile",
        "/features",
        "/experiments",
        "/runs",
        f"/runs/{site.run_ids[1]}",
        f"/compare?runs={','.join(site.run_ids[:3])}",
        "/pipelines",
        "/jobs",
        f"/jobs/{site.job_id}",
        "/models",
        "/models/delay",
        "/models/delay/versions/1",
        "/endpoints",
        "/monitors",
        "/automation",
        "/cost",
        "/lineage?urn=model:delay@1",
        "/events",
    ]


def test_no_page_breaks_the_content_security_policy_or_overflows(browser: Browser) -> None:
    for theme, width in (("light", 1280), ("dark", 390)):
        browser.theme(theme)
        browser.width(width)
        for path in pages(browser.site):
            browser.open(path)
            wide = browser.script("return document.documentElement.scrollWidth")
            assert wide <= width, f"{path} is {wide} wide on {width}"
    assert browser.complaints() == []


def test_every_page_is_json_with_the_suffix(site: Site) -> None:
    with raw_client(site.server, site.server.token) as http:
        for path in pages(site):
            bare, question, query = path.partition("?")
            data = http.get(f"{'/home' if bare == '/' else bare}.json{question}{query}")
            assert data.status_code == 200, path
            page = http.get(path, headers={"Accept": "text/html"}).text
            title = re.search(r"<h1>([^<]*)", page)
            assert title
            assert msgspec.json.decode(data.content)["frame"]["title"] == title.group(1), path


def test_the_theme_is_remembered(browser: Browser) -> None:
    browser.theme("light")
    browser.open("/")
    light = browser.script("return getComputedStyle(document.body).backgroundColor")
    browser.click("[data-theme-toggle]")
    dark = browser.script("return getComputedStyle(document.body).backgroundColor")
    assert dark != light
    browser.open("/runs")
    assert browser.script("return getComputedStyle(document.body).backgroundColor") == dark


def test_ids_are_copied_by_a_click(browser: Browser) -> None:
    browser.open(f"/runs/{browser.site.run_ids[1]}")
    browser.click(".meta .id")
    wait_until(lambda: browser.all(".id[data-copied]"), "it says so")


def test_the_keyboard_reaches_everything(browser: Browser) -> None:
    browser.open("/runs")
    body = browser.find("body")
    body.send_keys(Keys.TAB)
    assert browser.script("return document.activeElement.textContent") == "Skip to content"
    browser.script("document.activeElement.blur()")
    body.send_keys("/")
    assert browser.script("return document.activeElement.id") == "text"


def test_a_narrow_screen_has_a_menu(browser: Browser) -> None:
    browser.width(390)
    browser.open("/runs")
    assert not browser.find(".side nav").is_displayed()
    browser.click("[data-menu]")
    assert browser.find(".side nav").is_displayed()
    browser.click_link("Models")
    assert browser.title == "Models"


def test_what_is_not_there_is_explained(browser: Browser) -> None:
    browser.open("/datasets/flihgts")
    assert "flihgts" in browser.title
    assert browser.find(".actions a").text == "Home"
    # The browser itself notes that the page came with status 404, which here is right.
    assert all("404" in complaint for complaint in browser.complaints())


def test_a_viewer_sees_no_buttons_that_would_be_refused(driver: WebDriver, site: Site) -> None:
    browser = Browser(driver, site)
    browser.open("/sign-in")
    browser.driver.delete_all_cookies()
    token = token_for(site.server, "vera", Role.VIEWER)
    browser.driver.add_cookie({"name": "modelyard_session", "value": token, "path": "/"})
    browser.open("/models/delay/versions/1")
    assert browser.title == "delay, version 1"
    assert browser.all("[data-open]") == []
