"""Density matrices, entropies and Schmidt spectra: definitions, closed forms, edges, budgets."""

import math
import tracemalloc

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import qixai_fast as qf

STATE_MEASURES = [qf.von_neumann_entropy, qf.purity, qf.effective_rank]
PAIR_MEASURES = [qf.schmidt_spectrum, qf.entanglement_entropy]


def layer(n, d, seed=0):
    return np.maximum(np.random.default_rng(seed).standard_normal((n, d)), 0) + np.linspace(0.01, 0.02, d)


@pytest.mark.parametrize(("n", "d"), [(80, 6), (9, 30), (7, 7), (1, 5), (5, 1), (3000, 40)])
def test_agrees_with_the_density_matrix(n, d):
    X = layer(n, d)
    rho = reference.density_matrix(X)
    entropy = reference.entropy(np.linalg.eigvalsh(rho))
    assert qf.von_neumann_entropy(X) == pytest.approx(entropy, abs=1e-12)
    assert qf.effective_rank(X) == pytest.approx(np.exp(entropy), rel=1e-12)
    assert qf.purity(X) == pytest.approx(np.trace(rho @ rho), abs=1e-13)


@pytest.mark.parametrize("d", [1, 2, 17])
@pytest.mark.parametrize("copies", [1, 5])
def test_maximally_mixed(d, copies):
    rotation = np.linalg.qr(np.random.default_rng(d).standard_normal((d, d)))[0]
    lengths = np.linspace(1, 9, copies * d)[:, None]
    X = np.tile(rotation, (copies, 1)) * lengths
    assert qf.von_neumann_entropy(X) == pytest.approx(math.log(d), abs=1e-12)
    assert qf.purity(X) == pytest.approx(1 / d, abs=1e-13)
    assert qf.effective_rank(X) == pytest.approx(d, rel=1e-12)


@pytest.mark.parametrize(("n", "d"), [(40, 5), (5, 40)])
def test_pure_state(n, d):
    rng = np.random.default_rng(1)
    X = np.outer(rng.standard_normal(n), rng.standard_normal(d))
    assert qf.von_neumann_entropy(X) == pytest.approx(0, abs=1e-12)
    assert qf.von_neumann_entropy(X) >= 0
    assert qf.purity(X) == pytest.approx(1, abs=1e-13)
    assert qf.purity(X) <= 1
    assert qf.effective_rank(X) == pytest.approx(1, abs=1e-12)


def test_two_directions_with_weights():
    X = np.array([[2.0, 0.0]] * 3 + [[0.0, 7.0]])
    assert qf.von_neumann_entropy(X) == pytest.approx(reference.entropy([0.75, 0.25]), abs=1e-14)
    assert qf.purity(X) == pytest.approx(0.625, abs=1e-15)


def test_purity_is_the_mean_squared_cosine():
    X = layer(50, 8)
    assert qf.purity(X) == pytest.approx((qf.cosine_similarity(X) ** 2).mean(), abs=1e-13)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 15), st.integers(1, 10), st.integers(0, 2**32 - 1))
def test_properties_of_states(n, d, seed):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    entropy, purity = qf.von_neumann_entropy(X), qf.purity(X)
    assert 0 <= entropy <= math.log(min(n, d)) + 1e-12
    assert 1 / min(n, d) - 1e-12 <= purity <= 1
    assert -math.log(purity) <= entropy + 1e-12  # the order-2 entropy is never the larger one
    rotation = np.linalg.qr(rng.standard_normal((d, d)))[0]
    lengths = rng.uniform(0.1, 9, (n, 1)) * rng.choice([-1, 1], (n, 1))
    turned = (X * lengths)[rng.permutation(n)] @ rotation
    assert qf.von_neumann_entropy(turned) == pytest.approx(entropy, abs=1e-11)
    assert qf.purity(turned) == pytest.approx(purity, abs=1e-12)
    # The density matrix of doubled samples is the same, and its route another one.
    assert qf.von_neumann_entropy(np.tile(X, (11, 1))) == pytest.approx(entropy, abs=1e-11)


@pytest.mark.parametrize("measure", STATE_MEASURES)
@pytest.mark.parametrize(("n", "d"), [(40, 5), (5, 40), (20_000, 64)])
def test_samples_of_zeros(measure, n, d):
    X = layer(n, d).astype(np.float32)
    dropped = X.copy()
    dropped[[n // 2, n - 1]] = 0
    with pytest.raises(ValueError, match=f"X: the sample at row {n // 2} is all zeros"):
        measure(dropped)
    rest = np.delete(dropped, [n // 2, n - 1], axis=0)
    assert measure(dropped, zero_samples="drop") == pytest.approx(measure(rest), rel=1e-11)
    assert measure(rest, zero_samples="drop") == measure(rest)
    with pytest.raises(ValueError, match="X: every sample is all zeros"):
        measure(np.zeros((n, d)), zero_samples="drop")
    with pytest.raises(ValueError, match="zero_samples: wanted one of 'raise', 'drop', got 'ignore'"):
        measure(X, zero_samples="ignore")


@pytest.mark.parametrize("measure", STATE_MEASURES)
@pytest.mark.parametrize("scale", [1e200, 1e-200, 1e300, 1e-300])
def test_extreme_values_of_states(measure, scale):
    X = layer(30, 4)
    assert measure(X * scale) == pytest.approx(measure(X), rel=1e-12)


def test_one_large_sample_counts_as_one():
    X = layer(30, 4)
    entropy = qf.von_neumann_entropy(X)
    X[7] *= 1e250
    assert qf.von_neumann_entropy(X) == pytest.approx(entropy, abs=1e-12)


@pytest.mark.parametrize(
    ("n", "d_x", "d_y"), [(80, 6, 4), (80, 4, 6), (12, 30, 5), (12, 9, 9), (2, 3, 4), (9000, 20, 30)]
)
def test_schmidt_spectrum_agrees_with_the_definition(n, d_x, d_y):
    X, Y = layer(n, d_x, 1), layer(n, d_y, 2)
    Y[:, 0] += X[:, 0]
    expected = reference.schmidt_spectrum(X, Y)[: min(d_x, d_y, n - 1)]
    spectrum = qf.schmidt_spectrum(X, Y)
    assert spectrum.shape == expected.shape
    np.testing.assert_allclose(spectrum, expected, atol=1e-11)
    assert spectrum.sum() == pytest.approx(1, abs=1e-14)
    assert (np.diff(spectrum) <= 0).all()
    assert qf.entanglement_entropy(X, Y) == pytest.approx(reference.entropy(expected), abs=1e-10)
    np.testing.assert_allclose(qf.schmidt_spectrum(Y, X), spectrum, atol=1e-11)


def factorial_design(levels):
    """All combinations of as many independent variables of mean 0 and variance 1, one a column."""
    return np.array(np.meshgrid(*[[-1.0, 1.0]] * levels)).reshape(levels, -1).T


def test_product_structure():
    """One variable drives both layers: one mode, whatever else each layer holds."""
    shared, own_x, own_y = factorial_design(3).T
    X = np.column_stack([shared + own_x, 2 * shared - own_x, own_x])
    Y = np.column_stack([shared - own_y, own_y])
    np.testing.assert_allclose(qf.schmidt_spectrum(X, Y), [1, 0], atol=1e-14)
    assert qf.entanglement_entropy(X, Y) == pytest.approx(0, abs=1e-13)


def test_modes_with_known_shares():
    X = factorial_design(4)
    weights = np.array([2.0, 1.0, 1.0, 0.0])
    shares = weights**2 / (weights**2).sum()
    np.testing.assert_allclose(qf.schmidt_spectrum(X, X * weights + 5), shares, atol=1e-14)
    assert qf.entanglement_entropy(X, X * weights) == pytest.approx(reference.entropy(shares), abs=1e-13)
    assert qf.entanglement_entropy(X, X) == pytest.approx(math.log(4), abs=1e-13)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 15), st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_properties_of_pairs(n, d_x, d_y, seed):
    rng = np.random.default_rng(seed)
    X, Y = rng.standard_normal((n, d_x)), rng.standard_normal((n, d_y))
    spectrum = qf.schmidt_spectrum(X, Y)
    assert len(spectrum) == min(d_x, d_y, n - 1)
    assert 0 <= qf.entanglement_entropy(X, Y) <= math.log(len(spectrum)) + 1e-12
    order = rng.permutation(n)
    rotation = np.linalg.qr(rng.standard_normal((d_x, d_x)))[0]
    np.testing.assert_allclose(
        qf.schmidt_spectrum(3 * X[order] @ rotation + 1, Y[order] / 7), spectrum, atol=1e-11
    )


@pytest.mark.parametrize("measure", PAIR_MEASURES)
@pytest.mark.parametrize("n", [6, 64])
def test_no_dependence_to_share_out(measure, n):
    X = layer(n, 4)
    with pytest.raises(ValueError, match="X and Y: their centred cross-covariance is zero"):
        measure(X, np.full((n, 3), 0.1))
    design = factorial_design(4)
    with pytest.raises(ValueError, match="X and Y: their centred cross-covariance is zero"):
        measure(design[:, :2] + 1000.1, design[:, 2:] * 3)


@pytest.mark.parametrize("scale", [1e200, 1e-200])
@pytest.mark.parametrize("n", [6, 64])
def test_extreme_values_and_offsets_of_pairs(scale, n):
    X, Y = layer(n, 5, 1), layer(n, 4, 2)
    spectrum = qf.schmidt_spectrum(X, Y)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        np.testing.assert_allclose(qf.schmidt_spectrum(X * scale, Y * scale), spectrum, atol=1e-12)
    lattice = np.round(X * 2**20) / 2**20
    np.testing.assert_allclose(
        qf.schmidt_spectrum(lattice + 2.0**30, Y), qf.schmidt_spectrum(lattice, Y), atol=1e-11
    )


def test_every_kind_of_input(tmp_path):
    X = layer(40, 5).astype(np.float32)
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    half = X.astype(np.float16)
    coarse = torch.from_numpy(X).to(torch.bfloat16)
    calls = [*STATE_MEASURES, lambda layer: qf.entanglement_entropy(layer, layer)]
    for call in calls:
        expected = call(X)
        for same in (mapped, np.asfortranarray(X), np.repeat(X, 2, axis=1)[:, ::2], torch.from_numpy(X)):
            value = call(same)
            assert type(value) is float
            assert value == pytest.approx(expected, abs=1e-12)
        assert call(half) == call(half.astype(np.float32))
        assert call(coarse) == call(coarse.float())
        assert call((X * 9).astype(np.uint8) + 1) > 0
    spectrum = qf.schmidt_spectrum(torch.from_numpy(X), X)
    assert isinstance(spectrum, torch.Tensor)
    assert spectrum.dtype == torch.float64
    assert np.array_equal(spectrum.numpy(), qf.schmidt_spectrum(X, X))


@pytest.mark.parametrize("measure", STATE_MEASURES)
def test_bad_states_are_named(measure):
    with pytest.raises(ValueError, match=r"X: wanted shape \(n_samples, n_features\)"):
        measure(np.ones(3))
    with pytest.raises(ValueError, match="X: wanted at least 1 feature"):
        measure(np.ones((3, 0)))
    for shape in ((9, 3), (3, 9)):
        X = np.ones(shape)
        X[2, 1] = np.nan
        with pytest.raises(ValueError, match="X: nan at row 2, column 1"):
            measure(X)
    with pytest.raises(ValueError, match="device"):
        measure(np.eye(3), device="tpu")


@pytest.mark.parametrize("measure", PAIR_MEASURES)
def test_bad_pairs_are_named(measure):
    X = layer(9, 3)
    with pytest.raises(ValueError, match="X and Y: wanted the same number of samples, got 9 and 8"):
        measure(X, X[:8])
    with pytest.raises(ValueError, match="X: wanted at least 2 sample"):
        measure(X[:1], X[:1])
    with pytest.raises(TypeError, match="Y: dtype"):
        measure(X, X.astype(complex))
    bad = X.copy()
    bad[2, 1] = np.inf
    with pytest.raises(ValueError, match="Y: inf at row 2, column 1"):
        measure(X, bad)
    with pytest.raises(ValueError, match="device"):
        measure(X, X, device="tpu")


@pytest.mark.parametrize(
    "call", [lambda X, **o: qf.von_neumann_entropy(X, **o), lambda X, **o: qf.schmidt_spectrum(X, X, **o)]
)
@pytest.mark.parametrize(("n", "d"), [(20_000, 60), (300, 2000)])
@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_the_budget_is_kept(call, n, d, dtype):
    X = layer(n, d).astype(dtype)
    free = call(X)
    with pytest.raises(qf.MemoryBudgetError, match="would do") as caught:
        call(X, max_memory=1000)
    for budget in (caught.value.required, 2 * caught.value.required):
        tracemalloc.start()
        value = call(X, max_memory=budget)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak <= budget
        np.testing.assert_allclose(value, free, atol=1e-12)
