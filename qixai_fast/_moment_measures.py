"""What follows from the products of layers without another read: spectra, cosines, Schmidt spectra."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ._layer_products import LEAF_ROWS, LayerProducts
from ._threads import single_threaded_blas
from ._validate import Float64
from .decomposition import relative_bound
from .running_moments import leading_components
from .spectra import PCAResult

# A cross-covariance whose norm is below this fraction of the largest it could be is rounding noise.
_NOISE = 1e-13
_UNIT = float(np.finfo(np.float64).eps) / 2

Maps = npt.NDArray[np.int64]


def spectrum_of(products: LayerProducts, i: int, n_components: int) -> PCAResult:
    """Principal components of layer ``i``, all in float64: what :func:`qixai_fast.pca` gives in one read.

    The bound is that of :mod:`qixai_fast.decomposition`: residuals, and rounding as sums of this length
    have it (Higham and Mary 2019).
    """
    n, view = products.sums.n, products.views[i]
    scatter = products.block(i, i)[:-1, :-1]
    with single_threaded_blas():
        values, rows = leading_components(scatter, n_components)
        residuals = np.linalg.norm(rows @ scatter - values[:, None] * rows, axis=1)
    growth = math.sqrt(min(n, LEAF_ROWS)) + math.sqrt(len(scatter)) + (n // LEAF_ROWS).bit_length()
    rounding = residuals + 4 * _UNIT * growth * products.raw_trace(i)
    total = float(np.trace(scatter))
    scale = float(view.scale)  # one number: layer_view has made it
    sigma = np.sqrt(values) / scale
    return PCAResult(
        components=rows,
        singular_values=sigma,
        explained_variance=sigma**2 / (n - 1),
        explained_variance_ratio=values / total if total > 0 else np.zeros(n_components),
        mean=(products.means(i)[:-1] + view.shift) / scale,
        total_variance=total / scale / scale / (n - 1),
        error_bound=relative_bound(values, rounding, np.zeros(n_components)),
        n_passes=1,
    )


def cosines_of(products: LayerProducts, i: int, j: int, maps: tuple[Maps, Maps], *, center: bool) -> Float64:
    """Cosine between some maps of layers ``i`` and ``j``, a table of them; 0 for maps with no direction."""
    n = products.sums.n
    cosine = products.block(i, j)[np.ix_(*maps)]
    norms, means = [], []
    for which, chosen in zip((i, j), maps, strict=True):
        squares = np.maximum(np.diagonal(products.block(which, which))[chosen], 0.0)
        mean = products.means(which)[chosen] + products.views[which].shift[chosen]
        norms.append(np.sqrt(squares if center else squares + n * mean**2))
        means.append(mean)
    if not center:
        cosine += n * np.outer(means[0], means[1])
    cosine /= np.outer(*(np.where(norm > 0, norm, 1.0) for norm in norms))
    cosine[norms[0] == 0] = 0.0
    cosine[:, norms[1] == 0] = 0.0
    np.clip(cosine, -1.0, 1.0, out=cosine)
    if i == j:
        cosine[maps[0][:, None] == maps[1]] = 1.0
        cosine[norms[0] == 0] = 0.0
    return cosine


def schmidt_shares_of(products: LayerProducts, i: int, j: int) -> Float64:
    """The :func:`qixai_fast.schmidt_spectrum` of layers ``i`` and ``j``.

    Raises
    ------
    ValueError
        Where their cross-covariance is zero.
    """
    cross = products.block(i, j)[:-1, :-1]
    with single_threaded_blas():
        values = np.linalg.svd(cross, compute_uv=False).astype(np.float64, copy=False)
    bound = math.sqrt(products.trace(i)) * math.sqrt(products.trace(j))
    if bound == 0 or np.linalg.norm(values) <= _NOISE * bound:
        names = " and ".join(products.views[which].name for which in (i, j))
        raise ValueError(f"{names}: their cross-covariance is zero, so there is no Schmidt spectrum")
    shares = (values[: products.sums.n - 1] / values[0]) ** 2
    share_of_one: Float64 = shares / shares.sum()
    return share_of_one


def entropy_of(shares: Float64) -> float:
    """Entropy in nats of shares that sum to 1."""
    some = shares[shares > 0]
    return max(0.0, float(-(some * np.log(some)).sum()))
