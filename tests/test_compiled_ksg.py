"""CUDA kernels of the nearest-neighbour estimators, compiled and linked without a GPU."""

import pytest

numba_types = pytest.importorskip("numba.types")
pytest.importorskip("numba_cuda")
pytest.importorskip("cuda.bindings.nvjitlink")

from compiled_kernels import ARCHITECTURES, compiled  # noqa: E402
from qixai_fast.kernels import cells_cuda, digamma_cuda, ksg_cuda  # noqa: E402

N = numba_types.int64
VALUES = numba_types.Array(numba_types.float64, 2, "C")
PLACES = numba_types.Array(numba_types.int32, 2, "C")
PAIRS = numba_types.Array(numba_types.int32, 1, "C")
WORDS = numba_types.Array(numba_types.int64, 1, "C")
TOTALS = numba_types.Array(numba_types.int64, 3, "C")

POINTS = VALUES, PAIRS, VALUES, PAIRS
COUNTING = *POINTS, PAIRS, PAIRS, N, N, VALUES, VALUES, PLACES, PLACES
OTHERS = {
    "partner_ranks": (ksg_cuda.partner_ranks, (PLACES, PLACES, PAIRS, PAIRS, N, PLACES)),
    "into_strips": (ksg_cuda.into_strips, (*POINTS, PLACES, PAIRS, PAIRS, N, N, VALUES, VALUES)),
    "sum_digamma": (digamma_cuda.sum_digamma, (PLACES, PLACES, PAIRS, N, N, WORDS, N, TOTALS)),
    "common_cell": (
        cells_cuda.common_cell,
        (VALUES, PLACES, PLACES, PAIRS, PAIRS, PAIRS, N, VALUES, VALUES, PLACES, PLACES, PAIRS, PAIRS),
    ),
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("algorithm", [1, 2])
@pytest.mark.parametrize("n_held", [3, 16])
def test_nearest_distances_stay_in_registers(n_held, algorithm, architecture):
    code = compiled(ksg_cuda.make_marginal_counts(n_held, algorithm), COUNTING, architecture)
    assert (code.spilled, code.stack, code.shared) == (0, 0, 0)
    # Eight warps on each of a multiprocessor's four schedulers hide what memory takes (65,536 registers).
    assert code.registers <= (64 if n_held <= 3 else 128)
    assert code.count(r"\.local") == 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("algorithm", [1, 2])
def test_any_number_of_neighbours_spills_nothing(algorithm, architecture):
    code = compiled(ksg_cuda.make_marginal_counts(0, algorithm), COUNTING, architecture)
    assert code.spilled == 0
    assert code.stack <= 256


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", OTHERS)
def test_other_kernels_use_neither_stack_nor_much_shared_memory(name, architecture):
    code = compiled(*OTHERS[name], architecture)
    assert (code.spilled, code.stack) == (0, 0)
    assert code.shared <= 48 * 1024
    assert code.registers <= 64


def test_sums_are_of_integers():
    code = compiled(*OTHERS["sum_digamma"], (9, 0))
    assert code.count("f64") == code.count("f32") == 0
    assert code.count("atom") == code.count(r"\bred\b") == 0


def test_places_in_rows_need_no_test_for_their_sign():
    # A place that may be negative would be picked from two, for each element.
    code = compiled(ksg_cuda.make_marginal_counts(3, 1), COUNTING, (9, 0))
    candidates = [loop for loop in code.innermost_loops() if loop.count("ld.global.f64") == 2]
    assert len(candidates) >= 4
    for loop in candidates:
        assert "selp.b64" not in loop
        assert "selp.b32" not in loop
        assert loop.count("sub.f64") == 2
