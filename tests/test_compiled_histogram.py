"""CUDA kernels of binned mutual information, compiled without a GPU."""

from __future__ import annotations

import pytest

pytest.importorskip("numba.cuda")
pytest.importorskip("cuda.bindings.nvjitlink")

from compiled_kernels import ARCHITECTURES, compiled
from numba import types
from qixai_fast.kernels import entropy_cuda, histogram_cuda, planes_cuda

U64 = types.Array(types.uint64, 2, "C")
INT = types.int64
COLUMNS = types.Array(types.int64, 1, "C")
TABLES = types.Array(types.int32, 4, "C")
COUNTS = types.Array(types.int32, 2, "C")
FLAT = types.Array(types.int32, 1, "C")
U8 = types.Array(types.uint8, 2, "C")
I16 = types.Array(types.int16, 2, "C")


def digitizing(real, codes):
    block = types.Array(real, 2, "C")
    return (block, block, types.boolean, codes, INT)


def patched(patch):
    signature = (U64, U64, COLUMNS, COLUMNS, COLUMNS, COLUMNS, *[INT] * 8, FLAT)
    return histogram_cuda.make_count_pairs(patch), signature


KERNELS = {
    "digitize float32": (histogram_cuda.digitize_block, digitizing(types.float32, U8)),
    "digitize float64": (histogram_cuda.digitize_block, digitizing(types.float64, I16)),
    "count_codes": (histogram_cuda.count_codes, (U8, INT, INT, COUNTS)),
    "count_codes wide": (histogram_cuda.count_codes, (I16, INT, INT, COUNTS)),
    "count_pairs 1": patched(1),
    "count_pairs 2": patched(2),
    "count_pairs 4": patched(4),
    "count_pairs": (histogram_cuda.count_pairs, (I16, I16, COLUMNS, COLUMNS, *[INT] * 6, FLAT)),
    "spread_codes": (planes_cuda.spread_codes, (U64, COLUMNS, INT, INT, U64)),
    "split_columns": (planes_cuda.split_columns, (U64, COLUMNS, INT, INT, U64)),
    "count_planes": (planes_cuda.make_count_planes(16), (U64, U64, INT, COUNTS)),
    "complete_tables": (planes_cuda.complete_tables, (COUNTS, COLUMNS, COLUMNS, COUNTS, COUNTS, TABLES)),
    "summarize_tables": (
        entropy_cuda.summarize_tables,
        (TABLES, types.Array(types.float64, 1, "C"), types.boolean, types.Array(types.float64, 1, "C"), FLAT),
    ),
}


@pytest.fixture(params=ARCHITECTURES, ids=lambda pair: f"sm_{pair[0]}{pair[1]}")
def architecture(request):
    return request.param


@pytest.mark.parametrize("name", KERNELS)
def test_nothing_spills(name, architecture):
    code = compiled(*KERNELS[name], architecture)
    assert code.spilled == 0
    assert code.stack == 0
    assert code.shared <= 48 * 1024
    # Two blocks of 256 threads a multiprocessor, or more.
    assert code.registers <= 128


@pytest.mark.parametrize("name", sorted(set(KERNELS) - {"digitize float64", "summarize_tables"}))
def test_no_float64(name, architecture):
    assert compiled(*KERNELS[name], architecture).count(r"\.f64") == 0


@pytest.mark.parametrize("name", ["count_pairs 1", "count_pairs 4", "spread_codes", "split_columns"])
def test_codes_come_eight_bytes_at_a_time(name, architecture):
    code = compiled(*KERNELS[name], architecture)
    assert code.count(r"ld\.global(\.\w+)*\.[bu]64\b") > 0
    assert code.count(r"ld\.global(\.\w+)*\.[bsu](8|16)\b") == 0


def test_increments_are_of_shared_memory(architecture):
    for name in ("count_pairs 1", "count_pairs 2", "count_pairs 4"):
        code = compiled(*KERNELS[name], architecture)
        assert any("atom.shared.add.u32" in body or "red.shared.add.u32" in body for body in code.loops())
        assert not any("atom.global" in body for body in code.innermost_loops() if "atom.shared" in body)


def test_a_step_of_planes_counts_a_patch(architecture):
    code = compiled(*KERNELS["count_planes"], architecture)
    assert max(body.count("popc.b64") for body in code.innermost_loops()) % 16 == 0
    assert max(body.count("popc.b64") for body in code.innermost_loops()) >= 16
