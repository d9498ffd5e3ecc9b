"""Binned mutual information, beside counting with np.bincount and scikit-learn's score."""

import os
import subprocess
import sys

import numpy as np
import pytest

import qixai_fast as qf
from benchmarks.environment import SEED
from benchmarks.peers import optional
from qixai_fast.bins import Bins
from qixai_fast.joint_histograms import JointHistograms
from qixai_fast.mutual_info.bias import PluginEstimator
from qixai_fast.mutual_info.pairing import Pairs

_sklearn = optional("sklearn.metrics")
preprocessing = optional("sklearn.preprocessing")
torch = optional("torch")
BINCOUNT, SCORE = "np.bincount, fused codes", "mutual_info_score"
TORCH = "torch.bincount, fused codes"


def features(rng, n, d):
    """Gaussian features, all with correlation 0.5."""
    return rng.standard_normal((n, d)) + rng.standard_normal((n, 1))


def integer_codes(X, n_bins):
    """Codes as the peers like them best: one contiguous row of int64 a feature."""
    return qf.digitize(X, n_bins=n_bins, n_jobs=1).codes.astype(np.int64)


def bincount_call(codes, pairs, n_bins):
    """Count pairs as in a loop over all of them; no information is worked out from the counts."""

    def call():
        return [np.bincount(codes[i] * n_bins + codes[j], minlength=n_bins * n_bins) for i, j in pairs]

    return call, len(pairs)


def score_call(codes, pairs):
    if _sklearn is None:
        return None
    return (lambda: [_sklearn.mutual_info_score(codes[i], codes[j]) for i, j in pairs]), len(pairs)


def torch_call(codes, pairs, n_bins):
    """The loop over pairs with torch.bincount."""
    if torch is None:
        return None
    wide = torch.from_numpy(codes)

    def call():
        tables = [torch.bincount(wide[i] * n_bins + wide[j], minlength=n_bins * n_bins) for i, j in pairs]
        return [table.numpy() for table in tables]

    return call, len(pairs)


def information(counts):
    """Plug-in mutual information of one table of counts."""
    p = counts / counts.sum()
    outer = p.sum(axis=1, keepdims=True) * p.sum(axis=0)
    seen = p > 0
    return float((p[seen] * np.log(p[seen] / outer[seen])).sum())


def check(results, pairs, n_bins):
    """Fast and wrong does not count."""
    ours = results["ours"]
    tables = [counts.reshape(n_bins, n_bins) for counts in results[BINCOUNT]]
    for (i, j), table in zip(pairs, tables, strict=True):
        assert ours[i, j] == pytest.approx(information(table), abs=1e-12)


def row_of(X, n_bins):
    d = X.shape[1]
    return f"{n_bins} bins, all {d * (d - 1) // 2:,} pairs of {d} features, N={len(X):,}"


def all_from_codes(codes, n_bins):
    """Values of all pairs of columns that are digitised already."""
    d, n = codes.shape
    pairs = Pairs(d, d, symmetric=True)
    bins = [Bins(np.zeros((1, n_bins + 1)), np.zeros(1))]
    estimator = PluginEstimator(n, None)

    def call():
        out = np.empty((d, d))
        for tile in pairs.tiles(32, 32):
            tables = JointHistograms(bins, tile.first, tile.second).count(codes, codes)
            pairs.put(out, tile, estimator.values(estimator.summarize(tables)))
        return out

    return call


FEW = [(0, 1), (1, 2), (0, 3), (2, 3)]


@pytest.mark.parametrize(
    ("n_bins", "full", "d", "least"),
    [
        (16, 10_000, 64, {BINCOUNT: 7, SCORE: 500}),
        (16, 1_000_000, 32, {BINCOUNT: 12}),
        (8, 100_000, 64, {BINCOUNT: 15}),
        (4, 100_000, 64, {}),
        (32, 100_000, 32, {}),
    ],
)
def test_all_pairs_from_codes(race, size, rng, n_bins, full, d, least):
    X = features(rng, size(full, 3_000), size(d, 5))
    codes = integer_codes(X, n_bins)
    theirs = {BINCOUNT: bincount_call(codes, FEW, n_bins), TORCH: torch_call(codes, FEW, n_bins)}
    if SCORE in least:
        theirs[SCORE] = score_call(codes, FEW)
    results = race(
        row_of(X, n_bins) + ", after digitising",
        all_from_codes(codes.astype(np.uint8), n_bins),
        theirs,
        least=least,
        unit="pair",
        units=X.shape[1] * (X.shape[1] - 1) // 2,
        rounds=7,
    )
    check(results, FEW, n_bins)


def torch_histogram(x, y):
    """A table from the values themselves; torch.histc counts one variable only, so codes are fused for it."""
    codes = [torch.bucketize(v, torch.linspace(v.min(), v.max(), 17, dtype=v.dtype)[1:-1]) for v in (x, y)]
    return torch.histc((codes[0] * 16 + codes[1]).double(), 256, 0, 256).numpy().reshape(16, 16)


def test_two_columns(race, size, rng):
    """From values to nats, as the recipes do it."""
    x, y = features(rng, size(100_000, 3_000), 2).T.copy()
    results = race(
        f"mutual_info_binned of two columns, 16 bins, N={len(x):,}",
        lambda: qf.mutual_info_binned(x, y, n_jobs=1),
        {
            "np.histogram2d": lambda: information(np.histogram2d(x, y, 16)[0]),
            "torch.bucketize, histc": torch
            and (lambda: information(torch_histogram(torch.from_numpy(x), torch.from_numpy(y)))),
        },
    )
    for theirs in results.values():
        assert results["ours"] == pytest.approx(theirs, abs=1e-4)  # where a value falls on an edge


def test_discrete(race, size, rng):
    labels = rng.integers(0, 16, (2, size(100_000, 3_000)))
    results = race(
        f"mutual_info_discrete, 16 levels each, N={labels.shape[1]:,}",
        lambda: qf.mutual_info_discrete(*labels, n_jobs=1),
        {
            SCORE: _sklearn and (lambda: _sklearn.mutual_info_score(*labels)),
            "np.bincount, fused codes": lambda: information(
                np.bincount(labels[0] * 16 + labels[1], minlength=256).reshape(16, 16)
            ),
        },
    )
    for theirs in results.values():
        assert results["ours"] == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize(("full", "d"), [(10_000, 64), (1_000_000, 32)])
def test_all_pairs(race, size, rng, full, d):
    X = features(rng, size(full, 3_000), size(d, 5))
    codes = integer_codes(X, 16)
    results = race(
        row_of(X, 16) + ", digitising included",
        lambda: qf.pairwise_mutual_info_binned(X, n_jobs=1),
        {BINCOUNT: bincount_call(codes, FEW, 16)},
        unit="pair",
        units=X.shape[1] * (X.shape[1] - 1) // 2,
    )
    check(results, FEW, 16)


@pytest.mark.skipif(os.cpu_count() == 1, reason="one core")
def test_two_threads(race, size, rng):
    X = features(rng, size(100_000, 3_000), size(64, 5))
    results = race(
        "the same on two threads, " + row_of(X, 16),
        lambda: qf.pairwise_mutual_info_binned(X, n_jobs=2),
        {"one thread": lambda: qf.pairwise_mutual_info_binned(X, n_jobs=1)},
        unit="pair",
        units=X.shape[1] * (X.shape[1] - 1) // 2,
    )
    assert (results["ours"] == results["one thread"]).all()


def test_chosen_pairs(race, size, rng):
    X = features(rng, size(10_000, 3_000), size(256, 8))
    pairs = rng.integers(0, X.shape[1], (size(4_000, 20), 2))
    codes = integer_codes(X, 16)
    results = race(
        f"16 bins, {len(pairs):,} pairs drawn from {X.shape[1]} features, N={len(X):,}, digitising included",
        lambda: qf.pairwise_mutual_info_binned(X, pairs=pairs, n_jobs=1),
        {BINCOUNT: bincount_call(codes, pairs[:4], 16)},
        unit="pair",
        units=len(pairs),
    )
    tables = [counts.reshape(16, 16) for counts in results[BINCOUNT]]
    assert results["ours"][:4] == pytest.approx([information(table) for table in tables], abs=1e-12)


@pytest.mark.parametrize("kind", ["ReLU", "Student t, nu=1", "uniform"])
def test_other_data(race, size, rng, kind):
    X = features(rng, size(100_000, 3_000), size(32, 5))
    if kind == "ReLU":
        X = np.maximum(X, 0)
    elif kind == "uniform":
        X = rng.random(X.shape)
    else:
        X /= np.abs(rng.standard_normal((len(X), 1)))
    codes = integer_codes(X, 16)
    results = race(
        f"{kind}: {row_of(X, 16)}, digitising included",
        lambda: qf.pairwise_mutual_info_binned(X, n_jobs=1),
        {BINCOUNT: bincount_call(codes, FEW, 16)},
        unit="pair",
        units=X.shape[1] * (X.shape[1] - 1) // 2,
    )
    check(results, FEW, 16)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_digitize(race, size, rng, strategy, dtype):
    X = features(rng, size(100_000, 1_000), size(64, 3)).astype(dtype)

    def theirs():
        column = X[:, 0].astype(np.float64)
        if strategy == "uniform":
            edges = np.linspace(column.min(), column.max(), 17)
        else:
            edges = np.quantile(column, np.linspace(0, 1, 17))
        return np.minimum(np.digitize(column, edges) - 1, 15)

    bins = preprocessing and preprocessing.KBinsDiscretizer(
        16, encode="ordinal", strategy=strategy, subsample=None,
        **({"quantile_method": "linear"} if strategy == "quantile" else {}),
    )  # fmt: skip
    results = race(
        f"digitize, {strategy}, 16 bins, {X.shape[1]} features, N={len(X):,}, {X.dtype}",
        lambda: qf.digitize(X, strategy=strategy, n_jobs=1).codes,
        {
            "np.digitize": (theirs, len(X)),
            "scikit-learn KBinsDiscretizer": bins and (lambda: bins.fit_transform(X).T),
        },
        unit="value",
        units=X.size,
    )
    assert np.array_equal(results["ours"][0], results["np.digitize"])
    if bins:
        assert (results["ours"] == results["scikit-learn KBinsDiscretizer"]).mean() > 0.999  # but for edges


OUT_OF_CORE = """
import sys, time
import numpy as np
import qixai_fast as qf
path, budget = sys.argv[1:]
warm = np.random.default_rng(0).standard_normal((20_000, 40), dtype=np.float32)
qf.pairwise_mutual_info_binned(warm, n_jobs=1, max_memory=budget)
def resident(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))
X = np.load(path, mmap_mode="r")
open("/proc/self/clear_refs", "w").write("5")  # from here on VmHWM is a new peak
before = resident("VmRSS:")
start = time.perf_counter()
values = qf.pairwise_mutual_info_binned(X, n_jobs=1, max_memory=budget)
print(time.perf_counter() - start, resident("VmHWM:") - before, *values[0, 1:5])
"""


@pytest.mark.large
@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="needs Linux's accounting of memory")
@pytest.mark.parametrize("budget", ["1GB", "100MB"])
def test_out_of_core(race, size, tmp_path, budget):
    n, d = size(1_000_000, 3_000), size(512, 6)
    path = tmp_path / "layer.npy"
    rng = np.random.default_rng(SEED)
    layer = np.lib.format.open_memmap(path, "w+", np.float32, (n, d))
    for start in range(0, n, 50_000):
        block = layer[start : start + 50_000]
        block[:] = features(rng, *block.shape)
    layer.flush()
    few = [(0, j) for j in range(1, 5)]
    codes = integer_codes(layer[:, :5], 16)
    del layer, block
    counted = []

    def ours():
        command = [sys.executable, "-c", OUT_OF_CORE, str(path), budget]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        counted.append([float(word) for word in done.stdout.split()])
        return counted[-1]

    pairs = d * (d - 1) // 2
    try:
        results = race(
            f"16 bins, all {pairs:,} pairs of {d} features, N={n:,}, float32 memmap, max_memory={budget}, "
            "start of a process, reading and digitising included",
            ours,
            # 200 pairs of the loop, its codes being there already.
            {BINCOUNT: bincount_call(codes, few * (size(200, 4) // 4), 16)},
            least={BINCOUNT: 12},
            unit="pair",
            units=pairs,
            rounds=1,
        )
    finally:
        path.unlink()
    limit = 1e9 if budget == "1GB" else 1e8
    race.bound("resident memory above start, MB", max(run[1] for run in counted) / 1e6, most=limit / 1e6)
    tables = [counts.reshape(16, 16) for counts in results[BINCOUNT][:4]]
    assert results["ours"][2:] == pytest.approx([information(table) for table in tables], abs=1e-12)
