"""Quantum mutual information, coherence and orders of entropy; bounds where part of a spectrum is known."""

import math
import os
import subprocess
import sys
import tracemalloc
import warnings
from itertools import pairwise

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import qixai_fast as qf
from qixai_fast import _states
from qixai_fast._entropies import PartialSpectrum, entropy

ORDERS = [0.3, 0.95, 1, 1.02, 1.5, 2, 3, 40]
# More samples than pairs of features; fewer; fewer than features.
SHAPES = [(80, 4, 3), (20, 6, 5), (9, 12, 30), (1, 3, 2), (5, 1, 1)]


def layer(n, d, seed=0):
    return np.maximum(np.random.default_rng(seed).standard_normal((n, d)), 0) + np.linspace(0.01, 0.02, d)


def rotation(d, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0]


@pytest.mark.parametrize("alpha", ORDERS)
@pytest.mark.parametrize(("n", "d_x", "d_y"), SHAPES)
def test_agrees_with_the_density_matrices(n, d_x, d_y, alpha):
    X, Y = layer(n, d_x, 1), layer(n, d_y, 2)
    expected = reference.quantum_mutual_information(X, Y, alpha)
    # Rounding in eigenvalues that are zero is magnified by orders below 1.
    tolerance = 1e-11 if alpha >= 0.9 else 1e-5
    assert qf.quantum_mutual_information(X, Y, alpha=alpha) == pytest.approx(expected, abs=tolerance)
    assert qf.quantum_mutual_information(Y, X, alpha=alpha) == pytest.approx(expected, abs=tolerance)
    eigenvalues = np.linalg.eigvalsh(reference.density_matrix(X))
    expected = reference.renyi_entropy(eigenvalues, alpha)
    assert qf.von_neumann_entropy(X, alpha=alpha) == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize(("n", "d"), [(80, 6), (9, 30), (1, 5), (5, 1), (400, 1100)])
def test_coherence_agrees_with_the_density_matrix(n, d):
    X = layer(n, d) - 0.3
    assert qf.coherence(X) == pytest.approx(reference.coherence(X), rel=1e-12, abs=1e-14)


def test_coherence_of_known_states():
    assert qf.coherence(np.eye(5) * np.arange(1, 6)[:, None]) == 0
    assert qf.coherence(np.full((7, 6), -2.0)) == pytest.approx(5, abs=1e-13)
    # Opposite signs cancel in the mean state: (a, b) and (a, -b) leave nothing off the diagonal.
    assert qf.coherence([[3.0, 4.0], [3.0, -4.0]]) == pytest.approx(0, abs=1e-15)
    # It belongs to the basis, unlike the entropy.
    turned = np.eye(5) @ rotation(5)
    assert qf.coherence(turned) == pytest.approx(0, abs=1e-14)
    assert qf.coherence(np.eye(5)[:3] @ rotation(5)) > 0.1


def test_identical_layers_of_orthogonal_states():
    """One-hot states: the joint state is as mixed as either, and all of it is shared."""
    for copies in (1, 4):
        X = np.tile(np.eye(6), (copies, 1))
        for alpha in ORDERS:
            assert qf.quantum_mutual_information(X, 3 * X @ rotation(6), alpha=alpha) == pytest.approx(
                math.log(6), abs=1e-12
            )


def test_independent_one_hot_states_share_nothing():
    first, second = (np.eye(size)[codes] for size, codes in ((3, np.arange(12) // 4), (4, np.arange(12) % 4)))
    for alpha in ORDERS:
        assert qf.quantum_mutual_information(first, second, alpha=alpha) == pytest.approx(0, abs=1e-12)


def test_classical_states_have_classical_information():
    rng = np.random.default_rng(3)
    x = rng.integers(4, size=500)
    y = np.where(rng.random(500) < 0.5, x, rng.integers(4, size=500))
    expected = qf.mutual_info_discrete(x, y)
    assert qf.quantum_mutual_information(np.eye(4)[x], np.eye(4)[y]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("n", "d"), [(60, 5), (6, 40)])
def test_a_pure_state_shares_nothing(n, d):
    pure = np.outer(np.random.default_rng(1).standard_normal(n), np.ones(3))
    for alpha in ORDERS:
        value = qf.quantum_mutual_information(layer(n, d), pure, alpha=alpha)
        assert value == pytest.approx(0, abs=1e-11 if alpha >= 0.9 else 1e-5)


def test_other_orders_may_be_negative():
    """Classical states whose entropies of order 3 are not subadditive."""
    weights = np.array([[0.26, 0.0], [0.48, 0.26]])
    counts = np.rint(100 * weights).astype(int)
    x, y = (np.repeat(axis.ravel(), counts.ravel()) for axis in np.indices((2, 2)))
    value = qf.quantum_mutual_information(np.eye(2)[x], np.eye(2)[y], alpha=3)
    powers = [(p**3).sum() for p in (weights.sum(axis=0), weights.sum(axis=1), weights)]
    expected = np.log(powers[0] * powers[1] / powers[2]) / (1 - 3)
    assert value == pytest.approx(expected, abs=1e-12)
    assert value < -0.01


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 15), st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_properties(n, d_x, d_y, seed):
    rng = np.random.default_rng(seed)
    X, Y = rng.standard_normal((n, d_x)), rng.standard_normal((n, d_y))
    value = qf.quantum_mutual_information(X, Y)
    smaller = min(qf.von_neumann_entropy(X), qf.von_neumann_entropy(Y))
    assert -1e-11 <= value <= smaller + 1e-11
    order, lengths = rng.permutation(n), rng.uniform(0.1, 9, (n, 1)) * rng.choice([-1, 1], (n, 1))
    turned = qf.quantum_mutual_information((X * lengths)[order] @ rotation(d_x, seed), Y[order])
    assert turned == pytest.approx(value, abs=1e-10)
    copies = max(2, 40 // n)
    assert qf.quantum_mutual_information(np.tile(X, (copies, 1)), np.tile(Y, (copies, 1))) == pytest.approx(
        value, abs=1e-10
    )
    assert 0 <= qf.coherence(X) <= d_x - 1 + 1e-12
    entropies = [qf.von_neumann_entropy(X, alpha=alpha) for alpha in ORDERS]
    assert all(low <= high + 1e-5 for high, low in pairwise(entropies))
    assert entropies[ORDERS.index(2)] == pytest.approx(-math.log(qf.purity(X)), abs=1e-11)


def some_spectra():
    rng = np.random.default_rng(5)
    yield "flat", np.ones(60)
    yield "power law", 1.0 / np.arange(1, 61)
    yield "steep", 0.5 ** np.arange(60.0)
    yield "few", np.array([3.0, 2.0, 1.0] + [0.0] * 57)
    yield "noise", np.linalg.svd(rng.standard_normal((60, 90)), compute_uv=False) ** 2
    yield "one and noise", np.concatenate([[50.0], rng.random(59)])


@pytest.mark.parametrize("sweeps", [0, 2])
@pytest.mark.parametrize(("name", "spectrum"), list(some_spectra()), ids=[name for name, _ in some_spectra()])
def test_bounds_hold_for_any_subspace(name, spectrum, sweeps):
    """From a random subspace, far from invariant, and from a better one."""
    spectrum = np.sort(spectrum / spectrum.sum())[::-1]
    turn = rotation(60, 7)
    state = (turn * spectrum) @ turn.T
    for rank in (1, 3, 20, 59):
        basis = np.linalg.qr(np.random.default_rng(rank).standard_normal((60, rank)))[0]
        for _ in range(sweeps):
            basis = np.linalg.qr(state @ basis)[0]
        values, vectors = np.linalg.eigh(basis.T @ state @ basis)
        image = state @ basis @ vectors
        residuals = np.maximum((image**2).sum(axis=0) - values**2, 0)
        partial = PartialSpectrum(values[::-1], residuals[::-1], float((state**2).sum()), 60)
        for alpha in ORDERS:
            low, high = partial.bounds(alpha)
            true = entropy(spectrum, alpha)
            slack = 1e-12 if alpha >= 0.9 else 1e-4
            assert low - slack <= true <= high + slack, (rank, alpha)
            if alpha == 2:
                assert high - low < 1e-12
            if name == "flat" and alpha == 1:
                assert high - low < 1e-10


@pytest.mark.parametrize(("n", "d_x", "d_y"), [(900, 20, 15), (250, 40, 30), (120, 200, 3)])
def test_the_leading_part_with_its_bound(n, d_x, d_y):
    rng = np.random.default_rng(6)
    X = rng.standard_normal((n, 5)) @ rng.standard_normal((5, d_x)) + 0.1 * rng.standard_normal((n, d_x))
    Y = np.maximum(X[:, :1] + rng.standard_normal((n, d_y)), 0) + 0.01
    for alpha in (0.7, 1, 2, 2.5):
        true = qf.quantum_mutual_information(X, Y, alpha=alpha)
        bounds = []
        for rank in (2, 10, 60):
            value, bound = qf.quantum_mutual_information(X, Y, alpha=alpha, rank=rank, return_bound=True)
            assert abs(value - true) <= bound + 1e-9
            bounds.append(bound)
        # Two of the three entropies only have as many eigenvalues as there are features.
        assert bounds[2] <= bounds[0]
        value, bound = qf.quantum_mutual_information(X, Y, alpha=alpha, rank=n, return_bound=True)
        assert (value, bound) == (true, 0.0)
        value, bound = qf.von_neumann_entropy(X, alpha=alpha, rank=8, return_bound=True)
        assert abs(value - qf.von_neumann_entropy(X, alpha=alpha)) <= bound + 1e-9


@pytest.mark.parametrize(("n", "d"), [(300, 40), (40, 300)])
def test_low_rank_layers_are_known_well(n, d):
    rng = np.random.default_rng(8)
    X = rng.standard_normal((n, 4)) @ rng.standard_normal((4, d))
    value, bound = qf.von_neumann_entropy(X, rank=6, return_bound=True)
    assert bound < 1e-6
    assert value == pytest.approx(qf.von_neumann_entropy(X), abs=1e-6)


@pytest.mark.parametrize("rank", [1, 7, 12, 13, 29])
def test_spaces_that_soon_hold_all_there_is(rank):
    """Few distinct states, states along axes, one axis and little else: nothing new for later blocks."""
    rng = np.random.default_rng(9)
    axes = np.eye(30)[rng.integers(30, size=200)]
    few = rng.standard_normal((5, 30))[rng.integers(5, size=200)]
    one = np.zeros((200, 30))
    one[:, 0], one[:3, 1] = 1.0, 1e-6
    for X in (axes, few, one, axes[:20], np.ones((200, 30)), rng.standard_normal((200, 30))):
        value, bound = qf.von_neumann_entropy(X, rank=rank, return_bound=True)
        assert abs(value - qf.von_neumann_entropy(X)) <= bound + 1e-9


def test_products_of_all_blocks_tell_of_more_eigenvalues_than_one_has():
    """A long tail: blocks of 20 vectors, between 20 and 60 eigenvalues that are known exactly."""
    spectrum = 1.0 / np.arange(1, 201)
    X = rotation(200, 3) * np.sqrt(spectrum)
    X = np.concatenate([X, -X])
    states = X / np.linalg.norm(X, axis=1, keepdims=True)
    eigenvalues = np.sort(np.linalg.eigvalsh(states.T @ states / len(states)))[::-1]
    norm = float((eigenvalues**2).sum())
    bounds = []
    for known in (20, 60):
        low, high = PartialSpectrum(eigenvalues[:known], np.zeros(known), norm, 200).bounds(1)
        bounds.append((high - low) / 2)
    _, bound = qf.von_neumann_entropy(X, rank=20, return_bound=True)
    assert bounds[1] < bound < bounds[0]


@pytest.mark.parametrize(("n", "d"), [(300, 40), (40, 300)])
def test_beyond_the_exact_side(monkeypatch, n, d):
    X, Y = layer(n, d), layer(n, 9, seed=1)
    exact = qf.von_neumann_entropy(X), qf.purity(X), qf.quantum_mutual_information(X, Y)
    monkeypatch.setattr(_states, "EXACT_SIDE", 16)
    monkeypatch.setattr("qixai_fast.quantum.EXACT_SIDE", 16)
    monkeypatch.setattr(_states, "DEFAULT_RANK", 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value, bound = qf.von_neumann_entropy(X, return_bound=True)
        assert 0 < bound < 0.7
        assert abs(value - exact[0]) <= bound
        assert qf.effective_rank(X) == math.exp(value)
        assert qf.purity(X) == pytest.approx(exact[1], rel=1e-12)
        assert qf.von_neumann_entropy(X, alpha=2) == pytest.approx(-math.log(exact[1]), rel=1e-12)
        value, bound = qf.quantum_mutual_information(X, Y, return_bound=True)
        assert abs(value - exact[2]) <= bound
    monkeypatch.setattr(_states, "_WIDE_BOUND", 0.0)
    for call in (qf.von_neumann_entropy, qf.effective_rank, lambda X: qf.quantum_mutual_information(X, Y)):
        with pytest.warns(UserWarning, match="only the leading eigenvalues") as caught:
            call(X)
        assert len(caught) == 1
        assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        qf.von_neumann_entropy(X, return_bound=True)


def test_samples_of_zeros():
    X, Y = layer(40, 5, 1).astype(np.float32), layer(40, 7, 2)
    X[3], Y[[11, 39]] = 0, 0
    with pytest.raises(ValueError, match="X: the sample at row 3 is all zeros"):
        qf.quantum_mutual_information(X, Y)
    with pytest.raises(ValueError, match="Y: the sample at row 11 is all zeros"):
        qf.quantum_mutual_information(np.abs(X) + 1, Y)
    rest = np.delete(X, [3, 11, 39], axis=0), np.delete(Y, [3, 11, 39], axis=0)
    for options in ({}, {"rank": 4}, {"alpha": 2}):
        value, bound = qf.quantum_mutual_information(X, Y, zero_samples="drop", return_bound=True, **options)
        expected = qf.quantum_mutual_information(*rest, return_bound=True, **options)
        assert abs(value - expected[0]) <= (bound + expected[1] if "rank" in options else 1e-11)
    assert qf.coherence(X, zero_samples="drop") == pytest.approx(
        qf.coherence(np.delete(X, 3, axis=0)), rel=1e-6
    )
    with pytest.raises(ValueError, match="X and Y: every sample is all zeros in one of them"):
        qf.quantum_mutual_information(X * 0, Y, zero_samples="drop")


def test_every_kind_of_input(tmp_path):
    X, Y = layer(40, 5).astype(np.float32), layer(40, 4, 1)
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    calls = [qf.coherence, lambda layer: qf.quantum_mutual_information(layer, Y)]
    for call in calls:
        expected = call(X)
        strided = np.repeat(X, 2, axis=1)[:, ::2]
        for same in (mapped, np.asfortranarray(X), strided, torch.from_numpy(X), X.tolist()):
            value = call(same)
            assert type(value) is float
            assert value == pytest.approx(expected, abs=1e-12)
        coarse = torch.from_numpy(X).to(torch.bfloat16)
        assert call(coarse) == call(coarse.float())
        half = X.astype(np.float16)
        assert call(half) == call(half.astype(np.float32))
        assert call((X * 9).astype(np.uint8) + 1) > 0
        assert call(X * np.float64(1e250)) == pytest.approx(expected, rel=1e-11)


def test_bad_input_is_named():
    X = layer(9, 3)
    with pytest.raises(ValueError, match="X and Y: wanted the same number of samples, got 9 and 8"):
        qf.quantum_mutual_information(X, X[:8])
    for alpha in (0, -1, math.inf, math.nan):
        with pytest.raises(ValueError, match="alpha: wanted a positive finite order"):
            qf.quantum_mutual_information(X, X, alpha=alpha)
    for alpha in ("1", None, True):
        with pytest.raises(TypeError, match="alpha: wanted a number"):
            qf.von_neumann_entropy(X, alpha=alpha)
    with pytest.raises(ValueError, match="rank: wanted at least 1, got 0"):
        qf.quantum_mutual_information(X, X, rank=0)
    with pytest.raises(TypeError, match="return_bound: wanted True or False"):
        qf.quantum_mutual_information(X, X, return_bound="yes")
    with pytest.raises(ValueError, match="zero_samples: wanted one of"):
        qf.quantum_mutual_information(X, X, zero_samples="ignore")
    with pytest.raises(ValueError, match="device"):
        qf.quantum_mutual_information(X, X, device="tpu")
    with pytest.raises(ValueError, match="Y: wanted at least 1 sample"):
        qf.quantum_mutual_information(X, np.ones((0, 3)))
    bad = X.copy()
    bad[2, 1] = np.inf
    for call in (
        qf.coherence,
        lambda bad: qf.quantum_mutual_information(bad, X),
        lambda bad: qf.quantum_mutual_information(bad, X, zero_samples="drop"),
        lambda bad: qf.quantum_mutual_information(bad, X, rank=2),
    ):
        with pytest.raises(ValueError, match="X: inf at row 2, column 1"):
            call(bad)


_BITS = """
import numpy as np, qixai_fast as qf
rng = np.random.default_rng(0)
X, Y = rng.standard_normal((1500, 30)), rng.standard_normal((1500, 60)).astype(np.float32)
for n_jobs in 3 * (1, 2, 4, None):
    wide = X[:200].repeat(20, axis=1), Y[:200]
    print([qf.coherence(X, n_jobs=n_jobs).hex(), qf.coherence(wide[0], n_jobs=n_jobs).hex()] + [
        part.hex() for layers in ((X[:, :9], Y[:, :8]), wide) for rank in (None, 10)
        for part in qf.quantum_mutual_information(*layers, rank=rank, return_bound=True, n_jobs=n_jobs)])
"""


def test_same_bits_for_any_number_of_threads():
    run = subprocess.run(
        [sys.executable, "-c", _BITS],
        env={**os.environ, "NUMBA_NUM_THREADS": "4"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = run.stdout.splitlines()
    assert len(lines) == 12
    assert len(set(lines)) == 1


CALLS = {
    "coherence": lambda X, **options: qf.coherence(X, **options),
    "coherence, dropping": lambda X, **options: qf.coherence(X, zero_samples="drop", **options),
    "all": lambda X, **options: qf.quantum_mutual_information(X, X[:, :20], **options),
    "leading": lambda X, **options: qf.quantum_mutual_information(
        X, X[:, :20], rank=16, return_bound=True, **options
    ),
    "leading of one": lambda X, **options: qf.von_neumann_entropy(X, rank=16, return_bound=True, **options),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize(("n", "d"), [(6000, 30), (300, 2000)])
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
        np.testing.assert_allclose(value, free, rtol=1e-12, atol=1e-12)
