"""Figures of attributions: which sample, titles, bad input, and what surrounds a figure."""

import subprocess
import sys

import matplotlib as mpl
import matplotlib.style
import numpy as np
import pytest
import torch
from drawn_figures import VALUES, WORDS, attribution, render, spots

import qixai_fast as qf

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
