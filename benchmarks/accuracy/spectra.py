"""Principal components of data whose mean is far larger than their spread, as activations' often is.

The truth is the float64 singular value decomposition of the very values that were handed over, centred in
two passes: what rounding to half precision does to the data themselves is nobody's fault.
"""

import math
import warnings

import numpy as np

import qixai_fast as qf
from benchmarks.environment import SEED
from benchmarks.peers import optional

SHAPE, QUICK_SHAPE = (2_000, 32), (300, 16)
N_COMPONENTS = 10
SMALLEST = 0.03  # of the first singular value: that of the tenth component
OFFSETS = (0, 1, 3, 10, 30, 100, 300, 1_000)
DTYPES = ("float64", "float32", "float16")
DRAWS = 3
WRONG = 0.01
COLOURS = ("#1f5fa8", "#6fa8dc", "#d9541e", "#8e44ad", "#e8a33d", "#555555", "#2e8b57", "#b05080", "#000000")
MARKERS = "ovsx+^Dp*"


def data(shape, offset, dtype, draw):
    """Singular values that fall evenly on a logarithmic scale; each mean ``offset`` standard deviations."""
    rng = np.random.default_rng([SEED, draw])
    n, d = shape
    left = np.linalg.qr(rng.standard_normal((n, d)))[0]
    right = np.linalg.qr(rng.standard_normal((d, d)))[0]
    values = SMALLEST ** (np.arange(d) / (N_COMPONENTS - 1))
    X = math.sqrt(n) * (left * values) @ right.T
    X -= X.mean(0)
    return (X + offset * X.std(0) * rng.choice([-1, 1], d)).astype(dtype)


def truth(X):
    exact = X.astype(np.float64)
    exact -= exact.mean(0)
    exact -= exact.mean(0)
    _, values, components = np.linalg.svd(exact, full_matrices=False)
    return values[:N_COMPONENTS], components[:N_COMPONENTS], (values**2)[:N_COMPONENTS] / (values**2).sum()


def ours(X, method="auto"):
    found = qf.pca(X, N_COMPONENTS, method=method, random_state=0)
    return found.singular_values, found.components, found.explained_variance_ratio


def centred_svd(X):
    """Three lines of NumPy, in the input's own precision."""
    _, values, components = np.linalg.svd(X - X.mean(0), full_matrices=False)
    return values[:N_COMPONENTS], components[:N_COMPONENTS], (values**2 / (values**2).sum())[:N_COMPONENTS]


def sklearn_pca(solver):
    def call(X):
        fitted = _decomposition.PCA(N_COMPONENTS, svd_solver=solver, random_state=0).fit(X)
        return fitted.singular_values_, fitted.components_, fitted.explained_variance_ratio_

    return call


def sklearn_incremental(X):
    fitted = _decomposition.IncrementalPCA(N_COMPONENTS, batch_size=len(X) // 8).fit(X)
    return fitted.singular_values_, fitted.components_, fitted.explained_variance_ratio_


def torch_lowrank(X):
    """Twice as many asked for, as its page advises; no ratio: torch does not compute the total variance."""
    _torch.manual_seed(0)
    _, values, components = _torch.pca_lowrank(_torch.from_numpy(X), min(2 * N_COMPONENTS, *X.shape))
    return values.numpy()[:N_COMPONENTS], components.numpy().T[:N_COMPONENTS], None


_decomposition = optional("sklearn.decomposition")
_torch = optional("torch")
TOOLS = {
    "qf.pca": ours,
    "qf.pca, Krylov": lambda X: ours(X, "krylov"),
    **(
        {
            "scikit-learn, default": sklearn_pca("auto"),
            "scikit-learn, full": sklearn_pca("full"),
            "scikit-learn, randomized": sklearn_pca("randomized"),
            "scikit-learn, arpack": sklearn_pca("arpack"),
            "scikit-learn, incremental": sklearn_incremental,
        }
        if _decomposition
        else {}
    ),
    **({"torch.pca_lowrank": torch_lowrank} if _torch else {}),
    "NumPy, svd of centred": centred_svd,
}


def errors(found, exact):
    """Largest relative error of a singular value, sine of the largest angle, largest error of a ratio."""
    values, components, ratios = (None if part is None else np.asarray(part, np.float64) for part in found)
    left_over = exact[1] - (exact[1] @ components.T) @ components  # of components that are orthonormal
    return {
        "singular_values": float(np.abs(values / exact[0] - 1).max()),
        "subspace": float(np.linalg.norm(left_over, 2)),
        "ratios": None if ratios is None else float(np.abs(ratios - exact[2]).max()),
    }


def errors_of(tool, X, exact):
    """None where a peer does not take the dtype, and says so. Ours take them all: their errors are raised."""
    try:
        return errors(TOOLS[tool](X), exact)
    except (TypeError, RuntimeError, np.linalg.LinAlgError):
        if tool.startswith("qf"):
            raise
        return None


def worst(found):
    """The largest of each error over the draws."""
    if any(one is None for one in found):
        return None
    return {
        key: None if found[0][key] is None else max(one[key] for one in found)
        for key in ("singular_values", "subspace", "ratios")
    }


def measure(quick, processes):
    shape, draws, offsets = (QUICK_SHAPE, 1, OFFSETS[::4]) if quick else (SHAPE, DRAWS, OFFSETS)
    results = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for dtype in DTYPES:
            found = {tool: [[] for _ in offsets] for tool in TOOLS}
            for position, offset in enumerate(offsets):
                for draw in range(draws):
                    X = data(shape, offset, dtype, draw)
                    exact = truth(X)
                    for tool in TOOLS:
                        found[tool][position].append(errors_of(tool, X, exact))
            results[dtype] = {tool: [worst(of_offset) for of_offset in all_] for tool, all_ in found.items()}
    return {"shape": list(shape), "draws": draws, "offsets": list(offsets), "errors": results}


def _cell(error, key):
    if error is None:
        return "refused"
    if error[key] is None:
        return "not given"
    return f"**{error[key]:.1e}**" if error[key] > WRONG else f"{error[key]:.1e}"


def _table(content, dtype, key):
    yield f"| {dtype}, mean/sd | " + " | ".join(f"{offset:,}" for offset in content["offsets"]) + " |"
    yield "|---" * (1 + len(content["offsets"])) + "|"
    for tool, of_offsets in content["errors"][dtype].items():
        yield f"| {tool} | " + " | ".join(_cell(error, key) for error in of_offsets) + " |"


def reading(content):
    """Who is wrong, and from which offset on."""
    for dtype, tools in content["errors"].items():
        for tool, of_offsets in tools.items():
            wrong = [
                (offset, error["singular_values"])
                for offset, error in zip(content["offsets"], of_offsets, strict=True)
                if error and error["singular_values"] > WRONG
            ]
            if wrong:
                first, last = wrong[0], wrong[-1]
                yield (
                    f"- {tool}, {dtype}: a singular value off by {first[1]:.0%} at mean/sd {first[0]:,}, by "
                    f"{last[1]:.0%} at {last[0]:,}."
                )


def lines(content):
    n, d = content["shape"]
    ours = [
        max(error["singular_values"] for error in content["errors"][dtype]["qf.pca"])
        for dtype in content["errors"]
    ]
    yield (
        f"The first {N_COMPONENTS} components of {n:,} x {d} values; the tenth singular value is "
        f"{SMALLEST:.0%} of the first. Every mean is the given number of standard deviations of its "
        f"feature, up or down. Largest error over {content['draws']} draws, beside the float64 "
        f"decomposition of the values as handed over. `qf.pca` stays within {max(ours):.0e} in all "
        "precisions. Wrong by more than a hundredth:"
    )
    yield ""
    yield from reading(content)
    yield ""
    yield "Relative error of singular values; bold above a hundredth."
    yield ""
    yield from _table(content, "float32", "singular_values")
    for title, key in (
        ("relative error of singular values", "singular_values"),
        ("sine of the largest angle between spaces of components", "subspace"),
        ("error of explained variance ratios", "ratios"),
    ):
        yield ""
        yield f"<details><summary>All precisions: {title}</summary>"
        yield ""
        for dtype in content["errors"]:
            yield from _table(content, dtype, key)
            yield ""
        yield "</details>"


def draw(content, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.4), layout="constrained")
    axes = figure.subplots(1, len(DTYPES), sharey=True)
    offsets = [max(offset, 0.3) for offset in content["offsets"]]  # 0 has no logarithm
    for axis, (dtype, tools) in zip(axes, content["errors"].items(), strict=True):
        for position, (tool, of_offsets) in enumerate(tools.items()):
            shown = [error["singular_values"] if error else math.nan for error in of_offsets]
            is_ours = tool.startswith("qf")
            axis.plot(
                offsets,
                np.maximum(shown, 1e-16),
                label=tool,
                color=COLOURS[position % len(COLOURS)],
                marker=MARKERS[position % len(MARKERS)],
                markersize=5,
                linewidth=2.2 if is_ours else 1.2,
                linestyle="-" if is_ours else "--",
            )
        axis.axhline(WRONG, color="0.6", linewidth=0.8, zorder=0)
        axis.set(xscale="log", yscale="log", title=dtype, xlabel="mean / standard deviation")
        axis.set_xticks([0.3, 1, 10, 100, 1000], ["0", "1", "10", "100", "1000"])
        axis.grid(alpha=0.25)
    axes[0].set_ylabel("largest relative error of ten singular values")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle("PCA of data with an offset (grey: one hundredth)")
    figure.savefig(path, dpi=100)
