"""Linear CKA where the truth is known: independent layers, and layers that are linear in each other."""

import warnings

import numpy as np

import qixai_fast as qf
from benchmarks.environment import SEED
from benchmarks.peers import optional

SIZES = [(n, d) for d in (16, 128, 512) for n in (100, 1_000, 10_000) if n * d < 4_000_000]
QUICK_SIZES = [(50, 8), (100, 8)]
DRAWS, DRAWS_OF_MANY, MANY = 60, 8, 1_000  # from so many samples and features on, fewer draws do
OFFSETS = (0, 10, 100)
DTYPES = ("float64", "float32", "float16", "bfloat16")
PRECISION_SHAPE, QUICK_PRECISION_SHAPE = (2_000, 64), (100, 8)
_torch = optional("torch")


def independent(rng, n, d):
    return rng.standard_normal((n, d)), rng.standard_normal((n, d))


INDEPENDENT_TRUTH = 0.0


def spectrum(d):
    """Variances that fall as 1 / rank, as those of a layer's components do."""
    return 1 / np.arange(1, d + 1)


def linear(rng, n, d):
    """x of independent features; y adds to each as much independent noise as the feature varies."""
    sd = np.sqrt(spectrum(d))
    x = sd * rng.standard_normal((n, d))
    return x, x + np.sqrt(spectrum(d).mean()) * rng.standard_normal((n, d))


def linear_truth(d):
    """||S_xy||^2 / (||S_xx|| ||S_yy||), Frobenius norms of the covariances that the draws come from."""
    x = spectrum(d)
    y = x + x.mean()
    return float((x**2).sum() / np.sqrt((x**2).sum() * (y**2).sum()))


KINDS = {
    "independent": (independent, lambda d: INDEPENDENT_TRUTH),
    "linear and noise": (linear, linear_truth),
}


def recipe(X, Y):
    """The authors' lines (Kornblith et al. 2019), in the input's own precision."""
    X, Y = X - X.mean(0), Y - Y.mean(0)
    return float(np.linalg.norm(X.T @ Y) ** 2 / (np.linalg.norm(X.T @ X) * np.linalg.norm(Y.T @ Y)))


def torch_recipe(X, Y):
    """The same lines in torch."""
    X, Y = X - X.mean(0), Y - Y.mean(0)
    return float((X.T @ Y).norm() ** 2 / ((X.T @ X).norm() * (Y.T @ Y).norm()))


def _biases(n, d, draws):
    found = {}
    for kind, (sample, truth) in KINDS.items():
        values = {"plain": [], "debiased": []}
        for draw in range(draws):
            X, Y = sample(np.random.default_rng([SEED, n, d, draw]), n, d)
            for name, debiased in (("plain", False), ("debiased", True)):
                values[name].append(qf.linear_cka(X, Y, debiased=debiased, n_jobs=1))
        found[kind] = {"truth": truth(d)} | {
            name: {"bias": float(np.mean(of) - truth(d)), "sd": float(np.std(of, ddof=1))}
            for name, of in values.items()
        }
    return {"samples": n, "features": d, "draws": draws, "kinds": found}


def _in_dtype(values, dtype):
    return _torch.from_numpy(values).to(_torch.bfloat16) if dtype == "bfloat16" else values.astype(dtype)


def _precision(shape):
    """Errors beside the float64 value of the same, rounded, values."""
    rows = []
    for dtype in DTYPES:
        if dtype == "bfloat16" and _torch is None:
            continue
        for offset in OFFSETS:
            rng = np.random.default_rng([SEED, offset])
            sd = np.sqrt(spectrum(shape[1]))
            X, Y = (_in_dtype(values + offset * sd, dtype) for values in linear(rng, *shape))
            wide = [
                np.asarray(values.double() if dtype == "bfloat16" else values, np.float64)
                for values in (X, Y)
            ]
            exact = recipe(*wide)
            errors = {
                "ours": qf.linear_cka(X, Y, n_jobs=1) - exact,
                "NumPy recipe": None if dtype == "bfloat16" else recipe(X, Y) - exact,
            }
            if _torch:
                errors["torch recipe"] = (
                    torch_recipe(*(_torch.as_tensor(values) for values in (X, Y))) - exact
                )
            rows.append(
                {
                    "dtype": dtype,
                    "offset": offset,
                    "errors": {
                        name: None
                        if error is None
                        else (float(error) if np.isfinite(error) else "not finite")
                        for name, error in errors.items()
                    },
                }
            )
    return rows


def measure(quick, processes):
    sizes, shape = (QUICK_SIZES, QUICK_PRECISION_SHAPE) if quick else (SIZES, PRECISION_SHAPE)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "bias": [
                _biases(n, d, 3 if quick else DRAWS_OF_MANY if max(n, d) > MANY else DRAWS) for n, d in sizes
            ],
            "precision_shape": list(shape),
            "precision": _precision(shape),
        }


def _error(value):
    if value is None:
        return "no such type"
    return (
        "**not finite**"
        if value == "not finite"
        else f"{value:+.1e}"
        if abs(value) < 0.01
        else f"**{value:+.2f}**"
    )


def lines(content):
    largest = max(content["bias"], key=lambda row: row["kinds"]["independent"]["plain"]["bias"])
    plain = largest["kinds"]["independent"]["plain"]["bias"]
    debiased = max(abs(row["kinds"][kind]["debiased"]["bias"]) for row in content["bias"] for kind in KINDS)
    halves = [row for row in content["precision"] if row["dtype"] in ("float16", "bfloat16")]
    ours = max(abs(row["errors"]["ours"]) for row in content["precision"])
    infinite = any("not finite" in row["errors"].values() for row in halves)
    yield (
        f"**Plain CKA of independent layers of {largest['features']} features is {plain:.2f} at "
        f"{largest['samples']:,} samples, where 0 is right**: it counts chance as likeness, about d / N "
        "while that is small. On layers that are alike it is off by less, up or down. The debiased value "
        f"is off by at most {debiased:.3f} in both cases. Plain is the default all the same, since that is "
        "what papers print: ask for `debiased=True` unless N is far above d. Ours takes half precision and "
        "offsets without harm "
        f"(within {ours:.0e})" + (", where the usual recipe overflows in float16." if infinite else ".")
    )
    yield ""
    of_kind = "truth | plain: bias, sd | debiased: bias, sd"
    yield f"| N | d | {of_kind} | {of_kind} | draws |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for row in content["bias"]:
        cells = [f"{row['samples']:,}", str(row["features"])]
        for kind in KINDS:
            of_kind = row["kinds"][kind]
            cells.append(f"{of_kind['truth']:.3f}")
            for name in ("plain", "debiased"):
                bias, sd = of_kind[name]["bias"], of_kind[name]["sd"]
                mark = "**" if abs(bias) > 0.1 * of_kind["truth"] and abs(bias) > 0.01 else ""
                cells.append(f"{mark}{bias:+.4f}{mark}, {sd:.4f}")
        yield "| " + " | ".join([*cells, str(row["draws"])]) + " |"
    yield ""
    n, d = content["precision_shape"]
    yield (
        "The first truth and biases are of independent layers, the second of x beside x with noise added; "
        "bold: off by more than a hundredth and a tenth of the truth."
    )
    yield ""
    yield (
        f"Precision and offset: plain, N={n:,}, d={d}, error beside float64 on the same rounded values; the "
        "recipe's products are in the type of the input, as it is usually written. Bold: above 0.01."
    )
    yield ""
    names = list(content["precision"][0]["errors"])
    yield "| type | mean/sd | " + " | ".join(names) + " |"
    yield "|---" * (2 + len(names)) + "|"
    for row in content["precision"]:
        yield (
            f"| {row['dtype']} | {row['offset']} | " + " | ".join(map(_error, row["errors"].values())) + " |"
        )


def draw(content, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, len(KINDS))
    colours = dict(
        zip(
            sorted({row["features"] for row in content["bias"]}),
            ("#e8a33d", "#d9541e", "#1f5fa8"),
            strict=False,
        )
    )
    for axis, kind in zip(axes, KINDS, strict=True):
        for d, colour in colours.items():
            rows = [row for row in content["bias"] if row["features"] == d]
            for name, style in (("plain", "--"), ("debiased", "-")):
                axis.errorbar(
                    [row["samples"] for row in rows],
                    [row["kinds"][kind]["truth"] + row["kinds"][kind][name]["bias"] for row in rows],
                    yerr=[2 * row["kinds"][kind][name]["sd"] for row in rows],
                    color=colour,
                    linestyle=style,
                    marker="o",
                    markersize=4,
                    capsize=3,
                    label=f"{name}, d={d}",
                )
            axis.axhline(KINDS[kind][1](d), color=colour, linewidth=0.8, linestyle=":")
        axis.set(xscale="log", xlabel="samples", ylabel="linear CKA", title=kind)
        axis.grid(alpha=0.25)
    axes[0].legend(frameon=False, fontsize=9)
    figure.suptitle("CKA, mean and two standard deviations of single draws (dotted: the truth)")
    figure.savefig(path, dpi=100)
