"""Layers compared whole: all linear measures of all pairs from one read; CKA, CCA, Procrustes and RSA."""

import itertools

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import pearsonr, spearmanr

import qixai_fast as qf
from benchmarks.peers import optional
from qixai_fast._moment_measures import cosines_of, schmidt_shares_of, spectrum_of
from qixai_fast._validate import Matrix, as_matrix
from qixai_fast._views import WithSquaredNorm
from qixai_fast.alignment import terms_of_products
from qixai_fast.auditing.layer_moments import LayerMoments

torch = optional("torch")


def related(rng, n, d, dtype=np.float32):
    """A layer of 16 directions and noise, about a mean of one spread."""
    source = rng.standard_normal((n, 16), dtype=np.float32)
    mix = rng.standard_normal((16, d), dtype=np.float32)
    return (source @ mix + rng.standard_normal((n, d), dtype=np.float32) + 4).astype(dtype)


def everything(paths, n_components):
    """What an audit wants of its layers, as it computes it: spectra, cosines, CKA, Schmidt spectra."""
    layers = {path.stem: as_matrix(np.load(path, mmap_mode="r"), path.stem) for path in paths}
    moments = LayerMoments(layers, 1, None)
    found = {}
    for name in layers:
        found[name] = spectrum_of(*moments.products(name, name)[:2], n_components)
    for pair in itertools.combinations(layers, 2):
        held = moments.products(*pair)
        maps = tuple(np.arange(layers[name].n_features) for name in pair)
        terms = terms_of_products(*held)
        found[pair] = (
            [cosines_of(*held, maps, center=center) for center in (False, True)],
            (terms.biased(), terms.debiased()),
            schmidt_shares_of(*held),
        )
    assert moments.n_reads == 1
    return found


def test_four_layers_all_pairs(race, size, rng, tmp_path, monkeypatch):
    n, d = size(100_000, 3000), size(512, 24)
    paths = [tmp_path / f"layer{i}.npy" for i in range(4)]
    for path in paths:
        np.save(path, related(rng, n, d))
    stored = [np.load(path) for path in paths]
    wide = [layer.astype(np.float64) for layer in stored]
    pairs = list(itertools.combinations_with_replacement(range(4), 2))
    results = race(
        f"four files of {n:,} x {d} float32, all pairs: PCA (20), cosine raw and centred, CKA plain and "
        "debiased, Schmidt spectra",
        lambda: everything(paths, 20),
        {
            "X.T @ Y of all pairs, float64 in memory": lambda: [wide[i].T @ wide[j] for i, j in pairs],
            "X.T @ Y of all pairs, float32 in memory": lambda: [stored[i].T @ stored[j] for i, j in pairs],
        },
        least={"X.T @ Y of all pairs, float64 in memory": 1 / 1.3},
        rounds=3,
    )
    rows = {}

    def counted(kind):
        read = kind.block

        def block(self, start, stop):
            if type(self) is kind:
                rows[self.name] = rows.get(self.name, 0) + stop - start
            return read(self, start, stop)

        monkeypatch.setattr(kind, "block", block)

    counted(Matrix)
    counted(WithSquaredNorm)
    found = everything(paths, 20)
    # The first leaf says what the moments are taken about, and is read again with the others.
    race.bound("reads of each file", max(rows.values()) / n, most=1.05)
    assert found["layer0", "layer1"][1] == results["ours"]["layer0", "layer1"][1]
    assert found["layer0", "layer1"][1][0] == qf.linear_cka(wide[0], wide[1])


def numpy_cka(X, Y):
    """The recipe with features, in double precision."""
    X, Y = (layer - layer.mean(axis=0, dtype=np.float64) for layer in (X, Y))
    return np.linalg.norm(X.T @ Y) ** 2 / (np.linalg.norm(X.T @ X) * np.linalg.norm(Y.T @ Y))


def torch_cka(X, Y, dtype):
    X, Y = (torch.from_numpy(layer).to(getattr(torch, dtype)) for layer in (X, Y))
    X, Y = X - X.mean(0), Y - Y.mean(0)
    norm = torch.linalg.matrix_norm
    return float(norm(X.T @ Y) ** 2 / (norm(X.T @ X) * norm(Y.T @ Y)))


def gram_cka_debiased(X, Y):
    """The usual recipe with Gram matrices (Song et al. 2012, equation 5)."""
    K, L = (layer.astype(np.float64) @ layer.T.astype(np.float64) for layer in (X, Y))
    n = len(K)
    for gram in (K, L):
        np.fill_diagonal(gram, 0)

    def hsic(K, L):
        cross = (K.sum(axis=0) * L.sum(axis=0)).sum()
        return (K * L).sum() + K.sum() * L.sum() / ((n - 1) * (n - 2)) - 2 * cross / (n - 2)

    return hsic(K, L) / np.sqrt(hsic(K, K) * hsic(L, L))


def test_linear_cka(race, size, rng):
    n, d = size(100_000, 1000), size(256, 16)
    X, Y = related(rng, n, d), related(rng, n, d)
    results = race(
        f"linear_cka, two layers of {n:,} x {d} float32",
        lambda: qf.linear_cka(X, Y, n_jobs=1),
        {
            "NumPy, products of features": lambda: numpy_cka(X, Y),
            "torch, products of features, float64": torch and (lambda: torch_cka(X, Y, "float64")),
            "torch, products of features, float32": torch and (lambda: torch_cka(X, Y, "float32")),
        },
        rounds=3,
    )
    expected = results["NumPy, products of features"]
    np.testing.assert_allclose(results["ours"], expected, rtol=1e-9)


def test_debiased(race, size, rng):
    n, d = size(5000, 300), size(256, 16)
    X, Y = related(rng, n, d), related(rng, n, d)
    results = race(
        f"linear_cka(debiased=True), two layers of {n:,} x {d} float32",
        lambda: qf.linear_cka(X, Y, debiased=True, n_jobs=1),
        {"NumPy, Gram matrices": lambda: gram_cka_debiased(X, Y)},
        rounds=3,
    )
    np.testing.assert_allclose(results["ours"], results["NumPy, Gram matrices"], atol=1e-9)


def test_permutations(race, size, rng):
    n, d, m = size(2000, 100), size(128, 12), size(200, 5)
    X, Y = related(rng, n, d), related(rng, n, d)

    def shuffled():
        orders = np.random.default_rng(0)
        return [numpy_cka(X, Y[orders.permutation(n)]) for _ in range(size(20, 2))]

    results = race(
        f"linear_cka_test, two layers of {n:,} x {d} float32, {m} permutations",
        lambda: qf.linear_cka_test(X, Y, n_permutations=m, random_state=0, n_jobs=1),
        {"loop over NumPy's products of features": (shuffled, size(20, 2))},
        unit="permutation",
        units=m,
        rounds=3,
    )
    theirs = results["loop over NumPy's products of features"]
    within = 5 * results["ours"].null_std / np.sqrt(len(theirs))
    assert results["ours"].null_mean == pytest.approx(np.mean(theirs), abs=within)


def qr_cca(X, Y):
    """Correlations of orthonormal bases (Bjoerck and Golub 1973)."""
    bases = [np.linalg.qr(layer - layer.mean(axis=0, dtype=np.float64))[0] for layer in (X, Y)]
    return np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)


def numpy_procrustes(X, Y):
    A, B = (layer - layer.mean(axis=0, dtype=np.float64) for layer in (X, Y))
    return 2 - 2 * np.linalg.norm(A.T @ B, "nuc") / (np.linalg.norm(A) * np.linalg.norm(B))


def test_cca(race, size, rng):
    n, d = size(50_000, 1000), size(256, 16)
    X, Y = related(rng, n, d), related(rng, n, d)
    results = race(
        f"cca, two layers of {n:,} x {d} float32",
        lambda: qf.cca(X, Y, n_jobs=1).correlations,
        {"NumPy, QR": lambda: qr_cca(X, Y)},
        rounds=3,
    )
    np.testing.assert_allclose(results["ours"], results["NumPy, QR"], atol=1e-9)


def numpy_svcca(X, Y, kept=0.99):
    """Each layer on its leading directions, by a whole SVD; then CCA of these (Raghu et al. 2017)."""
    parts = []
    for layer in (X, Y):
        u, s, _ = np.linalg.svd(layer - layer.mean(axis=0, dtype=np.float64), full_matrices=False)
        share = np.cumsum(s**2) / (s**2).sum()
        parts.append(u[:, : int(np.searchsorted(share, kept)) + 1])
    return float(np.linalg.svd(parts[0].T @ parts[1], compute_uv=False).mean())


def test_svcca(race, size, rng):
    n, d = size(20_000, 1000), size(256, 16)
    X, Y = related(rng, n, d), related(rng, n, d)
    results = race(
        f"svcca, two layers of {n:,} x {d} float32",
        lambda: qf.svcca(X, Y, n_jobs=1).mean_correlation,
        {"NumPy, SVD": lambda: numpy_svcca(X, Y)},
        rounds=3,
    )
    assert results["ours"] == pytest.approx(results["NumPy, SVD"], abs=0.01)


def test_procrustes(race, size, rng):
    n, d = size(50_000, 1000), size(256, 16)
    X, Y = related(rng, n, d), related(rng, n, d)
    results = race(
        f"procrustes, two layers of {n:,} x {d} float32",
        lambda: qf.procrustes(X, Y, n_jobs=1),
        {"NumPy, nuclear norm": lambda: numpy_procrustes(X, Y)},
        rounds=3,
    )
    np.testing.assert_allclose(results["ours"], results["NumPy, nuclear norm"], atol=1e-9)


@pytest.mark.parametrize("method", ["spearman", "pearson"])
def test_rsa(race, size, rng, method):
    n, d = size(4000, 200), size(256, 16)
    X, Y = related(rng, n, d), related(rng, n, d)
    compare = {"spearman": spearmanr, "pearson": pearsonr}[method]
    results = race(
        f"rsa, {method} of correlation distances, two layers of {n:,} x {d} float32",
        lambda: qf.rsa(X, Y, method=method, n_jobs=1),
        {f"pdist + {compare.__name__}": lambda: compare(pdist(X, "correlation"), pdist(Y, "correlation"))[0]},
        rounds=3,
    )
    np.testing.assert_allclose(results["ours"], results[f"pdist + {compare.__name__}"], atol=1e-5)
