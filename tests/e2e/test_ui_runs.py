"""The pages of runs in a real browser: found, grouped, drawn, compared, archived and brought back; live; files."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from e2e.browsing import NEEDS_CHROMIUM, Browser, Keys, WebDriver, wait_until
from modelyard.kernel.auth import Role
from modelyard.sdk.client import Client
from modelyard.server.run import Server
from running import client_of, raw_client, running_server, token_for

pytestmark = NEEDS_CHROMIUM

HOSTILE = b"""<!doctype html><p id="said">nothing ran</p><script>
const say = (words) => { document.getElementById("said").textContent = words; };
const tried = [];
const attempt = (name, act) => { try { tried.push(name + ":" + act()); } catch { tried.push(name + ":refused"); } };
attempt("cookie", () => document.cookie);
attempt("storage", () => localStorage.length);
attempt("parent", () => parent.document.title);
fetch("/api/runs").then((r) => tried.push("fetch:" + r.status), () => tried.push("fetch:refused"))
  .then(() => say(tried.join(" ")));
</script>"""
END = "%25timestamp%251764000000000%250c4a1e00-5b7d-4f0e-9a55-0123456789ab.png"
DRAWING = b"""<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9">
<script>document.documentElement.id = "ran"</script></svg>"""


def png(width: int, height: int) -> bytes:
    def part(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + bytes(range(width)) for _ in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")


def descent(rate: float, seed: int, steps: int = 40) -> list[tuple[float, float]]:
    """Loss and accuracy of logistic regression on two noisy clouds, by stochastic gradient descent, step by step."""
    import numpy as np

    noise = np.random.default_rng(seed)
    labels = noise.integers(0, 2, 400)
    points = noise.normal(0, 1.4, (400, 8)) + labels[:, None]
    weights, found = np.zeros(8), []
    for _ in range(steps):
        picked = noise.integers(0, 400, 32)
        guess = 1 / (1 + np.exp(-points[picked] @ weights))
        weights -= rate * points[picked].T @ (guess - labels[picked]) / 32
        whole = 1 / (1 + np.exp(-points @ weights))
        loss = -np.mean(np.where(labels == 1, np.log(whole + 1e-9), np.log(1 - whole + 1e-9)))
        found.append((float(loss), float(np.mean((whole > 0.5) == labels))))
    return found


class Site:
    """A server with a hundred trainings, a run with thousands of keys, and one that has not ended."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.client = client_of(server)
        self.experiment = str(self.mlflow("experiments/create", name="clouds")["experiment_id"])
        self.wide = str(self.mlflow("experiments/create", name="wide")["experiment_id"])
        self.run_ids = [self.train(n) for n in range(100)]
        for child in self.run_ids[1:4]:
            self.mlflow("runs/set-tag", run_id=child, key="mlflow.parentRunId", value=self.run_ids[0])
        self.full = self.run_ids[7]
        self.files(self.full)
        self.widest()

    def mlflow(self, path: str, **body: Any) -> Any:
        return self.client.post(f"/api/2.0/mlflow/{path}", body)

    def start(self, name: str, experiment: str, at: int) -> str:
        made = self.mlflow("runs/create", experiment_id=experiment, run_name=name, start_time=at)
        return str(made["run"]["info"]["run_id"])

    def train(self, number: int) -> str:
        start = 1_764_000_000_000 + number * 60_000
        run_id = self.start(f"sgd-{number:03}", self.experiment, start)
        rate = (0.01, 0.05, 0.2, 0.8)[number % 4]
        metrics = [
            {"key": key, "value": value, "step": step, "timestamp": start + 100 * step}
            for step, pair in enumerate(descent(rate, number // 4))
            for key, value in zip(("val/loss", "val/accuracy"), pair, strict=True)
        ]
        metrics.append({"key": "rows", "value": 400.0, "step": 0, "timestamp": start})
        texts = {
            "rate": str(rate),
            "seed": str(number // 4),
            "query": f"select *\nfrom clouds\nlimit {400 + number % 2}",
        }
        params = [{"key": key, "value": value} for key, value in texts.items()]
        self.mlflow("runs/log-batch", run_id=run_id, metrics=metrics, params=params, tags=[])
        self.mlflow("runs/update", run_id=run_id, status="FINISHED", end_time=start + 4_000)
        return run_id

    def put(self, run_id: str, path: str, content: bytes) -> None:
        self.client.send_bytes("PUT", f"/api/runs/{run_id}/artifacts/{path}", content)

    def files(self, run_id: str) -> None:
        self.put(run_id, "plots/roc.png", png(60, 40))
        for step in (0, 10):
            name = f"images/weights%25step%25{step}{END}"
            self.put(run_id, name, png(20, 20))
        self.put(run_id, "table.csv", b"id,label\n1,cat\n2,dog\n")
        self.put(run_id, "report.html", HOSTILE)
        self.put(run_id, "drawing.svg", DRAWING)
        self.put(run_id, "config.yaml", b"model:\n  layers: 2\n")
        self.put(run_id, "logs/train.log", b"epoch 1\n")

    def widest(self) -> None:
        run_id = self.start("wide", self.wide, 1_764_000_000_000)
        for part in range(12):
            metrics = [
                {"key": f"layer{part:02}/unit{n:03}", "value": n / 7, "step": 0, "timestamp": 1} for n in range(1_000)
            ]
            self.mlflow("runs/log-batch", run_id=run_id, metrics=metrics, params=[], tags=[])
        self.mlflow("runs/update", run_id=run_id, status="FINISHED", end_time=1_764_000_009_000)

    def log(self, run_id: str, step: int, value: float) -> None:
        self.mlflow("runs/log-metric", run_id=run_id, key="loss", value=value, step=step, timestamp=1_764_000_000_000)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_server(tmp_path_factory.mktemp("runs") / "home") as server:
        yield Site(server)


def names(browser: Browser) -> list[str]:
    return browser.texts("#results tbody tr:not([hidden]) a.name")


def address(browser: Browser, path: str = "", **query: str) -> str:
    pairs = "".join(f"&{key}={value}" for key, value in query.items())
    return f"/runs?experiment={browser.site.experiment}{pairs}{path}"


def drawn(browser: Browser, canvas: str) -> int:
    """How many pixels of a canvas are not empty."""
    browser.find(canvas)
    count = (
        f"const canvas = document.querySelector({canvas!r}); if (!canvas.width) return 0;"
        "const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;"
        "let drawn = 0; for (let i = 3; i < pixels.length; i += 4) if (pixels[i]) drawn += 1; return drawn;"
    )
    return int(browser.script(count))


def point_at(browser: Browser, css: str, across: float, down: float, kind: str = "pointermove") -> None:
    """Move or press the pointer at a place of an element, given in shares of its size."""
    browser.script(
        f"const box = document.querySelector({css!r}).getBoundingClientRect();"
        f"const at = {{bubbles: true, pointerId: 1, button: 0, clientX: box.left + box.width * {across},"
        f" clientY: box.top + box.height * {down}}};"
        f"const held = document.querySelector({css!r}); held.setPointerCapture = () => {{}};"
        f"held.dispatchEvent(new PointerEvent({kind!r}, at));"
    )


def set_range(browser: Browser, css: str, value: str) -> None:
    browser.script(
        f"const field = document.querySelector({css!r}); field.value = {value!r};"
        "field.dispatchEvent(new Event('input', {bubbles: true}));"
    )


# --- the table --------------------------------------------------------------------------------------------------------


def test_runs_are_found_while_one_types_and_the_address_keeps_it(browser: Browser) -> None:
    browser.open(address(browser))
    assert len(names(browser)) == 50
    assert "100 runs" in browser.find(".summary").text
    browser.find("#text").send_keys("sgd-09")
    wait_until(lambda: len(names(browser)) == 10, "ten runs are left")
    browser.find("#filter").send_keys("metrics.`val/accuracy` > 0.1 and params.rate = '0.8'")
    wait_until(lambda: len(names(browser)) == 3, "three runs are left")
    assert "text=sgd-09" in browser.path
    assert "order=" not in browser.path, "what is empty is not in the address"
    browser.driver.refresh()
    assert len(names(browser)) == 3
    assert browser.find("#text").get_attribute("value") == "sgd-09"


def test_a_filter_in_the_making_is_explained_and_the_runs_stay(browser: Browser) -> None:
    browser.open(address(browser))
    browser.find("#filter").send_keys("metrics.rows >>> 1")
    browser.wait_for_text("#problem", ">>>")
    assert len(names(browser)) == 50
    assert browser.find("#filter").get_attribute("aria-invalid") == "true"
    for _ in range(4):
        browser.find("#filter").send_keys(Keys.BACKSPACE)
    browser.find("#filter").send_keys(" 1")
    wait_until(lambda: browser.find("#problem").text == "", "the complaint is gone")
    assert len(names(browser)) == 50


def test_a_head_orders_and_turns_the_order_round(browser: Browser) -> None:
    browser.open(address(browser))
    browser.click_link("val/loss")
    wait_until(lambda: browser.all("th[aria-sort=descending]"), "the order shows")
    greatest = names(browser)[0]
    browser.click_link("val/loss")
    wait_until(lambda: browser.all("th[aria-sort=ascending]"), "the order has turned")
    assert names(browser)[0] != greatest
    browser.driver.back()
    wait_until(lambda: names(browser)[:1] == [greatest], "the way back leads to the order before")


def test_pages_follow_each_other(browser: Browser) -> None:
    browser.open(address(browser, order="attributes.run_name+ASC", size="25"))
    assert names(browser)[0] == "sgd-000"
    browser.click_link("Next")
    wait_until(lambda: names(browser)[:1] == ["sgd-025"], "the second page is there")
    assert "26 to 50 of 100" in browser.find(".more").text
    browser.click_link("Previous")
    wait_until(lambda: names(browser)[:1] == ["sgd-000"], "the first page is there")


def test_columns_are_found_among_thousands_chosen_and_moved(browser: Browser) -> None:
    browser.open(f"/runs?experiment={browser.site.wide}")
    browser.click("[data-menu-of=columns] summary")
    browser.find("#find-key").send_keys("layer11/unit99")
    wait_until(lambda: len(browser.all("#more-keys label")) == 10, "ten keys are left")
    browser.click("#more-keys input[value='metrics.layer11/unit997']")
    wait_until(lambda: "layer11/unit997" in browser.texts("thead th"), "the column has come")
    browser.script("document.querySelector('.shown label:last-child [data-move=up]').click()")
    wait_until(lambda: browser.texts("thead th")[-2:-1] == ["layer11/unit997"], "it has moved to the left")
    assert "column=metrics.layer11" in browser.path
    browser.driver.refresh()
    assert browser.texts("thead th")[-2] == "layer11/unit997"
    assert browser.find("tbody td:nth-last-child(2)").text == "142.4"


def test_no_columns_at_all_can_be_chosen(browser: Browser) -> None:
    browser.open(address(browser) + "&column=params.rate")
    browser.click("[data-menu-of=columns] summary")
    browser.click(".shown input[value='params.rate']")
    wait_until(lambda: "rate" not in browser.texts("thead th"), "the column has gone")
    assert "column=none" in browser.path


def test_runs_are_grouped_with_the_spread_of_their_metrics(browser: Browser) -> None:
    browser.open(address(browser))
    browser.click("[data-menu-of=group] summary")
    browser.find("#find-group").send_keys("rat")
    wait_until(lambda: browser.texts("#more-groups .key") == ["rate"], "the key is found")
    browser.click("[data-group='params.rate']")
    browser.click("h1")
    wait_until(lambda: browser.all("tr.group"), "the groups are there")
    assert len(browser.all("tr.group")) == 4
    assert browser.all("tr.group")[0].text.count(" to ") == 2, "least and greatest of two metrics that vary"
    browser.click("tr.group .twist")
    wait_until(lambda: len(browser.all("tr.nested[data-run]")) == 25, "the runs of the group are there")
    assert "open=" in browser.path
    browser.click_link("25 runs")
    wait_until(lambda: len(names(browser)) == 25, "only these runs are left")
    assert "filter=params.rate" in browser.path


def test_child_runs_lie_below_their_parent(browser: Browser) -> None:
    browser.open(address(browser, text="sgd-00", order="attributes.run_name+ASC"))
    browser.click_link("Nested")
    wait_until(lambda: len(names(browser)) == 7, "children have gone from the first level")
    browser.click(".twist[aria-expanded=false]")
    wait_until(
        lambda: names(browser)[:4] == ["sgd-000", "sgd-003", "sgd-002", "sgd-001"] or len(names(browser)) == 10, "open"
    )
    assert len(browser.all("tr.nested")) == 3


def test_runs_are_archived_together_and_brought_back(browser: Browser) -> None:
    browser.open(address(browser, order="attributes.run_name+ASC"))
    boxes = browser.all("input[data-choose]")
    boxes[10].click()
    browser.script(
        "document.querySelectorAll('input[data-choose]')[12].dispatchEvent("
        "new MouseEvent('click', {bubbles: true, shiftKey: true, cancelable: true}))"
    )
    browser.wait_for_text("[data-chosen-count]", "3 chosen")
    browser.click(".chosen-bar [data-act] button")
    browser.wait_for_text(".toast", "3 runs archived")
    browser.wait_for_text(".summary", "97 runs")
    assert "sgd-011" not in names(browser)
    browser.click(".toast form button")
    browser.wait_for_text(".toast", "3 runs restored")
    browser.wait_for_text(".summary", "100 runs")
    assert "sgd-011" in names(browser)


def test_runs_are_tagged_together(browser: Browser) -> None:
    browser.open(address(browser, text="sgd-02"))
    browser.click("[data-choose-all]")
    browser.click("[data-open=tag-runs]")
    browser.find("#tag-key").send_keys("reviewed")
    browser.find("#tag-value").send_keys("yes")
    browser.click("#tag-runs button[type=submit]")
    browser.wait_for_text(".toast", "10 runs tagged reviewed")
    browser.open(address(browser, filter="tags.reviewed+%3D+%27yes%27"))
    assert len(names(browser)) == 10


# --- plots ------------------------------------------------------------------------------------------------------------


def test_hundreds_of_runs_are_drawn_and_linked_with_the_list(browser: Browser) -> None:
    browser.open(address(browser, view="charts", drawn="250"))
    chart = "[data-metric='val/loss'] run-chart"
    wait_until(lambda: drawn(browser, f"{chart} canvas") > 2_000, "the lines are drawn")
    assert len(browser.all(".run-list li")) == 100
    point_at(browser, chart, 0.5, 0.6)
    wait_until(lambda: browser.all(".run-list li.marked"), "the list follows the chart")
    wait_until(
        lambda: drawn(browser, "[data-metric='val/accuracy'] run-chart canvas:nth-child(2)") > 50, "so does the other"
    )
    row = browser.all(".run-list li")[5]
    browser.script("arguments[0].dispatchEvent(new PointerEvent('pointerover', {bubbles: true}))", row)
    assert row.get_attribute("class") == "marked"
    assert drawn(browser, f"{chart} canvas:nth-child(2)") > 50


def test_how_charts_are_drawn_stands_in_the_address(browser: Browser) -> None:
    browser.open(address(browser, view="charts", drawn="20"))
    canvas = "[data-metric='val/loss'] run-chart canvas"
    wait_until(lambda: drawn(browser, canvas) > 500, "the lines are drawn")
    look = f"return document.querySelector({canvas!r}).toDataURL()"
    plain = browser.script(look)
    set_range(browser, "[data-setting=smooth]", "0.9")
    wait_until(lambda: browser.script(look) != plain, "the lines are smoother")
    smooth = browser.script(look)
    browser.click("[data-setting=log]")
    wait_until(lambda: browser.script(look) != smooth, "the scale has changed")
    assert "smooth=0.9" in browser.path
    assert "log=1" in browser.path
    browser.driver.refresh()
    wait_until(lambda: drawn(browser, canvas) > 500, "the lines are drawn again")
    assert browser.find("[data-setting=smooth]").get_attribute("value") == "0.9"
    browser.script(
        "const field = document.querySelector('[data-setting=x]'); field.value = 'wall';"
        "field.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    wait_until(lambda: "x=wall" in browser.path, "so does the axis")
    browser.click("[data-hide]")
    wait_until(lambda: "hide=" in browser.path, "and which runs are hidden")


def test_a_part_of_a_chart_is_enlarged_in_all(browser: Browser) -> None:
    browser.open(address(browser, view="charts", drawn="20"))
    chart = "[data-metric='val/loss'] run-chart"
    other = "[data-metric='val/accuracy'] run-chart canvas"
    wait_until(lambda: drawn(browser, f"{chart} canvas") > 500 and drawn(browser, other) > 500, "the lines are drawn")
    before = browser.script(f"return document.querySelector({other!r}).toDataURL()")
    point_at(browser, chart, 0.3, 0.5, "pointerdown")
    point_at(browser, chart, 0.6, 0.5, "pointerup")
    wait_until(lambda: browser.script(f"return document.querySelector({other!r}).toDataURL()") != before, "zoomed")


def test_groups_are_drawn_as_their_mean_and_range(browser: Browser) -> None:
    browser.open(address(browser, view="charts", drawn="100", group="params.rate"))
    chart = "[data-metric='val/loss'] run-chart"
    wait_until(lambda: drawn(browser, f"{chart} canvas") > 2_000, "the lines are drawn")
    count = f"return document.querySelector({chart!r}).lines.length"
    assert browser.script(count) == 100
    browser.click("[data-setting=mean]")
    wait_until(lambda: browser.script(count) == 4, "a line a group is drawn")
    assert "mean=1" in browser.path
    last = browser.script(
        f"const line = document.querySelector({chart!r}).lines.find((one) => one.name.endsWith('0.8'));"
        "return [line.low.at(-1), line.ys.at(-1), line.high.at(-1), line.xs.length]"
    )
    ends = [descent(0.8, seed)[-1][0] for seed in range(25)]
    assert last == pytest.approx([min(ends), sum(ends) / 25, max(ends), 40], rel=1e-5)
    point_at(browser, chart, 0.5, 0.5)
    wait_until(lambda: len(browser.all(".run-list li.marked")) == 25, "the list shows the runs of the group")


def test_metrics_to_draw_are_found_by_name(browser: Browser) -> None:
    browser.open(f"/runs?experiment={browser.site.wide}&view=charts")
    assert "not drawn" in browser.find("chart-board").text
    browser.find("[data-metric-find]").send_keys("layer11/unit99")
    wait_until(lambda: len(browser.all("figure[data-metric]")) == 10, "ten metrics are left")
    assert browser.script("return document.activeElement.matches('[data-metric-find]')")
    assert "metric=layer11" in browser.path
    wait_until(lambda: drawn(browser, "run-chart canvas") > 100, "a value logged once is a bar")


def test_a_range_is_kept_on_parallel_axes(browser: Browser) -> None:
    browser.open(address(browser, view="parallel"))
    wait_until(lambda: drawn(browser, "parallel-plot canvas") > 2_000, "the lines are drawn")
    assert len(names(browser)) == 100
    grip = ".axis-grip"
    point_at(browser, grip, 0.5, 0.02, "pointerdown")
    browser.script(
        "const box = document.querySelector('.axis-grip').getBoundingClientRect();"
        "window.dispatchEvent(new PointerEvent('pointerup', {clientX: box.left, clientY: box.top + box.height * 0.4}))"
    )
    wait_until(lambda: 0 < len(names(browser)) < 100, "the table shows what is kept")
    kept = len(names(browser))
    assert f"{kept} of 100 runs kept" in browser.find("[data-kept]").text
    browser.driver.refresh()
    wait_until(lambda: len(names(browser)) == kept, "the address keeps the range")


def test_a_point_of_the_scatter_plot_is_a_run(browser: Browser) -> None:
    browser.open(address(browser, view="scatter"))
    wait_until(lambda: drawn(browser, "scatter-plot canvas") > 500, "the points are drawn")
    browser.find("scatter-plot .canvas").send_keys(Keys.ARROW_RIGHT)
    wait_until(lambda: browser.find("scatter-plot .tip").is_displayed(), "the run is named")
    assert browser.find("scatter-plot .tip strong").text in browser.texts("tr.marked a.name")


# --- comparison -------------------------------------------------------------------------------------------------------


def test_chosen_runs_are_compared_by_what_differs(browser: Browser) -> None:
    browser.open(address(browser, order="attributes.run_name+ASC"))
    boxes = browser.all("input[data-choose]")
    boxes[0].click()
    compare = browser.find("[data-compare]")
    assert compare.get_attribute("aria-disabled") == "true"
    boxes[1].click()
    compare.click()
    wait_until(lambda: browser.path.startswith("/compare?runs="), "the comparison is open")
    assert browser.title == "Compare 2 runs"
    rows = browser.texts("tbody th")
    assert "rate" in rows
    assert "seed" not in rows, "it is equal in both"
    assert "+limit 401" in browser.texts(".diff li"), "long texts are shown as a difference"
    wait_until(lambda: drawn(browser, "run-chart canvas") > 300, "the charts are drawn")
    browser.click_link("Show what is equal too")
    wait_until(lambda: "seed" in browser.texts("tbody th"), "all is shown")


# --- one run ----------------------------------------------------------------------------------------------------------


def test_a_run_moves_while_it_goes_on(browser: Browser) -> None:
    site = browser.site
    run_id = site.start("live", site.experiment, 1_764_100_000_000)
    for step in range(5):
        site.log(run_id, step, 1.0 - step / 10)
    browser.open(f"/runs/{run_id}")
    assert "running" in browser.find(".meta").text
    assert browser.find("[data-latest=loss]").text == "0.6000"
    site.log(run_id, 5, 0.25)
    browser.wait_for_text("[data-latest=loss]", "0.2500")
    browser.open(f"/runs/{run_id}?tab=charts")
    wait_until(lambda: "0.25" in browser.texts(".chart .now"), "the chart has its last value")
    site.log(run_id, 6, 0.125)
    wait_until(lambda: "0.125" in browser.texts(".chart .now"), "the chart has moved")
    site.mlflow("runs/update", run_id=run_id, status="FINISHED", end_time=1_764_100_009_000)
    wait_until(lambda: "finished" in browser.find(".meta").text, "its end shows")
    site.mlflow("runs/delete", run_id=run_id)


def test_a_log_grows_on_the_page(browser: Browser) -> None:
    site = browser.site
    run_id = site.start("logging", site.experiment, 1_764_100_000_000)
    site.put(run_id, "logs/train.log", b"epoch 1\n")
    browser.open(f"/runs/{run_id}?tab=log")
    assert browser.find("pre").text == "epoch 1"
    site.put(run_id, "logs/train.log", b"epoch 1\nepoch 2\n")
    browser.wait_for_text("pre", "epoch 1\nepoch 2")
    site.mlflow("runs/delete", run_id=run_id)


def test_a_run_is_renamed_annotated_and_tagged(browser: Browser) -> None:
    browser.open(f"/runs/{browser.site.run_ids[60]}")
    browser.click("[data-open=rename]")
    field = browser.find("#rename-name")
    field.clear()
    field.send_keys("the good one" + Keys.ENTER)
    browser.wait_for_text("h1", "the good one")
    browser.click(".editor summary")
    browser.find("#note").send_keys("It **works**. <img src=x onerror=alert(1)>")
    browser.click(".editor button")
    browser.wait_for_text(".note-text strong", "works")
    assert browser.all(".note-text img") == []
    browser.find("#new-key").send_keys("team")
    browser.find("#new-value").send_keys("red" + Keys.ENTER)
    browser.wait_for_text(".tag-list .tag", "red")
    browser.click("[aria-label='Remove the tag team']")
    wait_until(lambda: "team" not in browser.find("main").text, "the tag is gone")


def test_a_run_is_archived_and_the_page_offers_to_undo_it(browser: Browser) -> None:
    browser.open(f"/runs/{browser.site.run_ids[61]}")
    browser.script("document.querySelector('.actions form[action$=move] button').click()")
    browser.wait_for_text(".notice", "archived")
    browser.click(".notice button")
    wait_until(lambda: not browser.all(".notice"), "it is back")


# --- files ------------------------------------------------------------------------------------------------------------


def test_files_are_seen_in_place(browser: Browser) -> None:
    run = f"/runs/{browser.site.full}?tab=artifacts"
    browser.open(run)
    wait_until(lambda: browser.script("return document.querySelector('.gallery img').naturalWidth") == 20, "pictures")
    assert browser.texts(".gallery figcaption") == ["step 0", "step 10"]
    browser.open(f"{run}&path=plots/roc.png")
    wait_until(lambda: browser.script("return document.querySelector('img.picture').naturalWidth") == 60, "the image")
    browser.open(f"{run}&path=table.csv")
    assert browser.texts("tbody td") == ["1", "cat", "2", "dog"]
    browser.open(f"{run}&path=config.yaml")
    assert browser.texts(".code li") == ["model:", "  layers: 2"]


def test_a_page_that_a_run_wrote_reaches_nothing(browser: Browser) -> None:
    browser.open(f"/runs/{browser.site.full}?tab=artifacts&path=report.html")
    browser.driver.switch_to.frame(browser.find("iframe"))
    browser.wait_for_text("#said", "fetch:")
    assert browser.find("#said").text == "cookie:refused storage:refused parent:refused fetch:refused"
    browser.driver.switch_to.default_content()
    # Also when it is opened by itself: the answer carries its own sandbox.
    browser.open(f"/runs/{browser.site.full}/artifacts/report.html?show=1")
    browser.wait_for_text("#said", "fetch:")
    assert "cookie:refused" in browser.find("#said").text
    assert "fetch:refused" in browser.find("#said").text
    browser.open(f"/runs/{browser.site.full}/artifacts/drawing.svg?show=1")
    assert browser.script("return document.documentElement.id") == "", "a drawing opened by itself runs no script"
    refused = browser.complaints()
    assert refused, "the browser says what it refused"
    assert all("Content Security Policy" in one or "sandbox" in one for one in refused), refused


def test_files_are_served_by_range_and_never_as_something_else(site: Site) -> None:
    with raw_client(site.server, site.server.token) as http:
        base = f"/runs/{site.full}/artifacts"
        part = http.get(f"{base}/config.yaml?show=1", headers={"Range": "bytes=2-4"})
        assert (part.status_code, part.content) == (206, b"del")
        assert part.headers["content-range"] == "bytes 2-4/19"
        assert part.headers["content-type"] == "application/octet-stream"
        assert part.headers["content-disposition"].startswith("attachment")
        assert http.get(f"{base}/config.yaml", headers={"Range": "bytes=99-"}).status_code == 400
        page = http.get(f"{base}/report.html")
        assert page.headers["content-disposition"].startswith("attachment")
        shown = http.get(f"{base}/report.html?show=1")
        assert shown.headers["content-type"].startswith("text/html")
        assert shown.headers.get_list("content-security-policy") == [shown.headers["content-security-policy"]]
        assert "sandbox allow-scripts;" in shown.headers["content-security-policy"]
        assert "allow-same-origin" not in shown.headers["content-security-policy"]
        for climbing in ("../../token", "%2e%2e/%2e%2e/token"):
            assert http.get(f"{base}/{climbing}").status_code in (400, 404)


# --- what holds on all of them ----------------------------------------------------------------------------------------


def pages(site: Site) -> list[str]:
    listed = f"/runs?experiment={site.experiment}"
    run = f"/runs/{site.full}"
    return [
        "/experiments",
        "/runs",
        listed,
        f"{listed}&group=params.rate",
        f"{listed}&nest=1",
        f"{listed}&view=charts",
        f"{listed}&view=parallel",
        f"{listed}&view=scatter",
        f"{listed}&archived=1",
        f"/runs?experiment={site.wide}",
        run,
        *(f"{run}?tab={tab}" for tab in ("charts", "log", "artifacts", "origin")),
        f"{run}?tab=artifacts&path=table.csv",
        f"/compare?runs={','.join(site.run_ids[:5])}",
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
            reply = http.get(f"{bare}.json{question}{query}")
            assert reply.status_code == 200, path
            assert msgspec.json.decode(reply.content)["frame"]["title"]


def test_a_viewer_sees_no_buttons_that_would_be_refused(driver: WebDriver, site: Site) -> None:
    browser = Browser(driver, site)
    browser.sign_in(token_for(site.server, "vera", Role.VIEWER))
    browser.open(f"/runs/{site.full}")
    assert browser.all("form[method=post]") == []
    browser.open(f"/runs?experiment={site.experiment}")
    assert browser.all("[data-act]") == []
    with raw_client(site.server, token_for(site.server, "vera", Role.VIEWER)) as http:
        reply = http.post("/runs/actions", data={"action": "archive", "runs": site.full})
    assert reply.status_code == 403


def test_other_projects_runs_are_not_drawn(site: Site) -> None:
    other = Client(site.server.url, token=site.server.token, project="elsewhere")
    assert other.post("/api/runs/curves", {"runs": [site.full], "keys": ["val/loss"]}) == []
