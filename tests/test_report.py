"""The report: every figure real, the page self-contained, and the same bytes for the same results."""

import json
import re
from html.parser import HTMLParser

import matplotlib.colors
import matplotlib.image
import numpy as np
import pytest
from audit_example import example_results

from qixai_fast.auditing.report.attribution_figures import attribution_figure, is_image
from qixai_fast.auditing.report.relation_figures import schmidt_figure
from qixai_fast.auditing.report.summary import five_sentences, highlights
from qixai_fast.auditing.report.writer import heatmap_pairs, write_report
from qixai_fast.plots.style import NEGATIVE, POSITIVE


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    results, arrays = example_results()
    return write_report(results, arrays, out), results, arrays


class _Outline(HTMLParser):
    """Collects what a reader meets: text, links, ids, images."""

    def __init__(self):
        super().__init__()
        self.text, self.ids, self.links, self.images, self.heads = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag == "a":
            self.links.append(attributes["href"])
        if tag == "img":
            self.images.append(attributes)
        if re.fullmatch(r"h\d", tag):
            self.heads.append(int(tag[1]))

    def handle_data(self, data):
        self.text.append(data)


def _read(page):
    outline = _Outline()
    outline.feed(page.read_text(encoding="utf-8"))
    return outline


def test_page_is_self_contained(written):
    outline = _read(written[0])
    assert len(outline.images) >= 12
    for image in outline.images:
        assert image["src"].startswith("data:image/png;base64,")
        assert image["alt"]
    assert len(outline.ids) == len(set(outline.ids))
    assert {link[1:] for link in outline.links if link.startswith("#")} <= set(outline.ids)
    assert {link for link in outline.links if not link.startswith("#")} == {
        "https://arxiv.org/abs/2410.16537"
    }
    html = written[0].read_text(encoding="utf-8")
    assert html.count("<script") == 1
    assert "default-src 'none'" in html


def test_headings_are_in_order_and_every_table_is_named(written):
    outline = _read(written[0])
    assert outline.heads[0] == 1
    assert outline.heads.count(1) == 1
    steps = np.diff(outline.heads)
    assert steps.max() == 1
    html = written[0].read_text(encoding="utf-8")
    assert html.count("<caption") >= html.count("<table data-sort") > 10


def test_every_layer_and_every_pair_has_its_place(written):
    page, results, _ = written
    ids = _read(page).ids
    places = {layer["name"]: i for i, layer in enumerate(results["layers"])}
    assert {f"layer-{i}" for i in places.values()} <= set(ids)
    for pair in results["pairs"]:
        assert f"pair-{places[pair['layer_a']]}-{places[pair['layer_b']]}" in ids
    matrices = [image for image in _read(page).images if "data-kind" in image]
    assert len(matrices) == 2 * len(results["pairs"])


def test_numbers_lead_to_how_they_were_computed(written):
    """Every method is linked to, and every column of numbers that were estimated links to one."""
    outline = _read(written[0])
    methods = {name for name in outline.ids if name.startswith("how-")}
    linked = {link[1:] for link in outline.links if link.startswith("#how-")}
    assert linked == methods - {"how-ig"} | ({"how-ig"} & linked)
    html = written[0].read_text(encoding="utf-8")
    bare = set(re.findall(r"<th scope=\"col\"[^>]*><span>([^<]*)</span></th>", html))
    counted = {"#", "layer", "layers", "maps", "map", "first map", "second map", "component", "at most"}
    counted |= {"of", "pairs", "mean", "spread", "sample", "label", "output explained", "value"}
    assert {name for name in bare if not name.startswith("map of ")} <= counted


def test_page_says_what_was_found(written):
    page, results, _ = written
    text = " ".join(" ".join(_read(page).text).split())
    sentences = five_sentences(results, 0.05)
    assert len(sentences) == 5
    for line in sentences:
        assert line in text
    for item in highlights(results, 0.05):
        assert item["value"] in text
    for finding in results["findings"]:
        assert finding["text"] in text
    for warning in results["warnings"]:
        assert warning["text"] in text
        assert warning["what_to_do"] in text
    first = results["entangled"]["rows"][0]
    assert f"{first['layer_a']} {first['map_a']} {first['layer_b']} {first['map_b']}" in text
    assert f"{first['mutual_info']:.3f}" in text


def test_figures_are_pictures_with_something_on_them(written):
    page, results, _ = written
    files = sorted((page.parent / "figures").glob("*.png"))
    drawn = [image for image in _read(page).images if "data-kind" not in image]
    # The heat maps among the files are for papers: the page has matrices with values under the pointer.
    assert len(files) == len(drawn) + len(heatmap_pairs(results))
    for file in files:
        pixels = matplotlib.image.imread(file)
        assert pixels.shape[0] > 150, file
        assert pixels.shape[1] > 300, file
        assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 20, file


def test_same_results_give_the_same_bytes(written, tmp_path):
    page, results, arrays = written
    again = write_report(json.loads(json.dumps(results)), arrays, tmp_path)
    assert again.read_bytes() == page.read_bytes()
    names = {file.name for file in (page.parent / "figures").iterdir()}
    assert {file.name for file in (tmp_path / "figures").iterdir()} == names


def test_names_from_the_model_cannot_break_the_page(tmp_path):
    results, arrays = example_results()
    hostile = "<script>alert(1)</script>"
    text = json.dumps(results).replace('"dense"', json.dumps(hostile))
    page = write_report(json.loads(text), arrays, tmp_path)
    assert hostile not in page.read_text(encoding="utf-8")
    assert hostile in " ".join(_read(page).text)


def test_a_small_audit_without_labels_or_model(tmp_path):
    """One layer, nothing beside it: only the sections that exist."""
    results, arrays = example_results()
    results["layers"] = results["layers"][:1]
    results["pairs"] = [pair for pair in results["pairs"] if pair["layer_a"] == pair["layer_b"] == "conv1"]
    results["entangled"]["rows"] = []
    results["labels"] = results["attributions"] = None
    results["store"].update(layers=["conv1"], n_classes=None, class_names=None)
    results["skipped"] = {"labels": "the store has no labels", "attributions": "no model was given"}
    results["findings"] = results["findings"][:2]
    arrays[results["layers"][0]["arrays"]]["score_labels"][:] = -1
    page = write_report(results, arrays, tmp_path)
    text = " ".join(_read(page).text)
    assert "the store has no labels" in text
    assert {file.stem for file in (tmp_path / "figures").iterdir()} == {
        "spectrum",
        "scores",
        "zeros",
        f"loadings_{results['layers'][0]['arrays']}",
    }


def test_only_the_strongest_pairs_are_drawn_of_many(written):
    results = dict(written[1])
    pair = next(pair for pair in results["pairs"] if not pair["within"])
    results["pairs"] = [dict(pair, mutual_info=dict(pair["mutual_info"], max=float(i))) for i in range(9)]
    assert [drawn["mutual_info"]["max"] for drawn in heatmap_pairs(results)] == [8, 7, 6, 5, 4, 3]


def test_curves_of_many_pairs_leave_room_for_themselves(written):
    results = dict(written[1])
    pair = next(pair for pair in results["pairs"] if pair["schmidt"])
    results["pairs"] = [dict(pair, layer_a=f"a{i}", cka=dict(pair["cka"], value=i / 99)) for i in range(99)]
    figure = schmidt_figure(results)
    names = [text.get_text().split(" ")[0] for text in figure.axes[0].get_legend().get_texts()]
    assert names == [f"a{i}" for i in range(91, 99)]


@pytest.mark.parametrize(
    ("shape", "image"),
    [
        ((2, 1, 8, 8), True),
        ((2, 3, 32, 32), True),
        ((2, 28, 28), True),
        ((2, 16, 8, 8), False),
        ((2, 9), False),
        ((2, 5, 2), False),
    ],
)
def test_what_counts_as_a_picture(shape, image):
    assert is_image(np.zeros(shape)) is image


def test_tabular_and_colour_inputs_are_drawn(tmp_path):
    results, arrays = example_results()
    count = len(results["attributions"]["samples"])
    rng = np.random.default_rng(0)
    drawn = []
    for shape in ((count, 3, 16, 16), (count, 9)):
        arrays["attributions"]["inputs_0"] = rng.normal(size=shape)
        arrays["attributions"]["values_0"] = rng.normal(size=shape)
        write_report(results, arrays, tmp_path)
        drawn.append((tmp_path / "figures" / "attributions.png").read_bytes())
    assert drawn[0] != drawn[1]


def _with_inputs(inputs, values):
    results, arrays = example_results()
    arrays["attributions"].update(inputs_0=inputs, values_0=values)
    return results, arrays


@pytest.mark.parametrize("shape", [(6, 1, 8, 8), (6, 3, 40, 40), (6, 8, 8)])
def test_each_input_has_its_attributions_below_and_its_own_scale(shape):
    values = np.zeros(shape, dtype=np.float32)
    for i in range(6):
        values[i][..., 1, 2], values[i][..., 5, 6] = i + 1.0, -i - 1.0
    figure = attribution_figure(*_with_inputs(np.ones(shape), values))
    *panels, bar = figure.axes
    assert len(panels) == 12
    channels = shape[1] if len(shape) == 4 else 1
    ends = matplotlib.colormaps["RdBu_r"]([1.0, 0.0])[:, :3]
    for i, (picture, overlay) in enumerate(zip(panels[::2], panels[1::2], strict=True)):
        assert picture.get_position().y0 > overlay.get_position().y1
        painted = overlay.images[0].get_array()
        np.testing.assert_allclose([painted[1, 2], painted[5, 6]], ends)
        assert overlay.get_xlabel() == f"±{(i + 1) * channels}"
    assert panels[8].get_title() == "output 1\nlabel one\nnot converged"
    assert ("sum of 3 channels" in bar.get_xlabel()) is (channels == 3)


def test_drawings_are_ink_on_paper_and_photographs_as_they_are():
    rng = np.random.default_rng(0)
    photograph = rng.random((6, 1, 8, 8))
    drawing = np.where(photograph < 0.5, 0.0, photograph)
    for inputs, flipped in ((photograph, False), (drawing, True)):
        figure = attribution_figure(*_with_inputs(inputs, np.ones_like(inputs)))
        shown = figure.axes[0].images[0].get_array()[..., 0]
        np.testing.assert_allclose(shown, 1 - inputs[0, 0] if flipped else inputs[0, 0])


def test_bars_of_tabular_inputs_share_their_features():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(6, 30)) * np.exp(rng.normal(size=30))
    figure = attribution_figure(*_with_inputs(np.ones((6, 30)), values))
    largest = np.argsort(-np.abs(values[:3]).mean(axis=0))[:15]
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == [*(f"feature {i}" for i in largest), "15 others, sum"]
    assert len(figure.axes) == 3
    for axes, own in zip(figure.axes, values, strict=False):
        widths = [bar.get_width() for bar in axes.patches]
        np.testing.assert_allclose(widths, [*own[largest], np.delete(own, largest).sum()])
        colours = {matplotlib.colors.to_hex(bar.get_facecolor()) for bar in axes.patches[:-1]}
        assert colours == {POSITIVE, NEGATIVE}
    results, arrays = _with_inputs(np.ones((6, 30)), values)
    arrays["attributions"].update(inputs_1=np.ones((6, 2)), values_1=np.ones((6, 2)))
    two = attribution_figure(results, arrays)
    assert two.texts[-1].get_text() == "attribution in units of the output (first of 2 inputs)"
    deep = attribution_figure(*_with_inputs(np.ones((6, 3, 2)), np.ones((6, 3, 2))))
    assert deep.axes[0].get_yticklabels()[3].get_text() == "feature 1, 1"
