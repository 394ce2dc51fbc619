"""Every template on realistic content: well-formed, accessible, safe under the content security policy, escaped."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import msgspec
import pytest
from msgspec import structs

from modelyard.kernel.errors import Problem
from modelyard.types import tracking
from modelyard.ui.frame import Frame
from modelyard.ui.previews import Preview
from modelyard.ui.problems import problem_page, wants_page
from modelyard.ui.render import TEMPLATES, render, render_alone
from modelyard.ui.views import columns, home, runs
from modelyard.ui.views.compare import Compare, Compared, DiffLine, Group, TextDiff
from modelyard.ui.views.run import RunPage
from modelyard.ui.views.run_query import Query
from unit.ui import samples
from unit.ui.samples_build import ALL_SCREENS

VOID = {"meta", "link", "input", "br", "hr", "img"}


class Page(HTMLParser):
    """What the tests ask of a page: its elements, in order, with their attributes, and that they nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.in_labels: list[dict[str, str | None]] = []
        self.problems: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        if self._open:
            self.problems.append(f"not closed: {self._open}")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if "label" in self._open:
            self.in_labels.append(self.elements[-1][1])
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open[-1] != tag:
            self.problems.append(f"</{tag}> closes {self._open[-1:]}")
        elif self._open:
            self._open.pop()

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


PAGES = {name: render(template, screen, samples.visit(path)) for name, (path, template, screen) in ALL_SCREENS.items()}
PAGES["signin"] = render_alone("signin.html", title="Sign in", next="/")
PAGES["problem"] = problem_page(Problem(status=404, title="NotFound", detail="no", code="x.y", hint="do")).decode()
every_page = pytest.mark.parametrize("name", sorted(PAGES))


@every_page
def test_elements_nest(name: str) -> None:
    assert Page(PAGES[name]).problems == []


@every_page
def test_nothing_inline_that_the_content_security_policy_forbids(name: str) -> None:
    page = Page(PAGES[name])
    assert all("style" not in attributes for _, attributes in page.elements)
    assert all(not key.startswith("on") for _, attributes in page.elements for key in attributes)
    assert page.all("style") == []
    assert all(attributes.get("src") for attributes in page.all("script"))
    for tag, key in (("script", "src"), ("link", "href"), ("use", "href")):
        assert all((attributes.get(key) or "").startswith("/static/") for attributes in page.all(tag)), tag
    for tag in ("img", "iframe", "audio", "video"):
        assert all(
            (attributes.get("src") or "").startswith(("/runs/", "/datasets/")) for attributes in page.all(tag)
        ), tag
    # What a run wrote may run scripts only where it has no origin.
    assert all(attributes.get("sandbox") == "allow-scripts" for attributes in page.all("iframe"))


@every_page
def test_one_heading_of_the_first_level_and_a_language(name: str) -> None:
    page = Page(PAGES[name])
    assert len(page.all("h1")) == 1
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("main")) == 1


@every_page
def test_ids_are_unique_and_fields_have_labels(name: str) -> None:
    page = Page(PAGES[name])
    ids = [attributes["id"] for _, attributes in page.elements if attributes.get("id")]
    assert len(ids) == len(set(ids))
    labelled = {attributes.get("for") for attributes in page.all("label")}
    for tag in ("input", "select", "textarea"):
        for attributes in page.all(tag):
            named = attributes.get("id") in labelled or attributes.get("aria-label")
            hidden = attributes.get("type") == "hidden"
            in_label = any(attributes is one for one in page.in_labels)
            assert named or hidden or in_label, attributes


@every_page
def test_buttons_and_links_say_what_they_do(name: str) -> None:
    text = PAGES[name]
    for match in re.finditer(r"<(a|button)\b([^>]*)>(.*?)</\1>", text, re.S):
        attributes, content = match.group(2), re.sub(r"<[^>]+>", "", match.group(3)).strip()
        assert content or "aria-label" in attributes, match.group(0)[:200]


@every_page
def test_tables_have_captions_and_scopes(name: str) -> None:
    page = Page(PAGES[name])
    assert all(attributes.get("scope") in ("col", "row") for attributes in page.all("th"))


@every_page
def test_no_value_is_left_unformatted(name: str) -> None:
    visible = re.sub(r'data-(chart|plot)="[^"]*"', "", PAGES[name])
    visible = re.sub(r"<[^>]+>", " ", visible)
    assert not re.search(r"\bNone\b|\bUndefined\b|\{\{|\}\}|datetime\.", visible)
    assert not re.search(r"\d\.\d{7,}", visible), "a number with needless digits"


@pytest.mark.parametrize("name", sorted(ALL_SCREENS))
def test_the_navigation_shows_where_one_is(name: str) -> None:
    page = Page(PAGES[name])
    current = [a for a in page.all("a") if a.get("aria-current") == "page" and a.get("class") == "nav"]
    assert len(current) == 1


@pytest.mark.parametrize("name", sorted(ALL_SCREENS))
def test_a_screen_travels_as_json(name: str) -> None:
    screen = ALL_SCREENS[name][2]
    decoded = msgspec.json.decode(msgspec.json.encode(screen))
    assert decoded["frame"]["title"]
    assert set(decoded) == set(screen.__struct_fields__)


def test_what_people_named_is_escaped() -> None:
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    run = msgspec.structs.replace(samples.run(0), name=evil, params={evil: evil}, tags={evil: evil})
    shown = columns.chosen([f"params.{evil}", f"tags.{evil}", f"metrics.{evil}"], ())
    query = Query(text=evil, filter=evil, order=evil, metric=evil, group=(f"params.{evil}",))
    group = tracking.RunGroup(values=(evil,), runs=1)
    table = runs.Runs(
        frame=Frame(title=evil, section="runs", about=evil, owner=evil),
        query=query,
        rows=(runs.row(run, evil, shown),),
        groups=(runs.GroupRow(group=group, token=evil, filter=evil),),
        columns=shown,
        keys=shown,
        groupable=shown,
    )
    plot = runs.Plot(runs=(runs.dot(run, shown, query.group),), columns=shown)
    drawn = msgspec.structs.replace(
        table, query=msgspec.structs.replace(query, view="charts"), plot=plot, charts=runs.sections(
            [tracking.Key(kind="metric", name=evil, runs=1)]
        )[0],
    )  # fmt: skip
    one = RunPage(
        frame=Frame(title=evil, section="runs"), run=run, tab="overview", duration_s=1.0, note=evil,
        tags=((evil, evil),), parent=run, children=(run,), metrics=(tracking.Metric(key=evil, value=1.0),),
    )  # fmt: skip
    files = msgspec.structs.replace(
        one, tab="artifacts", folder=evil, artifacts=(tracking.Artifact(path=evil, size_bytes=1, digest="0" * 64),),
        shown=Preview(path=evil, kind="table", size_bytes=1, digest=evil, head=(evil,), rows=((evil,),), note=evil),
    )  # fmt: skip
    side = Compare(
        frame=Frame(title=evil, section="runs"), runs=(run, run), plot=plot,
        groups=(Group(name=evil, rows=(Compared(name=evil, values=(evil, None)),), equal=0),),
        diffs=(TextDiff(name=evil, before=evil, after=evil, lines=(DiffLine("added", evil),)),),
    )  # fmt: skip
    for template, screen in (
        ("runs.html", table), ("runs.html", drawn), ("run.html", one), ("run.html", files), ("compare.html", side),
    ):  # fmt: skip
        text = render(template, screen, samples.visit("/runs", ("filter", evil)))
        assert "<script>alert" not in text
        assert "<img" not in text


def test_an_empty_project_says_how_to_fill_it() -> None:
    fresh = home.Home(frame=Frame(title="Home", section="home"), needs=(), tallies=(), events=(), fresh=True)
    assert "modelyard demo" in render("home.html", fresh, samples.visit("/"))


def test_links_carry_the_project() -> None:
    _, template, screen = ALL_SCREENS["runs"]
    text = render(template, screen, samples.visit("/runs", project="team-a"))
    hrefs = [a["href"] or "" for a in Page(text).all("a") if a.get("href")]
    outside = [href for href in hrefs if not href.startswith(("/p/team-a/", "#"))]
    assert outside == []


def test_buttons_that_would_be_refused_are_not_shown() -> None:
    _, template, screen = ALL_SCREENS["version-gates"]
    visit = msgspec.structs.replace(samples.visit("/models/delay/versions/4"), actions=frozenset())
    text = render(template, screen, visit)
    assert 'data-open="' not in text
    assert 'data-open="approve-4"' in PAGES["version-gates"]


def test_every_template_is_rendered_by_some_test() -> None:
    pages = {file.name for file in (TEMPLATES / "pages").glob("*.html")}
    rendered = {template for _, template, _ in ALL_SCREENS.values()} | {"signin.html", "problem.html", "alone.html"}
    assert pages == rendered


def test_errors_are_pages_for_people_only() -> None:
    assert wants_page("text/html,application/xhtml+xml", "/runs/x")
    assert not wants_page("text/html", "/api/runs/x")
    assert not wants_page("text/html", "/runs/x.json")
    assert not wants_page("*/*", "/runs/x")


def test_a_problem_says_what_and_what_to_do() -> None:
    text = problem_page(
        Problem(status=404, title="NotFound", detail="<b>gone</b>", code="run.not_found", hint="list them")
    ).decode()
    assert "&lt;b&gt;gone&lt;/b&gt;" in text
    assert "list them" in text


def test_commands_in_messages_are_set_as_code_and_escaped() -> None:
    text = problem_page(Problem(status=400, title="x", detail="d", code="x.y", hint="use `a < b` <now>")).decode()
    assert "use <code>a &lt; b</code> &lt;now&gt;" in text
    odd = problem_page(Problem(status=400, title="x", detail="d", code="x.y", hint="a ` alone <b>")).decode()
    assert "a ` alone &lt;b&gt;" in odd


def test_ids_in_messages_are_shortened_but_not_in_commands() -> None:
    text = problem_page(
        Problem(
            status=404, title="x", detail=f"run:{samples.JOB_ID} is gone", code="x.y", hint=f"`get {samples.JOB_ID}`"
        )
    ).decode()
    assert "run:e5f60ab1 is gone" in text
    assert f"<code>get {samples.JOB_ID}</code>" in text


def test_rows_are_compared_after_the_page_is_there() -> None:
    screen = structs.replace(samples.dataset_screen("changes"), changes=None, comparing=True, after="a&b")
    text = render("dataset.html", screen, samples.visit("/datasets/flights"))
    page = Page(text)
    assert page.problems == []
    [wanted] = [one for one in page.all("div") if one.get("id") == "differences"]
    address = "/datasets/flights?tab=changes&compare=true&before=5&after=a%26b"
    assert str(wanted["hx-get"]).endswith(address)
    assert any(str(link["href"]).endswith(address) for link in page.all("a")), "without a script too"
    said = structs.replace(screen, comparing=False, incomparable="the key names <several> rows")
    assert "names &lt;several&gt; rows" in render("dataset.html", said, samples.visit("/datasets/flights"))
