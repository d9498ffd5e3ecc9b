"""Part 5 of the study: pairs are what they say, measures what their papers define, tests keep their level."""

import numpy as np
import pytest

from benchmarks.study import dependence
from benchmarks.study.dependence_measures import OF_LAYERS, OF_MAPS, distance_correlation, rbf_cka
from benchmarks.study.dependence_pairs import INDEPENDENT, LAYERS, MAPS
from benchmarks.study.dependence_reading import lines_of


@pytest.mark.parametrize("pair", [*MAPS, *LAYERS], ids=lambda pair: pair.law)
def test_pairs_are_correlated_or_not_as_they_say(pair):
    n = 100_000
    x, y = (v.reshape(n, -1) for v in pair.sample(np.random.default_rng(1), n))
    x, y = (np.argsort(np.argsort(v, axis=0), axis=0) for v in (x, y)) if pair.relation == "ranks" else (x, y)
    r = np.corrcoef(x.T, y.T)[: x.shape[1], x.shape[1] :]
    # Heavy tails spread correlations more than 1 / sqrt(n).
    assert np.abs(r).max() < 0.05 if pair.relation == "none" else np.abs(r).max() > 0.1


def distance_correlation_by_definition(x, y):
    """Székely, Rizzo and Bakirov 2007: sums over all pairs of samples, one at a time."""
    n = len(x)

    def centred(v):
        d = np.array([[np.sqrt(((v[i] - v[j]) ** 2).sum()) for j in range(n)] for i in range(n)])
        return np.array(
            [[d[i, j] - d[i].mean() - d[:, j].mean() + d.mean() for j in range(n)] for i in range(n)]
        )

    a, b = centred(x), centred(y)
    return (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())


def test_distance_correlation_is_its_definition():
    rng = np.random.default_rng(0)
    x, order = rng.normal(size=(20, 3)), rng.permutation(20)
    y = x[:, :2] ** 2 + rng.normal(size=(20, 2))
    found = distance_correlation(x, y)(order)
    assert found == pytest.approx(distance_correlation_by_definition(x, y[order]), rel=1e-12)


def test_kernel_alignment_of_a_layer_with_itself_turned_and_scaled_is_one():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 4))
    turned = 3 * x @ np.linalg.qr(rng.normal(size=(4, 4)))[0]
    for measure in (rbf_cka, distance_correlation):
        assert measure(x, turned)(np.arange(50)) == pytest.approx(1, rel=1e-10)
        assert measure(x, turned)(rng.permutation(50)) < 0.7


@pytest.mark.parametrize(("measures", "pair"), [(OF_MAPS, MAPS[0]), (OF_LAYERS, LAYERS[0])])
def test_tests_keep_their_level(measures, pair):
    """Five in a hundred, give or take four standard errors."""
    draws = 120
    shares = dependence.power_of(measures, pair, 40, draws)
    most = dependence.LEVEL + 4 * np.sqrt(dependence.LEVEL * 0.95 / draws)
    assert set(shares) == set(measures)
    assert max(shares.values()) < most
    assert np.mean(list(shares.values())) > 0.015


def test_what_is_plain_is_found():
    by_name = {pair.name: pair for pair in LAYERS}
    linear = dependence.power_of(OF_LAYERS, by_name["linear"], 400, 5)
    assert linear["largest correlation"] == linear["linear CKA"] == 1
    assert dependence.power_of({"q": OF_LAYERS["quantum MI"]}, by_name["random sign"], 1500, 5) == {"q": 1}


def test_critical_values_are_those_of_a_monte_carlo_test():
    null = np.arange(99.0)
    assert dependence.critical_value(null) == 94  # exceeded by 95 ... 98: p = (4 + 1) / 100
    assert dependence.critical_value(null[:10]) == np.inf


def content_of(power):
    return {
        "sizes": [50, 100], "draws": 10, "permuted": 5, "level": 0.05,
        "families": {
            family: {pair.name: {name: power(pair, name) for name in measures} for pair in pairs}
            for family, pairs, measures in (("maps", MAPS, OF_MAPS), ("layers", LAYERS, OF_LAYERS))
        },
    }  # fmt: skip


def test_a_size_counts_where_power_stays():
    content = {"sizes": [50, 100, 200]}
    assert dependence.least_size(content, [0.9, 0.7, 0.9]) == 200
    assert dependence.least_size(content, [0.9, 0.8, 0.9]) == 50
    assert dependence.least_size(content, [0.9, 0.9, 0.7]) is None


def test_the_verdict_follows_the_curves():
    def power(pair, name):
        if pair.name == INDEPENDENT:
            return [0.05, 0.05]
        sees = ("MI" in name) == (pair.relation == "none")
        return [0.1, 1.0] if sees else [0.1, 0.2]

    text = "\n".join(lines_of(content_of(power)))
    blind = sum(pair.relation == "none" for pair in (*MAPS[1:], *LAYERS[1:]))
    assert f"On {blind} of {blind} pairs without linear correlation" in text
    assert "on 4 of 4 linearly correlated pairs it needs more" in text
    assert "does as well as mutual information or better on 5 of all 13" in text
    assert "fewer on quadratic, ReLU-gated, XOR, random sign and heavy-tailed, more on linear and" in text
    assert "against classical mutual information, fewer on none, more on none" in text
    assert "finds linear and ReLU on both: it says how many modes" in text
    assert "taken for dependent in 5.0% to 5.0% of draws" in text
