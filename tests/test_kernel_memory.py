"""Kernels that work on plain pointers: what they point into is there, and they stay within it."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from qixai_fast.kernels.axis_cpu import PAD

from qixai_fast import kernels
from qixai_fast.mutual_info.pairs import strip_width, strips_room

FUNCTIONS = [
    pytest.param(node, id=f"{path.stem}.{node.name}")
    for path in sorted(Path(kernels.__file__).parent.glob("*_cpu.py"))
    for node in ast.parse(path.read_text()).body
    if isinstance(node, ast.FunctionDef) and "pointer(" in ast.unparse(node)
]


def named_in(function, name):
    """Variables that a function passes to another one of that name."""
    calls = (node for node in ast.walk(function) if isinstance(node, ast.Call))
    return {ast.unparse(call.args[0]) for call in calls if ast.unparse(call.func) == name}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_arrays_live_as_long_as_their_pointers(function):
    """numba frees an array after the last line that names it, whatever still points into it."""
    given = {argument.arg for argument in function.args.args}
    made = {name for name in named_in(function, "pointer") if name.split(".")[0] not in given}
    assert made == named_in(function, "hold")
    assert ast.unparse(function.body[-1]).startswith(("hold(", "return "))


def test_inner_kernels_are_called_by_kernels_only():
    """They are compiled without what Python would call: a call from there ends the process."""
    root = Path(__file__).parent.parent
    reached = re.compile(r"kernels\.\w+ import [^\n]*\b_[a-z]|_cpu\._[a-z]")
    for folder in ("qixai_fast", "tests", "benchmarks"):
        for path in (root / folder).rglob("*.py"):
            if path.name != Path(__file__).name and "kernels" not in path.parts:
                assert not reached.search(path.read_text()), path


def test_tiles_stay_between_their_arrays():
    """Arrays of any width, with memory that cannot be touched before and after each of them."""
    if sys.platform != "linux":
        pytest.skip("memory is mapped as Linux does")
    child = subprocess.run(
        [sys.executable, Path(__file__).with_name("guarded_tiles.py")], capture_output=True, text=True
    )
    assert child.returncode == 0, child.stderr


def test_strips_of_fewer_points_fit():
    """Atoms leave fewer continuous samples than there is room for; their strips may need more of it."""
    most = 0
    for n in range(2, 60_000):
        width = strip_width(n)
        most = max(most, PAD + -(-n // width) * (width + PAD))
        assert most <= strips_room(n) < 2 * n + 64


def test_atoms_where_freed_memory_is_gone():
    """Arrays that malloc maps by themselves cannot be read once they are freed."""
    code = (
        "import numpy as np, qixai_fast as qf\n"
        "x, y = np.random.default_rng(0).standard_normal((2, 200_000))\n"
        "print(qf.mutual_info_ksg(np.maximum(x, 0), y, n_neighbors=1))"
    )
    child = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"},
        capture_output=True,
        text=True,
    )
    assert child.returncode == 0, child.stderr
    assert abs(float(child.stdout)) < 0.01
