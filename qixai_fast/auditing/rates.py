"""What this machine does in a second: our own kernels timed once at small sizes, and kept."""

from __future__ import annotations

import json
import math
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from .. import __version__
from .._cache import cache_folder
from .._cka_permutations import _gathers as permutes_grams
from .._threads import single_threaded_blas
from .._validate import Float64, as_matrix
from ..alignment import linear_cka_test
from ..bins import Bins, code_dtype, encode, quantile_bins
from ..joint_histograms import JointHistograms
from ..mutual_info.bias import PluginEstimator
from ..mutual_info.ksg import pairwise_mutual_info_ksg
from ..mutual_info.mixed import mutual_info_mixed
from ..store import LayerSpec, create_store, open_store
from .files import digest, write_atomic
from .layer_state import entropy_and_purity
from .memory import give_back

# Of a file that is read to see how fast it can be.
_PIECES, _PIECE_BYTES = 8, 2**20


@cache
def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _key() -> str:
    """What rates depend on: the processor, the libraries and this package."""
    import numba
    import scipy

    parts = [_processor(), np.__version__, scipy.__version__, numba.__version__, __version__]
    return digest("\n".join(parts).encode())


class Rates:
    """Seconds of single steps on one thread, measured when they are first asked for and kept in a file.

    Parameters
    ----------
    measure : bool
        False only reads what an earlier audit measured: what is missing is NaN.
    """

    def __init__(self, measure: bool = True) -> None:
        self._measure = measure
        self._path = cache_folder() / f"rates-{_key()}.json"
        self._known: dict[str, list[float]] = {}
        with suppress(OSError, ValueError):
            found = json.loads(self._path.read_bytes())
            if isinstance(found, dict):
                self._known = found

    def _rate(self, name: str, size: int, measure: Callable[[], list[float]]) -> list[float]:
        known = self._known.get(name)
        if isinstance(known, list) and len(known) == size and all(isinstance(v, float) for v in known):
            return known
        if not self._measure:
            return [math.nan] * size
        self._known[name] = measure()
        give_back()
        # A home that cannot be written to only means that the next audit measures again.
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self._path, json.dumps(self._known, indent=1).encode())
        return self._known[name]

    def checksum(self) -> float:
        """Reading a byte from the kernel's cache and hashing it."""
        return self._rate("checksum", 1, _time_checksum)[0]

    def product(self) -> float:
        """A multiply-add of a float64 product of matrices."""
        return self._rate("product", 1, _time_product)[0]

    def layer(self, n: int, d: int) -> float:
        """The part of a layer's stage that is not products for all layers: one pass, entropy and purity."""
        value, square = self._rate("layer in two reads", 2, _time_layer)
        return n * d * (value + square * d)

    def cosine(self) -> float:
        """A permutation of cosines, by row and pair of maps."""
        return self._rate("cosine", 1, _time_cosine)[0]

    def cka(self, rows: int, widths: tuple[int, int], m: int, grams: bool) -> float:
        """CKA and m permutations of it: by row and pair of maps, or by pair of rows with Gram matrices."""
        name = "CKA by Gram matrices" if grams else "CKA by products"
        fixed, each = self._rate(name, 2, lambda: _time_cka(512 if grams else 2048, 192))
        if grams:
            return float(rows) ** 2 * (sum(widths) * fixed + m * each)
        return float(rows) * widths[0] * widths[1] * (fixed + m * each)

    def code(self, n: int) -> float:
        """Quantile edges and code of a value among n."""
        return math.log2(n) * self._rate("code", 1, _time_code)[0]

    def transpose(self) -> float:
        """A byte of a layer's feature-major copy: read, turned and written, once for all threads."""
        return self._rate("transpose", 1, _time_transpose)[0]

    def count(self, bins_x: int, bins_y: int, n: int) -> float:
        """Joint counts and their information, for a pair of columns that are coded."""
        name = f"count {bins_x} x {bins_y}"
        fixed, sample = self._rate(name, 2, lambda: _time_count(bins_x, bins_y))
        return fixed + sample * n

    def permute(self, n: int) -> float:
        """A permutation of n samples."""
        return n * self._rate("permute", 2, _time_permute)[0]

    def gather(self, n: int) -> float:
        """A column of n codes in the order of a permutation."""
        return n * self._rate("permute", 2, _time_permute)[1]

    def expected(self, bins_x: int, bins_y: int, n: int, even: bool) -> float:
        """The exact permutation mean of a pair of columns; ``even`` where bins hold equal shares but one."""
        name = f"permutation mean {bins_x} x {bins_y} of {n}{' even' if even else ''}"
        return self._rate(name, 1, lambda: _time_expected(bins_x, bins_y, n, even))[0]

    def ksg(self, n: int) -> tuple[float, float]:
        """Preparing a column, and a pair of prepared columns."""
        column, column_power, pair, pair_power = self._rate("ksg", 4, _time_ksg)
        return column * n**column_power, pair * n**pair_power

    def mixed(self, n: int) -> float:
        """A column with class labels, by nearest neighbours."""
        factor, power = self._rate("mixed", 2, _time_mixed)
        return float(factor * n**power)


def reading_rate(paths: Sequence[Path]) -> float:
    """Seconds to read a byte of these files as they lie now: on a disk, or in the kernel's cache.

    Measured at places spread over them, anew each time, as nothing else tells.
    """
    began, size = time.perf_counter(), 0
    buffer = bytearray(_PIECE_BYTES)
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            length = os.fstat(file.fileno()).st_size
            for part in range(_PIECES):
                file.seek(part * length // _PIECES)
                size += file.readinto(buffer) or 0
    return (time.perf_counter() - began) / max(1, size)


def _best(function: Callable[[], object], rounds: int = 3) -> float:
    """Least of some times, after one call that loads kernels."""
    function()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return min(times)


def _maps(n: int, d: int) -> Float64:
    """Activations as they are after a ReLU."""
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((n, 1))
    return np.maximum(rng.standard_normal((n, d)) + 0.5 * shared, 0.0)


def _power_law(small: float, large: float, n: int, times: int) -> list[float]:
    """Factor and exponent of a time that grows from ``small`` at n to ``large`` at ``times * n`` samples."""
    power = min(1.5, max(1.0, math.log(max(large, 1e-9) / max(small, 1e-9)) / math.log(times)))
    return [large / (times * n) ** power, power]


def _time_checksum() -> list[float]:
    size, piece = 2**26, 2**20
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(bytes(size))

        def read() -> None:
            state, buffer = xxhash.xxh3_64(), bytearray(piece)
            file.seek(0)
            for _ in range(size // piece):
                file.readinto(buffer)
                state.update(buffer)

        return [_best(read) / size]


def _time_transpose() -> list[float]:
    rows = _maps(2**15, 512).astype(np.float32)

    def copy() -> None:
        with tempfile.TemporaryDirectory() as folder:
            with create_store(folder, layers={"layer": LayerSpec((512,), "float32")}) as writer:
                writer.append({"layer": rows})
            store = open_store(folder)
            began = time.perf_counter()
            store.columns("layer")
            times.append(time.perf_counter() - began)

    times: list[float] = []
    copy()
    copy()
    return [min(times) / rows.nbytes]


def _time_product() -> list[float]:
    block = _maps(2048, 257)
    with single_threaded_blas():
        return [_best(lambda: block.T @ block) / (2048 * 257 * 257)]


def _time_layer() -> list[float]:
    """On a mapped file larger than the processor's caches, as layers are."""
    from .layer_stages import map_summary

    def seconds(d: int) -> float:
        n = 2**16
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "layer.npy"
            maps = _maps(2048, d).astype(np.float32)
            maps[:, 0] += 1.0  # no sample is all zeros
            np.save(path, np.tile(maps, (n // 2048, 1)))
            X = np.load(path, mmap_mode="r")

            def work() -> None:
                map_summary(as_matrix(X), 1)
                entropy_and_purity(as_matrix(X), zero_samples="raise", n_jobs=1)

            return _best(work, 2) / (n * d)

    narrow, wide = seconds(32), seconds(256)
    square = max(0.0, (wide - narrow) / (256 - 32))
    return [max(0.0, wide - 256 * square), square]


def _time_cosine() -> list[float]:
    from .cosine_null import largest_cosine

    rows, d = 2048, 192
    X, Y = _maps(rows, d), _maps(rows, d)[::-1].copy()
    order = np.random.default_rng(0).permutation(rows)
    with single_threaded_blas():
        return [_best(lambda: largest_cosine(X, Y[order], False)) / (rows * d * d)]


def _time_cka(rows: int, d: int) -> list[float]:
    """What it takes at all, and a permutation: fewer rows than maps take the way by Gram matrices."""
    X, Y = _maps(rows, d), _maps(rows, d)[::-1].copy()

    def seconds(m: int) -> float:
        return _best(lambda: linear_cka_test(X, Y, n_permutations=m, random_state=0, n_jobs=1), 2)

    few, many = seconds(2), seconds(34)
    one = max(0.0, (many - few) / 32)
    fixed = max(0.0, few - 2 * one)
    if permutes_grams(as_matrix(X), as_matrix(Y)):
        return [fixed / (rows**2 * 2 * d), one / rows**2]
    return [fixed / (rows * d * d), one / (rows * d * d)]


def _time_code() -> list[float]:
    n, d = 2**16, 8
    matrix = as_matrix(_maps(n, d).astype(np.float32))

    def work() -> None:
        bins = quantile_bins(matrix, 16, columns=d, rows=4096, n_jobs=1)
        encode(matrix, bins, rows=4096, n_jobs=1)

    return [_best(work) / (n * d * math.log2(n))]


def _time_count(bins_x: int, bins_y: int) -> list[float]:
    side = 24 if bins_x * bins_y <= 1024 else 2
    rng = np.random.default_rng(0)
    first, second = (grid.ravel() for grid in np.indices((side, side), dtype=np.int64))

    def seconds(n: int) -> float:
        # A quarter of the samples in one bin, which takes the place of others: between what maps give
        # behind a ReLU and without one.
        codes: list[Any] = []
        for bins in (bins_x, bins_y):
            drawn = rng.integers(0, bins, (side, n))
            codes.append(np.where(drawn < bins // 4, 0, drawn).astype(code_dtype(bins)))
        numbers = [Bins(np.zeros((side, bins + 1)), np.zeros(side)) for bins in (bins_x, bins_y)]
        histograms, estimator = JointHistograms(numbers, first, second), PluginEstimator(n, None)
        return _best(
            lambda: estimator.values(estimator.summarize(histograms.count(codes[0], codes[1]))), 2
        ) / len(first)

    small, large = seconds(8192), seconds(65536)
    sample = max(0.0, (large - small) / (65536 - 8192))
    return [max(0.0, large - 65536 * sample), sample]


def _time_permute() -> list[float]:
    n = 2**18
    codes = np.random.default_rng(0).integers(0, 16, n).astype(np.uint8)
    order = np.random.default_rng(1).permutation(n)
    out = np.empty_like(codes)
    return [
        _best(lambda: np.random.default_rng(0).permutation(n)) / n,
        _best(lambda: np.take(codes, order, out=out, mode="clip")) / n,
    ]


def _time_expected(bins_x: int, bins_y: int, n: int, even: bool) -> list[float]:
    # Equal counts are worked out once. Quantile bins behind a ReLU have one of half the samples.
    counts = []
    for bins in (bins_x, bins_y):
        share = np.ones(bins) if even else 1.0 + np.arange(bins)
        share[0] = max(1.0, share[1:].sum())
        whole = np.floor(n * share / share.sum()).astype(np.int64)
        whole[0] += n - whole.sum()
        counts.append(whole)
    estimator = PluginEstimator(n, None)
    return [_best(lambda: estimator.expected_of_margins(counts[0], counts[1]), 2)]


def _time_ksg() -> list[float]:
    times = []
    for n in (4096, 16384):
        X = _maps(n, 8).astype(np.float32)
        every = [(i, j) for i in range(8) for j in range(i + 1, 8)]
        few, many = (
            _best(lambda pairs=pairs, X=X: pairwise_mutual_info_ksg(X, pairs=pairs, n_jobs=1), 2)  # type: ignore[misc]
            for pairs in (every[:4] + every[-4:], every)
        )
        pair = (many - few) / (len(every) - 8)
        times.append((max(few - 8 * pair, 0.0) / 8, pair))
    (column, pair), (large_column, large_pair) = times
    return _power_law(column, large_column, 4096, 4) + _power_law(pair, large_pair, 4096, 4)


def _time_mixed() -> list[float]:
    labels = np.arange(16384) % 10
    small, large = (
        _best(lambda n=n: mutual_info_mixed(_maps(n, 4), labels[:n], n_jobs=1), 2) / 4  # type: ignore[misc]
        for n in (4096, 16384)
    )
    return _power_law(small, large, 4096, 4)
