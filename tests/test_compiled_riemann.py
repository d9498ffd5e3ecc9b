"""CUDA kernels of attributions, compiled without a GPU: what the machine code loads, adds and leaves out."""

import re

import pytest

pytest.importorskip("numba.cuda")
pytest.importorskip("cuda.bindings")
from compiled_kernels import ARCHITECTURES, compiled
from numba import types
from qixai_fast.kernels.riemann_cuda import (
    BRAIN,
    DOUBLE,
    HALF,
    SINGLE,
    make_add_weighted,
    make_add_weighted_elements,
)
from qixai_fast.kernels.trapezoids_cuda import add_trapezoid

LANES = {HALF: 8, BRAIN: 8, SINGLE: 4, DOUBLE: 2}
BITS = {HALF: types.uint16, BRAIN: types.uint16, SINGLE: types.uint32, DOUBLE: types.uint64}
F4, F8 = types.float32[::1], types.float64[::1]
# What a call with tensors of float32, and one with recorded sums, give for ends, starts and out.
OPERANDS = [(F4, F4, F4), (F8, F8, F8)]


def of_words(kind, operands, architecture):
    number = types.int64
    signature = (types.uint32[::1], number, number, number, F8, number, number, *operands, types.int32[::1])
    return compiled(make_add_weighted(kind), signature, architecture)


def of_elements(kind, operands, architecture):
    number = types.int64
    signature = (BITS[kind][::1], number, number, number, F8, number, number, *operands, types.int32[::1])
    return compiled(make_add_weighted_elements(kind), signature, architecture)


CASES = [*((one, OPERANDS[0]) for one in ARCHITECTURES), ((9, 0), OPERANDS[1])]


@pytest.mark.parametrize(("architecture", "operands"), CASES, ids=["75", "80", "90", "90-double"])
@pytest.mark.parametrize("kind", LANES)
@pytest.mark.parametrize("build", [of_words, of_elements])
def test_sums_stay_in_registers(build, kind, architecture, operands):
    code = build(kind, operands, architecture)
    assert code.spilled == 0
    assert code.stack == 0
    assert code.shared == 0
    assert code.registers <= 64  # 1,024 threads a multiprocessor


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", LANES)
def test_the_loop_over_steps_loads_sixteen_bytes_and_adds_in_float64_alone(kind, architecture):
    """One multiply-add for each number, nothing else in float64 but its conversion, and no other load."""
    code = of_words(kind, OPERANDS[0], architecture)
    main = max(code.innermost_loops(), key=lambda body: body.count("fma.rn.f64"))
    assert main.count("ld.global.nc.L1::no_allocate.v4.u32") == 4
    assert main.count("fma.rn.f64") == 4 * LANES[kind]
    loads = re.findall(r"ld\.global\.(?!nc\.L1)\S+", main)
    assert loads == ["ld.global.f64"] * 4  # the weights, the same for all threads
    others = set(re.findall(r"\b([a-z]+[.\w]*\.f64[.\w]*)", main)) - {"fma.rn.f64", "ld.global.f64"}
    assert others <= {"cvt.f64.f32", "mov.f64"}
    assert len(re.findall(r"cvt\.f64\.f32", main)) == (0 if kind == DOUBLE else 4 * LANES[kind])
    assert main.count("cvt.f32.f16") == (4 * LANES[kind] if kind == HALF else 0)
    assert not re.search(r"\b(div|rem)\.", main)


def test_all_loads_of_four_steps_come_before_the_first_sum():
    main = max(of_words(SINGLE, OPERANDS[0], (9, 0)).innermost_loops(), key=lambda body: body.count("fma"))
    assert main.rindex("v4.u32") < main.index("fma.rn.f64")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("operand", [F4, F8], ids=["single", "double"])
def test_trapezoids_stay_in_registers(operand, architecture):
    code = compiled(add_trapezoid, (operand, operand, operand, operand, F8), architecture)
    assert (code.spilled, code.stack, code.shared) == (0, 0, 0)
    assert code.count(r"ld\.global") == 5
    assert not code.loops()


def test_kernels_on_disk_are_known_again_in_another_process():
    """numba goes by what a kernel closes over; functions among it would look different each time."""
    for make in (make_add_weighted, make_add_weighted_elements):
        cells = [cell.cell_contents for cell in make(HALF).py_func.__closure__]
        assert all(isinstance(one, int) for one in cells)
