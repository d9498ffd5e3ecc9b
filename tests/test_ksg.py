"""KSG of two scalars: against brute force, closed forms, and what must not change it."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from qixai_fast.kernels.axis_cpu import PAD, make_axis
from scipy.special import beta, digamma

import qixai_fast as qf
from qixai_fast.mutual_info.pairs import Scratch, digamma_table, ksg_counts, strip_order


def gaussian(n, rho, seed=0):
    first, second = np.random.default_rng(seed).standard_normal((2, n))
    return first, rho * first + np.sqrt(1 - rho**2) * second


def plain(x, y, **options):
    """The definition alone: values as given."""
    return qf.mutual_info_ksg(x, y, scale=None, atoms="none", **options)


@st.composite
def tied_samples(draw):
    """Few samples of coarse values: ties on either axis, duplicates, multiples of 0.1 that do not add up."""
    n = draw(st.integers(2, 40))
    step = draw(st.sampled_from([1.0, 0.1, 1 / 3]))
    levels = draw(st.sampled_from([2, 5, 30, 1000]))
    values = st.lists(st.integers(-levels, levels), min_size=n, max_size=n)
    return step * np.array(draw(values)), step * np.array(draw(values)), draw(st.integers(1, n - 1))


@settings(max_examples=150, deadline=None)
@given(tied_samples(), st.sampled_from([1, 2]))
def test_equals_brute_force_on_ties(sample, algorithm):
    x, y, k = sample
    value, local = plain(x, y, n_neighbors=k, algorithm=algorithm, return_local=True)
    expected = reference.ksg_local(x, y, k, algorithm)
    np.testing.assert_allclose(local, expected, rtol=0, atol=1e-12)
    assert value == pytest.approx(expected.mean(), abs=1e-12)


def awkward_pairs(n):
    rng = np.random.default_rng(n)
    x, y = gaussian(n, 0.7, n)
    return {
        "gaussian": (x, y),
        "identical": (x, x.copy()),
        "uneven scales": (x, 1e-7 * y),
        "uneven scales, the other way": (1e-7 * x, y),
        "heavy tails": (rng.standard_cauchy(n), rng.standard_cauchy(n)),
        "half zeros": (np.maximum(x, 0), np.maximum(y, 0)),
        "two values": (np.sign(x), y),
        "offset": (x + 1e6, y - 1e9),
        "rounded": (np.round(x, 1), np.round(y, 2)),
        "huge": (1e150 * x, 1e300 * y),
        "denormal": (5e-320 * x, y),
    }


@pytest.mark.parametrize("algorithm", [1, 2])
@pytest.mark.parametrize("n", [9, 70, 257])
def test_counts_equal_brute_force(n, algorithm):
    for name, (x, y) in awkward_pairs(n).items():
        for k in (1, 3, 8):
            x_order, y_order = np.argsort(x), np.argsort(y)
            position = np.argsort(x_order).astype(np.int32)[y_order]
            axes = [
                make_axis(np.pad(v, PAD, constant_values=(-np.inf, np.inf))) for v in (x[x_order], y[y_order])
            ]
            found = np.array(ksg_counts(*axes, position, k, algorithm, Scratch(n)))
            expected = np.array(reference.ksg_counts(x, y, k, algorithm))[:, y_order[strip_order(position)]]
            np.testing.assert_array_equal(found, expected, err_msg=f"{name}, k={k}")


@pytest.mark.parametrize("kind", ["gaussian", "heavy tails", "half zeros", "uneven scales"])
def test_counts_of_many_samples(kind):
    """More samples than a tile holds ranks: some of them against all others."""
    n = 80_000
    x, y = awkward_pairs(n)[kind]
    x_order, y_order = np.argsort(x), np.argsort(y)
    position = np.argsort(x_order).astype(np.int32)[y_order]
    axes = [make_axis(np.pad(v, PAD, constant_values=(-np.inf, np.inf))) for v in (x[x_order], y[y_order])]
    found = np.array(ksg_counts(*axes, position, 4, 1, Scratch(n)))
    samples = y_order[strip_order(position)]
    rng = np.random.default_rng(0)
    for place in rng.choice(n, 100, replace=False).tolist() + np.argsort(np.abs(x[samples]))[-20:].tolist():
        dx, dy = np.abs(x - x[samples[place]]), np.abs(y - y[samples[place]])
        radius = np.partition(np.maximum(dx, dy), 4)[4]
        expected = [max(0, np.count_nonzero(d < radius) - 1) for d in (dx, dy)]
        assert found[:, place].tolist() == expected


def test_other_processors():
    """The vector code on the plainest processor of this architecture, in a process of its own."""
    code = (
        "import numpy as np, qixai_fast as qf; rng = np.random.default_rng(0); x = rng.standard_normal(500)\n"
        "y = x + rng.standard_cauchy(500)\n"
        "print([qf.mutual_info_ksg(x, y, n_neighbors=k, algorithm=a) for k in (3, 20) for a in (1, 2)])"
    )
    outputs = []
    for other in ({}, {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}):
        child = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | other,
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.append(json.loads(child.stdout))
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("algorithm", [1, 2])
def test_equals_brute_force_at_many_sizes(algorithm):
    for n in (2, 3, 4, 5, 8, 16, 33, 100, 400):
        x, y = gaussian(n, 0.5, n)
        for k in {1, min(3, n - 1), n - 1}:
            expected = reference.ksg_local(x, y, k, algorithm).mean()
            assert plain(x, y, n_neighbors=k, algorithm=algorithm) == pytest.approx(expected, abs=1e-12)


def test_digamma_of_integers():
    for n in (1, 2, 15, 16, 17, 40, 70_000):
        np.testing.assert_allclose(digamma_table(n)[1:], digamma(np.arange(1, n + 1)), rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize("algorithm", [1, 2])
@pytest.mark.parametrize("rho", [0.0, 0.3, 0.6, 0.9, -0.99])
def test_bivariate_gaussian(rho, algorithm):
    values = [qf.mutual_info_ksg(*gaussian(4000, rho, seed), algorithm=algorithm) for seed in range(4)]
    assert np.mean(values) == pytest.approx(-0.5 * np.log(1 - rho**2), abs=0.025)


@pytest.mark.parametrize("nu", [2, 5])
def test_bivariate_student(nu):
    # 2 h(t_nu) - h(bivariate t_nu), from the entropies of both.
    truth = (
        -0.5 * np.log(1 - 0.6**2)
        + 2 * np.log(np.sqrt(nu / (2 * np.pi)) * beta(nu / 2, 0.5))
        - (2 + nu) / nu
        + (1 + nu) * (digamma((nu + 1) / 2) - digamma(nu / 2))
    )
    values = []
    for seed in range(4):
        shared = np.sqrt(nu / np.random.default_rng(100 + seed).chisquare(nu, 4000))
        values.append(qf.mutual_info_ksg(*(shared * part for part in gaussian(4000, 0.6, seed))))
    assert np.mean(values) == pytest.approx(truth, abs=0.03)


def test_independent_uniform_is_zero():
    values = [qf.mutual_info_ksg(*np.random.default_rng(seed).random((2, 3000))) for seed in range(6)]
    assert abs(np.mean(values)) < 0.015


def test_itself_and_constants():
    x = np.random.default_rng(0).standard_normal(500)
    assert qf.mutual_info_ksg(x, x) == pytest.approx(digamma(500) - digamma(3), abs=1e-12)
    for atoms in ("auto", "none"):
        for algorithm in (1, 2):
            assert qf.mutual_info_ksg(x, np.full(500, 7.0), atoms=atoms, algorithm=algorithm) == 0.0
            assert qf.mutual_info_ksg(np.zeros(500), np.zeros(500), atoms=atoms, algorithm=algorithm) == 0.0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2]), st.booleans())
def test_symmetry_and_order_of_samples(seed, algorithm, rectified):
    rng = np.random.default_rng(seed)
    x, y = gaussian(120, 0.5, seed)
    if rectified:
        x, y = np.maximum(x, 0), np.maximum(y, -0.5)
    value = qf.mutual_info_ksg(x, y, algorithm=algorithm)
    assert qf.mutual_info_ksg(y, x, algorithm=algorithm) == value
    order = rng.permutation(120)
    assert qf.mutual_info_ksg(x[order], y[order], algorithm=algorithm) == pytest.approx(value, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(
    st.floats(-9, 9).map(lambda power: 10.0**power),
    st.sampled_from([0.0, 1.0, -1e3, 1e6]),
    st.sampled_from([-1.0, 1.0]),
)
def test_scale_and_shift(factor, shift, sign):
    x, y = gaussian(300, 0.6)
    moved = sign * factor * (x + shift)
    # A shift of 1e6 leaves 1e-10 of each value: next to no count can change by that.
    assert qf.mutual_info_ksg(moved, y) == pytest.approx(
        qf.mutual_info_ksg(x, y), abs=1e-3 if shift else 1e-12
    )


def test_local_values():
    x, y = gaussian(800, 0.8)
    for rectify in (False, True):
        if rectify:
            x = np.maximum(x, 0)
        value, local = qf.mutual_info_ksg(x, y, return_local=True)
        assert local.shape == (800,)
        assert value == qf.mutual_info_ksg(x, y)
        assert local.mean() == pytest.approx(value, abs=1e-12)


def test_diagnostics():
    x, y = gaussian(1000, 0.6)
    value, local, seen = qf.mutual_info_ksg(
        np.maximum(x, 0), y.astype(np.float16), random_state=5, return_local=True, return_diagnostics=True
    )
    zeros = np.mean(x <= 0)
    assert local.mean() == pytest.approx(value, abs=1e-12)
    assert seen.n_samples == 1000
    assert seen.seed == 5
    assert (seen.x[0].atoms, seen.x[0].atom_fraction, seen.x[0].tie_fraction) == ((0.0,), zeros, zeros)
    assert (seen.x[0].lattice, seen.x[0].jittered) == (None, False)
    assert (seen.y[0].lattice, seen.y[0].jittered, seen.y[0].atoms) == ("float16", True, ())
    assert 0 < seen.y[0].tie_fraction < 1
    assert list(seen.k_sensitivity) == [1, 3, 6, 12]
    assert seen.k_sensitivity[3] == value
    assert np.ptp(list(seen.k_sensitivity.values())) < 0.2
    _, small = qf.mutual_info_ksg(x[:5], y[:5], return_diagnostics=True)
    assert list(small.k_sensitivity) == [1, 3]


def test_input_kinds(tmp_path):
    torch = pytest.importorskip("torch")
    x, y = gaussian(300, 0.6)
    value = qf.mutual_info_ksg(x, y)
    path = tmp_path / "x.npy"
    np.save(path, x)
    assert qf.mutual_info_ksg(np.load(path, mmap_mode="r"), y.reshape(-1, 1)) == value
    assert qf.mutual_info_ksg(np.repeat(x, 2)[::2], y.tolist()) == value
    assert isinstance(qf.mutual_info_ksg(torch.tensor(x), torch.tensor(y)), float)
    _, local = qf.mutual_info_ksg(torch.tensor(x, requires_grad=True), torch.tensor(y), return_local=True)
    assert isinstance(local, torch.Tensor)
    assert float(local.mean()) == pytest.approx(value, abs=1e-12)
    half = qf.mutual_info_ksg(torch.tensor(x).to(torch.bfloat16), y)
    assert half == qf.mutual_info_ksg(torch.tensor(x).to(torch.bfloat16).float().numpy(), y)
    counts = np.random.default_rng(0).integers(0, 1000, 300)
    assert abs(qf.mutual_info_ksg(counts, y)) < 0.15
    assert qf.mutual_info_ksg(x > 0, y > 0) == pytest.approx(qf.mutual_info_discrete(x > 0, y > 0), abs=1e-12)


@pytest.mark.parametrize(
    ("x", "y", "options", "error", "words"),
    [
        (np.zeros((0,)), np.zeros(0), {}, ValueError, "x: wanted at least 2 sample"),
        (np.zeros(1), np.zeros(1), {}, ValueError, "x: wanted at least 2 sample"),
        (np.zeros(5), np.zeros(6), {}, ValueError, "x and y: .* got 5 and 6"),
        (np.zeros((5, 0)), np.zeros(5), {}, ValueError, "x: wanted at least 1 feature"),
        (np.zeros((2, 3, 4)), np.zeros(2), {}, ValueError, "x: wanted shape"),
        (np.zeros(5, complex), np.zeros(5), {}, TypeError, "x: dtype complex128"),
        (np.zeros(5), np.array(list("abcde")), {}, TypeError, "y: dtype <U1"),
        (np.array([0, 1, np.nan, 2]), np.zeros(4), {}, ValueError, "x: nan at row 2"),
        (np.zeros(4), np.array([0, 1, 2, -np.inf]), {}, ValueError, "y: -inf at row 3"),
        (np.array([-1e308, 0, 1e308, 1]), np.arange(4.0), {}, ValueError, r"x\[:, 0\]: its range overflows"),
        (np.zeros(4), np.zeros(4), {"n_neighbors": 4}, ValueError, "n_neighbors: wanted 1 to 3 .*got 4"),
        (np.zeros(4), np.zeros(4), {"n_neighbors": 0}, ValueError, "n_neighbors: wanted 1 to 3"),
        (np.zeros(4), np.zeros(4), {"n_neighbors": 1.5}, TypeError, "n_neighbors: wanted an integer"),
        (np.zeros(4), np.zeros(4), {"algorithm": 3}, ValueError, "algorithm: wanted one of 1, 2, got 3"),
        (np.zeros(4), np.zeros(4), {"scale": "rank"}, ValueError, "scale: wanted one of 'std', None"),
        (np.zeros(4), np.zeros(4), {"atoms": True}, ValueError, "atoms: wanted one of"),
        (np.zeros(4), np.zeros(4), {"random_state": -1}, ValueError, "random_state: wanted a seed"),
        (np.zeros(4), np.zeros(4), {"device": "tpu"}, ValueError, "device: 'tpu'"),
    ],
)
def test_bad_input(x, y, options, error, words):
    with pytest.raises(error, match=words):
        qf.mutual_info_ksg(x, y, **options)


def test_budget_too_small_names_one_that_works():
    x, y = gaussian(20_000, 0.6)
    with pytest.raises(qf.MemoryBudgetError) as caught:
        qf.mutual_info_ksg(x, y, max_memory=1000)
    assert qf.mutual_info_ksg(x, y, max_memory=caught.value.required) == qf.mutual_info_ksg(x, y)
