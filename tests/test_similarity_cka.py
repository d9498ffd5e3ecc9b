"""Linear CKA: definitions, closed forms, its exact null, budgets and bits."""

import itertools
import os
import subprocess
import sys
import tracemalloc

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


SHAPES = [(60, 3, 4), (20, 30, 9), (20, 9, 11), (5, 1, 1), (9, 40, 1), (4, 2, 2)]


@pytest.mark.parametrize(("n", "d_x", "d_y"), SHAPES)
def test_agrees_with_the_definitions(n, d_x, d_y):
    X, Y = related(n, d_x, d_y)
    assert qf.linear_cka(X, Y) == pytest.approx(reference.linear_cka(X, Y), abs=1e-12)
    expected = reference.linear_cka_debiased(X, Y)
    assert qf.linear_cka(X, Y, debiased=True) == pytest.approx(expected, abs=1e-10)


def test_many_leaves():
    X, Y = related(40_000, 6, 5)
    cross = (X - X.mean(0)).T @ (Y - Y.mean(0))
    squares = [np.linalg.norm(np.cov(layer.T) * (len(X) - 1)) for layer in (X, Y)]
    assert qf.linear_cka(X, Y) == pytest.approx(np.linalg.norm(cross) ** 2 / np.prod(squares), rel=1e-12)
    p, q = (((layer - layer.mean(0)) ** 2).sum(1) for layer in (X, Y))
    n = len(X)

    def hsic(inner, p, q):
        return inner - n / (n - 2) * (p * q).sum() + p.sum() * q.sum() / ((n - 1) * (n - 2))

    expected = hsic(np.linalg.norm(cross) ** 2, p, q) / np.sqrt(
        hsic(squares[0] ** 2, p, p) * hsic(squares[1] ** 2, q, q)
    )
    assert qf.linear_cka(X, Y, debiased=True) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize(("n", "d_x", "d_y"), SHAPES[:3])
def test_layers_equal_up_to_rotation_scale_and_offset(n, d_x, d_y, debiased):
    X, Y = related(n, d_x, d_y)
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((d_x, d_x)))[0]
    turned = -3.5 * X @ rotation + np.arange(d_x)
    assert qf.linear_cka(X, turned, debiased=debiased) == pytest.approx(1, abs=1e-12)
    base = qf.linear_cka(X, Y, debiased=debiased)
    assert qf.linear_cka(turned, Y, debiased=debiased) == pytest.approx(base, abs=1e-12)
    assert qf.linear_cka(Y, X, debiased=debiased) == pytest.approx(base, abs=1e-12)


def test_layers_without_a_correlation():
    a = np.repeat([1.0, -1.0], 4)[:, None]
    b = np.tile([1.0, -1.0], 4)[:, None]
    assert qf.linear_cka(a, b) == pytest.approx(0, abs=1e-15)


def test_one_feature_each_is_the_squared_correlation():
    X, Y = related(50, 1, 1)
    assert qf.linear_cka(X, Y) == pytest.approx(np.corrcoef(X.T, Y.T)[0, 1] ** 2, abs=1e-13)


def test_independent_noise():
    """The plain value grows with the width; the debiased one scatters about 0 as its null says."""
    rng = np.random.default_rng(2)
    n, d = 60, 120
    values = []
    for _ in range(30):
        X, Y = rng.standard_normal((n, d)), rng.standard_normal((n, d))
        assert qf.linear_cka(X, Y) > 0.5
        values.append(qf.linear_cka(X, Y, debiased=True))
    spread = np.sqrt(2 / (n * (n - 3)))
    assert abs(np.mean(values)) < 4 * spread / np.sqrt(30)
    assert 0.6 * spread < np.std(values) < 1.5 * spread


@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize(("d_x", "d_y"), [(2, 3), (8, 3)])
def test_the_null_is_that_of_all_permutations(d_x, d_y, debiased):
    X, Y = related(6, d_x, d_y, seed=3)
    values = [
        qf.linear_cka(X, Y[list(order)], debiased=debiased) for order in itertools.permutations(range(6))
    ]
    test = qf.linear_cka_test(X, Y, debiased=debiased, n_permutations=1500, random_state=0)
    assert test.value == pytest.approx(values[0], abs=1e-12)
    assert test.null_mean == pytest.approx(np.mean(values), abs=1e-12)
    assert test.null_std == pytest.approx(np.std(values), abs=1e-12)
    exact = np.mean([value >= values[0] - 1e-12 for value in values])
    assert test.pvalue == pytest.approx(exact, abs=4 * np.sqrt(0.25 / 1500) + 1e-3)
    assert test.n_permutations == 1500


def p_value_by_hand(X, Y, m, seed, debiased):
    rng = np.random.default_rng(seed)
    observed = qf.linear_cka(X, Y, debiased=debiased)
    b = sum(
        qf.linear_cka(X, Y[rng.permutation(len(Y))], debiased=debiased) >= observed - 1e-12 for _ in range(m)
    )
    return (1 + b) / (1 + m)


@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize(("n", "d_x", "d_y"), [(40, 6, 3), (40, 3, 6), (12, 30, 20), (4, 1, 1), (200, 2, 1)])
def test_p_values_are_those_of_the_permutations(n, d_x, d_y, debiased):
    """Products of features (either layer the narrower) and gathers on Gram matrices count alike."""
    rng = np.random.default_rng(4)
    X, Y = rng.standard_normal((n, d_x)), rng.standard_normal((n, d_y))
    test = qf.linear_cka_test(X, Y, debiased=debiased, n_permutations=60, random_state=7)
    assert test.pvalue == p_value_by_hand(X, Y, 60, 7, debiased)


def test_related_layers_are_significant_and_noise_is_not():
    X, Y = related(100, 5, 4)
    assert qf.linear_cka_test(X, Y, n_permutations=99, random_state=0).pvalue == 0.01
    rng = np.random.default_rng(5)
    pvalues = [
        qf.linear_cka_test(
            rng.standard_normal((30, 3)), rng.standard_normal((30, 4)), n_permutations=39, random_state=i
        ).pvalue
        for i in range(400)
    ]
    assert 0.45 < np.mean(pvalues) < 0.56
    assert 0.05 < np.mean(np.array(pvalues) <= 0.1) < 0.16


def test_offsets_far_larger_than_the_spread():
    X, Y = related(3000, 4, 3)
    X = np.round(X * 2**20) / 2**20
    for debiased in (False, True):
        base = qf.linear_cka(X, Y, debiased=debiased)
        assert qf.linear_cka(X + 2.0**30, Y - 1000, debiased=debiased) == pytest.approx(base, abs=1e-11)
    wide, other = related(30, 40, 7)
    wide = np.round(wide * 2**20) / 2**20
    base = qf.linear_cka(wide, other, debiased=True)
    assert qf.linear_cka(wide + 2.0**30, other, debiased=True) == pytest.approx(base, abs=1e-11)
    coarse = (X + 300).astype(np.float32)
    assert qf.linear_cka(coarse, coarse.copy()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("scale", [1e200, 1e-200, 1e300])
@pytest.mark.parametrize(("n", "d_x", "d_y"), SHAPES[:2])
def test_extreme_values(n, d_x, d_y, scale):
    X, Y = related(n, d_x, d_y)
    X[:, 0] = 0
    for debiased in (False, True):
        base = qf.linear_cka(X, Y, debiased=debiased)
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            assert qf.linear_cka(X * scale, Y / scale, debiased=debiased) == pytest.approx(base, abs=1e-12)
    test = qf.linear_cka_test(X * scale, Y / scale, n_permutations=20, random_state=0)
    assert test.pvalue == qf.linear_cka_test(X, Y, n_permutations=20, random_state=0).pvalue


@pytest.mark.parametrize("n", [6, 60])
@pytest.mark.parametrize("debiased", [False, True])
def test_a_constant_layer_gives_zero_and_one_warning(n, debiased):
    X, _ = related(n, 5, 4)
    constant = np.full((n, 3), 0.1)
    with pytest.warns(UserWarning, match="Y: every feature is constant; CKA is set to 0") as caught:
        assert qf.linear_cka(X, constant, debiased=debiased) == 0
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="X and Y: every feature is constant") as caught:
        test = qf.linear_cka_test(constant, constant, debiased=debiased)
    assert len(caught) == 1
    assert (test.value, test.pvalue) == (0, 1)


def test_equidistant_samples_have_no_debiased_value():
    """The U-centred Gram matrix of orthonormal samples is zero."""
    X = np.eye(8)
    assert qf.linear_cka(X, related(8, 3, 3)[0], debiased=True) == 0
    assert qf.linear_cka(X, X) == pytest.approx(1)


@settings(max_examples=25, deadline=None)
@given(st.integers(4, 12), st.integers(1, 8), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_properties(n, d_x, d_y, seed):
    rng = np.random.default_rng(seed)
    X, Y = rng.standard_normal((n, d_x)), rng.standard_normal((n, d_y))
    order = rng.permutation(n)
    biased = qf.linear_cka(X, Y)
    assert 0 <= biased <= 1
    assert qf.linear_cka(X[order], Y[order]) == pytest.approx(biased, abs=1e-12)
    assert -1 <= qf.linear_cka(X, Y, debiased=True) <= 1
    # Copies of all features change nothing but the route, as there are more of them than samples.
    copies = np.tile(Y, (1, 13))
    assert qf.linear_cka(X, copies) == pytest.approx(biased, abs=1e-11)


def test_every_kind_of_input(tmp_path):
    X, Y = (layer.astype(np.float32) for layer in related(50, 4, 3))
    expected = qf.linear_cka(X, Y, debiased=True)
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    frozen = X.copy()
    frozen.flags.writeable = False
    for same in (mapped, frozen, np.asfortranarray(X), X.tolist(), torch.from_numpy(X)):
        value = qf.linear_cka(same, Y, debiased=True)
        assert type(value) is float
        assert value == pytest.approx(expected, abs=1e-12)
    half = X.astype(np.float16)
    assert qf.linear_cka(half, Y) == qf.linear_cka(half.astype(np.float32), Y)
    coarse = torch.from_numpy(X).to(torch.bfloat16)
    assert qf.linear_cka(coarse, Y) == qf.linear_cka(coarse.float(), Y)
    integers = (X * 10).astype(np.int64)
    assert qf.linear_cka(integers, Y) == pytest.approx(qf.linear_cka(integers.astype(float), Y), abs=1e-13)


@pytest.mark.parametrize("call", [qf.linear_cka, qf.linear_cka_test])
def test_bad_input_is_named(call):
    X = np.random.default_rng(6).standard_normal((9, 3))
    with pytest.raises(ValueError, match="X and Y: wanted the same number of samples, got 9 and 8"):
        call(X, X[:8])
    with pytest.raises(ValueError, match="Y: wanted shape"):
        call(X, X[:, 0])
    with pytest.raises(ValueError, match=r"X: wanted at least \d sample"):
        call(X[:1], X[:1])
    with pytest.raises(ValueError, match="X: wanted at least 4 sample"):
        call(X[:3], X[:3], debiased=True)
    with pytest.raises(ValueError, match="debiased: wanted one of"):
        call(X, X, debiased="yes")
    bad = X.copy()
    bad[5, 1] = np.inf
    with pytest.raises(ValueError, match="Y: inf at row 5, column 1"):
        call(X, bad)
    with pytest.raises(ValueError, match="X: inf at row 5, column 1"):
        call(np.tile(bad, (1, 9)), X)
    with pytest.raises(ValueError, match="device"):
        call(X, X, device="tpu")


def test_bad_options_of_the_test():
    X, Y = related(9, 3, 3)
    with pytest.raises(ValueError, match="n_permutations: wanted at least 1, got 0"):
        qf.linear_cka_test(X, Y, n_permutations=0)
    with pytest.raises(TypeError, match="random_state"):
        qf.linear_cka_test(X, Y, random_state="seed")


_BITS = """
import numpy as np, qixai_fast as qf
rng = np.random.default_rng(0)
tall = [rng.standard_normal((9000, 100)).astype(np.float32) for _ in range(2)]
wide = [rng.standard_normal((1100, 1200)).astype(np.float32) for _ in range(2)]
for n_jobs in (1, 2, 4, None):
    results = []
    for X, Y in (tall, wide):
        results += [qf.linear_cka(X, Y, debiased=True, n_jobs=n_jobs)]
        results += [qf.linear_cka_test(X, Y, n_permutations=8, random_state=0, n_jobs=n_jobs).pvalue]
        results += qf.schmidt_spectrum(X[:, :50], Y, n_jobs=n_jobs).tolist()
        results += [qf.von_neumann_entropy(X, n_jobs=n_jobs), qf.purity(X, n_jobs=n_jobs)]
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


CALLS = {
    "cka": lambda X, Y, **options: qf.linear_cka(X, Y, debiased=True, **options),
    "permutations": lambda X, Y, **options: (
        qf.linear_cka_test(X, Y, n_permutations=5, random_state=0, **options).pvalue
    ),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize(
    ("n", "d_x", "d_y"), [(20_000, 60, 30), (20_000, 3, 100), (600, 800, 1500), (500, 9000, 1)]
)
@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_the_budget_is_kept(call, n, d_x, d_y, dtype):
    rng = np.random.default_rng(7)
    X, Y = (rng.standard_normal((n, d), dtype=np.float32).astype(dtype) for d in (d_x, d_y))
    free = call(X, Y)
    with pytest.raises(qf.MemoryBudgetError) as caught:
        call(X, Y, max_memory=1000)
    required = caught.value.required
    tracemalloc.start()
    value = call(X, Y, max_memory=required)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak <= required
    assert value == pytest.approx(free, abs=1e-12)
