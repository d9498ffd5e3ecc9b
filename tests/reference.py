"""Slow, obvious NumPy versions of every kernel, to compare with."""

import math

import numpy as np

# Similarity ------------------------------------------------------------------------------------


def cosine_similarity(X, Y, center=False):
    """Cosine between every row of X and every row of Y; 0 where a row has no direction."""
    X, Y = np.array(X, dtype=np.float64), np.array(Y, dtype=np.float64)
    result = np.zeros((len(X), len(Y)))
    for i, x in enumerate(X):
        for j, y in enumerate(Y):
            if center:
                u, v = x - x.mean(), y - y.mean()
            else:
                u, v = x, y
            norms = np.sqrt((u**2).sum()) * np.sqrt((v**2).sum())
            if norms > 0:
                result[i, j] = (u * v).sum() / norms
    return result


def cosine_top_k(X, Y, k, skip_self=False):
    """Indices of the k best of each row; of equal similarities the lowest first."""
    similarities = cosine_similarity(X, Y)
    best = []
    for i, row in enumerate(similarities):
        candidates = [j for j in range(len(row)) if not (skip_self and i == j)]
        best.append(sorted(candidates, key=lambda j: (-round(row[j], 12), j))[:k])
    return np.array(best)


def centred_gram(X):
    """H X X^T H, with H = I - 11^T/n."""
    n = len(X)
    H = np.eye(n) - np.ones((n, n)) / n
    return H @ np.asarray(X, dtype=np.float64) @ np.asarray(X, dtype=np.float64).T @ H


def linear_cka(X, Y):
    """Kornblith et al. 2019, equation 4, with linear kernels."""
    K, L = centred_gram(X), centred_gram(Y)
    return np.trace(K @ L) / np.sqrt(np.trace(K @ K) * np.trace(L @ L))


def hsic_unbiased(K, L):
    """Song et al. 2012, equation 5: the unbiased estimator of HSIC from kernel matrices."""
    n = len(K)
    K, L = K - np.diag(np.diag(K)), L - np.diag(np.diag(L))
    ones = np.ones(n)
    first = np.trace(K @ L)
    second = (ones @ K @ ones) * (ones @ L @ ones) / ((n - 1) * (n - 2))
    third = 2 * (ones @ K @ L @ ones) / (n - 2)
    return (first + second - third) / (n * (n - 3))


def linear_cka_debiased(X, Y):
    """Nguyen, Raghu and Kornblith 2021: CKA of the unbiased estimators, from uncentred kernels."""
    X, Y = np.asarray(X, dtype=np.float64), np.asarray(Y, dtype=np.float64)
    K, L = X @ X.T, Y @ Y.T
    return hsic_unbiased(K, L) / np.sqrt(hsic_unbiased(K, K) * hsic_unbiased(L, L))


def orthonormal_basis(X):
    """Columns that span those of X, centred, as Gram and Schmidt build them."""
    X = np.asarray(X, dtype=np.float64)
    basis = []
    for column in (X - X.mean(axis=0)).T:
        rest = column
        for _ in range(2):
            for q in basis:
                rest = rest - q * (q @ rest)
        if np.sqrt(rest @ rest) > 1e-9 * np.sqrt(column @ column):
            basis.append(rest / np.sqrt(rest @ rest))
    return np.array(basis).T


def canonical_correlations(X, Y):
    """Bjoerck and Golub 1973: singular values of the product of two orthonormal bases."""
    return np.linalg.svd(orthonormal_basis(X).T @ orthonormal_basis(Y), compute_uv=False)


def strongest_directions(X, share):
    """Raghu et al. 2017: the fewest left singular vectors that carry a share of the variance."""
    U, s, _ = np.linalg.svd(X - X.mean(axis=0), full_matrices=False)
    kept = 1
    while (s[:kept] ** 2).sum() < share * (s**2).sum():
        kept += 1
    return U[:, :kept]


def procrustes(X, Y):
    """Least squared distance of two layers of unit norm over orthogonal maps, at its minimiser."""
    d = max(X.shape[1], Y.shape[1])
    A, B = (np.pad(Z - Z.mean(axis=0), ((0, 0), (0, d - Z.shape[1]))) for Z in (X, Y))
    A, B = A / np.sqrt((A**2).sum()), B / np.sqrt((B**2).sum())
    U, _, Vt = np.linalg.svd(B.T @ A)
    return ((A - B @ U @ Vt) ** 2).sum()


def dissimilarities(X, metric):
    """Distances of all pairs of samples, i < j."""
    values = []
    for i, x in enumerate(X):
        for y in X[i + 1 :]:
            if metric == "correlation":
                values.append(1 - cosine_similarity([x], [y], center=True)[0, 0])
            elif metric == "cosine":
                values.append(1 - cosine_similarity([x], [y])[0, 0])
            else:
                squared = ((x - y) ** 2).sum()
                values.append(np.sqrt(squared) if metric == "euclidean" else squared)
    return np.array(values)


def ranks(values):
    """Ranks from 0; equal values share their mean."""
    return np.array([((values < v).sum() + (values <= v).sum() - 1) / 2 for v in values])


def rsa(X, Y, metric, method):
    """Kriegeskorte et al. 2008: correlation of two layers' dissimilarities."""
    a, b = dissimilarities(X, metric), dissimilarities(Y, metric)
    if method == "spearman":
        a, b = ranks(a.round(10)), ranks(b.round(10))
    return np.corrcoef(a, b)[0, 1]


# Quantum-inspired measures -----------------------------------------------------------------------


def density_matrix(X):
    """Mean of the outer products of the samples, each scaled to unit norm."""
    X = np.asarray(X, dtype=np.float64)
    rho = np.zeros((X.shape[1], X.shape[1]))
    for x in X:
        unit = x / np.sqrt((x**2).sum())
        rho += np.outer(unit, unit) / len(X)
    return rho


def entropy(probabilities):
    """Shannon entropy in nats; terms of probability zero add nothing."""
    return sum(-p * np.log(p) for p in probabilities if p > 0)


def renyi_entropy(probabilities, alpha):
    """Renyi 1961, in nats; the limit where alpha is 1."""
    p = np.asarray([p for p in probabilities if p > 1e-15])
    return entropy(p) if alpha == 1 else np.log((p**alpha).sum()) / (1 - alpha)


def joint_density_matrix(X, Y):
    """Mean of the Kronecker products of both layers' projectors."""
    X, Y = np.asarray(X, dtype=np.float64), np.asarray(Y, dtype=np.float64)
    rho = 0
    for x, y in zip(X, Y, strict=True):
        a, b = x / np.linalg.norm(x), y / np.linalg.norm(y)
        rho = rho + np.kron(np.outer(a, a), np.outer(b, b)) / len(X)
    return rho


def quantum_mutual_information(X, Y, alpha=1):
    """S(A) + S(B) - S(AB) of density matrices."""
    states = density_matrix(X), density_matrix(Y), joint_density_matrix(X, Y)
    of_x, of_y, of_both = (renyi_entropy(np.linalg.eigvalsh(rho), alpha) for rho in states)
    return of_x + of_y - of_both


def coherence(X):
    """Sum of the magnitudes off the diagonal."""
    rho = np.abs(density_matrix(X))
    return rho.sum() - np.trace(rho)


def schmidt_spectrum(X, Y):
    """Squared singular values of the centred cross-covariance, scaled to sum to one."""
    X, Y = np.asarray(X, dtype=np.float64), np.asarray(Y, dtype=np.float64)
    cross = (X - X.mean(axis=0)).T @ (Y - Y.mean(axis=0))
    squares = np.linalg.svd(cross, compute_uv=False) ** 2
    return squares / squares.sum()


# Binned mutual information ---------------------------------------------------------------------


def bin_codes(x, n_bins, strategy="uniform"):
    """Bin of every value: numpy.digitize, the maximum in the last bin."""
    x = np.array(x, dtype=np.float64)
    if strategy == "uniform":
        edges = np.linspace(x.min(), x.max(), n_bins + 1)
    else:
        edges = np.quantile(x, np.linspace(0, 1, n_bins + 1))
    return np.minimum(np.digitize(x, edges) - 1, n_bins - 1)


def joint_counts(a, b, shape):
    """How often codes a and b occur together."""
    table = np.zeros(shape, dtype=int)
    for i, j in zip(a, b, strict=True):
        table[i, j] += 1
    return table


def entropy_plugin(counts):
    """Entropy of relative frequencies, in nats."""
    p = counts[counts > 0] / counts.sum()
    return -(p * np.log(p)).sum()


def entropy_miller_madow(counts):
    """Miller 1955."""
    return entropy_plugin(counts) + ((counts > 0).sum() - 1) / (2 * counts.sum())


def entropy_grassberger(counts):
    """Grassberger 2003, with G from its definition by digamma functions."""
    from scipy.special import psi

    n = counts.sum()
    total = 0.0
    for k in counts[counts > 0].ravel():
        total += k * (psi(k) + (-1.0) ** k * (psi((k + 1) / 2) - psi(k / 2)) / 2)
    return np.log(n) - total / n


def mutual_info_plugin(table):
    """Sum of p ln(p / (p_x p_y)) over the cells."""
    p = table / table.sum()
    total = 0.0
    for i in range(p.shape[0]):
        for j in range(p.shape[1]):
            if p[i, j] > 0:
                total += p[i, j] * np.log(p[i, j] / (p[i].sum() * p[:, j].sum()))
    return total


def relevant_cells(row, limit):
    """Panzeri and Treves 1996: the number of cells under which as many occupied ones as seen are expected."""
    seen = row[row > 0]
    m, n = len(seen), seen.sum()
    best, error = m, None
    for cells in range(m, limit + 1):
        unseen = cells - m
        q = 1 - (n / (n + m)) ** (1 / n)
        p = np.concatenate([(1 - unseen * q) * (seen + 1) / (n + m), np.full(unseen, q)])
        off = abs(m - (1 - (1 - p) ** n).sum())
        if error is not None and off >= error:
            break
        best, error = cells, off
    return best


def panzeri_treves_bias(table):
    """Bias of the plug-in estimate, with rows as the condition."""
    n, columns = table.sum(), (table.sum(axis=0) > 0).sum()
    rows = [row for row in table if row.any()]
    return (sum(relevant_cells(row, columns) - 1 for row in rows) - (columns - 1)) / (2 * n)


def expected_information(counts_x, counts_y):
    """Mean plug-in mutual information over permutations, from marginal counts, with exact binomials."""
    n = sum(counts_x)
    terms = []
    for a in counts_x:
        for b in counts_y:
            ways = math.comb(n, b)
            for k in range(max(1, a + b - n), min(a, b) + 1):
                share = math.comb(a, k) * math.comb(n - a, b - k) / ways
                terms.append(share * k * math.log(k * n / (a * b)))
    return math.fsum(terms) / n


def permutation_mean(a, b, shape):
    """Mean plug-in mutual information over all orders of b."""
    from itertools import permutations

    return np.mean([mutual_info_plugin(joint_counts(a, order, shape)) for order in permutations(b)])


def mutual_info_binned(x, y, n_bins=16, strategy="uniform", bias_correction=None):
    """Mutual information of two columns (permutation_mean has that correction)."""
    shape = (n_bins, n_bins)
    table = joint_counts(bin_codes(x, n_bins, strategy), bin_codes(y, n_bins, strategy), shape)
    if (table.sum(axis=0) > 0).sum() == 1 or (table.sum(axis=1) > 0).sum() == 1:
        return 0.0
    if bias_correction in ("miller-madow", "grassberger"):
        entropy = {"miller-madow": entropy_miller_madow, "grassberger": entropy_grassberger}[bias_correction]
        return entropy(table.sum(axis=1)) + entropy(table.sum(axis=0)) - entropy(table)
    value = mutual_info_plugin(table)
    if bias_correction == "panzeri-treves":
        value -= (panzeri_treves_bias(table) + panzeri_treves_bias(table.T)) / 2
    return value


def benjamini_hochberg(pvalues):
    """Smallest level at which each test is found by the step-up procedure of 1995."""
    pvalues = np.asarray(pvalues)
    m = len(pvalues)
    out = np.empty(m)
    for i, p in enumerate(pvalues):
        larger = [other for other in pvalues if other >= p]
        out[i] = min(1.0, min(m * other / (pvalues <= other).sum() for other in larger))
    return out


def sequential_pvalue(reached, stop_after, n_full):
    """Of one pair, from whether each permutation reached its value: the p-value and how many were used."""
    used = count = 0
    for hit in reached:
        if used >= n_full and count >= stop_after:
            break
        used += 1
        count += bool(hit)
    if used > n_full and count == stop_after:
        return count / used, used
    return (1 + count) / (1 + used), used


# Nearest-neighbour mutual information ------------------------------------------------------------


def max_norm_distances(x):
    """Distances between all samples of (n,) or (n, d), by differences; infinite to itself."""
    x = np.asarray(x, dtype=np.float64).reshape(len(x), -1)
    distances = np.abs(x[:, None, :] - x[None, :, :]).max(axis=2)
    np.fill_diagonal(distances, np.inf)
    return distances


def ksg_counts(x, y, k, algorithm):
    """n_x and n_y of every sample (Kraskov et al. 2004), compared with every other sample."""
    dx, dy = max_norm_distances(x), max_norm_distances(y)
    joint = np.maximum(dx, dy)
    n_x, n_y = [], []
    for i in range(len(dx)):
        radius = np.sort(joint[i])[k - 1]
        if algorithm == 1:
            n_x.append((dx[i] < radius).sum())
            n_y.append((dy[i] < radius).sum())
        else:
            near = joint[i] <= radius
            n_x.append((dx[i] <= dx[i][near].max()).sum())
            n_y.append((dy[i] <= dy[i][near].max()).sum())
    return np.array(n_x), np.array(n_y)


def ksg_local(x, y, k, algorithm=1):
    """Each sample's part of KSG-1 or KSG-2; 0 in all where x or y is constant."""
    from scipy.special import digamma

    if np.ptp(x, axis=0).max() == 0 or np.ptp(y, axis=0).max() == 0:
        return np.zeros(len(x))
    n_x, n_y = ksg_counts(x, y, k, algorithm)
    if algorithm == 1:
        return digamma(k) + digamma(len(x)) - digamma(n_x + 1) - digamma(n_y + 1)
    return digamma(k) - 1 / k + digamma(len(x)) - digamma(n_x) - digamma(n_y)


def ross_local(x, labels, k):
    """Each sample's part of Ross 2014; the only sample of a label has 0, ties at the k-th distance count."""
    from scipy.special import digamma

    labels = np.asarray(labels)
    distances = max_norm_distances(x)
    local = np.zeros(len(labels))
    for i, label in enumerate(labels):
        same = labels == label
        neighbours = min(k, same.sum() - 1)
        if neighbours > 0:
            radius = np.sort(distances[i][same])[neighbours - 1]
            near, everywhere = (distances[i][same] <= radius).sum(), (distances[i] <= radius).sum()
            local[i] = digamma(len(labels)) - digamma(same.sum()) + digamma(near) - digamma(everywhere)
    return local


def mutual_info_mixed(x, labels, k):
    """Ross 2014."""
    return ross_local(x, labels, k).mean()


def mutual_info_by_parts(x, y, x_atom, y_atom, k, algorithm=1):
    """Chain rule over atoms: labels (0 where continuous), then each label's part; (n,) or (n, 1) each."""
    n = len(x)
    table = np.array(
        [[np.sum((x_atom == a) & (y_atom == b)) for b in np.unique(y_atom)] for a in np.unique(x_atom)]
    )
    total = mutual_info_plugin(table)
    for values, own, other in ((x, x_atom, y_atom), (y, y_atom, x_atom)):
        inside = own == 0
        if inside.any():
            total += inside.sum() / n * mutual_info_mixed(values[inside], other[inside], k)
    both = (x_atom == 0) & (y_atom == 0)
    if both.sum() > 1:
        total += both.sum() / n * ksg_local(x[both], y[both], min(k, both.sum() - 1), algorithm).mean()
    return total


# Conditional mutual information ------------------------------------------------------------------


def conditional_local(x, y, z, k):
    """Each sample's part of Frenzel and Pompe 2007; 0 where x or y is constant, KSG-1 where z is."""
    from scipy.special import digamma

    if np.ptp(x, axis=0).max() == 0 or np.ptp(y, axis=0).max() == 0 or np.ptp(z, axis=0).max() == 0:
        return ksg_local(x, y, k)
    dx, dy, dz = max_norm_distances(x), max_norm_distances(y), max_norm_distances(z)
    n_xz, n_yz, n_z = np.zeros((3, len(dx)))
    for i in range(len(dx)):
        radius = np.sort(np.maximum(np.maximum(dx[i], dy[i]), dz[i]))[k - 1]
        n_xz[i] = ((dx[i] < radius) & (dz[i] < radius)).sum()
        n_yz[i] = ((dy[i] < radius) & (dz[i] < radius)).sum()
        n_z[i] = (dz[i] < radius).sum()
    return digamma(k) - digamma(n_xz + 1) - digamma(n_yz + 1) + digamma(n_z + 1)


def conditional_vector_and_label(x, labels, z, k):
    """Each sample's part of I(X;b|Z): neighbours in (x, z) among the same label."""
    from scipy.special import digamma

    distances, dz = np.maximum(max_norm_distances(x), max_norm_distances(z)), max_norm_distances(z)
    local = np.zeros(len(labels))
    for i, label in enumerate(labels):
        same = labels == label
        if same.sum() > 1:
            radius = np.sort(distances[i][same])[min(k, same.sum() - 1) - 1]
            m_joint, m_xz = (distances[i][same] <= radius).sum(), (distances[i] <= radius).sum()
            n_zb, n_z = (dz[i][same] < radius).sum(), (dz[i] < radius).sum()
            local[i] = digamma(m_joint) - digamma(m_xz) - digamma(n_zb + 1) + digamma(n_z + 1)
    return local


def conditional_two_labels(a, b, z, k):
    """Each sample's part of I(a;b|Z): neighbours in z among the same pair of labels."""
    from scipy.special import digamma

    dz = max_norm_distances(z)
    local = np.zeros(len(a))
    for i in range(len(a)):
        same = (a == a[i]) & (b == b[i])
        if same.sum() > 1:
            near = dz[i] <= np.sort(dz[i][same])[min(k, same.sum() - 1) - 1]
            counts = near[same].sum(), near[a == a[i]].sum(), near[b == b[i]].sum(), near.sum()
            local[i] = digamma(counts[0]) - digamma(counts[1]) - digamma(counts[2]) + digamma(counts[3])
    return local


def conditional_by_parts(x, y, z, x_atom, y_atom, z_atom, k):
    """Chain rule over atoms of scalars, cell by cell of z; labels are 0 where continuous."""
    n = len(x)
    total = 0.0
    for cell in np.unique(z_atom):
        inside = z_atom == cell
        parts = [values[inside] for values in (x, y, z, x_atom, y_atom)]
        if cell != 0:
            total += inside.sum() / n * mutual_info_by_parts(*parts[:2], *parts[3:], k)
            continue
        u, v, w, a, b = parts
        if len(np.unique(a)) > 1 and len(np.unique(b)) > 1:
            total += conditional_two_labels(a, b, w, k).sum() / n
        for values, own, other in ((u, a, b), (v, b, a)):
            if len(np.unique(other)) > 1:
                total += (
                    conditional_vector_and_label(values[own == 0], other[own == 0], w[own == 0], k).sum() / n
                )
        both = (a == 0) & (b == 0)
        if both.sum() > 1:
            total += conditional_local(u[both], v[both], w[both], min(k, both.sum() - 1)).sum() / n
    return total


def conditional_rectified_gaussians(R, rectified, nodes=50, far=7.5):
    """I(X;Y|Z) of three standard normals with correlations R, some of them max(., 0), by Gauss-Legendre."""
    from itertools import product

    from scipy.stats import multivariate_normal, norm

    points, weights = np.polynomial.legendre.leggauss(nodes)
    axes = [
        (far * (points + 1) / 2, far * weights / 2) if r else (far * points, far * weights) for r in rectified
    ]

    def density(values, zeros):
        """Of some variables at their values on a grid (a dict), and that others are below 0."""
        open_axes = list(values)
        grid = np.stack(np.meshgrid(*values.values(), indexing="ij"), axis=-1) if values else np.zeros((1, 0))
        mean, covariance, result = np.zeros((*grid.shape[:-1], len(zeros))), R[np.ix_(zeros, zeros)], 1.0
        if open_axes:
            within, across = R[np.ix_(open_axes, open_axes)], R[np.ix_(zeros, open_axes)]
            result = multivariate_normal(np.zeros(len(open_axes)), within).pdf(grid).reshape(grid.shape[:-1])
            slopes = across @ np.linalg.inv(within)
            mean, covariance = grid @ slopes.T, covariance - slopes @ across.T
        if len(zeros) == 1:
            result = result * norm.cdf(-mean[..., 0] / np.sqrt(covariance[0, 0]))
        elif zeros:
            below = [
                multivariate_normal(np.zeros(len(zeros)), covariance, seed=0).cdf(-m)
                for m in mean.reshape(-1, len(zeros))
            ]
            result = result * np.reshape(below, mean.shape[:-1])
        return result

    total = 0.0
    for at_zero in product(*[(False, True) if r else (False,) for r in rectified]):
        present = [i for i in range(3) if not at_zero[i]]

        def part(kept, at_zero=at_zero, present=present):
            value = density({i: axes[i][0] for i in kept if not at_zero[i]}, [i for i in kept if at_zero[i]])
            return np.reshape(value, [nodes if i in kept else 1 for i in present])

        joint = part([0, 1, 2])
        information = np.log(joint) + np.log(part([2])) - np.log(part([0, 2])) - np.log(part([1, 2]))
        for i in present:
            joint = joint * axes[i][1].reshape([nodes if j == i else 1 for j in present])
        total += (joint * information).sum()
    return total


# Spectra ---------------------------------------------------------------------------------------


def spectrum(X, center):
    """All singular values and right singular vectors (as rows) in float64, centred in extended precision."""
    exact = np.asarray(X, dtype=np.longdouble)
    if center:
        exact = exact - exact.sum(axis=0) / len(exact)
    _, values, rows = np.linalg.svd(exact.astype(np.float64), full_matrices=False)
    return values, rows


def positive_largest_entries(rows):
    """Each row with the sign that makes its entry of largest absolute value positive."""
    flipped = []
    for row in rows:
        largest = max(range(len(row)), key=lambda i: abs(row[i]))
        flipped.append(row if row[largest] >= 0 else -row)
    return np.array(flipped)


# Integrated gradients --------------------------------------------------------------------------


def riemann_accumulate(gradients, weights, inputs=None, baselines=0.0):
    """Weighted sum over the first axis, times the way from baselines to inputs."""
    total = np.zeros(np.shape(gradients)[1:])
    for gradient, weight in zip(gradients, weights, strict=True):
        total = total + weight * np.asarray(gradient, dtype=np.float64)
    if inputs is None:
        return total
    return total * (np.asarray(inputs, dtype=np.float64) - np.asarray(baselines, dtype=np.float64))


def integrated_gradients(score, x, baseline, nodes, weights):
    """Attribution of one sample: ``score`` maps a tensor of shape (1, ...) to a tensor of one element."""
    import torch

    total = np.zeros(x.shape)
    for node, weight in zip(nodes, weights, strict=True):
        point = (baseline + node * (x - baseline)).clone().requires_grad_()
        score(point[None]).sum().backward()
        total += weight * point.grad.double().numpy()
    with torch.no_grad():
        change = float(score(x[None]).sum() - score(baseline[None]).sum())
    values = total * (x - baseline).double().numpy()
    return values, values.sum() - change
