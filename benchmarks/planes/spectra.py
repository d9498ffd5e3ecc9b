"""Singular values of a layer whose mean is far from zero, against seconds and against passes over it."""

import os

import numpy as np

import qixai_fast as qf
from benchmarks.peers import optional
from benchmarks.planes.measuring import Entrant, Plane

decomposition = optional("sklearn.decomposition")
fbpca = optional("fbpca")
torch = optional("torch")
dask = optional("dask")
da = optional("dask.array")

N_COMPONENTS = 20
ITERATIONS = (0, 1, 2, 4)
ROWS_A_CHUNK = 5_000


def layer(rng, n, d, offset):
    """float32 activations: 100 directions with standard deviations 1, 1/2, 1/3, ..., noise, and a mean."""
    rank = min(100, d)
    mix = rng.standard_normal((rank, d)) / np.arange(1, rank + 1)[:, None]
    X = rng.standard_normal((n, rank)) @ mix + 0.1 * rng.standard_normal((n, d))
    return (X + offset * X.std()).astype(np.float32)


def true_values(X):
    """By products of float64 about the mean of long doubles."""
    centred = X.astype(np.float64) - X.mean(axis=0, dtype=np.longdouble).astype(np.float64)
    return np.sqrt(np.linalg.eigvalsh(centred.T @ centred)[::-1][:N_COMPONENTS])


class CountedFile:
    """A file of an array that knows how many bytes were asked of it."""

    def __init__(self, path):
        self.stored = np.load(path, mmap_mode="r")
        self.shape, self.dtype, self.ndim = self.stored.shape, self.stored.dtype, 2
        self.read = 0

    def __getitem__(self, index):
        block = np.array(self.stored[index])
        self.read += block.nbytes
        return block

    @property
    def passes(self):
        return self.read / self.stored.nbytes


def ours(path, **options):
    found = qf.pca(np.load(path, mmap_mode="r"), N_COMPONENTS, n_jobs=1, random_state=0, **options)
    return found.singular_values, found.n_passes


def sklearn_pca(path, passes, **options):
    model = decomposition.PCA(N_COMPONENTS, random_state=0, **options).fit(np.load(path))
    return model.singular_values_, passes


def sklearn_incremental(path):
    """Fed by hand, block after block: nothing is read twice."""
    file = CountedFile(path)
    model = decomposition.IncrementalPCA(N_COMPONENTS)
    for first in range(0, len(file.stored), ROWS_A_CHUNK):
        model.partial_fit(file[first : first + ROWS_A_CHUNK])
    return model.singular_values_, file.passes


def dask_centred(file):
    """The array about its mean, which is computed once and kept."""
    X = da.from_array(file, chunks=(ROWS_A_CHUNK, -1), name=False)
    return X - X.mean(axis=0).compute()


def dask_svd(path, *, n_power_iter, iterator):
    """With ``compute=True``, as its documentation advises for data larger than memory."""
    file = CountedFile(path)
    with dask.config.set(scheduler="synchronous"):
        _, s, _ = da.linalg.svd_compressed(
            dask_centred(file),
            N_COMPONENTS,
            iterator=iterator,
            n_power_iter=n_power_iter,
            seed=0,
            compute=True,
        )
        values = s.compute()
    return values, file.passes


def dask_exact(path):
    """The decomposition by QR of blocks, without compression."""
    file = CountedFile(path)
    with dask.config.set(scheduler="synchronous"):
        values = da.linalg.svd(dask_centred(file))[1][:N_COMPONENTS].compute()
    return values, file.passes


def by_fbpca(path, n_iter):
    np.random.seed(0)  # noqa: NPY002
    return fbpca.pca(np.load(path), N_COMPONENTS, n_iter=n_iter)[1], 2 * n_iter + 3


def by_torch(path, niter):
    torch.manual_seed(0)
    X = torch.from_numpy(np.load(path))
    values = torch.pca_lowrank(X, q=min(N_COMPONENTS + 10, X.shape[1]), niter=niter)[1]
    return values[:N_COMPONENTS].numpy(), 2 * niter + 3


def products(path, dtype):
    """The recipe: eigenvalues of X^T X - n m m^T."""
    X = np.load(path).astype(dtype, copy=False)
    mean = X.mean(axis=0)
    scatter = X.T @ X - len(X) * np.outer(mean, mean)
    return np.sqrt(np.maximum(np.linalg.eigvalsh(scatter)[::-1][:N_COMPONENTS], 0)), 2


def entrants():
    """Everybody; passes are counted where a tool streams, and follow from its algorithm where it does not."""
    passes = {"cost": lambda result: result[1]}
    found = [
        Entrant("qixai-fast", "pca", "pca", ours, default=True, **passes),
        *(
            Entrant(
                "qixai-fast",
                "pca krylov",
                f"pca, method='krylov', tol={tol:g}",
                lambda path, tol=tol: ours(path, method="krylov", tol=tol),
                **passes,
            )
            for tol in (1e-1, 1e-3, 1e-6)
        ),
        *(
            Entrant(
                "NumPy recipe",
                f"X.T @ X {dtype}",
                f"{dtype} products, mean taken out after",
                lambda path, dtype=dtype: products(path, dtype),
                **passes,
            )
            for dtype in ("float32", "float64")
        ),
    ]
    if decomposition:
        found += [
            Entrant(
                "scikit-learn", "PCA", "PCA", lambda path: sklearn_pca(path, 2), default=True, **passes
            ),
            Entrant(
                "scikit-learn", "PCA full", "PCA, svd_solver='full'",
                lambda path: sklearn_pca(path, None, svd_solver="full"),  # LAPACK's own, in memory
            ),
            Entrant("scikit-learn", "IncrementalPCA", "IncrementalPCA", sklearn_incremental, **passes),
            *(
                Entrant(
                    "scikit-learn", "PCA randomized", f"PCA, svd_solver='randomized', iterated_power={i}",
                    lambda path, i=i: sklearn_pca(path, 2 * i + 3, svd_solver="randomized", iterated_power=i),
                    **passes,
                )
                for i in ITERATIONS
            ),
        ]  # fmt: skip
    if fbpca:
        found += [
            Entrant(
                "fbpca",
                "pca",
                f"pca, n_iter={i}",
                lambda path, i=i: by_fbpca(path, i),
                default=i == 2,
                **passes,
            )
            for i in ITERATIONS
        ]
    if torch:
        found += [
            Entrant(
                "torch",
                "pca_lowrank",
                f"pca_lowrank, niter={i}",
                lambda path, i=i: by_torch(path, i),
                default=i == 2,
                **passes,
            )
            for i in ITERATIONS
        ]
    if da:
        found.append(Entrant("dask", "svd", "da.linalg.svd", dask_exact, **passes))
        found += [
            Entrant(
                "dask", f"svd_compressed {iterator}",
                f"svd_compressed, iterator={iterator!r}, n_power_iter={i}",
                lambda path, i=i, iterator=iterator: dask_svd(path, n_power_iter=i, iterator=iterator),
                default=(iterator, i) == ("power", 0), **passes,
            )
            for iterator in ("power", "QR")
            for i in (*ITERATIONS, 8)
        ]  # fmt: skip
    return found


def planes(rng, quick, folder):
    n, d = (600, 48) if quick else (50_000, 256)
    for offset in (0, 30, 300):
        X = layer(rng, n, d, offset)
        truth = true_values(X)
        path = os.path.join(folder, f"layer{offset}.npy")
        np.save(path, X)

        def error(result, case, truth=truth):
            return np.max(np.abs(np.asarray(result[0], dtype=np.float64) - truth) / truth)

        yield Plane(
            name=f"pca {offset}",
            group="spectra",
            title=f"PCA, mean / spread {offset}",
            work=f"the {N_COMPONENTS} leading singular values about the mean, a file of {n:,} x {d} float32",
            error_is="largest relative error of the singular values",
            cost_is="passes over the data",
            cases=[path],
            entrants=entrants(),
            error=error,
        )
