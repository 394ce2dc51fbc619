"""The pages of datasets in a real browser: contract, consumers, anomalies, quarantine."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pytest

from e2e.browsing import NEEDS_CHROMIUM, Browser
from modelyard.sdk.data import DatasetHandle
from modelyard.server.run import Server
from modelyard.types.contracts import Contract, ContractColumn
from modelyard.types.data import NotNull, Range
from running import client_of, running_server

pytestmark = NEEDS_CHROMIUM


def batch(count: int, first: int = 0) -> pa.Table:
    return pa.table(
        {"id": range(first, first + count), "distance": [float(n % 9) for n in range(count)], "late": [True] * count}
    )


class Site:
    """A server with a dataset that has a contract, consumers, a strange write and a batch in quarantine."""

    def __init__(self, server: Server) -> None:
        self.server = server
        client = client_of(server)
        flights = DatasetHandle("flights", client)
        for day in range(8):
            flights.write(batch(100, day * 100))
        flights.write(batch(4, 900))
        flights.set_contract(
            Contract(
                owner="ops@airline.example",
                columns=[
                    ContractColumn(name="id", type="int64", nullable=False),
                    ContractColumn(name="distance", type="double", description="Great circle, in miles"),
                ],
                max_age_s=26 * 3600,
                checks=[Range(column="distance", min=0), NotNull(column="late", severity="warn")],
            )
        )
        flights.declare_consumer("team:ops", {"distance": "double"}, owner="ben")
        DatasetHandle("by_lateness", client).from_sql("SELECT late, sum(distance) AS d FROM flights GROUP BY late")
        broken = flights.write(batch(3).drop(["late"]), mode="overwrite", replace_schema=True, on_reject="return")
        assert broken.quarantine_id
        self.batch_id = broken.quarantine_id
        DatasetHandle("plain", client).write(batch(5))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_server(tmp_path_factory.mktemp("data") / "home") as server:
        yield Site(server)


def test_the_contract_stands_with_its_present_state_and_who_needs_what(browser: Browser) -> None:
    browser.open("/datasets/flights")
    browser.click_link("Contract")
    assert "keeps its contract" in browser.find(".notice").text
    page = " ".join(browser.find("main").text.split())
    for said in (
        "ops@airline.example",
        "fresh",
        "Great circle, in miles",
        "range(distance)",
        "team ops",
        "by_lateness",
    ):
        assert said in page
    needs = browser.texts("#consumers tbody tr")
    assert any("by_lateness" in row and "distance, late" in row for row in needs), needs


def test_whom_a_dropped_column_would_break_is_said_by_name(browser: Browser) -> None:
    browser.open("/datasets/flights?tab=contract")
    browser.script("document.querySelector('#drop-column').value = 'late'")
    browser.click("#drop button[type=submit]")
    browser.wait_for_text("#drop .notice", "A write without 'late' would be turned down")
    said = browser.find("#drop .notice").text
    assert "by_lateness" in said
    assert "ops" not in said
    browser.open("/datasets/flights?tab=contract&drop=distance")
    said = browser.find("#drop .notice").text
    assert "the dataset's own contract" in said
    assert "by_lateness" in said
    assert "ops" in said


def test_what_was_unusual_stands_with_its_reason_over_the_history_of_volumes(browser: Browser) -> None:
    browser.open("/datasets/flights?tab=anomalies")
    assert "4 rows are unusually few" in browser.find(".notice").text
    assert "volume" in browser.find("tbody").text
    assert "usual" in browser.find(".legend").text
    assert browser.all("line-chart canvas")


def test_what_differs_comes_after_the_page_and_stays_known(browser: Browser) -> None:
    browser.open("/datasets/flights?tab=changes&before=1&after=2")
    assert "Added\n100" in browser.find("#differences .stats").text
    browser.open("/datasets/flights?tab=changes&before=1&after=2")
    assert not browser.all("#differences[hx-get]"), "what was found once is there at once"


def test_a_batch_in_quarantine_says_whom_it_would_break_and_what_to_do(browser: Browser) -> None:
    browser.open(f"/datasets/flights/quarantine/{browser.site.batch_id}")
    page = browser.find("main").text
    assert "dataset:by_lateness would break" in page
    assert f"modelyard dataset quarantine discard flights {browser.site.batch_id}" in page
    assert "--breaking" in page


def test_a_dataset_without_promises_says_how_to_make_one(browser: Browser) -> None:
    browser.open("/datasets/plain?tab=contract")
    assert "modelyard dataset contract set plain" in browser.find("main").text
    browser.open("/datasets/plain?tab=anomalies")
    assert "Nothing unusual so far" in browser.find("main").text


def test_no_part_of_the_page_overflows(browser: Browser) -> None:
    for theme, width in (("light", 1280), ("dark", 390)):
        browser.theme(theme)
        browser.width(width)
        for tab in ("versions", "contract", "checks", "profile", "changes", "anomalies", "quarantine"):
            browser.open(f"/datasets/flights?tab={tab}&drop=late")
            wide = browser.script("return document.documentElement.scrollWidth")
            assert wide <= width, f"{tab} is {wide} wide on {width}"


def test_lineage_of_a_bare_name_is_that_of_its_newest_version_with_the_data_behind_it(browser: Browser) -> None:
    browser.open("/lineage?urn=dataset:flights")
    assert browser.find("#urn").get_attribute("value") == "dataset:flights@9"
    assert "flights @8" in browser.find(".versions").text
    browser.open("/lineage?urn=dataset:by_lateness")
    behind = browser.find("#data tbody").text
    assert "flights @9" in behind
    assert "distance, late" in behind
    browser.click_link("late")
    browser.wait_for_text(".graph", "flights.late @9")
