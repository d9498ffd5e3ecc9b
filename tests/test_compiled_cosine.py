"""CUDA kernels of cosine similarity, compiled without a GPU: what they take, and the scan's inner loop."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("numba.cuda")
pytest.importorskip("cuda.bindings.nvjitlink")

from compiled_kernels import ARCHITECTURES, compiled
from numba import boolean, float32, float64, int16, int32, int64, uint8, uint64
from qixai_fast.kernels import cosine_cuda


def _top_k(kind, integer, capacity):
    signature = (
        kind[:, ::1], uint64[:, ::1], int64, int64, int64[::1], kind, kind[:, ::1], int64[:, ::1],
        integer[:, ::1],
    )  # fmt: skip
    return cosine_cuda.make_update_top_k(kind.bitwidth, capacity), signature


def _candidates(capacity):
    signature = (
        int16[:, ::1], uint64[:, ::1], int64, int64, int64[::1], int64, int32[:, ::1], int64[:, ::1],
        int32[:, ::1],
    )  # fmt: skip
    return cosine_cuda.make_update_candidates(capacity), signature


def _rescore(kind, capacity):
    signature = (
        kind[:, ::1], kind[:, ::1], int64, int32[:, ::1], int64[:, ::1], int32[::1], kind, kind[:, ::1],
        int64[:, ::1],
    )  # fmt: skip
    return cosine_cuda.make_rescore(kind.bitwidth, capacity), signature


def _unit_rows(kind, target):
    return cosine_cuda.unit_rows, (kind[:, ::1], boolean, target[:, ::1], uint8[::1])


KERNELS = {
    "unit rows": lambda: _unit_rows(float32, float32),
    "unit rows, double": lambda: _unit_rows(float64, float64),
    "unit rows of float32 beside float64": lambda: _unit_rows(float32, float64),
    "top k": lambda: _top_k(float32, int32, 64),
    "top k, long": lambda: _top_k(float32, int32, 1024),
    "top k, any": lambda: _top_k(float32, int32, 0),
    "top k, double, long": lambda: _top_k(float64, int64, 1024),
    "candidates": lambda: _candidates(64),
    "candidates, long": lambda: _candidates(1024),
    "rescore, long": lambda: _rescore(float32, 1024),
    "rescore, double, long": lambda: _rescore(float64, 1024),
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS.keys())
def test_nothing_spills_and_shared_memory_suffices(kernel, architecture):
    made = compiled(*kernel(), architecture)
    assert made.spilled == 0
    assert made.stack == 0
    assert made.shared <= 48 * 1024


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", ["top k", "top k, long", "top k, any", "candidates", "candidates, long"])
def test_the_scan_loads_words_of_64_bits_and_compares_integers(name, architecture):
    made = compiled(*KERNELS[name](), architecture)
    assert made.count("f64") == 0
    scans = [loop for loop in made.innermost_loops() if "bar.red" in loop]
    assert len(scans) == 1
    loads = re.findall(r"ld\.global\.\S+", scans[0])
    assert loads == ["ld.global.u64"] * 4
    # Four words a thread between barriers, and about ten instructions for each.
    assert len(scans[0].splitlines()) < 80
    assert not re.search(r"\.f(16|32|64)\b", scans[0])
    assert "shared" not in scans[0]


def test_a_multiprocessor_holds_many_blocks_of_the_scan():
    """16 blocks of 64 threads, with 32 bytes under way each, are what hides the way to memory and back."""
    made = compiled(*KERNELS["candidates"](), (9, 0))
    assert 16 * 64 * made.registers <= 65536
    assert 16 * made.shared <= 227 * 1024
