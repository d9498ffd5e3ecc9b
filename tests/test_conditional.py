"""Conditional mutual information: against brute force, closed forms and integrals."""

import tracemalloc

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

import qixai_fast as qf


def correlation(xy, xz, yz):
    return np.array([[1, xy, xz], [xy, 1, yz], [xz, yz, 1.0]])


def gaussians(R, n, seed):
    return np.random.default_rng(seed).multivariate_normal(np.zeros(3), R, n).T


def partial_information(R):
    """-1/2 ln(1 - r^2) with the partial correlation r of x and y given z."""
    (_, xy, xz), (_, _, yz) = R[0], R[1]
    return -0.5 * np.log(1 - (xy - xz * yz) ** 2 / ((1 - xz**2) * (1 - yz**2)))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(2, 60),
    st.sampled_from([(1, 1, 1), (2, 1, 1), (1, 1, 2), (2, 3, 2)]),
    st.sampled_from([1, 3, 50, 10**6]),
)
def test_equals_brute_force(seed, n, widths, levels):
    rng = np.random.default_rng(seed)
    x, y, z = (0.1 * rng.integers(-levels, levels + 1, (n, width)) for width in widths)
    k = int(rng.integers(1, n))
    options = {"n_neighbors": k, "scale": None, "atoms": "none"}
    value, local = qf.conditional_mutual_info_ksg(x, y, z, return_local=True, **options)
    np.testing.assert_allclose(local, reference.conditional_local(x, y, z, k), rtol=0, atol=1e-12)
    assert value == local.mean()
    assert qf.conditional_mutual_info_ksg(y, x, z, **options) == value


@pytest.mark.parametrize("rectified", [(1, 1, 1), (1, 0, 0), (0, 1, 1), (0, 0, 1), (1, 1, 0)])
@pytest.mark.parametrize("n", [60, 500])
def test_atoms_equal_the_chain_rule(rectified, n):
    values = gaussians(correlation(0.6, 0.5, 0.4), n, n)
    values = [np.maximum(v, -0.2) if r else v for v, r in zip(values, rectified, strict=True)]
    labels = [(v == -0.2).astype(int) for v in values]
    expected = reference.conditional_by_parts(*values, *labels, 3)
    value = qf.conditional_mutual_info_ksg(*values, scale=None)
    assert value == pytest.approx(expected, abs=1e-12)
    assert qf.conditional_mutual_info_ksg(values[1], values[0], values[2], scale=None) == value


@pytest.mark.parametrize("r", [(0.6, 0.5, 0.4), (0.0, 0.6, 0.6), (0.7, 0.2, -0.3)])
def test_gaussians(r):
    R = correlation(*r)
    values = [qf.conditional_mutual_info_ksg(*gaussians(R, 4000, seed)) for seed in range(4)]
    assert np.mean(values) == pytest.approx(partial_information(R), abs=0.03)


def test_markov_chain_and_common_cause_give_zero():
    for seed in range(3):
        x, a, b = np.random.default_rng(seed).standard_normal((3, 4000))
        z = x + a
        y = z + b
        assert abs(qf.conditional_mutual_info_ksg(x, y, z)) < 0.03 < qf.mutual_info_ksg(x, y)


def test_what_only_acts_together_is_seen():
    x, y, noise = np.random.default_rng(0).standard_normal((3, 4000))
    z = x + y + 0.5 * noise
    truth = partial_information(np.corrcoef([x, y, z]))
    assert abs(qf.mutual_info_ksg(x[:, None], np.stack([y, y**2], axis=1))) < 0.1
    assert qf.conditional_mutual_info_ksg(x, y, z) == pytest.approx(truth, abs=0.05)


@pytest.mark.parametrize(
    ("rectified", "truth"),
    [((1, 1, 1), 0.10413), ((1, 0, 0), 0.112582), ((0, 0, 1), 0.160938), ((1, 1, 0), 0.096989)],
)
def test_rectified_gaussians(rectified, truth):
    R = correlation(0.6, 0.5, 0.4)
    assert reference.conditional_rectified_gaussians(R, rectified) == pytest.approx(truth, abs=3e-5)
    values, plain = [], []
    for seed in range(4):
        columns = [
            np.maximum(v, 0) if r else v for v, r in zip(gaussians(R, 6000, seed), rectified, strict=True)
        ]
        values.append(qf.conditional_mutual_info_ksg(*columns))
        plain.append(qf.conditional_mutual_info_ksg(*columns, atoms="none"))
    assert np.mean(values) == pytest.approx(truth, abs=0.012)
    if all(rectified):
        assert np.mean(plain) > 3 * truth


def test_discrete_variables():
    # b is x's sign, seen through noise that z holds: nothing is left once z, an atom too, is known.
    rng = np.random.default_rng(0)
    z = rng.integers(0, 2, 4000)
    x = rng.standard_normal(4000) + 2 * z
    b = np.where(rng.random(4000) < 0.8, z, 1 - z)
    assert qf.mutual_info_mixed(x, b) > 0.1
    assert abs(qf.conditional_mutual_info_ksg(x, b, z)) < 0.02
    assert qf.conditional_mutual_info_ksg(b, b, z) == pytest.approx(
        -0.8 * np.log(0.8) - 0.2 * np.log(0.2), abs=0.03
    )
    w = rng.standard_normal(4000)
    either = np.sign(w + rng.standard_normal(4000))
    other = np.sign(w + rng.standard_normal(4000))
    assert (
        abs(qf.conditional_mutual_info_ksg(either, other, w))
        < 0.02
        < qf.mutual_info_discrete(either.astype(int), other.astype(int))
    )


@pytest.mark.parametrize("atoms", ["auto", "none"])
def test_constants(atoms):
    x, y, z = gaussians(correlation(0.6, 0.5, 0.4), 300, 0)
    one = np.ones(300)
    assert qf.conditional_mutual_info_ksg(one, y, z, atoms=atoms) == 0.0
    assert qf.conditional_mutual_info_ksg(x, one, z, atoms=atoms) == 0.0
    plain = qf.mutual_info_ksg(np.stack([x, one], axis=1), y, atoms=atoms)
    assert qf.conditional_mutual_info_ksg(x, y, one, atoms=atoms) == pytest.approx(plain, abs=1e-12)
    rectified = np.maximum(x, 0)
    assert qf.conditional_mutual_info_ksg(rectified, y, one) == pytest.approx(
        qf.mutual_info_ksg(rectified, np.stack([y, one], axis=1)), abs=1e-12
    )


def test_half_precision():
    R = correlation(0.6, 0.5, 0.4)
    values, exact = [], []
    for seed in range(6):
        columns = gaussians(R, 4000, seed)
        exact.append(qf.conditional_mutual_info_ksg(*columns))
        values.append(qf.conditional_mutual_info_ksg(*[c.astype(np.float16) for c in columns]))
        assert values[-1] == qf.conditional_mutual_info_ksg(
            *[c.astype(np.float16) for c in (columns[1], columns[0], columns[2])]
        )
    assert np.mean(values) == pytest.approx(np.mean(exact), abs=0.01)
    # The jitter of z is its own, and x in fine detail tells nothing: only the bias of near copies is left.
    half = columns[0].astype(np.float16)
    assert qf.conditional_mutual_info_ksg(half, columns[1], half) == pytest.approx(-1 / 12, abs=0.03)
    assert abs(qf.conditional_mutual_info_ksg(columns[0], columns[1], columns[0])) < 1e-12


def test_threads_kinds_and_scale():
    x, y, z = gaussians(correlation(0.6, 0.5, 0.4), 5000, 0)
    x = np.maximum(x, 0)
    z = np.stack([z, x + z], axis=1)
    value, local = qf.conditional_mutual_info_ksg(x, y, z, n_jobs=1, return_local=True)
    for n_jobs in (2, 4):
        again = qf.conditional_mutual_info_ksg(x, y, z, n_jobs=n_jobs, return_local=True)
        assert again[0] == value
        np.testing.assert_array_equal(again[1], local)
    assert qf.conditional_mutual_info_ksg(1e9 * x, 1e-9 * y, z * [1e-6, 1e6]) == pytest.approx(
        value, abs=1e-12
    )
    assert qf.conditional_mutual_info_ksg(x.tolist(), np.repeat(y, 2)[::2], np.asfortranarray(z)) == value
    torch = pytest.importorskip("torch")
    again = qf.conditional_mutual_info_ksg(torch.from_numpy(x), y, torch.from_numpy(z), return_local=True)
    assert again[0] == value
    assert torch.equal(again[1], torch.from_numpy(local))


def test_bad_input():
    x, y, z = gaussians(correlation(0.6, 0.5, 0.4), 50, 0)
    bad = z.copy()
    bad[7] = np.nan
    with pytest.raises(ValueError, match="z: nan at row 7"):
        qf.conditional_mutual_info_ksg(x, y, bad)
    with pytest.raises(ValueError, match="x and z: wanted the same number of samples, got 50 and 49"):
        qf.conditional_mutual_info_ksg(x, y, z[1:])
    with pytest.raises(ValueError, match="n_neighbors: wanted 1 to 49"):
        qf.conditional_mutual_info_ksg(x, y, z, n_neighbors=50)
    with pytest.raises(TypeError, match="y: dtype"):
        qf.conditional_mutual_info_ksg(x, y + 1j, z)
    with pytest.raises(ValueError, match="atoms: wanted one of"):
        qf.conditional_mutual_info_ksg(x, y, z, atoms="some")
    assert np.isfinite(qf.conditional_mutual_info_ksg(x[:2], y[:2], z[:2], n_neighbors=1))


@pytest.mark.parametrize("kind", ["plain", "atoms", "half"])
def test_memory_stays_within_the_budget(kind):
    x, y, z = gaussians(correlation(0.6, 0.5, 0.4), 40_000, 0)
    if kind == "atoms":
        x, y, z = np.maximum(x, 0), np.clip(y, -1, 1), np.maximum(z, 0)
    if kind == "half":
        x, y, z = x.astype(np.float16), y.astype(np.float16), z.astype(np.float16)
    with pytest.raises(qf.MemoryBudgetError) as caught:
        qf.conditional_mutual_info_ksg(x, y, z, max_memory="1MB")
    expected = qf.conditional_mutual_info_ksg(x, y, z, n_jobs=2)
    tracemalloc.start()
    assert qf.conditional_mutual_info_ksg(x, y, z, n_jobs=2, max_memory=caught.value.required) == expected
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < caught.value.required
