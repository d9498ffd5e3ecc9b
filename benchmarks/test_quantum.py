"""Quantum-inspired measures of layers: beside their definitions, written with NumPy and with torch."""

import numpy as np
import pytest

import qixai_fast as qf
from benchmarks.peers import optional

torch = optional("torch")


def states(rng, n, d):
    """Activations with a common mean, of which no sample is zero."""
    return (rng.standard_normal((n, d)) + 1).astype(np.float32)


def scaled(X):
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def density(X):
    A = scaled(X.astype(np.float64))
    return A.T @ A / len(A)


def entropy(p):
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


def torch_eigenvalues(X):
    A = torch.nn.functional.normalize(torch.from_numpy(X).double(), dim=1)
    return torch.linalg.eigvalsh(A.T @ A / len(A)).numpy()


RECIPES = {  # of the density matrix
    "von_neumann_entropy": lambda rho: entropy(np.linalg.eigvalsh(rho)),
    "purity": lambda rho: float((rho**2).sum()),
    "coherence": lambda rho: float(np.abs(rho).sum() - np.trace(rho)),
    "effective_rank": lambda rho: float(np.exp(entropy(np.linalg.eigvalsh(rho)))),
}


@pytest.mark.parametrize("name", RECIPES)
def test_one_layer(race, size, rng, name):
    X = states(rng, size(100_000, 500), size(512, 16))
    peers = {"NumPy, density matrix": lambda: RECIPES[name](density(X))}
    if name == "von_neumann_entropy":
        peers["torch, density matrix"] = torch and (lambda: entropy(torch_eigenvalues(X)))
    results = race(
        f"{name}, {X.shape[0]:,} x {X.shape[1]} float32",
        lambda: getattr(qf, name)(X, n_jobs=1),
        peers,
        rounds=3,
    )
    for theirs in results.values():
        assert results["ours"] == pytest.approx(theirs, rel=1e-9)


def gram_information(X, Y):
    """The definition by Gram matrices, whose elementwise product has the spectrum of the joint state."""
    K, L = (
        scaled(layer.astype(np.float64)) @ scaled(layer.astype(np.float64)).T / len(layer) for layer in (X, Y)
    )
    parts = [entropy(np.linalg.eigvalsh(matrix)) for matrix in (K, L, len(X) * K * L)]
    return parts[0] + parts[1] - parts[2]


def torch_information(X, Y):
    K, L = (torch.nn.functional.normalize(torch.from_numpy(layer).double(), dim=1) for layer in (X, Y))
    K, L = K @ K.T / len(X), L @ L.T / len(X)
    parts = [entropy(torch.linalg.eigvalsh(matrix).numpy()) for matrix in (K, L, len(X) * K * L)]
    return parts[0] + parts[1] - parts[2]


@pytest.mark.parametrize(("n", "d"), [(2_000, 256), (20_000, 24)])
def test_quantum_mutual_information(race, size, rng, n, d):
    X, Y = (states(rng, size(n, 100), size(d, 12)) for _ in range(2))
    # Beyond a few thousand samples Gram matrices do not fit, and a user takes some of the samples.
    few = size(2_000, 100)
    exact = len(X) == few
    note = "" if exact else f"; peers: {few:,} of the samples"
    results = race(
        f"quantum_mutual_information, two layers of {len(X):,} x {X.shape[1]} float32{note}",
        lambda: qf.quantum_mutual_information(X, Y, n_jobs=1),
        {
            "NumPy, Gram matrices": lambda: gram_information(X[:few], Y[:few]),
            "torch, Gram matrices": torch and (lambda: torch_information(X[:few], Y[:few])),
        },
        rounds=3,
    )
    if exact:
        for theirs in results.values():
            assert results["ours"] == pytest.approx(theirs, abs=1e-6)


def cross_spectrum(X, Y):
    A, B = (layer - layer.mean(axis=0, dtype=np.float64) for layer in (X, Y))
    s = np.linalg.svd(A.T @ B, compute_uv=False)
    return s**2 / (s**2).sum()


def torch_spectrum(X, Y):
    A, B = (torch.from_numpy(layer).double() for layer in (X, Y))
    s = torch.linalg.svdvals((A - A.mean(0)).T @ (B - B.mean(0)))
    return (s**2 / (s**2).sum()).numpy()


@pytest.mark.parametrize("name", ["schmidt_spectrum", "entanglement_entropy"])
def test_two_layers(race, size, rng, name):
    X, Y = (states(rng, size(100_000, 500), size(256, 16)) for _ in range(2))
    of = entropy if name == "entanglement_entropy" else np.asarray
    results = race(
        f"{name}, two layers of {X.shape[0]:,} x {X.shape[1]} float32",
        lambda: getattr(qf, name)(X, Y, n_jobs=1),
        {
            "NumPy, cross-covariance": lambda: of(cross_spectrum(X, Y)),
            "torch, cross-covariance": torch and (lambda: of(torch_spectrum(X, Y))),
        },
        rounds=3,
    )
    for theirs in results.values():
        np.testing.assert_allclose(results["ours"], theirs, rtol=1e-6, atol=1e-9)
