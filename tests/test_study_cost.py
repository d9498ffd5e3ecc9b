"""The study's part on cost: it measures what is there, and gives every tool the same question."""

import json
import os

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.study import cost_fidelity as fidelity
from benchmarks.study import cost_peers, cost_reading, cost_words
from benchmarks.study.cost_cases import QUICK, Case, pieces, squares
from benchmarks.study.cost_instruments import instruments
from benchmarks.study.cost_meter import Rows, in_child, measured

pytestmark = pytest.mark.skipif(
    not os.path.exists("/proc/self/clear_refs"), reason="needs Linux's accounting"
)


@pytest.fixture
def linear():
    """A linear network, all of whose explanations are known: weight times value."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 1)).requires_grad_(False)
    with torch.no_grad():
        network[1].bias.zero_()
    inputs = torch.rand(3, 1, 8, 8)
    return Case(
        name="linear",
        about="made up",
        explained="output",
        parts="squares",
        model=network,
        inputs=inputs,
        baselines=torch.zeros_like(inputs),
        target=torch.zeros(3, dtype=torch.int64),
        groups=squares((1, 8, 8), 4),
        picture=(8, 8, 1),
        layers=("0", "1", "1"),
        recorded=inputs,
        reduce="none",
        sizes=QUICK,
    )


def _truth(case):
    return case.inputs * case.model[1].weight.view(1, 1, 8, 8)


def test_groups_of_pixels_and_of_frames():
    assert squares((2, 3, 4), 2).tolist() == 2 * [[[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3]]]
    assert pieces((5, 2), 2).tolist() == [[0, 0], [0, 0], [1, 1], [1, 1], [2, 2]]


def test_groups_are_taken_away_and_summed(linear):
    kept = np.array([[True, False, False, True], [False, True, True, True]])
    left = linear.masked(1, kept)
    assert torch.equal(left[0, 0, :4, :4], linear.inputs[1, 0, :4, :4])
    assert not left[0, 0, :4, 4:].any()
    assert not left[1, 0, :4, :4].any()
    assert linear.grouped(_truth(linear))[2, 3] == pytest.approx(_truth(linear)[2, 0, 4:, 4:].sum().item())


def test_all_tools_explain_a_linear_network_alike(linear):
    """So each of them got the right samples, output, baseline and groups."""
    for value, instrument in zip(linear.grouped(_truth(linear)), range(3), strict=True):
        assert np.abs(value).max() > 0.01, instrument
    wanted = linear.grouped(_truth(linear))
    cost_peers.compile_partitions()
    for instrument in instruments(linear, 50):
        if instrument.gives == "layers":
            continue
        values = np.asarray(instrument.make(linear)(slice(0, 3), 0))
        groups = values if instrument.gives == "groups" else linear.grouped(values)
        # LIME shrinks its coefficients (ridge), and 40 evaluations draw 4 groups.
        close = {"rtol": 0.2, "atol": 0.05} if instrument.key == "lime" else {"rtol": 1e-3, "atol": 1e-5}
        np.testing.assert_allclose(groups, wanted, **close, err_msg=instrument.name)


def test_words_are_explained_like_pictures(linear):
    if not cost_peers.lime_text:
        pytest.skip("LIME is not installed")
    found = cost_peers.lime_words(linear)(slice(1, 3), 0)
    np.testing.assert_allclose(found, linear.grouped(_truth(linear))[1:], rtol=0.2, atol=0.05)


def test_deletion_of_a_linear_network_is_known(linear):
    groups = linear.grouped(_truth(linear))
    areas, changes = fidelity.deletion(linear, groups)
    np.testing.assert_allclose(changes, groups.sum(1), rtol=1e-5)
    left = groups.sum(1, keepdims=True) - np.cumsum(-np.sort(-groups), axis=1)
    expected = (groups.sum(1) / 2 + left[:, :-1].sum(1)) / 4
    np.testing.assert_allclose(areas, expected, rtol=1e-4, atol=1e-6)
    worst, _ = fidelity.deletion(linear, -groups)
    assert (worst > areas).all()


def test_completeness_error_is_relative(linear):
    values = _truth(linear).numpy()
    assert fidelity.completeness(linear, values, "change") < 1e-5
    assert fidelity.completeness(linear, 1.1 * values, "output") == pytest.approx(0.1, rel=1e-3)


def test_agreement_is_of_ranks():
    values = np.arange(12.0).reshape(3, 4)
    assert fidelity.agreement(values, values**3) == 1
    assert fidelity.agreement(values, -values) == -1


def test_rows_forward_and_back_are_counted(linear):
    rows = Rows(linear.model)
    inputs = linear.inputs.clone().requires_grad_()
    with rows.counting():
        torch.autograd.grad(linear.model(inputs).sum(), inputs)
        linear.model(linear.inputs[:2])
    linear.model(linear.inputs)
    assert (rows.forward, rows.backward, rows.largest) == (5, 3, 3)


def test_memory_above_start_is_seen_and_the_warm_up_is_not():
    def take(megabytes):
        return np.ones(megabytes * 125_000).sum()

    found = in_child(
        lambda: measured(lambda: take(100), lambda seed: take(30), nn.Identity(), seeded=False)[0]
    )
    assert 29e6 < found["memory"] < 45e6
    assert found["rounds"] == 3


def test_a_child_that_fails_says_why_and_one_that_is_killed_too():
    def fail():
        raise TypeError("no rule")

    assert in_child(fail) == {"error": "TypeError: no rule"}
    assert "status" in in_child(lambda: os.kill(os.getpid(), 9))["error"]


def test_text_is_of_what_was_found():
    """Ratios in the reading are those of the table, and an instrument that failed is not compared."""

    def row(key, tool, seconds, memory, **more):
        both = {"forward": 100, "backward": 50, "rounds": 3, "completeness": 0.01}
        area = {"deletion": {"area": 0.2, "low": 0.1, "high": 0.3}}
        return (
            {"key": key, "tool": tool, "name": key, "seconds": seconds, "memory": memory} | both | area | more
        )

    network = {
        "name": "net",
        "samples": 2,
        "rows": 100,
        "rows_a_pass": 5,
        "random": {"area": 0.5, "low": 0.4, "high": 0.6},
        "local": [
            row("ig", "qixai-fast", 2.0, 10e6),
            row("ig_tol", "qixai-fast", 1.0, 10e6),
            row("conductance", "qixai-fast", 3.0, 10e6),
            row("captum", "Captum", 3.0, 80e6),
            row("captum_equal", "Captum", 1.5, 10e6),
            row("deep", "SHAP", 0.5, 0),
            {"key": "lrp", "tool": "Captum", "name": "LRP", "error": "TypeError: no `rule`"},
        ],
        "layers": [{"name": "pca", "what": "3 units", "few": {"error": "x"}, "many": row("", "", 0.25, 0)}],
    }
    text = "\n".join(cost_reading.answer([network]))
    assert "1.5 times as long and 8 times the memory" in text
    assert "LRP" not in text.split("**A sample**")[1]
    said = "\n".join(cost_reading.reading(network))
    assert "Faster than our 50 steps: SHAP's deep (4 times)" in said
    assert "Lighter than our 50 steps: SHAP's deep (10 times)." in said
    assert "Captum's LRP raises `TypeError: no 'rule'`" in said
    table = "\n".join(cost_words.local_lines(network))
    assert "| Captum | captum | 1.5 s | 80 MB | 50 forward, 25 back | 1 % | 0.20 (0.10 to 0.30) |  |" in table
    assert "| pca | 3 units | too few | 250 ms | < 1 MB |" in "\n".join(cost_words.layer_lines(network))
    json.dumps(network)
