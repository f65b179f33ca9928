"""The HTML report in a real browser."""

import json
from base64 import b64decode
from dataclasses import replace
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from oracles import SITES
from verify.checks.scan import command
from verify.cli.command_line import main
from verify.report.report import GridSection, Related, TableSection

KEPT_PICTURE = Path(__file__).parents[2] / "docs" / "images" / "report.png"
PICTURE_WIDTH = 1200
PICTURE_TOP = 104  # pixels: the filters stand above the grid

pytestmark = [pytest.mark.browser]


def shown(chrome, selector):
    return [
        element
        for element in chrome.find_elements(By.CSS_SELECTOR, selector)
        if element.is_displayed()
    ]


def choose(chrome, label, value):
    for element in chrome.find_elements(By.CSS_SELECTOR, ".filters label"):
        if element.find_element(By.TAG_NAME, "span").text == label:
            Select(element.find_element(By.TAG_NAME, "select")).select_by_visible_text(value)
            return
    raise AssertionError(f"no filter {label}")


def requests_of(chrome):
    entries = (json.loads(entry["message"])["message"] for entry in chrome.get_log("performance"))
    return [
        entry["params"]["request"]["url"]
        for entry in entries
        if entry["method"] == "Network.requestWillBeSent"
    ]


def test_loads_without_a_word_on_the_console_and_from_nowhere_else(show, sample_report):
    chrome = show(sample_report)
    assert chrome.get_log("browser") == []
    assert {url.partition(":")[0] for url in requests_of(chrome)} <= {"file", "data"}
    assert chrome.title == sample_report.title


def test_a_broken_script_would_be_on_the_console(show, sample_report):
    chrome = show(sample_report, edit=lambda text: text.replace('"use strict";', "not strict;"))
    assert chrome.get_log("browser") != []


def test_every_site_is_drawn_with_a_shape_a_state(show, sample_report):
    chrome = show(sample_report)
    grid = next(s for s in sample_report.sections if isinstance(s, GridSection))
    for line, drawn in zip(grid.lines, shown(chrome, "details.line"), strict=True):
        uses = drawn.find_elements(By.CSS_SELECTOR, "summary .cells use")
        assert [use.get_attribute("href") for use in uses] == [f"#{cell}" for cell in line.cells]
    outlines = {
        chrome.execute_script("return document.getElementById(arguments[0]).innerHTML", cell)
        for cell in ("skip", "reduce", "expected", "unexpected", "unreachable")
    }
    assert len(outlines) == 5


@pytest.mark.parametrize(
    ("label", "value", "shows"),
    [
        ("model", "cedar", ["cedar", "lost-sum", "missing-skip"]),
        ("model", "birch", ["birch", "lost-sum"]),
        ("category", "A", ["amber", "cedar", "lost-sum", "missing-skip"]),
        ("verdict", "unexpected diff", ["cedar", "lost-sum", "missing-skip"]),
        ("rule", "lost-sum", ["amber", "birch", "cedar", "lost-sum"]),
    ],
)
def test_filters_hide_what_has_another_value(show, sample_report, label, value, shows):
    chrome = show(sample_report)
    choose(chrome, label, value)
    sites = [element.text.partition("/")[0] for element in shown(chrome, "details.line .name")]
    findings = [element.text for element in shown(chrome, ".findings .rule")]
    assert sites + sorted(findings) == shows
    status = chrome.find_element(By.CSS_SELECTOR, "[role=status]").text
    assert status == f"{len(shows)} of 5 shown"


def many_places(sample_report):
    """A report of one cause at thirty places, and of a section that is folded away."""
    found = tuple(
        replace(
            sample_report.findings[1],
            file=f"sglang/srt/models/m{n}.py",
            line=n + 1,
            takes=("x > 1",),
            reach="option",
            related=(Related(file=f"sglang/srt/models/m{n}.py", line=40, what="hands it over"),),
        )
        for n in range(30)
    )
    rows = tuple((f"models/m{n}.py:1", "covered") for n in range(30))
    table = TableSection(title="Sites", columns=("site", "verdict"), rows=rows, more=True)
    code = {"sglang/srt/models/m0.py": {1: "x = f(x)", 2: "", 40: "    return g(x)"}}
    web = "https://example.org/blob/v1/"
    return replace(sample_report, sections=(table,), findings=found, code=code, web=web)


def test_causes_come_first_and_their_places_are_folded_away(show, sample_report):
    chrome = show(many_places(sample_report))
    assert chrome.get_log("browser") == []
    assert len(shown(chrome, ".cause")) == 1
    assert shown(chrome, ".places li, table tbody td.place") == []
    assert [one.text for one in shown(chrome, ".code-view .here code")] == [
        "x = f(x)",
        "return g(x)",
    ]
    link = chrome.find_element(By.CSS_SELECTOR, ".code-view a").get_attribute("href")
    assert link == "https://example.org/blob/v1/sglang/srt/models/m0.py#L1"


def test_a_launch_of_which_no_place_is_left_is_hidden(show, sample_report):
    report = many_places(sample_report)
    first, *rest = report.findings
    other = replace(first, launch=("--tp-size", "2", "--x"))
    chrome = show(replace(report, findings=(other, *rest)))
    choose(chrome, "model", "m7")
    (left,) = shown(chrome, ".exposure")
    assert "29 of 30 places" in left.text


def test_the_address_keeps_the_filter_and_finds_a_finding(show, sample_report):
    chrome = show(many_places(sample_report))
    page = chrome.current_url
    choose(chrome, "model", "m7")
    address = chrome.current_url
    assert address == f"{page}#?model=m7"
    assert [one.text.split()[0] for one in shown(chrome, ".places li .where")] == [
        "sglang/srt/models/m7.py:8"
    ]
    chrome.get("about:blank")
    chrome.get(address)
    status = chrome.find_element(By.CSS_SELECTOR, "[role=status]").text
    assert status == "2 of 60 shown"
    anchor = chrome.execute_script("return document.querySelectorAll('.places li')[3].id")
    chrome.get("about:blank")
    chrome.get(f"{page}#{anchor}")
    (target,) = shown(chrome, ".places li:target")
    assert "m3.py:4" in target.text


def test_the_totals_lead_to_the_causes(show, sample_report):
    chrome = show(sample_report)
    links = chrome.find_elements(By.CSS_SELECTOR, ".contents a")
    ids = [link.get_attribute("href").partition("#")[2] for link in links]
    assert ids == [
        one.get_attribute("id") for one in chrome.find_elements(By.CSS_SELECTOR, ".cause")
    ]


def test_text_filter_says_where_nothing_is_left_and_reset_brings_all_back(show, sample_report):
    chrome = show(sample_report)
    status = chrome.find_element(By.CSS_SELECTOR, "[role=status]")
    assert status.text == "5 shown"
    chrome.find_element(By.CSS_SELECTOR, "input[type=search]").send_keys("no such name")
    assert shown(chrome, ".item") == []
    assert len(shown(chrome, ".none")) == 2
    chrome.find_element(By.CSS_SELECTOR, "button[type=reset]").click()
    assert len(shown(chrome, ".item")) == 5
    assert shown(chrome, ".none") == []
    assert status.text == "5 shown"


def test_keyboard_opens_a_site_to_its_guard_and_findings(show, sample_report):
    chrome = show(sample_report)
    summary = chrome.find_elements(By.CSS_SELECTOR, "details.line > summary")[2]
    chrome.execute_script("arguments[0].focus()", summary)
    assert chrome.execute_script("return document.activeElement.matches(':focus-visible')")
    summary.send_keys(Keys.ENTER)
    text = chrome.find_element(By.CSS_SELECTOR, "details[open] .detail").text
    assert "not (AF or RS)" in text
    assert "sglang/srt/models/cedar.py:213" in text


def test_a_screen_reader_hears_the_truth_table(show, sample_report):
    tree = accessibility(show(sample_report))
    summaries = [name for role, name in tree if role == "DisclosureTriangle"]
    assert any(
        "cedar/CedarBlock.forward/EP: skips in 0001 0100" in name
        and "differs unexpectedly in 0010" in name
        for name in summaries
    )
    assert ("heading", "2 causes, 2 findings") in tree
    assert ("search", "Filter sites and findings") in tree
    assert [name for role, name in tree if role == "columnheader"][-4:] == [
        f"rank {rank}" for rank in range(4)
    ]
    unnamed = {role for role, name in tree if not name and role in NAMED_ROLES}
    assert unnamed == set()


NAMED_ROLES = ("button", "combobox", "DisclosureTriangle", "heading", "link", "searchbox", "region")


def accessibility(chrome):
    nodes = chrome.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    return [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node["ignored"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(show, window, sample_report, scheme):
    window(scheme=scheme)
    chrome = show(sample_report)
    chrome.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    poor = chrome.execute_script(CONTRAST)
    assert poor == []


# every text node against the nearest background that is not transparent, as WCAG 2 counts it
CONTRAST = """
const channel = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
function background(element) {
  for (let e = element; e; e = e.parentElement) {
    const colour = numbers(getComputedStyle(e).backgroundColor);
    if (colour.length === 3 || colour[3] > 0) return colour;
  }
  return [255, 255, 255];
}
const poor = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
  if (element.closest("script, option")) continue;
  const ink = luminance(numbers(getComputedStyle(element).color));
  const paper = luminance(background(element));
  const ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
  if (ratio < 4.5) poor.push(`${walker.currentNode.data.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
}
return poor;
"""


@pytest.mark.parametrize("width", [320, 390, 768, 1280, 1920])
def test_no_sideways_scrolling(show, window, sample_report, width):
    window(width=width)
    chrome = show(sample_report)
    chrome.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    assert chrome.execute_script("return document.documentElement.scrollWidth") <= width


@pytest.fixture(scope="module")
def release(tmp_path_factory, released):
    """A whole release's page, as the command writes it."""
    page = tmp_path_factory.mktemp("release") / "release.html"
    words = ("scan", "sglang==0.5.23", "-q", "--format", "html", "--output", str(page))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "scan", lambda tree: released(f"sglang=={tree.version}"))
        assert main([*words, "--fail-on", "never"]) == 0
    return page


@pytest.mark.network
@pytest.mark.parametrize(("width", "height"), [(1280, 10_000), (400, 20_000)])
def test_a_whole_release_is_short_before_anything_is_opened(
    browser, window, release, width, height
):
    window(width=width)
    browser.get(release.as_uri())
    size = "return [document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
    wide, high = browser.execute_script(size)
    assert (wide <= width, high <= height) == (True, True), (wide, high)
    link = browser.find_element(By.CSS_SELECTOR, "a[href*='/blob/v0.5.23/']")
    assert "#L" in link.get_attribute("href")


@pytest.mark.network
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_a_whole_release_can_be_read_with_each_place_opened(
    browser, window, release, width, scheme
):
    window(width=width, scheme=scheme)
    browser.get(release.as_uri())
    browser.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script(CONTRAST) == []
    # nobody has to move sideways what says which cause, or how often on which of four ranks
    assert browser.execute_script(CUT) == []


CUT = """
return [...document.querySelectorAll('.contents, .ranks')]
  .filter((table) => table.checkVisibility())
  .filter((table) => table.scrollWidth > table.parentElement.clientWidth + 1)
  .filter((table) => table.querySelectorAll('thead th').length <= 5)
  .map((table) => table.textContent.trim().slice(0, 40));
"""


def test_dark_and_light_differ(show, window, sample_report):
    colours = set()
    for scheme in ("light", "dark"):
        window(scheme=scheme)
        chrome = show(sample_report)
        body = chrome.find_element(By.TAG_NAME, "body")
        colours.add(body.value_of_css_property("background-color"))
    assert len(colours) == 2


def test_print_shows_what_is_open_and_no_controls(show, window, sample_report):
    chrome = show(sample_report)
    chrome.find_element(By.CSS_SELECTOR, "details.line > summary").click()
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert shown(chrome, ".filters, nav, .skip-link") == []
    assert len(shown(chrome, "details.line")) == 3
    assert len(shown(chrome, ".detail")) == 1
    printed = chrome.execute_cdp_cmd("Page.printToPDF", {"paperWidth": 8.27, "paperHeight": 11.69})
    assert b64decode(printed["data"]).startswith(b"%PDF")
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_without_findings_or_sections(show, sample_report):
    chrome = show(replace(sample_report, findings=(), sections=()))
    assert chrome.get_log("browser") == []
    assert "no findings" in chrome.find_element(By.TAG_NAME, "header").text


def test_hostile_strings_are_text(show, hostile_report):
    chrome = show(hostile_report)
    assert chrome.get_log("browser") == []
    assert chrome.title == hostile_report.title
    assert chrome.find_elements(By.CSS_SELECTOR, "img, injected, iframe, main script") == []
    select = chrome.find_elements(By.CSS_SELECTOR, ".filters select")[0]
    Select(select).select_by_index(1)
    assert "of" in chrome.find_element(By.CSS_SELECTOR, "[role=status]").text


def test_injected_markup_would_not_run(show, sample_report):
    """The second lock: were the escaping to fail, the policy keeps the script from running."""
    title = "document.title='injected'"
    injected = f'<script>{title}</script><img src=x onerror="{title}">'
    chrome = show(sample_report, edit=lambda text: text.replace("<main", f"{injected}<main"))
    assert chrome.find_elements(By.TAG_NAME, "img")
    assert chrome.title == sample_report.title


def test_a_picture_of_the_real_report(browser, window, tmp_path):
    """The README's picture is this one; after a change of the page, look at it and copy it."""
    page = tmp_path / "report.html"
    assert main(["report", "--format", "html", "--output", str(page), "--quiet"]) == 0
    assert page.stat().st_size < 1_000_000
    window(width=PICTURE_WIDTH, height=400)
    browser.get_log("browser")
    browser.get(page.as_uri())
    assert browser.get_log("browser") == []
    assert len(shown(browser, "details.line")) == len(SITES)
    grid = next(
        s for s in shown(browser, "main section") if s.find_elements(By.CSS_SELECTOR, ".grid")
    )
    window(width=PICTURE_WIDTH, height=grid.size["height"] + PICTURE_TOP)
    browser.execute_script(
        "scrollTo({top: arguments[0].getBoundingClientRect().top + scrollY - arguments[1] + 12, "
        "behavior: 'instant'})",
        grid,
        PICTURE_TOP,
    )
    assert browser.save_screenshot(str(tmp_path / "report.png"))
    for picture in (tmp_path / "report.png", KEPT_PICTURE):
        assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert 20_000 < picture.stat().st_size < 300_000
