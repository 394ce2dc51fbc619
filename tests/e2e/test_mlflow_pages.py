"""MLflow's own web interface, as the wheel of 3.17 ships it, in a real browser over our API."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from e2e.browsing import NEEDS_CHROMIUM, Browser, WebDriver
from foreign_python import foreign_python
from modelyard.sdk.client import Client
from modelyard.server.run import Server
from running import client_of, running_server

pytestmark = NEEDS_CHROMIUM
PROJECT = "flights"
# What MLflow's pages ask for and do not need: parts of it that are not served here.
NOT_SERVED = ("users/current", "assistant/", "gateway-proxy", "ui-telemetry")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    packages = next((foreign_python("mlflow3").parent.parent / "lib").glob("python*/site-packages"))
    home = tmp_path_factory.mktemp("home") / "home"
    with running_server(home, mlflow_pages=str(packages / "mlflow/server/js/build")) as running:
        yield running


@pytest.fixture(scope="module")
def run_id(server: Server) -> str:
    return fill(client_of(server, PROJECT))


@pytest.fixture
def browser(driver: WebDriver, server: Server) -> WebDriver:
    """Signed in, on a screen as wide as MLflow's pages want."""
    site = SimpleNamespace(server=server)
    one = Browser(driver, site)
    one.sign_in(server.token)
    one.width(1400)
    return driver


def fill(client: Client) -> str:
    experiment = client.post("/api/experiments", {"name": "delays"})["id"]
    runs = [client.post("/api/runs", {"name": name, "experiment_id": experiment})["id"] for name in ("base", "best")]
    for at, run in enumerate(runs):
        points = [["loss", 1 / (step + 1 + at), step, 1_000 + step] for step in range(50)]
        client.post(f"/api/runs/{run}/log", {"metrics": points, "params": {"depth": str(at)}})
        client.send_bytes("PUT", f"/api/runs/{run}/artifacts/model/MLmodel", b"flavors:\n  python_function: {}\n")
        client.send_bytes("PUT", f"/api/runs/{run}/artifacts/hello.txt", b"hello from the run")
        client.patch(f"/api/runs/{run}", {"status": "FINISHED"})
    client.post("/api/models", {"name": "delay", "description": "How late"})
    client.post("/api/models/delay/versions", {"source": f"runs:/{runs[1]}/model", "run": runs[1]})
    return str(runs[1])


def see(browser: WebDriver, server: Server, place: str, *words: str) -> str:
    """Open a place and wait until the page shows the words; returns its text."""
    browser.get(f"{server.url}/p/{PROJECT}/mlflow/#{place}")
    browser.refresh()
    give_up = time.monotonic() + 40
    text = ""
    while time.monotonic() < give_up:
        text = str(browser.execute_script("return document.body.innerText"))
        if all(word in text for word in words):
            return text
        time.sleep(0.2)
    pytest.fail(f"{place} does not show {words}, but: {text[:2000]}")


def test_experiments_runs_and_the_run_page_with_its_chart(browser: WebDriver, server: Server, run_id: str) -> None:
    see(browser, server, "/experiments", "delays", "Default")
    see(browser, server, "/experiments/1/runs", "base", "best", "matching runs")
    see(browser, server, f"/experiments/1/runs/{run_id}", "best", "Finished", "depth", "delay")
    see(browser, server, f"/experiments/1/runs/{run_id}/model-metrics", "loss")
    give_up = time.monotonic() + 30
    while not browser.execute_script("return document.querySelectorAll('.js-plotly-plot .scatterlayer path').length"):
        assert time.monotonic() < give_up, "the curve is drawn"
        time.sleep(0.2)
    see(browser, server, f"/experiments/1/runs/{run_id}/artifacts", "hello.txt", "model")


def test_the_model_registry(browser: WebDriver, server: Server, run_id: str) -> None:
    see(browser, server, "/models", "delay")
    see(browser, server, "/models/delay", "How late", "Version 1")
    see(browser, server, "/models/delay/versions/1", "Version 1", "best")


def test_nothing_is_refused_by_the_policy_and_nothing_it_needs_is_missing(
    browser: WebDriver, server: Server, run_id: str
) -> None:
    browser.get_log("browser")
    see(browser, server, f"/experiments/1/runs/{run_id}", "best")
    see(browser, server, "/experiments/1/runs", "best")
    severe = [one["message"] for one in browser.get_log("browser") if one["level"] == "SEVERE"]
    assert [one for one in severe if not any(part in one for part in NOT_SERVED)] == []


def test_the_links_that_mlflows_clients_print_lead_to_our_pages(
    browser: WebDriver, server: Server, run_id: str
) -> None:
    base = f"{server.url}/p/{PROJECT}"
    for link, page in (
        (f"/#/experiments/1/runs/{run_id}", f"/runs/{run_id}"),
        ("/#/experiments/1", "/runs?experiment=1"),
        ("/#/models/delay/versions/1", "/models/delay/versions/1"),
    ):
        browser.get("about:blank")
        browser.get(base + link)
        give_up = time.monotonic() + 20
        while browser.current_url != base + page:
            assert time.monotonic() < give_up, browser.current_url
            time.sleep(0.1)
        assert "Not Found" not in browser.title
