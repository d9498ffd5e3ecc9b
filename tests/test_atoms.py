"""Atoms and lattices: what is found, and estimates that are right where the plain estimator is not."""

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import dblquad, quad
from scipy.stats import multivariate_normal, norm

import qixai_fast as qf
from qixai_fast.mutual_info.lattice import BFLOAT16, FLOAT16, Lattice, find_lattice


def gaussian(n, rho, seed=0):
    first, second = np.random.default_rng(seed).standard_normal((2, n))
    return first, rho * first + np.sqrt(1 - rho**2) * second


def relu(x):
    return np.maximum(x, 0)


def to_bfloat16(x):
    torch = pytest.importorskip("torch")
    return torch.tensor(x).to(torch.bfloat16).float().numpy()


def look(x):
    """What the diagnostics say of one variable."""
    other = np.random.default_rng(99).standard_normal(len(x))
    return qf.mutual_info_ksg(x, other, return_diagnostics=True)[1].x[0]


# Known truths ---------------------------------------------------------------------------------------


def rectified_truth(rho, *, both):
    """I(relu(X); relu(Y)) or I(relu(X); Y) of Gaussians with correlation rho, by quadrature."""
    spread = np.sqrt(1 - rho**2)
    pdf = multivariate_normal([0, 0], [[1, rho], [rho, 1]]).pdf

    def log_ratio(x, y):
        return -np.log(spread) + (rho * x * y - rho**2 * (x**2 + y**2) / 2) / spread**2

    def edge(y):  # X <= 0, a density in y
        given_y = norm.cdf(-rho * y / spread)
        return norm.pdf(y) * given_y * np.log(2 * given_y)

    low = 0 if both else -9
    inside = dblquad(lambda y, x: pdf([x, y]) * log_ratio(x, y), 0, 9, low, 9, epsabs=1e-6)[0]
    if not both:
        return inside + quad(edge, -9, 9)[0]
    corner = 0.25 + np.arcsin(rho) / (2 * np.pi)
    return inside + 2 * quad(edge, 0, 9)[0] + corner * np.log(4 * corner)


@pytest.mark.parametrize(("rho", "both", "known"), [(0.6, True, 0.1528436781), (0.6, False, 0.1768506074)])
def test_rectified_gaussian(rho, both, known):
    truth = rectified_truth(rho, both=both)
    assert truth == pytest.approx(known, abs=1e-6)
    values, plain = [], []
    for seed in range(5):
        x, y = gaussian(5000, rho, seed)
        x, y = relu(x), relu(y) if both else y
        values.append(qf.mutual_info_ksg(x, y))
        plain.append(qf.mutual_info_ksg(x, y, atoms="none"))
    assert np.mean(values) == pytest.approx(truth, abs=0.012)
    assert np.mean(plain) > truth + (1 if both else 0.01)


@pytest.mark.parametrize("algorithm", [1, 2])
def test_strongly_dependent_rectified_gaussian(algorithm):
    values = [
        qf.mutual_info_ksg(*map(relu, gaussian(5000, 0.9, seed)), algorithm=algorithm) for seed in range(5)
    ]
    assert np.mean(values) == pytest.approx(0.5543695742, abs=0.02)


def test_sign():
    x, y = gaussian(10_000, 0.6)
    assert qf.mutual_info_ksg(np.sign(x), y) == pytest.approx(0.1305576634, abs=0.015)
    signs = np.sign(x), np.sign(y)
    assert qf.mutual_info_ksg(*signs) == pytest.approx(qf.mutual_info_discrete(*signs), abs=1e-12)
    agree = 0.5 + np.arcsin(0.6) / np.pi
    truth = np.log(2) + agree * np.log(agree) + (1 - agree) * np.log(1 - agree)
    assert qf.mutual_info_ksg(*signs) == pytest.approx(truth, abs=0.01)


def test_clipping_loses_less_than_rectifying():
    x, y = gaussian(10_000, 0.8)
    clipped = qf.mutual_info_ksg(np.clip(2 * x, 0, 3), np.clip(2 * y, 0, 3))
    assert clipped < qf.mutual_info_ksg(relu(x), relu(y)) < qf.mutual_info_ksg(x, y)
    assert look(np.clip(2 * x, 0, 3)).atoms == (0.0, 3.0)


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "uniform"])
def test_coarse_values_are_near_the_fine_ones(kind):
    convert = {
        "float16": lambda v: v.astype(np.float16),
        "bfloat16": to_bfloat16,
        "uniform": lambda v: np.round(64 * v) / 64,
    }[kind]
    for shape in (np.array, relu):
        coarse, fine = [], []
        for seed in range(6):
            x, y = map(shape, gaussian(4000, 0.6, seed))
            fine.append(qf.mutual_info_ksg(x, y))
            coarse.append(qf.mutual_info_ksg(convert(x), convert(y)))
        assert np.mean(coarse) == pytest.approx(np.mean(fine), abs=0.012)
    x, y = gaussian(4000, 0.6)
    seen = qf.mutual_info_ksg(convert(x), convert(y), return_diagnostics=True)[1]
    assert [v.lattice for v in seen.x + seen.y] == [kind, kind]
    if kind != "float16":
        assert qf.mutual_info_ksg(convert(x), convert(y), atoms="none") > np.mean(fine) + 0.05


# The chain rule --------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(8, 80), st.sampled_from([1, 2]), st.integers(1, 4))
def test_equals_brute_force_by_parts(seed, n, algorithm, k):
    rng = np.random.default_rng(seed)
    x, y = gaussian(n, 0.7, seed)
    x, y = np.clip(x, rng.normal() - 1, rng.normal() + 1.5), np.maximum(y, rng.normal())
    codes = []
    for values in (x, y):
        code = np.zeros(n, dtype=int)
        for level in np.unique(values):
            if (values == level).sum() > max(k, 0.01 * n):
                code[values == level] = code.max() + 1
        codes.append(code)
    expected = reference.mutual_info_by_parts(x, y, *codes, k, algorithm)
    found = qf.mutual_info_ksg(x, y, scale=None, n_neighbors=k, algorithm=algorithm)
    assert found == pytest.approx(expected, abs=1e-12)


# What is found ----------------------------------------------------------------------------------------


def test_atoms_found():
    x, _ = gaussian(2000, 0)
    assert look(x).atoms == ()
    assert look(relu(x)).atoms == (0.0,)
    assert look(np.sign(x)).atoms == (-1.0, 1.0)
    assert look(np.round(3 * np.abs(x)).clip(max=5).astype(np.int8)).atoms == (0, 1, 2, 3, 4, 5)
    assert look(relu(x).astype(np.float16)).atoms == (0.0,)
    few = x.copy()
    few[:20] = 0.25  # 1 % is not more than 1 %
    assert look(few).atoms == ()
    few[20] = 0.25
    assert look(few).atoms == (0.25,)
    assert look(np.array([1.0, 1.0, 1.0, 2.0, 3.0])).atoms == ()
    assert look(np.array([1.0, 1.0, 1.0, 1.0, 3.0])).atoms == (1.0,)


def test_crowded_lattice_values_are_no_atoms():
    x, _ = gaussian(5000, 0)
    assert look(np.round(4 * x) / 4).atoms == ()  # each level holds up to 10 %, and so do its neighbours
    far = to_bfloat16(x + 128)  # spacing 1 at values of 128
    assert (look(far).lattice, look(far).atoms) == ("bfloat16", ())
    quantised = np.round(32 * relu(x)).astype(np.uint8)
    assert (look(quantised).lattice, look(quantised).atoms) == ("uniform", (0.0,))


def test_lattices_found():
    x, _ = gaussian(3000, 0)
    for plain in (x, x.astype(np.float32), np.sign(x)):
        assert (look(plain).lattice, look(plain).jittered) == (None, False)
    for dtype in (np.float16, np.float32, np.float64):
        assert (look(x.astype(np.float16).astype(dtype)).lattice, look(x.astype(np.float16)).jittered) == (
            "float16",
            True,
        )
    for dtype in (np.float32, np.float64):
        assert look(to_bfloat16(x).astype(dtype)).lattice == "bfloat16"
    assert look(np.round(0.1 * np.round(x / 0.1), 12)).lattice == "uniform"
    # Nothing repeats: nothing to spread.
    distinct = np.arange(1000) / 64
    assert look(distinct).jittered is False


def test_gaps_are_those_of_the_formats():
    torch = pytest.importorskip("torch")
    smallest = [2.0**-24, 5 * 2.0**-24, 2.0**-14, 2.0**-14 - 2.0**-24]
    values = np.array([0.0, 1.0, 1.5, 2.0, 255.0, 0.1, 60000.0, *smallest]).astype(np.float16).astype(float)
    values = np.concatenate([values, -values])
    below, above = FLOAT16.gaps(values)
    half = values.astype(np.float16)
    np.testing.assert_array_equal(values + above, np.nextafter(half, np.float16(np.inf)))
    np.testing.assert_array_equal(values - below, np.nextafter(half, np.float16(-np.inf)))
    tensor = torch.tensor([0.0, 1.0, 1.5, 2.0, 1e-3, 1e30, 2.0**-126, 2.0**-133, -1.0, -3.0, -(2.0**-126)])
    tensor = tensor.to(torch.bfloat16)
    values = tensor.double().numpy()
    below, above = BFLOAT16.gaps(values)
    infinity = torch.tensor(torch.inf, dtype=torch.bfloat16)
    up = torch.nextafter(tensor, infinity).double().numpy()
    down = torch.nextafter(tensor, -infinity).double().numpy()
    np.testing.assert_array_equal(values + above, up)
    np.testing.assert_array_equal(values - below, down)


def test_spread_reaches_the_midpoints():
    values = np.array([0.0, 1.0, -1.0, 0.1, -300.0]).astype(np.float16)
    exact = values.astype(float)
    ends = [np.nextafter(values, np.float16(side)).astype(float) for side in (-np.inf, np.inf)]
    for share, end in zip((0.0, 1.0), ends, strict=True):
        np.testing.assert_array_equal(FLOAT16.spread(exact, np.full(5, share)), (exact + end) / 2)
    steps = np.array([0.0, 0.5, 7.5])
    np.testing.assert_array_equal(Lattice("uniform", 0.5).spread(steps, np.zeros(3)), steps - 0.25)
    np.testing.assert_array_equal(Lattice("uniform", 0.5).spread(steps, np.ones(3)), steps + 0.25)


@given(st.sampled_from([FLOAT16, BFLOAT16]), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_spread_values_round_back(lattice, seed):
    rng = np.random.default_rng(seed)
    raw = rng.standard_normal(300) * 10.0 ** rng.uniform(-6, 4, 300)
    values = raw.astype(np.float16).astype(float) if lattice is FLOAT16 else to_bfloat16(raw).astype(float)
    spread = lattice.spread(values, rng.random(300))
    back = spread.astype(np.float16) if lattice is FLOAT16 else to_bfloat16(spread)
    np.testing.assert_array_equal(back, values)
    assert find_lattice(np.unique(values), 300, np.dtype(float)) == lattice


def test_jitter_is_seeded_and_independent():
    x, y = gaussian(2000, 0.6)
    x, y = x.astype(np.float16), to_bfloat16(y)
    value = qf.mutual_info_ksg(x, y)
    assert value == qf.mutual_info_ksg(x, y) == qf.mutual_info_ksg(x, y, random_state=0)
    assert value == qf.mutual_info_ksg(y, x)
    assert value != qf.mutual_info_ksg(x, y, random_state=1)
    seeds = [np.random.default_rng(1), np.random.default_rng(1)]
    assert qf.mutual_info_ksg(x, y, random_state=seeds[0]) == qf.mutual_info_ksg(x, y, random_state=seeds[1])
    # One stream for both would make x and a copy of it continuous functions of each other.
    coarse = np.round(4 * x.astype(float)) / 4
    levels, counts = np.unique(coarse, return_counts=True)
    entropy = -np.sum(counts / 2000 * np.log(counts / 2000))
    assert len(levels) > 16
    assert qf.mutual_info_ksg(coarse, coarse) == pytest.approx(entropy, abs=0.25)
    assert qf.mutual_info_ksg(coarse, coarse, scale=None, atoms="none") > entropy + 2
