"""CCA, SVCCA and Procrustes: definitions, closed forms, invariances; with RSA budgets, bits, bad input."""

import itertools
import os
import subprocess
import sys
import tracemalloc
import warnings

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import qixai_fast as qf


def related(n, d_x, d_y, seed=0):
    """Two layers that share a few directions."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d_x))
    Y = X @ rng.standard_normal((d_x, d_y)) / np.sqrt(d_x) + 2 * rng.standard_normal((n, d_y))
    return X, Y


def rotation(d, seed=1):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0]


def orthonormal(n, d, seed=0):
    """Centred columns."""
    noise = np.random.default_rng(seed).standard_normal((n, d))
    return np.linalg.qr(noise - noise.mean(axis=0))[0]


# Canonical correlations --------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "d_x", "d_y"), [(60, 3, 4), (60, 9, 2), (12, 5, 4), (14, 7, 6), (5, 1, 1)])
def test_cca_agrees_with_the_definition(n, d_x, d_y):
    X, Y = related(n, d_x, d_y)
    result = qf.cca(X, Y)
    expected = reference.canonical_correlations(X, Y)
    np.testing.assert_allclose(result.correlations, expected, atol=1e-12)
    assert result.mean_correlation == pytest.approx(expected.mean(), abs=1e-12)
    assert result.r2 == pytest.approx((expected**2).mean(), abs=1e-12)
    assert (result.rank_x, result.rank_y) == (d_x, d_y)


def test_known_canonical_correlations():
    """Columns mixed from pairs of known correlation, at means and spreads of all sizes."""
    rng = np.random.default_rng(3)
    true = np.array([0.99, 0.5, 0.1, 0.0])
    q = orthonormal(3000, 8)
    X = q[:, :4] @ rng.standard_normal((4, 4)) * [1e-6, 1, 1e3, 1e6] + [0, 5, -1e5, 1e7]
    Y = (q[:, :4] * true + q[:, 4:] * np.sqrt(1 - true**2)) @ rng.standard_normal((4, 4))
    np.testing.assert_allclose(qf.cca(X, Y).correlations, true, atol=1e-9)


def test_one_feature_is_regressed_on_the_others():
    X, Y = related(80, 5, 1)
    fitted = np.linalg.lstsq(np.column_stack([X, np.ones(80)]), Y[:, 0], rcond=None)[0]
    rest = Y[:, 0] - np.column_stack([X, np.ones(80)]) @ fitted
    assert qf.cca(X, Y).r2 == pytest.approx(1 - rest.var() / Y.var(), abs=1e-12)


@pytest.mark.parametrize("n", [200, 25])
def test_cca_is_that_of_any_invertible_map(n):
    X, Y = related(n, 12, 10)
    M = rotation(12) * np.logspace(-1.5, 1.5, 12) @ rotation(12, seed=2)
    base = qf.cca(X, Y)
    with warnings.catch_warnings(action="error"):
        np.testing.assert_allclose(qf.cca(X @ M + 7, Y).correlations, base.correlations, atol=1e-9)
        np.testing.assert_allclose(qf.cca(Y, X).correlations, base.correlations, atol=1e-12)
        np.testing.assert_allclose(qf.cca(X, X @ M).correlations, 1, atol=1e-9)


@pytest.mark.parametrize("n", [4000, 13])
def test_dependent_features_are_dropped(n):
    X, Y = related(n, 4, 3)
    wider = np.column_stack([X, X @ rotation(4), np.full(n, 7.0), 1e8 * X[:, 0] + 3])
    base, result = qf.cca(X, Y), qf.cca(wider, Y)
    assert (result.rank_x, result.rank_y) == (4, 3)
    np.testing.assert_allclose(result.correlations, base.correlations, atol=1e-7)
    assert result.r2_by_chance == pytest.approx(4 / (n - 1))
    assert qf.cca(wider, wider).r2 == pytest.approx(1, abs=1e-12)
    # A weak direction counts until the tolerance says otherwise.
    weak = np.column_stack([X[:, 0], X[:, 0] + 1e-3 * X[:, 1]])
    assert qf.cca(weak, Y).rank_x == 2
    assert qf.cca(weak, Y, tol=1e-2).rank_x == 1


@pytest.mark.filterwarnings("ignore:X and Y")
@pytest.mark.parametrize(("d_x", "d_y"), [(2, 2), (3, 4)])
def test_chance_is_the_mean_of_all_pairings(d_x, d_y):
    X, Y = related(6, d_x, d_y)
    values = [qf.cca(X, Y[list(order)]).r2 for order in itertools.permutations(range(6))]
    assert qf.cca(X, Y).r2_by_chance == pytest.approx(np.mean(values), abs=1e-12)


def test_too_few_samples_are_said():
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((20, 15)), rng.standard_normal((20, 8))
    with pytest.warns(
        UserWarning, match="X and Y: 4 of 8 canonical correlations are 1 by construct"
    ) as caught:
        result = qf.cca(X, Y)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert (result.correlations > 1 - 1e-12).sum() == 4
    with pytest.warns(UserWarning, match="8 of 8"):
        assert qf.cca(rng.standard_normal((20, 300)), Y).r2 == pytest.approx(1, abs=1e-12)
    with warnings.catch_warnings(action="error"):
        assert qf.cca(X[:, :11], Y).correlations[0] < 1 - 1e-6


@pytest.mark.parametrize("n", [4, 50])
def test_a_constant_layer_has_no_canonical_correlations(n):
    X, _ = related(n, 3, 3)
    for call in (qf.cca, qf.svcca):
        with pytest.warns(UserWarning, match="Y: every feature is constant") as caught:
            result = call(X, np.full((n, 2), 0.1))
        assert len(caught) == 1
        assert caught[0].filename == __file__
        assert result.correlations.shape == (0,)
        assert (result.mean_correlation, result.r2, result.r2_by_chance, result.rank_y) == (0, 0, 0, 0)


@pytest.mark.filterwarnings("ignore:X and Y")
@pytest.mark.parametrize(("n", "d_x", "d_y"), [(60, 9, 7), (12, 20, 9)])
@pytest.mark.parametrize("share", [0.5, 0.99, 1.0])
def test_svcca_agrees_with_the_definition(n, d_x, d_y, share):
    X, Y = related(n, d_x, d_y)
    X *= np.logspace(0, -2, d_x)
    parts = [reference.strongest_directions(layer, share) for layer in (X, Y)]
    result = qf.svcca(X, Y, variance_kept=share)
    if share < 1:
        assert [result.rank_x, result.rank_y] == [part.shape[1] for part in parts]
    expected = np.linalg.svd(parts[0].T @ parts[1], compute_uv=False)[: len(result.correlations)]
    np.testing.assert_allclose(result.correlations, expected, atol=1e-11)
    turned = -3.5 * X @ rotation(d_x) + 4
    again = qf.svcca(turned, Y, variance_kept=share).correlations
    np.testing.assert_allclose(again, expected, atol=1e-9)


# Procrustes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "d_x", "d_y"), [(60, 3, 4), (60, 9, 2), (12, 30, 9), (9, 4, 40), (4, 1, 1)])
def test_procrustes_agrees_with_its_minimiser(n, d_x, d_y):
    X, Y = related(n, d_x, d_y)
    assert qf.procrustes(X, Y) == pytest.approx(reference.procrustes(X, Y), abs=1e-12)
    assert qf.procrustes(Y, X) == pytest.approx(reference.procrustes(X, Y), abs=1e-12)
    turned = -3.5 * X @ rotation(d_x) + 1000
    assert qf.procrustes(X, turned) == pytest.approx(0, abs=1e-12)
    assert qf.procrustes(turned, Y) == pytest.approx(qf.procrustes(X, Y), abs=1e-12)


def test_procrustes_of_layers_without_a_correlation():
    q = orthonormal(50, 6)
    assert qf.procrustes(q[:, :3], q[:, 3:]) == pytest.approx(2, abs=1e-12)
    # Of d shared directions of equal weight, k: their share of the norm is k / d.
    assert qf.procrustes(q[:, :4], q[:, 2:]) == pytest.approx(2 - 2 * 2 / 4, abs=1e-12)


def test_procrustes_where_wide_layers_have_few_directions():
    """Roots of rounding errors of zero eigenvalues must not add up."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 3)) @ rng.standard_normal((3, 200))
    Y = rng.standard_normal((60, 2)) @ rng.standard_normal((2, 90)) + 1e3
    assert qf.procrustes(X, Y) == pytest.approx(reference.procrustes(X, Y), abs=1e-11)
    assert qf.procrustes(X, X @ rotation(200)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("n", [4, 50])
def test_procrustes_of_a_constant_layer(n):
    with pytest.warns(UserWarning, match="Y: every feature is constant; the distance is set to 2") as caught:
        assert qf.procrustes(related(n, 3, 3)[0], np.full((n, 2), 0.1)) == 2
    assert len(caught) == 1
    assert caught[0].filename == __file__


# All of them -------------------------------------------------------------------------------------

CALLS = {
    "cca": lambda X, Y, **options: qf.cca(X, Y, **options).r2,
    "svcca": lambda X, Y, **options: qf.svcca(X, Y, **options).mean_correlation,
    "procrustes": qf.procrustes,
    "rsa": qf.rsa,
    "rsa pearson": lambda X, Y, **options: qf.rsa(X, Y, method="pearson", metric="euclidean", **options),
    "rsa drawn": lambda X, Y, **options: qf.rsa(X, Y, n_pairs=9999, random_state=0, **options),
}
every = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
ignored = pytest.mark.filterwarnings("ignore:X and Y")


@ignored
@every
@settings(max_examples=15, deadline=None)
@given(st.integers(4, 30), st.integers(3, 8), st.integers(3, 8), st.integers(0, 2**32 - 1))
def test_properties(call, n, d_x, d_y, seed):
    rng = np.random.default_rng(seed)
    X, Y = rng.standard_normal((n, d_x)), rng.standard_normal((n, d_y))
    order = rng.permutation(n)
    value = call(X, Y)
    assert type(value) is float
    assert -1 <= value <= 2
    assert call(Y, X) == pytest.approx(value, abs=1e-9)
    if call is not CALLS["rsa drawn"] or n < 142:
        assert call(X[order], Y[order]) == pytest.approx(value, abs=1e-7)
    # Copies of all features change nothing but the route, as there are more of them than samples.
    if call is not CALLS["cca"]:
        assert call(np.tile(X, (1, 16)), Y) == pytest.approx(value, abs=1e-7)
    itself = call(X, X)
    assert itself == pytest.approx(0 if call is qf.procrustes else 1, abs=1e-12)


@ignored
@every
@pytest.mark.parametrize("n", [400, 9])
def test_large_means_in_single_precision(call, n):
    """Where torch_cka, for one, returns NaN."""
    X = np.random.default_rng(0).normal(1000, 1, size=(n, 6)).astype(np.float32)
    exact = 0 if call is qf.procrustes else 1
    assert call(X, X.copy()) == pytest.approx(exact, abs=1e-12)
    for debiased in (False, True):
        assert qf.linear_cka(X, X.copy(), debiased=debiased) == pytest.approx(1, abs=1e-12)


@ignored
@every
@pytest.mark.parametrize("n", [50, 6])
def test_every_kind_of_input(call, n, tmp_path):
    X, Y = (layer.astype(np.float32) for layer in related(n, 4, 3))
    expected = call(X, Y)
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    frozen = X.copy()
    frozen.flags.writeable = False
    for same in (mapped, frozen, np.asfortranarray(X), X.tolist(), torch.from_numpy(X)):
        assert call(same, Y) == pytest.approx(expected, abs=1e-12)
    half = X.astype(np.float16)
    assert call(half, Y) == pytest.approx(call(half.astype(np.float32), Y), abs=1e-12)
    coarse = torch.from_numpy(X).to(torch.bfloat16)
    assert call(coarse, Y) == pytest.approx(call(coarse.float(), Y), abs=1e-12)
    integers = (X * 10).astype(np.int64)
    assert call(integers, Y) == pytest.approx(call(integers.astype(float), Y), abs=1e-12)
    found = qf.cca(torch.from_numpy(X), Y).correlations
    assert isinstance(found, torch.Tensor)
    assert found.dtype == torch.float64


@every
def test_bad_input_is_named(call):
    X = related(9, 3, 3)[0]
    with pytest.raises(ValueError, match="X and Y: wanted the same number of samples, got 9 and 8"):
        call(X, X[:8])
    with pytest.raises(ValueError, match="Y: wanted shape"):
        call(X, X[:, 0])
    with pytest.raises(ValueError, match=r"X: wanted at least \d sample"):
        call(X[:1], X[:1])
    with pytest.raises(ValueError, match=r"X: wanted at least \d sample"):
        call(X[:0], X[:0])
    with pytest.raises(TypeError, match="Y: dtype complex128"):
        call(X, X + 1j)
    bad = X.copy()
    bad[5, 1] = np.inf
    with pytest.raises(ValueError, match="Y: inf at row 5, column 1"):
        call(X, bad)
    with pytest.raises(ValueError, match="X: inf at row 5, column 1"):
        call(np.tile(bad, (1, 9)), X)
    with pytest.raises(ValueError, match="device"):
        call(X, X, device="tpu")


def test_bad_options():
    X = related(200, 3, 3)[0]
    for tol in (0.0, -1, 1.0, float("nan"), 1e-9):
        with pytest.raises(ValueError, match="tol: wanted at least 1e-06 and less than 1"):
            qf.cca(X, X, tol=tol)
    for share in (0.0, -0.5, 1.01, float("nan")):
        with pytest.raises(ValueError, match="variance_kept: wanted"):
            qf.svcca(X, X, variance_kept=share)
    for call in (lambda v: qf.cca(X, X, tol=v), lambda v: qf.svcca(X, X, variance_kept=v)):
        for value in ("much", True, None, [0.5]):
            with pytest.raises(TypeError, match="wanted a number"):
                call(value)
    with pytest.raises(ValueError, match="metric: wanted one of 'correlation'"):
        qf.rsa(X, X, metric="cityblock")
    with pytest.raises(ValueError, match="method: wanted one of 'spearman'"):
        qf.rsa(X, X, method="kendall")
    with pytest.raises(ValueError, match="n_pairs: wanted at least 3"):
        qf.rsa(X, X, n_pairs=2)
    with pytest.raises(TypeError, match="random_state"):
        qf.rsa(X, X, n_pairs=9, random_state="seed")
    with pytest.raises(ValueError, match="Y: a sample of one feature has no correlation"):
        qf.rsa(X, X[:, :1])
    bad = X.copy()
    bad[5] = np.nan
    with pytest.raises(ValueError, match="X: nan at row 5, column 0"):
        qf.rsa(bad, X, n_pairs=10_000, random_state=0)


_BITS = """
import warnings
import numpy as np, qixai_fast as qf
warnings.simplefilter("ignore")
rng = np.random.default_rng(0)
tall = [rng.standard_normal((9000, 40)).astype(np.float32) for _ in range(2)]
wide = [rng.standard_normal((600, 700)).astype(np.float32) for _ in range(2)]
for n_jobs in (1, 2, 4, None):
    results = []
    for X, Y in (tall, wide):
        results += qf.cca(X, Y, n_jobs=n_jobs).correlations.tolist()
        results += qf.svcca(X, Y, n_jobs=n_jobs).correlations.tolist()
        results += [qf.procrustes(X, Y, n_jobs=n_jobs)]
    for metric in ("correlation", "euclidean"):
        for method in ("spearman", "pearson"):
            for n_pairs in (None, 9999):
                results += [qf.rsa(X[:2000], Y[:2000], metric=metric, method=method, n_pairs=n_pairs,
                                   random_state=0, n_jobs=n_jobs)]
    print(hash(tuple(results)))
"""


def test_same_bits_for_any_number_of_threads():
    run = subprocess.run(
        [sys.executable, "-c", _BITS],
        env={**os.environ, "NUMBA_NUM_THREADS": "4"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(run.stdout.split()) == 4
    assert len(set(run.stdout.split())) == 1


@ignored
@every
@pytest.mark.parametrize(
    ("n", "d_x", "d_y"), [(1500, 60, 30), (1500, 3, 100), (300, 800, 1500), (250, 9000, 2)]
)
@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_the_budget_is_kept(call, n, d_x, d_y, dtype):
    rng = np.random.default_rng(7)
    X, Y = (rng.standard_normal((n, d), dtype=np.float32).astype(dtype) for d in (d_x, d_y))
    free = call(X, Y)
    with pytest.raises(qf.MemoryBudgetError) as caught:
        call(X, Y, max_memory=1000)
    required = caught.value.required
    for n_jobs, budget in ((1, required), (2, 2 * required)):
        tracemalloc.start()
        value = call(X, Y, max_memory=budget, n_jobs=n_jobs)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak <= budget
        assert value == free
    assert required < 40 * peak
