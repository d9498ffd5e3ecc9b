"""Figures of attributions: rendered for real, then pixels, texts and places checked."""

import io
import itertools
import subprocess
import sys

import matplotlib as mpl
import matplotlib.image
import matplotlib.style
import numpy as np
import pytest
import torch
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyBboxPatch, Rectangle

import qixai_fast as qf
from qixai_fast.plots.images import blend
from qixai_fast.plots.samples import largest_shown, signed
from qixai_fast.plots.style import NEGATIVE, NULL, POSITIVE, SIGNED_MAP
from qixai_fast.plots.titles import Ruler
from qixai_fast.plots.tokens import text_colour, visible

WORDS = ["this", "film", "is", "not", "a", "good", "film", "at", "all"]
VALUES = np.array([0.1, 0.2, 0.0, -2.0, 0.05, 1.0, 0.2, -0.1, -0.5])


def render(figure, **options):
    """The pixels (height, width, 3) that savefig writes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", **options)
    buffer.seek(0)
    return mpl.image.imread(buffer)[..., :3]


def pixel_at(figure, axes, x, y):
    """The colour drawn at data coordinates."""
    pixels = render(figure)
    across, up = axes.transData.transform((x, y))
    return pixels[int(len(pixels) - up), int(across)]


def texts(figure):
    return [text.get_text() for text in figure.findobj(mpl.text.Text) if text.get_text()]


def drawn_inside(figure):
    """All that is drawn lies within the figure."""
    render(figure)
    box = figure.get_tightbbox(figure.canvas.get_renderer())
    width, height = figure.get_size_inches()
    # Inches; a pixel of antialiasing.
    assert box.x0 > -0.01
    assert box.y0 > -0.01
    assert box.x1 < width + 0.01
    assert box.y1 < height + 0.01


def attribution(values, delta, converged=None):
    n = len(delta)
    counts = torch.ones(n, dtype=torch.int64)
    return qf.Attribution(values, torch.tensor(delta), counts, counts, converged)


# ---------------------------------------------------------------- images


def spots():
    """A white image; attributions +2 at row 1, column 2 and -2 at row 4, column 6, 0 elsewhere."""
    image, values = np.ones((6, 8)), np.zeros((6, 8))
    values[1, 2], values[4, 6] = 2.0, -2.0
    return image, values


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


def boxes_of(figure):
    return [patch for patch in figure.axes[0].patches if isinstance(patch, FancyBboxPatch)]


def words_of(figure):
    """Texts in the boxes, without the numbers below them."""
    return [text for text in figure.axes[0].texts if text.get_fontsize() == 10]


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
    with mpl.rc_context({"text.usetex": False}):
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


# ---------------------------------------------------------------- attributions, titles


def test_titles_say_what_is_known():
    values = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
    found = attribution(values, [0.25, float("nan")], torch.tensor([True, False]))
    first = qf.plot_feature_attribution(found, sample=0, target="cat").texts[0].get_text()
    assert first == "target cat  ·  sum of attributions +3  ·  delta +0.25"
    second = qf.plot_feature_attribution(found, sample=1, target=4).texts[0].get_text()
    assert second == "target 4  ·  sum of attributions +2  ·  not converged"
    plain = qf.plot_feature_attribution(values[1]).texts[0].get_text()
    assert plain == "sum of attributions +2"


def test_one_of_several_inputs():
    found = attribution((torch.ones(2, 4), torch.full((2, 3), -1.0)), [0.0, 0.5])
    figure = qf.plot_feature_attribution(found, sample=1, input_index=1)
    assert figure.texts[0].get_text() == "sum of this input −3  ·  delta +0.5"
    with pytest.raises(ValueError, match=r"input_index: which of the 2 inputs\? wanted 0 to 1"):
        qf.plot_feature_attribution(found, sample=1)
    with pytest.raises(ValueError, match="input_index: wanted 0 to 1, got 2"):
        qf.plot_feature_attribution(found, sample=1, input_index=2)


def test_a_single_sample_needs_no_name():
    one = attribution(torch.ones(1, 6, 8), [0.0])
    assert len(qf.plot_image_attribution(np.ones((6, 8)), one).axes) == 3
    rows = np.arange(12.0).reshape(3, 4)
    figure = qf.plot_feature_attribution(rows, sample=2)
    assert figure.axes[0].get_yticklabels()[0].get_text() == "feature 3"


@pytest.mark.parametrize("name", ["image", "feature", "token"])
def test_which_sample(name):
    many = attribution(torch.ones(3, 4, 4) if name == "image" else torch.ones(3, 4), [0.0] * 3)
    first = {"image": (np.ones((4, 4)),), "feature": (), "token": (list("abcd"),)}[name]
    plot = getattr(qf, f"plot_{name}_attribution")
    with pytest.raises(ValueError, match=r"sample: which of the 3 samples\? wanted 0 to 2"):
        plot(*first, many)
    with pytest.raises(ValueError, match="sample: wanted 0 to 2, got 3"):
        plot(*first, many, sample=3)
    with pytest.raises(TypeError, match="sample: wanted an integer"):
        plot(*first, many, sample="0")
    assert plot(*first, many, sample=2).axes


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: qf.plot_image_attribution(np.ones((2, 8, 8)), np.ones((8, 8))), ValueError, "image: wanted"),
        (lambda: qf.plot_image_attribution(np.ones(8), np.ones(8)), ValueError, "image: wanted shape"),
        (lambda: qf.plot_image_attribution(np.ones((5, 3, 8, 8)), 1), ValueError, r"as image\[0\]"),
        (lambda: qf.plot_image_attribution(np.ones((3, 8, 8)), np.ones((8, 7))), ValueError, r"H, W = 8, 8"),
        (lambda: qf.plot_image_attribution(np.ones((0, 8)), np.ones((0, 8))), ValueError, "image: wanted va"),
        (lambda: qf.plot_image_attribution([["a"]], [[1.0]]), TypeError, "image: dtype"),
        (lambda: qf.plot_image_attribution(*spots(), percentile=0), ValueError, "percentile: wanted above 0"),
        (lambda: qf.plot_image_attribution(*spots(), percentile="99"), TypeError, "percentile: wanted a num"),
        (lambda: qf.plot_image_attribution(*spots(), cmap="jet"), ValueError, "cmap: wanted one of 'gray'"),
        (
            lambda: qf.plot_image_attribution(*spots(), width=0.5),
            ValueError,
            "width: wanted 2.5 to 40 inches",
        ),
        (lambda: qf.plot_image_attribution(*spots(), width=None), TypeError, "width: wanted a number"),
        (lambda: qf.plot_image_attribution(*spots(), unit=None), TypeError, "unit: wanted a string"),
        (lambda: qf.plot_image_attribution(*spots(), target=[1]), TypeError, "target: wanted a name or a nu"),
        (lambda: qf.plot_image_attribution(*spots(), input_index=0), ValueError, "input_index: wanted None"),
        (lambda: qf.plot_feature_attribution(np.ones((2, 3))), ValueError, r"values: wanted shape \(n_fea"),
        (
            lambda: qf.plot_feature_attribution([]),
            ValueError,
            r"values: wanted values to draw, got shape \(0",
        ),
        (lambda: qf.plot_feature_attribution([1.0, 2.0], ["a"]), ValueError, "names: wanted one for each of"),
        (
            lambda: qf.plot_feature_attribution([1.0, 2.0], "ab"),
            TypeError,
            "names: wanted a sequence of names, got a si",
        ),
        (lambda: qf.plot_feature_attribution([1.0, 2.0], {"a", "b"}), TypeError, "names: wanted .* got set"),
        (lambda: qf.plot_feature_attribution([1.0], names=5), TypeError, "names: wanted .* got int"),
        (lambda: qf.plot_feature_attribution([1e308, 1e308]), ValueError, "values: too large to be added up"),
        (lambda: qf.plot_token_attribution(None, [1.0]), TypeError, "tokens: wanted .* got NoneType"),
        (lambda: qf.plot_feature_attribution([1.0], inputs=[1, 2]), ValueError, r"inputs: wanted shape \(1,"),
        (lambda: qf.plot_feature_attribution([1.0], top=0), ValueError, "top: wanted at least 1, got 0"),
        (lambda: qf.plot_feature_attribution([1.0], top=2.0), TypeError, "top: wanted an integer"),
        (lambda: qf.plot_feature_attribution(([1.0], [2.0, 3.0])), ValueError, "values: cannot be read"),
        (lambda: qf.plot_feature_attribution([1j]), TypeError, "values: dtype complex128"),
        (
            lambda: qf.plot_token_attribution("words", np.ones(5)),
            TypeError,
            "split as the model does, got a single str",
        ),
        (lambda: qf.plot_token_attribution([1, 2], np.ones(2)), TypeError, "tokens: wanted strings, got int"),
        (
            lambda: qf.plot_token_attribution(["a"], np.ones(2)),
            ValueError,
            "each of the 2 rows of values, go",
        ),
        (
            lambda: qf.plot_token_attribution(["a"], np.ones((1, 2, 3))),
            ValueError,
            "of several samples, name",
        ),
        (
            lambda: qf.plot_token_attribution(["a"], [1.0], max_tokens=0),
            ValueError,
            "max_tokens: wanted at l",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_named(value):
    image, values = spots()
    values[3, 5] = value
    with pytest.raises(ValueError, match=rf"values: {value} at \[3, 5\]"):
        qf.plot_image_attribution(image, values)
    with pytest.raises(ValueError, match=rf"image: {value} at \[3, 5\]"):
        qf.plot_image_attribution(values, image)
    with pytest.raises(ValueError, match=rf"values of sample 3: {value} at \[5\]"):
        qf.plot_feature_attribution(values, sample=3)
    with pytest.raises(ValueError, match=rf"values: {value} at \[3, 5\]"):
        qf.plot_token_attribution(list("abcdef"), values)
    with pytest.raises(ValueError, match=rf"inputs: {value} at \[0\]"):
        qf.plot_feature_attribution([1.0], inputs=[value])


# ---------------------------------------------------------------- what surrounds them


def all_three():
    rng = np.random.default_rng(3)
    yield qf.plot_image_attribution(rng.random((3, 9, 9)), rng.normal(size=(3, 9, 9)), target="a")
    yield qf.plot_feature_attribution(rng.normal(size=30), target="b", inputs=rng.normal(size=30))
    yield qf.plot_token_attribution(WORDS, VALUES, target="c")


def test_equal_calls_give_equal_pixels():
    for first, second in zip(all_three(), all_three(), strict=True):
        np.testing.assert_array_equal(render(first), render(second))


def test_a_dark_style_of_the_user_changes_nothing():
    plain = [render(figure) for figure in all_three()]
    with mpl.style.context("dark_background"):
        dark = [render(figure) for figure in all_three()]
    for one, other in zip(plain, dark, strict=True):
        np.testing.assert_array_equal(one, other)


def test_inputs_are_left_as_they_are():
    rng = np.random.default_rng(0)
    image, values = rng.random((8, 8)), rng.normal(size=(8, 8))
    copies = image.copy(), values.copy()
    for array in (image, values):
        array.setflags(write=False)
    qf.plot_image_attribution(image, values)
    np.testing.assert_array_equal(image, copies[0])
    np.testing.assert_array_equal(values, copies[1])


def test_pyplot_is_neither_imported_nor_told():
    code = (
        "import sys, qixai_fast as qf\n"
        "figure = qf.plot_token_attribution(['a'], [1.0])\n"
        "qf.plot_feature_attribution([1.0]); qf.plot_image_attribution([[1.0]], [[1.0]])\n"
        "import io; figure.savefig(io.BytesIO())\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert 'torch' not in sys.modules\n"
        "import matplotlib.pyplot\n"
        "assert matplotlib.pyplot.get_fignums() == []\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
