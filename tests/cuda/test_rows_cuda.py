"""Blocks of rows on a device, streamed or resident."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qixai_fast._gpu.rows import DeviceRows


def taken(rows, size):
    return torch.cat([block.clone() for _, block in rows.blocks(size)]).cpu().numpy()


@pytest.mark.parametrize("n", [1, 7, 8, 9, 25])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32])
def test_streamed_blocks_are_the_rows(gpu, tmp_path, n, dtype):
    X = (8 * np.random.default_rng(0).standard_normal((n, 3))).astype(dtype)
    np.save(tmp_path / "x.npy", X)
    rows = DeviceRows.of(np.load(tmp_path / "x.npy", mmap_mode="r"), "X", gpu.backend)
    assert not rows.resident
    np.testing.assert_array_equal(taken(rows, 8), X)
    assert [start for start, _ in rows.blocks(8)] == list(range(0, n, 8))


@pytest.mark.parametrize("resident", [False, True])
def test_some_of_the_rows(gpu, resident):
    X = np.arange(60.0).reshape(20, 3)
    X[18, 1] = np.nan
    rows = DeviceRows.of(gpu.put(X) if resident else X, "X", gpu.backend)
    found = [(start, block.cpu().numpy().copy()) for start, block in rows.blocks(4, first=3, last=14)]
    assert [start for start, _ in found] == [3, 7, 11]
    np.testing.assert_array_equal(np.concatenate([block for _, block in found]), X[3:14])
    with pytest.raises(ValueError, match=r"X: .* at row 18, column 1"):
        list(rows.blocks(4, first=15))


def test_resident_blocks_are_views(gpu):
    X = gpu.put(torch.arange(12.0).reshape(6, 2))
    rows = DeviceRows.of(X, "X", gpu.backend)
    assert rows.resident
    assert rows.block_bytes(4) == 0
    first = next(iter(rows.blocks(4)))[1]
    assert first.data_ptr() == X.data_ptr()


@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_first_value_that_is_not_finite_is_named(gpu, resident, value):
    X = np.zeros((20, 3), dtype=np.float32)
    X[13, 2] = X[17, 0] = value
    rows = DeviceRows.of(gpu.put(X) if resident else X, "X", gpu.backend)
    with pytest.raises(ValueError, match=r"X: .* at row 13, column 2"):
        taken(rows, 8)


def test_large_values_whose_sum_is_infinite_pass(gpu):
    X = np.full((4, 4), 1e308)
    np.testing.assert_array_equal(taken(DeviceRows.of(X, "X", gpu.backend), 2), X)
