"""The report in a real browser: it opens without errors, sorts, filters, tells values, and fits a phone."""

import base64
import json
import re

import matplotlib.image
import numpy as np
import pytest
from audit_example import example_results
from browser import Browser, needs_browser

from qixai_fast.auditing.report.cells import cluster_order
from qixai_fast.auditing.report.writer import write_report

pytestmark = needs_browser

ENTANGLED = "document.querySelector('#entanglement').closest('section').querySelector('table')"
COLUMN = f"[...{ENTANGLED}.tBodies[0].rows].map(row => row.cells[%d].textContent)"
SORT = "section[aria-labelledby=entanglement] table thead th:nth-child(%d) button"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    results, arrays = example_results()
    for place, row in enumerate(results["entangled"]["rows"]):
        row["selection_pvalue"] = 0.9 if place % 5 == 2 else 0.02  # one grey row in each table
    return write_report(results, arrays, tmp_path_factory.mktemp("report")), results, arrays


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def page(browser, written):
    """The report, freshly opened; whatever the test does, nothing may go wrong in the console."""
    browser.problems.clear()
    browser.requests.clear()
    browser.open(written[0])
    yield browser
    assert browser.problems == []
    assert all(url.startswith(("file:", "data:")) for url in browser.requests)


def test_it_opens_with_all_pictures_and_no_errors(page):
    page.ask("document.querySelectorAll('img').forEach(image => image.scrollIntoView())")
    assert page.ask("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert page.ask("document.images.length") > 20


def test_its_policy_lets_no_other_script_run(page):
    """A script that slips in with a name would not run; the attempt is what the console then tells."""
    page.ask("""(() => { const made = document.createElement('script');
        made.textContent = 'window.slipped = true'; document.body.append(made); })()""")
    assert page.ask("window.slipped === undefined")
    assert any("Content Security Policy" in problem for problem in page.problems)
    page.problems.clear()


def test_a_click_sorts_and_another_turns_the_order(page, written):
    rows = [row for row in written[1]["entangled"]["rows"] if not row["within"]]
    before = page.ask(COLUMN % 9)
    assert before == [f"{row['cosine_centred']:.2f}" for row in rows]
    page.click(SORT % 10)
    after = page.ask(COLUMN % 9)
    assert after == sorted(before, key=float, reverse=True) != before
    assert page.ask(f"{ENTANGLED}.tHead.rows[0].cells[9].getAttribute('aria-sort')") == "descending"
    page.click(SORT % 10)
    assert page.ask(COLUMN % 9) == sorted(before, key=float)
    sorts = page.ask(f"[...{ENTANGLED}.tHead.rows[0].cells].map(cell => cell.getAttribute('aria-sort'))")
    assert sorts == ["none"] * 9 + ["ascending"]


def test_rows_without_a_value_come_last_in_either_direction(page):
    for _ in range(2):
        page.click(SORT % 5)
        column = page.ask(COLUMN % 4)
        assert column[-1] == "–"
        assert "–" not in column[:-1]


@pytest.mark.parametrize("key", ["Enter", " "])
def test_the_keyboard_sorts_and_focus_shows(page, key):
    before = page.ask(COLUMN % 9)
    # From the question mark of the column before, as a hand on the keyboard comes.
    page.ask(f"document.querySelector({json.dumps(SORT % 9)}).parentElement.querySelector('a').focus()")
    page.press("Tab")
    assert page.ask("document.activeElement.textContent") == "cosine, centred"
    assert page.ask("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.press(key)
    assert page.ask(COLUMN % 9) == sorted(before, key=float, reverse=True)


def test_a_filter_hides_rows_and_says_how_many_are_left(page, written):
    rows = [row for row in written[1]["entangled"]["rows"] if not row["within"]]
    first = rows[0]
    wanted = [
        row for row in rows
        if first["layer_a"] in (row["layer_a"], row["layer_b"])
        and first["map_a"] in (row["rank"], row["map_a"], row["map_b"])
    ]  # fmt: skip
    shown = f"[...{ENTANGLED}.tBodies[0].rows].filter(row => row.getClientRects().length).length"
    assert page.ask(shown) == len(rows)
    page.click("section[aria-labelledby=entanglement] .filter input[type=search]")
    for letter in f"{first['layer_a']} {first['map_a']}":
        page.press(letter)
    assert page.ask(shown) == len(wanted) < len(rows)
    status = page.ask("document.querySelector('[role=status]').textContent")
    assert status == f"{len(wanted)} of {len(rows)} rows"


def test_grey_rows_can_be_left_out(page, written):
    rows = [row for row in written[1]["entangled"]["rows"] if not row["within"]]
    grey = sum(row["selection_pvalue"] > 0.05 for row in rows)
    assert 0 < grey < len(rows)
    page.click("section[aria-labelledby=entanglement] .filter input[type=checkbox]")
    shown = f"[...{ENTANGLED}.tBodies[0].rows].filter(row => row.getClientRects().length).length"
    assert page.ask(shown) == len(rows) - grey


def _orders(arrays, name, within):
    values = arrays[name]["values"]
    rows = cluster_order(values)
    return rows, rows if within else cluster_order(values.T)


def _reading(page, anchor):
    return page.wait_for(
        f"document.getElementById({anchor!r}).parentElement.querySelector('.readout b')"
        f" && document.getElementById({anchor!r}).parentElement.querySelector('.readout').textContent"
    )


@pytest.mark.parametrize(("anchor", "place"), [("pair-0-1", (5, 3)), ("pair-1-2", (0, 15))])
def test_the_pointer_reads_the_value_of_a_cell(page, written, anchor, place):
    _, results, arrays = written
    a, b = (int(part) for part in anchor.split("-")[1:])
    names = [layer["name"] for layer in results["layers"]]
    pair = next(p for p in results["pairs"] if (p["layer_a"], p["layer_b"]) == (names[a], names[b]))
    rows, columns = _orders(arrays, pair["mutual_info"]["arrays"], False)
    box = page.place_of(f"section[aria-labelledby={anchor}] .picture img")
    x = box["x"] + box["width"] * (place[1] + 0.5) / len(columns)
    y = box["y"] + box["height"] * (place[0] + 0.5) / len(rows)
    page.mouse("mouseMoved", x, y)
    text = _reading(page, anchor)
    i, j = rows[place[0]], columns[place[1]]
    assert text.startswith(f"{names[a]} {i} and {names[b]} {j}: ")
    value, error = map(float, re.search(r": (-?[\d.]+) ± ([\de.-]+) nats", text).groups())
    content = arrays[pair["mutual_info"]["arrays"]]
    assert abs(value - content["values"][i, j]) <= error * 1.5
    assert 0 < error < 0.01
    level, pvalue = re.search(r"p (≤|≈) ([\d.e-]+) family-wise", text).groups()
    true = content["max_pvalues"][i, j]
    assert float(pvalue) == pytest.approx(true, rel=0.06)
    assert (level == "≤") is bool(true <= 1 / 200)
    cosine = float(re.search(r"centred cosine (-?[\d.]+) ± 0.004", text)[1])
    assert cosine == pytest.approx(arrays[pair["cosine"]["arrays"]]["cosine_centred"][i, j], abs=0.006)


def test_arrow_keys_go_from_cell_to_cell(page, written):
    arrays = written[2]
    name = next(p["mutual_info"]["arrays"] for p in written[1]["pairs"] if p["within"])
    order = _orders(arrays, name, True)[0]
    page.ask("document.querySelector('section[aria-labelledby=layer-0] .picture').focus()")
    for key in ("ArrowDown", "ArrowRight", "ArrowRight"):
        page.press(key)
    page.wait_for(
        f"document.getElementById('pair-0-0').parentElement.querySelector('.readout').textContent"
        f".startsWith('conv1: maps {order[1]} and {order[2]}: ')"
    )
    page.press("ArrowLeft")
    page.wait_for(
        "document.getElementById('pair-0-0').parentElement.querySelector('.readout').textContent"
        ".endsWith('one map with itself.')"
    )


def _luminance(colour):
    channels = np.array(re.findall(r"[\d.]+", colour)[:3], dtype=float) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


_TEXT_COLOURS = """(() => {
  const found = new Set(), solid = (e) => { for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor; if (!/^rgba/.test(c)) return c; } };
  for (const e of document.querySelectorAll('body *')) {
    if ([...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) && e.tagName !== 'SCRIPT')
      found.add(getComputedStyle(e).color + ' on ' + solid(e)); }
  return [...found]; })()"""


@pytest.mark.parametrize("dark", [False, True])
def test_light_and_dark_are_readable(browser, written, dark):
    browser.open(written[0], dark=dark)
    paper = browser.ask("getComputedStyle(document.body).backgroundColor")
    assert (_luminance(paper) < 0.05) is dark
    pairs = browser.ask(_TEXT_COLOURS)
    assert len(pairs) >= 5
    for pair in pairs:
        text, ground = (_luminance(colour) for colour in pair.split(" on "))
        contrast = (max(text, ground) + 0.05) / (min(text, ground) + 0.05)
        assert contrast >= 4.5, pair


@pytest.mark.parametrize("dark", [False, True])
def test_figures_follow_the_page(browser, written, tmp_path, dark):
    """A figure's white ground becomes the page's own colour in the dark, where a picture of inputs stays."""
    browser.open(written[0], dark=dark)
    box = browser.place_of("section[aria-labelledby=layers] .drawn img")
    png = browser.screenshot(tmp_path / "seen.png")
    seen = matplotlib.image.imread(png)[..., :3]
    corner = 255 * seen[int(box["y"]) + 2, int(box["x"]) + 2]
    paper = browser.ask("getComputedStyle(document.body).backgroundColor")
    np.testing.assert_allclose(corner, [int(level) for level in re.findall(r"\d+", paper)], atol=1)
    assert bool(corner.mean() < 40) is dark
    pictures = browser.ask("getComputedStyle(document.querySelector('.pictures img')).filter")
    assert pictures == "none"


def test_a_phone_scrolls_down_only(browser, written):
    browser.open(written[0], width=360, height=740, phone=True)
    assert browser.ask("document.documentElement.scrollWidth") <= 360
    boxes = browser.ask("""[...document.querySelectorAll('.scroll')].filter(
        box => box.getBoundingClientRect().right > 360.5 || box.getBoundingClientRect().left < 0).length""")
    assert boxes == 0
    assert browser.ask("[...document.querySelectorAll('.scroll')].some(b => b.scrollWidth > b.clientWidth)")
    browser.open(written[0], width=1000)
    assert browser.ask("document.documentElement.scrollWidth") <= 1000


def test_names_without_a_break_do_not_widen_a_phone(browser, tmp_path):
    results, arrays = example_results()
    name = "features_" + "Block" * 30
    long = json.loads(json.dumps(results).replace('"dense"', json.dumps(name)))
    browser.open(write_report(long, arrays, tmp_path), width=360, height=740, phone=True)
    assert browser.ask("document.documentElement.scrollWidth") <= 360
    assert name in browser.ask("document.querySelector('.facts').textContent")


def test_without_a_script_all_is_there_to_read(browser, written):
    page, results, _ = written
    browser.open(page, script=False)
    tree = browser.send("DOM.getDocument", depth=-1)["root"]
    html = browser.send("DOM.getOuterHTML", nodeId=tree["nodeId"])["outerHTML"]
    body = html[html.index("<body") : html.index("<script")]
    assert "<button" not in body
    assert 'type="search"' not in body
    assert body.count("<table") > 15
    first = results["entangled"]["rows"][0]
    assert f"<td>{first['mutual_info']:.3f}</td>" in body
    seen = browser.send("Page.captureScreenshot", format="png")["data"]
    assert len(base64.b64decode(seen)) > 20_000
