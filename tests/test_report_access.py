"""The report for every reader: by keyboard, on paper, without a script, in both themes, in either order."""

import base64
import json
import re

import numpy as np
import pytest
from audit_example import example_results
from browser import Browser, needs_browser

from qixai_fast.auditing.report.cells import cluster_order
from qixai_fast.auditing.report.tables import ticks
from qixai_fast.auditing.report.writer import write_report

pytestmark = needs_browser

BOX = "document.getElementById(%r).parentElement.querySelector('.matrices')"
CONTROLS = "a[href], button, input, summary, [tabindex='0']"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    results, arrays = example_results()
    return write_report(results, arrays, tmp_path_factory.mktemp("report")), results, arrays


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened
        assert opened.problems == []


def _luminance(colour):
    channels = np.array(colour[:3]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one, other):
    """As WCAG defines it: 1 to 21."""
    first, second = sorted((_luminance(one), _luminance(other)))
    return (second + 0.05) / (first + 0.05)


def test_contrast_of_black_on_white_is_21():
    assert contrast([0, 0, 0], [255, 255, 255]) == pytest.approx(21)
    assert contrast([119, 119, 119], [255, 255, 255]) == pytest.approx(4.48, abs=0.005)


# Colours of text on what lies behind it, translucent grounds laid over each other; and of controls' borders.
_COLOURS = """((selector, property) => {
  const parts = (text) => { const found = text.match(/[\\d.]+/g).map(Number);
    return [...found.slice(0, 3), found.length > 3 ? found[3] : 1]; };
  const over = (top, below) => [0, 1, 2].map(i => top[3] * top[i] + (1 - top[3]) * below[i]);
  const ground = (e) => { const own = e ? parts(getComputedStyle(e).backgroundColor) : [255, 255, 255, 1];
    return own[3] === 1 ? own.slice(0, 3) : over(own, ground(e.parentElement)); };
  const found = new Map();
  for (const e of document.querySelectorAll(selector)) {
    const says = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (property === 'color' && (!says || e.closest('script, style'))) continue;
    const behind = ground(property === 'color' ? e : e.parentElement);
    const own = over(parts(getComputedStyle(e)[property]), behind);
    found.set(`${own} on ${behind}`, [own, behind, e.outerHTML.slice(0, 120)]);
  }
  return [...found.values()]; })(%s, %s)"""


def _ask_colours(browser, selector, name):
    return browser.ask(_COLOURS % (json.dumps(selector), json.dumps(name)))


@pytest.mark.parametrize("pressed", [False, True])
@pytest.mark.parametrize("dark", [False, True])
def test_text_and_controls_stand_out(browser, written, dark, pressed):
    browser.open(written[0], dark=dark)
    if pressed:
        browser.click(".order")
        browser.wait_for("document.querySelector('.order').ariaPressed === 'true'")
    texts = _ask_colours(browser, "body *", "color")
    grounds = {tuple(behind) for _, behind, _ in texts}
    assert len(grounds) >= 5  # the page, boxes, shaded cells of the grid
    for own, behind, where in texts:
        assert contrast(own, behind) >= 4.5, where
    edges = _ask_colours(browser, ".order, .filter input[type=search]", "borderTopColor")
    assert edges
    for own, behind, where in edges:
        assert contrast(own, behind) >= 3, where


@pytest.mark.parametrize("dark", [False, True])
def test_tab_reaches_every_control_in_order_and_shows_where_it_is(browser, written, dark):
    browser.open(written[0], dark=dark)
    browser.ask(f"""document.querySelectorAll("details").forEach(one => {{ one.open = true; }});
        window.wanted = [...document.querySelectorAll({json.dumps(CONTROLS)})]
            .filter(e => e.checkVisibility()); 0""")
    count = browser.ask("wanted.length")
    assert count > 150
    reached, lines = [], set()
    for _ in range(count):
        browser.press("Tab")
        place, style, width, colour = browser.ask("""(() => { const e = document.activeElement;
            const s = getComputedStyle(e);
            return [wanted.indexOf(e), s.outlineStyle, s.outlineWidth, s.outlineColor]; })()""")
        reached.append(place)
        lines.add((style, width, colour))
    assert reached == list(range(count))
    assert {line[:2] for line in lines} == {("solid", "3px")}
    paper = browser.ask("getComputedStyle(document.body).backgroundColor")
    ground = list(map(float, re.findall(r"[\d.]+", paper)))
    for *_, colour in lines:
        assert contrast(list(map(float, re.findall(r"[\d.]+", colour))), ground) >= 3


def _told(browser):
    """What a screen reader is told. What is off the screen is not laid out, and here would be left out."""
    browser.ask("""(() => { const all = document.createElement('style');
        all.textContent = '.layer, .pair { content-visibility: visible !important }';
        document.head.append(all); })()""")
    nodes = browser.send("Accessibility.getFullAXTree")["nodes"]
    return [node for node in nodes if not node["ignored"]]


def test_every_control_has_a_name(browser, written):
    browser.open(written[0])
    wanted = {"link", "button", "searchbox", "checkbox", "image", "table", "region", "application"}
    found = [node for node in _told(browser) if node["role"]["value"] in wanted]
    assert {node["role"]["value"] for node in found} >= {"link", "button", "searchbox", "image", "table"}
    unnamed = [node["role"]["value"] for node in found if not node["name"]["value"].strip()]
    assert unnamed == []


def _shown(browser, anchor):
    return browser.ask(f"""[...{BOX % anchor}.querySelectorAll('.plot')].map(plot =>
        ['down', 'across'].map(kind =>
            [...plot.querySelectorAll(`.${{kind}} span`)].map(tick => tick.textContent)))""")


def test_numbers_at_the_edges_are_those_of_the_maps_beside_them(browser, written):
    page, results, arrays = written
    browser.open(page)
    pair = next(p for p in results["pairs"] if (p["layer_a"], p["layer_b"]) == ("conv1", "conv2"))
    values = arrays[pair["mutual_info"]["arrays"]]["values"]
    edges = [[str(i) for i in cluster_order(matrix)] for matrix in (values, values.T)]
    assert _shown(browser, "pair-0-1") == [edges, edges]
    middles = browser.ask(f"""(() => {{ const plot = {BOX % "pair-0-1"}.querySelector('.plot');
        const frame = plot.querySelector('img').getBoundingClientRect();
        return [...plot.querySelectorAll('.across span')].map(tick => {{
            const own = tick.getBoundingClientRect();
            return ((own.left + own.right) / 2 - frame.left) / frame.width; }}); }})()""")
    np.testing.assert_allclose(middles, (np.arange(12) + 0.5) / 12, atol=0.01)


@pytest.mark.parametrize("width", [360, 688, 740, 800, 1000, 1600])
def test_both_matrices_of_a_pair_are_of_one_size_at_any_width(browser, written, width):
    browser.open(written[0], width=width)
    boxes = browser.ask("""[...document.querySelectorAll('.two')].map(two =>
        [...two.querySelectorAll('.picture')].map(one => { one.scrollIntoView();
            const box = one.getBoundingClientRect(); return [box.width, box.height]; }))""")
    assert len(boxes) == 6
    for first, second in boxes:
        assert first == pytest.approx(second, abs=1)
        assert first[0] > min(width, 800) / 3


def test_wide_matrices_have_few_numbers_that_do_not_overlap():
    found = ticks(list(range(100_000, 99_488, -1)))
    assert [tick["at"] for tick in found] == [32, 96, 160, 224, 288, 352, 416, 480]
    assert found[0]["label"] == "99968"
    assert ticks([]) == []


def test_a_button_orders_by_map_number_and_back(browser, written):
    page, results, arrays = written
    browser.open(page)
    anchor, (i, j) = "pair-1-2", (4, 13)
    pair = next(p for p in results["pairs"] if (p["layer_a"], p["layer_b"]) == ("conv2", "dense"))
    clustered = _shown(browser, anchor)
    assert browser.ask(f"{BOX % anchor}.querySelector('.by').textContent") == "clusters"
    section = f"section[aria-labelledby={anchor}]"
    browser.ask(f"document.querySelector({json.dumps(section + ' .order')}).focus()")
    browser.press("Enter")
    browser.wait_for(f"{BOX % anchor}.querySelectorAll('canvas').length === 2")
    assert browser.ask(f"{BOX % anchor}.querySelector('.by').textContent") == "numbers"
    numbers = [[str(k) for k in range(12)], [str(k) for k in range(16)]]
    assert _shown(browser, anchor) == [numbers, numbers]
    # The colours of a canvas are those of the picture, cell by cell.
    box = browser.place_of(f"{section} .picture canvas")
    x, y = box["x"] + box["width"] * (j + 0.5) / 16, box["y"] + box["height"] * (i + 0.5) / 12
    browser.mouse("mouseMoved", x, y)
    text = browser.wait_for(
        f"{BOX % anchor}.querySelector('.readout b') && {BOX % anchor}.querySelector('.readout').textContent"
    )
    assert text.startswith("conv2 4 and dense 13: ")
    value = float(re.search(r": (-?[\d.]+) ± ", text)[1])
    assert value == pytest.approx(arrays[pair["mutual_info"]["arrays"]]["values"][i, j], abs=0.01)
    orders = json.dumps([list(map(int, edge)) for edge in clustered[0]])
    same = browser.ask(f"""(async () => {{
        const box = {BOX % anchor}, [rows, columns] = {orders};
        const results = [];
        for (const picture of box.querySelectorAll('.picture')) {{
            const image = picture.querySelector('img'), made = picture.querySelector('canvas');
            const copy = document.createElement('canvas');
            copy.width = columns.length; copy.height = rows.length;
            copy.getContext('2d').drawImage(image, 0, 0);
            const [old, now] = [copy, made].map(canvas => new Uint32Array(
                canvas.getContext('2d').getImageData(0, 0, columns.length, rows.length).data.buffer));
            results.push(rows.every((row, y) => columns.every((column, x) =>
                old[y * columns.length + x] === now[row * columns.length + column]))); }}
        return results; }})()""")
    assert same == [True, True]
    browser.press(" ")
    browser.wait_for(f"{BOX % anchor}.querySelectorAll('canvas').length === 0")
    assert _shown(browser, anchor) == clustered


def test_without_a_script_nothing_is_there_that_does_not_work(browser, written):
    browser.open(written[0], script=False)
    tree = _told(browser)
    roles = [node["role"]["value"] for node in tree]
    assert not {"button", "searchbox", "checkbox", "application"} & set(roles)
    assert roles.count("table") > 15
    assert roles.count("image") > 20
    told = " ".join(node["name"]["value"] for node in tree if node.get("name"))
    assert "Numbers at the edges are maps" in told
    assert "error bound" in told


@pytest.mark.parametrize("dark", [False, True])
def test_paper_is_white_complete_and_without_controls(browser, written, dark):
    browser.open(written[0], dark=dark)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.send("Emulation.setEmulatedMedia", media="print", features=[scheme])
    for own, behind, where in _ask_colours(browser, "main *", "color"):
        assert contrast(own, behind) >= 4.5, where
    assert browser.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    shown = "[...document.querySelectorAll(%r)].filter(e => e.getClientRects().length).length"
    assert browser.ask(shown % "nav, .filter, .order, .skip, summary") == 0
    assert browser.ask(shown % "main h2") == browser.ask("document.querySelectorAll('main h2').length")
    assert browser.ask(shown % "details table") == 1  # folded on the screen
    cut = browser.ask("""[...document.querySelectorAll('.scroll')].filter(box =>
        box.scrollHeight > box.clientHeight + 1 && getComputedStyle(box).overflowY !== 'visible').length""")
    assert cut == 0
    # A4 less margins of 14 mm, at 96 dots an inch.
    browser.send(
        "Emulation.setDeviceMetricsOverride", width=688, height=900, deviceScaleFactor=1, mobile=False
    )
    wide = "[...document.querySelectorAll('table, img')].map(e => e.getBoundingClientRect().right)"
    assert max(browser.ask(wide)) <= 688
    browser.send("Emulation.setEmulatedMedia", media="", features=[scheme])
    paper = base64.b64decode(browser.send("Page.printToPDF", preferCSSPageSize=True)["data"])
    assert paper.startswith(b"%PDF")
    assert 5 < len(re.findall(rb"/Type\s*/Page\b", paper)) < 40
