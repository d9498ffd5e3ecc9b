"""Bins, codes and joint counts on a device: equal to the CPU's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from qixai_fast.kernels.entropy_cpu import fill_grassberger_terms, fill_log_terms, summarize_tables

from qixai_fast._gpu import codes as device_codes
from qixai_fast._gpu import joint_counts
from qixai_fast._gpu.codes import bins_on_device, block_rows, counted, encode_on_device, padded
from qixai_fast._gpu.joint_counts import INCREMENTS, PLANES, PRODUCTS, SCATTER, JointCounter, Shape, cheapest
from qixai_fast._gpu.rows import DeviceRows
from qixai_fast._validate import as_matrix
from qixai_fast.bins import encode, make_bins


@pytest.fixture(autouse=True)
def few_threads(monkeypatch, gpu):
    """Every thread of a simulated block is one of Python."""
    if gpu.simulated:
        monkeypatch.setattr(joint_counts, "_THREADS", 8)
        monkeypatch.setattr(joint_counts, "_SIDE", 2)
        monkeypatch.setattr(joint_counts, "MOST_THREADS", 32)
        monkeypatch.setattr(device_codes, "_THREADS", 16)


def made(n, d, dtype, seed=0):
    rng = np.random.default_rng(seed)
    X = np.maximum(rng.standard_normal((n, d)) + np.linspace(-0.5, 0.5, d), -0.3)
    X[:, -1] = 1.5
    return X.astype(dtype)


def on_device(gpu, X, n_bins, strategy="uniform", zero=False, size=100, sort_columns=2):
    rows = DeviceRows.of(X, "X", gpu.backend)
    bins = bins_on_device(rows, n_bins, strategy, zero=zero, size=size, sort_columns=sort_columns)
    return bins, encode_on_device(rows, bins, size)


def on_cpu(X, n_bins, strategy="uniform", zero=False):
    matrix = as_matrix(X)
    bins = make_bins(matrix, n_bins, strategy, zero=zero, rows=64, sort_columns=3, n_jobs=1)
    return bins, encode(matrix, bins, rows=64, n_jobs=1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int16, np.int64])
@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
@pytest.mark.parametrize("zero", [False, True])
def test_edges_and_codes_are_the_cpus(gpu, dtype, strategy, zero):
    X = (3 * made(130, 5, np.float64)).astype(dtype)
    X[::3, 1] = 0
    X[:, 2] = np.minimum(X[:, 2], 0)
    bins, codes = on_device(gpu, X, 16, strategy, zero)
    wanted_bins, wanted = on_cpu(X, 16, strategy, zero)
    np.testing.assert_array_equal(bins.edges, wanted_bins.edges)
    np.testing.assert_array_equal(codes.data[:, :130].cpu().numpy(), wanted)
    assert (codes.data[:, 130:] == device_codes.NO_CODE).all()
    counts = np.stack([np.bincount(row, minlength=16) for row in wanted])
    np.testing.assert_array_equal(codes.counts.cpu().numpy(), counts)


@pytest.mark.parametrize(
    ("n", "d"), [(1, 3), (2, 3), (127, 3), (128, 3), (129, 3), (3, 31), (3, 32), (3, 33)]
)
def test_blocks_of_any_size(gpu, n, d):
    X = made(n, d, np.float32)
    for size in (50, 1000):
        bins, codes = on_device(gpu, X, 5, size=size)
        wanted_bins, wanted = on_cpu(X, 5)
        np.testing.assert_array_equal(bins.edges, wanted_bins.edges)
        np.testing.assert_array_equal(codes.data[:, :n].cpu().numpy(), wanted)


def test_values_beside_float32_edges(gpu):
    # Edges that are no float32, and the float32 values around them: rounded to the nearest, edges err here.
    edge = np.linspace(0.0, 7.0, 11)[1:-1]
    near = edge.astype(np.float32)
    around = [np.nextafter(near, np.float32(side)) for side in (9, -9)]
    values = np.concatenate([[0, 7], near, *around])
    X = values.astype(np.float32)[:, None]
    _, codes = on_device(gpu, X, 10)
    expected = np.minimum(np.digitize(X[:, 0].astype(np.float64), np.linspace(0.0, 7.0, 11)), 10) - 1
    np.testing.assert_array_equal(codes.data[0, : len(X)].cpu().numpy(), expected)
    assert np.any(near > edge)
    assert np.any(near < edge)


@pytest.mark.parametrize("n_bins", [256, 257, 1000])
def test_many_bins(gpu, n_bins):
    X = made(300, 3, np.float32)
    _, codes = on_device(gpu, X, n_bins, size=1000)
    np.testing.assert_array_equal(codes.data[:, :300].cpu().numpy(), on_cpu(X, n_bins)[1])


@pytest.mark.parametrize("order", ["C", "F", "strided"])
def test_resident_input_of_any_stride(gpu, order):
    X = made(70, 6, np.float32)
    tensor = gpu.put(X)
    if order == "F":
        tensor = gpu.put(tensor.t().contiguous().t())
    if order == "strided":
        tensor, X = gpu.put(tensor[1::2, ::2]), X[1::2, ::2]
    rows = DeviceRows.of(tensor, "X", gpu.backend)
    assert rows.resident
    bins = bins_on_device(rows, 7, "quantile", zero=False, size=16, sort_columns=1)
    codes = encode_on_device(rows, bins, 16)
    np.testing.assert_array_equal(codes.data[:, : len(X)].cpu().numpy(), on_cpu(X, 7, "quantile")[1])


def test_bfloat16(gpu):
    tensor = gpu.put(torch.from_numpy(made(70, 3, np.float32)).to(torch.bfloat16))
    rows = DeviceRows.of(tensor, "X", gpu.backend)
    bins = bins_on_device(rows, 7, "uniform", zero=False, size=16, sort_columns=1)
    codes = encode_on_device(rows, bins, 16)
    wanted = on_cpu(tensor.float().cpu().numpy(), 7)[1]
    np.testing.assert_array_equal(codes.data[:, :70].cpu().numpy(), wanted)


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_the_column_that_is_not_finite_is_named(gpu, strategy):
    X = made(40, 5, np.float32)
    X[33, 3] = np.nan
    with pytest.raises(ValueError, match="X: nan at row 33, column 3"):
        on_device(gpu, X, 4, strategy, size=16)


def test_a_column_too_wide_is_named(gpu):
    X = made(40, 5, np.float64)
    X[:2, 3] = -1.5e308, 1.5e308
    for strategy in ("uniform", "quantile"):
        with pytest.raises(ValueError, match="X: column 3 spans"):
            on_device(gpu, X, 4, strategy)


def random_codes(gpu, n, d, n_bins, seed):
    rng = np.random.default_rng(seed)
    # Some bins hold most samples, some none.
    codes = np.minimum(rng.geometric(min(0.6, 2.5 / n_bins), (d, n)) - 1, n_bins - 1)
    dtype = np.uint8 if n_bins <= 256 else np.int16
    held = np.full((d, padded(n)), device_codes.NO_CODE if n_bins <= 256 else 0, dtype=dtype)
    held[:, :n] = codes
    return codes, counted(gpu.backend, gpu.put(held), n, n_bins)


def tables_of(codes_x, codes_y, first, second, bins_x, bins_y):
    tables = np.zeros((len(first), bins_x, bins_y), dtype=np.int32)
    for table, i, j in zip(tables, first, second, strict=True):
        np.add.at(table, (codes_x[i], codes_y[j]), 1)
    return tables


def counter(gpu, shape, grassberger=False):
    terms = np.empty(50)
    (fill_grassberger_terms if grassberger else fill_log_terms)(terms)
    return JointCounter(gpu.backend, terms, grassberger, shape)


def counted_tables(tables, places):
    flat = tables.permute(0, 2, 1, 3).reshape(-1, tables.shape[1], tables.shape[3])
    return flat[places].cpu().numpy()


WAYS = {
    INCREMENTS: [(2, 2), (16, 16), (20, 7), (256, 3)],
    PLANES: [(2, 2), (3, 5), (16, 16), (9, 2)],
    PRODUCTS: [(2, 2), (3, 5), (16, 16), (9, 2)],
    SCATTER: [(2, 2), (100, 100), (300, 257), (256, 400)],
}
CASES = [(way, *bins) for way, every in WAYS.items() for bins in every]


@pytest.mark.parametrize(("way", "bins_x", "bins_y"), CASES)
@pytest.mark.parametrize("n", [1, 64, 65, 150])
def test_counts_of_a_grid(gpu, monkeypatch, way, bins_x, bins_y, n):
    monkeypatch.setattr(joint_counts, "cheapest", lambda *_: way)
    codes_x, x = random_codes(gpu, n, 5, bins_x, 1)
    codes_y, y = random_codes(gpu, n, 4, bins_y, 2)
    first, second = np.repeat([0, 2, 3, 4], 3), np.tile([3, 0, 1], 4)
    found = counter(gpu, Shape(8, 64)).tables(x, y, first, second)
    np.testing.assert_array_equal(
        counted_tables(*found), tables_of(codes_x, codes_y, first, second, bins_x, bins_y)
    )


@pytest.mark.parametrize(("bins_x", "bins_y"), [(64, 64), (90, 91)])
def test_counts_of_full_private_tables(gpu, monkeypatch, bins_x, bins_y):
    monkeypatch.setattr(joint_counts, "cheapest", lambda *_: INCREMENTS)
    codes_x, x = random_codes(gpu, 90, 2, bins_x, 1)
    codes_y, y = random_codes(gpu, 90, 2, bins_y, 2)
    first, second = np.array([0, 1, 1]), np.array([0, 0, 1])
    found = counter(gpu, Shape(2, 64)).tables(x, y, first, second)
    wanted = tables_of(codes_x, codes_y, first, second, bins_x, bins_y)
    np.testing.assert_array_equal(counted_tables(*found), wanted)


@pytest.mark.parametrize("way", list(WAYS))
def test_counts_of_a_list_of_pairs(gpu, monkeypatch, way):
    monkeypatch.setattr(joint_counts, "cheapest", lambda *_: way)
    codes, x = random_codes(gpu, 150, 9, 6, 3)
    first, second = np.array([8, 0, 5, 0, 3, 8]), np.array([1, 8, 5, 8, 2, 0])
    found = counter(gpu, Shape(8, 4096)).tables(x, x, first, second)
    np.testing.assert_array_equal(counted_tables(*found), tables_of(codes, codes, first, second, 6, 6))


@pytest.mark.parametrize("way", [INCREMENTS, PLANES, PRODUCTS])
def test_a_triangle(gpu, monkeypatch, way):
    monkeypatch.setattr(joint_counts, "cheapest", lambda *_: way)
    codes, x = random_codes(gpu, 100, 9, 4, 3)
    first, second = np.triu_indices(9)
    found = counter(gpu, Shape(9, 64)).tables(x, x, first, second)
    np.testing.assert_array_equal(counted_tables(*found), tables_of(codes, codes, first, second, 4, 4))


@pytest.mark.parametrize("grassberger", [False, True])
@pytest.mark.parametrize("bins", [(2, 2), (5, 40)])
def test_entropy_sums(gpu, grassberger, bins):
    codes_x, x = random_codes(gpu, 300, 3, bins[0], 1)
    codes_y, y = random_codes(gpu, 300, 2, bins[1], 2)
    first, second = np.array([0, 2, 1, 1]), np.array([1, 0, 0, 1])
    own = counter(gpu, Shape(4, 4096), grassberger)
    sums, occupied = own.sums(*own.tables(x, y, first, second))
    terms = np.empty(50)
    (fill_grassberger_terms if grassberger else fill_log_terms)(terms)
    wanted, cells = np.empty((3, 4)), np.empty((3, 4), dtype=np.int64)
    summarize_tables(tables_of(codes_x, codes_y, first, second, *bins), terms, grassberger, wanted, cells)
    np.testing.assert_allclose(sums.cpu().numpy(), wanted[0], rtol=1e-13)
    np.testing.assert_array_equal(occupied.cpu().numpy(), cells[0])


def test_samples_are_gathered(gpu):
    codes, x = random_codes(gpu, 70, 5, 4, 1)
    order = np.random.default_rng(0).permutation(70)
    whole = torch.from_numpy(np.concatenate([order, np.arange(70, padded(70))])).to(gpu.backend.device)
    taken = x.take(np.array([3, 1]), whole)
    np.testing.assert_array_equal(taken.data[:, :70].cpu().numpy(), codes[[3, 1]][:, order])
    np.testing.assert_array_equal(taken.counts.cpu().numpy(), x.counts.cpu().numpy()[[3, 1]])


def test_the_way_of_counting():
    million, many = 10**6, (256, 256)
    assert cheapest((9, 0), million, (16, 16), many, 256**2) == PRODUCTS
    assert cheapest((8, 0), million, (16, 16), many, 256**2) == PRODUCTS
    # No tensor cores for integers.
    assert cheapest((7, 0), million, (4, 4), many, 256**2) == PLANES
    assert cheapest((7, 0), million, (40, 40), many, 256**2) == INCREMENTS
    # A few pairs of many columns.
    assert cheapest((9, 0), million, (16, 16), many, 300) == INCREMENTS
    assert cheapest((9, 0), million, (64, 64), (60, 60), 3600) == INCREMENTS
    assert cheapest((9, 0), million, (64, 200), (4, 4), 16) == SCATTER
    assert cheapest((9, 0), million, (300, 2), (4, 4), 16) == SCATTER
    assert cheapest((9, 0), million, (256, 2), (4, 4), 16) == INCREMENTS


def test_shapes_fit_the_room():
    for bins in ((2, 2), (16, 16), (16, 300), (4096, 4096)):
        for room in (2**33, 2**28, 2**24):
            shape = joint_counts.fit_shape(10**6, bins, 5000, room)
            if shape.side > 1 or shape.samples > 64:
                assert joint_counts.shape_bytes(shape, bins) <= room
    assert joint_counts.fit_shape(10**6, (16, 16), 4096, 2**33) == Shape(256, 65536)
    assert joint_counts.fit_shape(10, (16, 16), 1, 2**33) == Shape(1, 64)


def test_block_rows(gpu):
    rows = DeviceRows.of(made(100, 3, np.float32), "X", gpu.backend)
    assert block_rows(rows, 2**30) == 100
    assert block_rows(rows, 0) == 1
