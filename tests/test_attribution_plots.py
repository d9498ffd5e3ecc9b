"""Figures of attributions: rendered for real, then pixels, texts and places checked."""

import itertools

import numpy as np
import pytest
import torch
from drawn_figures import (
    VALUES,
    WORDS,
    boxes_of,
    drawn_inside,
    pixel_at,
    render,
    spots,
    texts,
    words_of,
)
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

import qixai_fast as qf
from qixai_fast.plots.images import blend
from qixai_fast.plots.samples import largest_shown, signed
from qixai_fast.plots.style import NEGATIVE, NULL, POSITIVE, SIGNED_MAP
from qixai_fast.plots.titles import Ruler
from qixai_fast.plots.tokens import text_colour, visible

# ---------------------------------------------------------------- images


def test_colours_are_where_the_values_are():
    figure = qf.plot_image_attribution(*spots())
    _, overlay, _ = figure.axes
    ends = colormaps[SIGNED_MAP]([1.0, 0.0])[:, :3]
    np.testing.assert_allclose(pixel_at(figure, overlay, 2, 1), ends[0], atol=2 / 255)
    np.testing.assert_allclose(pixel_at(figure, overlay, 6, 4), ends[1], atol=2 / 255)
    np.testing.assert_allclose(pixel_at(figure, overlay, 0, 0), [1, 1, 1], atol=2 / 255)


def test_the_image_shows_where_nothing_is_attributed():
    image, values = spots()
    image[3] = 0.0
    figure = qf.plot_image_attribution(image, values)
    original, overlay, _ = figure.axes
    np.testing.assert_allclose(pixel_at(figure, original, 4, 3), [0, 0, 0], atol=2 / 255)
    pale = pixel_at(figure, overlay, 4, 3)
    assert 0.5 < pale[0] < 0.7
    np.testing.assert_allclose(pale, pale[0])


def test_gray_r_is_the_negative():
    image, values = spots()
    figure = qf.plot_image_attribution(image, values, cmap="gray_r")
    np.testing.assert_allclose(pixel_at(figure, figure.axes[0], 4, 3), [0, 0, 0], atol=2 / 255)


def test_signs_are_kept_when_channels_are_added_up():
    values = np.zeros((3, 6, 8))
    values[:, 1, 2], values[:, 4, 6] = (2.0, -2.0, 0.0), (1.0, 1.0, -0.5)
    figure = qf.plot_image_attribution(np.ones((3, 6, 8)), values, unit="logits")
    _, overlay, bar = figure.axes
    np.testing.assert_allclose(pixel_at(figure, overlay, 2, 1), [1, 1, 1], atol=2 / 255)
    end = colormaps[SIGNED_MAP](1.0)[:3]
    np.testing.assert_allclose(pixel_at(figure, overlay, 6, 4), end, atol=2 / 255)
    assert bar.get_xlabel() == "attribution in logits, sum of 3 channels"
    assert [label.get_text() for label in bar.get_xticklabels()] == ["−1.5", "0", "+1.5"]


def test_every_layout_of_channels_gives_the_same_figure():
    rng = np.random.default_rng(0)
    image, values = rng.random((3, 7, 9)), rng.normal(size=(3, 7, 9))
    last = np.moveaxis(image, 0, -1), np.moveaxis(values, 0, -1)
    expected = render(qf.plot_image_attribution(image, values))
    for one, other in (
        (last[0], last[1]),
        (last[0], values),
        (image, last[1]),
        (torch.tensor(image), values),
    ):
        np.testing.assert_array_equal(render(qf.plot_image_attribution(one, other)), expected)
    grey = rng.random((7, 9))
    flat = render(qf.plot_image_attribution(grey, values.sum(0)))
    for one in (grey[None], grey[..., None], torch.tensor(grey)[None]):
        np.testing.assert_array_equal(render(qf.plot_image_attribution(one, values.sum(0)[None])), flat)


def test_scales_of_images():
    """uint8 and [0, 1] as they are, all else from smallest to largest."""
    values = np.zeros((5, 5))
    for image, expected in (
        (np.full((5, 5), 51, dtype=np.uint8), 0.2),
        (np.full((5, 5), 0.2, dtype=np.float16), 0.2),
        (np.linspace(-3, 5, 25).reshape(5, 5), 0.5),
        (torch.full((5, 5), 0.25, dtype=torch.bfloat16), 0.25),
    ):
        figure = qf.plot_image_attribution(image, values)
        np.testing.assert_allclose(pixel_at(figure, figure.axes[0], 2, 2), [expected] * 3, atol=3 / 255)


def test_one_outlier_does_not_hide_the_rest_and_the_bar_says_so():
    values = np.linspace(0.5, 1.0, 400).reshape(20, 20)
    values[0, 0] = 1000.0
    figure = qf.plot_image_attribution(np.ones((20, 20)), values)
    bar = figure.axes[2]
    assert bar.get_xlabel().replace("\n", " ").endswith("colours end at percentile 99")
    assert bar.get_xticks()[-1] < 1.01
    exact = qf.plot_image_attribution(np.ones((20, 20)), values, percentile=100).axes[2]
    assert "percentile" not in exact.get_xlabel()
    assert exact.get_xticks()[-1] == 1000.0


def test_limit_of_colours():
    assert largest_shown(np.array([-3.0, 1.0]), 99) == 3.0
    assert largest_shown(np.zeros(4), 99) == 1.0
    sparse = np.zeros(1000)
    sparse[7] = -2.5
    assert largest_shown(sparse, 99) == 2.5


def test_stronger_values_cover_more_of_the_paper():
    strengths = np.linspace(0, 1, 11)
    on_light, on_dark = blend(strengths, np.ones(11)), blend(strengths, np.full(11, 0.6))
    seen = np.abs(on_light - on_dark).max(axis=-1)
    assert (np.diff(seen) < 0).all()
    assert seen[-1] == 0
    np.testing.assert_array_equal(blend(np.zeros(1), np.array([0.7])), [[0.7] * 3])


@pytest.mark.parametrize(("shape", "stacked"), [((40, 200), True), ((64, 64), False), ((300, 20), False)])
@pytest.mark.parametrize("width", [3.0, 7.2])
def test_pictures_of_any_proportion_fit(shape, stacked, width):
    rng = np.random.default_rng(0)
    target = "a name that is quite long for a class " * 3
    figure = qf.plot_image_attribution(rng.random(shape), rng.normal(size=shape), target=target, width=width)
    drawn_inside(figure)
    first, second, _ = figure.axes
    for axes in (first, second):
        box = axes.get_window_extent()
        assert box.height / box.width == pytest.approx(shape[0] / shape[1], rel=0.02)
    assert bool(first.get_position().y0 > second.get_position().y1) is stacked
    assert figure.get_figwidth() == width
    assert figure.get_figheight() < 14


# ---------------------------------------------------------------- bars


def test_bars_are_sorted_coloured_and_summed():
    values = np.array([0.5, -3.0, 0.25, 2.0, -0.125])
    figure = qf.plot_feature_attribution(values, list("abcde"), top=3, target=7, unit="logits")
    (axes,) = figure.axes
    bars = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert [bar.get_width() for bar in bars] == [-3.0, 2.0, 0.5, 0.125]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "d", "a", "2 others, sum"]
    colours = [to_rgb(bar.get_facecolor()) for bar in bars]
    assert colours == [to_rgb(name) for name in (NEGATIVE, POSITIVE, POSITIVE, NULL)]
    assert [note.get_text() for note in axes.texts] == ["−3", "+2", "+0.5", "+0.125"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    assert axes.get_xlabel() == "attribution in logits"
    np.testing.assert_allclose(pixel_at(figure, axes, -1.5, 0), to_rgb(NEGATIVE), atol=2 / 255)
    np.testing.assert_allclose(pixel_at(figure, axes, 1.0, 1), to_rgb(POSITIVE), atol=2 / 255)
    drawn_inside(figure)


def test_equal_magnitudes_keep_their_order_and_inputs_stand_beside_names():
    figure = qf.plot_feature_attribution(torch.tensor([1.0, -1.0, 1.0]), inputs=[3, -0.5, 1e-9])
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["feature 0 = 3", "feature 1 = −0.5", "feature 2 = 1e−09"]


@pytest.mark.parametrize("width", [2.5, 3.4, 7.2])
@pytest.mark.parametrize(
    "values",
    [[0.0, 0.0], [1e-9], [-1e9, -2.0, 3e-7], [1.0, 2.0, 3.0], [-1.23456, 1.23456]],
)
def test_numbers_at_the_bars_fit(width, values):
    names = [f"a feature whose name does not end soon, number {i}" for i in range(len(values))]
    figure = qf.plot_feature_attribution(values, names, [0.123456] * len(values), width=width)
    drawn_inside(figure)
    (axes,) = figure.axes
    window = axes.get_window_extent()
    for note in axes.texts:
        box = note.get_window_extent()
        assert window.x0 - 2 <= box.x0
        assert box.x1 <= window.x1 + 2
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert len(set(labels)) == len(labels), "names that differ at the end stay different"
    if width == 7.2:
        assert all(label.endswith(" = 0.1235") for label in labels)


# ---------------------------------------------------------------- tokens


def test_tokens_lie_on_the_colours_of_their_values():
    figure = qf.plot_token_attribution(WORDS, VALUES, target="positive")
    boxes = boxes_of(figure)
    assert [text.get_text() for text in words_of(figure)] == WORDS
    expected = colormaps[SIGNED_MAP]((VALUES / 2 + 1) / 2)[:, :3]
    for box, colour in zip(boxes, expected, strict=True):
        left, top = box.get_x(), box.get_y()
        seen = pixel_at(figure, figure.axes[0], left + box.get_width() / 2, top + 1.5)
        np.testing.assert_allclose(seen, colour, atol=3 / 255)
    warmth = np.array([box.get_facecolor()[0] - box.get_facecolor()[2] for box in boxes])
    assert np.argmin(VALUES) == 3
    assert warmth[VALUES > 0.05].min() > warmth[VALUES == 0].item() > warmth[VALUES < -0.05].max()
    assert "−2.00" in texts(figure)
    drawn_inside(figure)


def test_every_background_leaves_text_readable():
    """The contrast that WCAG 2 asks for, from black to white over all colours in use."""
    for colour in colormaps[SIGNED_MAP](np.linspace(0, 1, 101))[:, :3]:
        linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
        luminance = linear @ [0.2126, 0.7152, 0.0722]
        ink = {"black": 0.0, "white": 1.0}[text_colour(colour)]
        contrast = (max(ink, luminance) + 0.05) / (min(ink, luminance) + 0.05)
        assert contrast >= 4.5


@pytest.mark.parametrize("width", [2.5, 7.2])
def test_lines_wrap_and_boxes_never_overlap(width):
    rng = np.random.default_rng(0)
    words = [*rng.choice(WORDS, 120).tolist(), "w" * 300, "##ing"]
    figure = qf.plot_token_attribution(words, rng.normal(size=len(words)), width=width)
    lines = {}
    for box in boxes_of(figure):
        lines.setdefault(box.get_y(), []).append((box.get_x(), box.get_x() + box.get_width()))
    assert len(lines) > 3
    for spans in lines.values():
        assert all(first[1] < second[0] for first, second in itertools.pairwise(spans))
        assert spans[-1][1] <= (width - 0.2) * 72 + 1e-6
    long = words_of(figure)[120].get_text()
    assert "…" in long
    assert long.startswith("w")
    render(figure)
    for box, text in zip(boxes_of(figure), words_of(figure), strict=True):
        assert text.get_window_extent().width <= box.get_window_extent().width
    drawn_inside(figure)


def test_tokens_beyond_the_most_are_named():
    values = np.arange(1000.0)
    figure = qf.plot_token_attribution(["word"] * 1000, values, max_tokens=10)
    assert len(boxes_of(figure)) == 10
    note = f"… and 990 more tokens, not drawn: sum {signed(values[10:].sum())}"
    assert note in texts(figure)
    assert not any("not drawn" in text for text in texts(qf.plot_token_attribution(WORDS, VALUES)))


def test_dollar_signs_braces_and_blanks_are_drawn_as_they_are():
    words = ["$x^2$", "cost", "$", "100", "\\frac{a", "_", "a$b$c", "<b>"]
    figure = qf.plot_token_attribution(words, np.arange(8.0), target="$\\alpha$ {")
    render(figure)
    assert [text.get_text() for text in words_of(figure)] == words
    # As mathtext the width of "$x^2$" would be that of two signs.
    box = words_of(figure)[0].get_window_extent()
    assert box.width * 72 / figure.dpi == pytest.approx(Ruler(10).width("$x^2$"), rel=0.1)
    named = qf.plot_feature_attribution([1.0, 2.0], ["$\\undefined$", "$"], inputs=[1, 2], unit="$")
    render(named)
    assert "$\\undefined$ = 1" in texts(named)


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        (" the", "␣the"),
        ("the ", "the␣"),
        ("", "∅"),
        ("  ", "␣␣"),
        ("a\nb", "a↵b"),
        ("\t", "⇥"),
        ("\x07", "<7>"),
        ("\u200b", "<200b>"),
        ("two words", "two words"),
        ("été", "été"),
    ],
)
def test_what_would_not_be_seen_is_shown(token, shown):
    assert visible(token) == shown


def test_signs_that_cannot_be_drawn_are_written_as_code_points():
    figure = qf.plot_feature_attribution([1.0], ["a\x00b\ud800"], target="one\ntwo\x07")
    render(figure)
    assert "a<0>b<d800>" in texts(figure)
    assert any(text.startswith("target one two<7>") for text in texts(figure))


def test_a_line_end_ends_the_line():
    figure = qf.plot_token_attribution(["a", "\n", "b"], [1.0, 0.0, -1.0])
    first, second, third = (box.get_y() for box in boxes_of(figure))
    assert first == second < third


def test_tokens_of_an_embedding():
    """Each token's number is the sum over its embedding, as gradients of a real model give it."""
    torch.manual_seed(0)
    embedding = torch.nn.Embedding(50, 6)
    head = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(7 * 6, 1), torch.nn.Tanh())
    ids = torch.randint(0, 50, (3, 7))
    found = qf.integrated_gradients(lambda x: head(x)[:, 0], embedding(ids).detach(), n_steps=60)
    words = [f"id{i}" for i in ids[2]]
    figure = qf.plot_token_attribution(words, found, sample=2, target="score")
    expected = found.values[2].sum(-1).double().numpy()
    limit = np.abs(expected).max()
    for box, value in zip(boxes_of(figure), expected, strict=True):
        colour = colormaps[SIGNED_MAP]((value / limit + 1) / 2)
        np.testing.assert_allclose(box.get_facecolor()[:3], colour[:3], atol=1e-6)
    title = figure.texts[0].get_text()
    assert f"sum of attributions {signed(expected.sum())}" in title
    assert f"delta {signed(float(found.delta[2]))}" in title
    assert figure.axes[1].get_xlabel().endswith("sum of 6 dimensions")
