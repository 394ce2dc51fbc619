"""The UI in a real browser, over a real server: pages are opened, clicked, typed into and read.

State is made through the API, as clients make it. Without Chromium and its driver (Debian: `chromium`,
`chromium-driver`) the whole module is skipped.
"""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelyard.kernel.auth import Role
from modelyard.sdk.client import Client
from modelyard.sdk.data import DatasetHandle
from modelyard.server.run import Server
from modelyard.types.data import InSet, NotNull, Range
from modelyard.types.registry import ApprovalRule, CreateModel, CreateVersion, Policy
from running import client_of, raw_client, running_server, token_for

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.common.exceptions import StaleElementReferenceException  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.remote.webdriver import WebDriver  # noqa: E402
from selenium.webdriver.remote.webelement import WebElement  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Debian's chromium and chromium-driver"),
]
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,900",
)  # fmt: skip


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


def wait_until(condition: Callable[[], object], what: str, seconds: float = 20) -> Any:
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        if found := condition():
            return found
        time.sleep(0.05)
    pytest.fail(f"waited {seconds} s in vain until {what}")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_server(tmp_path_factory.mktemp("ui") / "home") as server:
        yield Site(server)


# --- the browser ------------------------------------------------------------------------------------------------------


class Browser:
    """A browser that is signed in, and remembers what it complained about."""

    def __init__(self, driver: WebDriver, site: Site) -> None:
        self.driver = driver
        self.site = site

    def open(self, path: str) -> None:
        self.driver.get(self.site.server.url + path)

    def find(self, css: str) -> WebElement:
        return WebDriverWait(self.driver, 10).until(lambda driver: driver.find_element(By.CSS_SELECTOR, css))

    def all(self, css: str) -> list[WebElement]:
        return list(self.driver.find_elements(By.CSS_SELECTOR, css))

    def texts(self, css: str) -> list[str]:
        try:
            return [element.text for element in self.all(css)]
        except StaleElementReferenceException:
            # The page changed while it was read, as after a click: read the new one.
            return self.texts(css)

    def click(self, css: str) -> None:
        self.find(css).click()

    def click_link(self, text: str) -> None:
        WebDriverWait(self.driver, 10).until(lambda driver: driver.find_element(By.LINK_TEXT, text)).click()

    def wait_for_text(self, css: str, text: str) -> None:
        wait_until(lambda: any(text in found for found in self.texts(css)), f"{css} says {text!r}")

    @property
    def path(self) -> str:
        return str(self.driver.current_url).removeprefix(self.site.server.url)

    @property
    def title(self) -> str:
        return self.find("h1").text

    def script(self, text: str) -> Any:
        return self.driver.execute_script(text)

    def complaints(self) -> list[str]:
        log = self.driver.get_log("browser")
        return [entry["message"] for entry in log if entry["level"] in ("SEVERE", "WARNING")]

    def theme(self, name: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def width(self, pixels: int) -> None:
        size = {"width": pixels, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def start_chromium(profile: Path) -> WebDriver:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=Service(DRIVER))


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    started = start_chromium(tmp_path_factory.mktemp("chromium"))
    yield started
    started.quit()


@pytest.fixture
def browser(driver: WebDriver, site: Site) -> Iterator[Browser]:
    """Signed in as admin, on a wide screen; what the page complains about fails the test."""
    one = Browser(driver, site)
    one.width(1280)
    one.open("/sign-in")
    one.script("localStorage.clear()")
    one.driver.delete_all_cookies()
    cookie = {"name": "modelyard_session", "value": site.server.token, "path": "/", "sameSite": "Strict"}
    one.driver.add_cookie(cookie)
    one.complaints()
    yield one
    assert one.complaints() == []


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


# --- runs -------------------------------------------------------------------------------------------------------------


def test_runs_are_filtered_by_mlflows_grammar_and_the_address_says_so(browser: Browser) -> None:
    browser.open("/runs")
    assert len(browser.all("tbody tr")) == 4
    browser.find("#filter").send_keys("metrics.auc > 0.68 and attributes.status = 'FINISHED'" + Keys.ENTER)
    wait_until(lambda: len(browser.all("tbody tr")) == 2, "two runs are left")
    assert "filter=metrics.auc" in browser.path
    browser.driver.refresh()
    assert len(browser.all("tbody tr")) == 2


def test_a_wrong_filter_is_explained_in_place(browser: Browser) -> None:
    browser.open("/runs")
    browser.find("#filter").send_keys("metrics.auc >>> 1" + Keys.ENTER)
    browser.wait_for_text(".notice.bad", ">>>")
    assert browser.find("#filter").get_attribute("value") == "metrics.auc >>> 1"


def test_a_head_orders_and_turns_the_order_round(browser: Browser) -> None:
    browser.open("/runs")
    browser.click_link("auc")
    wait_until(lambda: browser.all("th[aria-sort=descending]"), "the order shows")
    assert browser.texts("tbody th a")[0] == "candidate-3"
    browser.click_link("auc")
    wait_until(lambda: browser.all("th[aria-sort=ascending]"), "the order has turned")
    assert browser.texts("tbody th a")[0] == "candidate-0"


def test_columns_are_chosen_in_the_address(browser: Browser) -> None:
    browser.open("/runs?column=params.seed")
    heads = browser.texts("thead th")
    assert "seed" in heads
    assert "auc" not in heads
    browser.click(".picker summary")
    browser.click("input[name=column][value='metrics.auc']")
    browser.click(".picker button")
    wait_until(lambda: "auc" in browser.texts("thead th"), "the column has come")
    assert "seed" in browser.texts("thead th")


def test_chosen_runs_are_compared_by_what_differs(browser: Browser) -> None:
    browser.open("/runs?order=attributes.run_name+ASC")
    compare = browser.find("[data-compare]")
    assert compare.get_attribute("aria-disabled") == "true"
    boxes = browser.all("input[data-choose]")
    boxes[1].click()
    boxes[2].click()
    assert compare.text == "Compare 2"
    compare.click()
    wait_until(lambda: browser.path.startswith("/compare?runs="), "the comparison is open")
    assert browser.title == "Compare 2 runs"
    assert drawn_pixels(browser) > 50
    rows = browser.texts("tbody th")
    assert "depth" in rows
    assert "seed" not in rows, "it is equal in both"
    browser.click_link("Show what is equal too")
    wait_until(lambda: "seed" in browser.texts("tbody th"), "all is shown")


def drawn_pixels(browser: Browser) -> int:
    """How many pixels of the first chart are not empty."""
    browser.find("line-chart canvas")
    return int(
        browser.script(
            "const canvas = document.querySelector('line-chart canvas');"
            "const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;"
            "let drawn = 0; for (let i = 3; i < pixels.length; i += 4) if (pixels[i]) drawn += 1; return drawn;"
        )
    )


def test_a_run_shows_its_chart_params_and_files(browser: Browser) -> None:
    run_id = browser.site.run_ids[2]
    browser.open("/runs")
    browser.click_link("candidate-2")
    assert browser.path == f"/runs/{run_id}"
    assert drawn_pixels(browser) > 50
    assert "depth" in browser.texts("tbody th")
    browser.click_link("Artifacts")
    browser.click_link("model/")
    wait_until(lambda: "model/MLmodel" in browser.texts("tbody th a"), "the folder is open")
    href = browser.find("tbody th a").get_attribute("href") or ""
    with raw_client(browser.site.server, browser.site.server.token) as http:
        reply = http.get(href)
    assert reply.content.startswith(b"flavors:")
    assert reply.headers["content-disposition"].startswith("attachment")


def test_a_chart_follows_the_pointer_and_the_theme(browser: Browser) -> None:
    browser.open(f"/runs/{browser.site.run_ids[2]}")
    drawn_pixels(browser)
    last = browser.find(".chart .value").text
    over = browser.find("line-chart .u-over")
    webdriver.ActionChains(browser.driver).move_to_element_with_offset(over, -over.size["width"] // 2 + 2, 0).perform()
    wait_until(lambda: browser.find(".chart .value").text != last, "the value under the pointer shows")
    before = browser.script("return document.querySelector('line-chart canvas').toDataURL()")
    browser.click("[data-theme-toggle]")
    after = browser.script("return document.querySelector('line-chart canvas').toDataURL()")
    assert before != after


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
    assert "waits for approval" in browser.find(".notice").text
    browser.open("/models/delay/versions/1")
    assert "May not be promoted" in browser.find(".notice").text
    browser.click("[data-open=approve]")
    browser.find("#approve-reason").send_keys("looked at the slices")
    browser.click("#approve button[type=submit]")
    browser.wait_for_text("main", "looked at the slices")
    assert browser.path == "/models/delay/versions/1"
    browser.click("[data-open=promote]")
    browser.find("#promote-reason").send_keys("first champion")
    browser.click("#promote button[type=submit]")
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
    assert browser.script("return document.activeElement.id") == "filter"


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
