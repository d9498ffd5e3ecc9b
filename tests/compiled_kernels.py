"""CUDA kernels compiled without a GPU: to PTX, and linked to machine code with the assembler's report."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

ARCHITECTURES = [(7, 5), (8, 0), (9, 0)]


@dataclass(frozen=True)
class Compiled:
    """What a compiler made of a kernel.

    Attributes
    ----------
    ptx : str
    registers, spilled, stack, shared : int
        Of the machine code: registers of a thread; bytes of spill stores and loads; bytes of a thread's stack
        frame; bytes of shared memory of a block that are fixed.
    """

    ptx: str
    registers: int
    spilled: int
    stack: int
    shared: int

    def count(self, pattern: str) -> int:
        """How often a regular expression occurs in the PTX."""
        return len(re.findall(pattern, self.ptx))

    def loops(self) -> list[str]:
        """PTX from a label to a later branch back to it: bodies of loops, inner ones within others."""
        lines = self.ptx.splitlines()
        at = {m[1]: i for i, line in enumerate(lines) if (m := re.match(r"(\$L\w+):", line))}
        found = []
        for i, line in enumerate(lines):
            branch = re.search(r"\bbra(?:\.uni)?\s+(\$L\w+);", line)
            if branch and at.get(branch[1], i) < i:
                found.append("\n".join(lines[at[branch[1]] : i + 1]))
        return found

    def innermost_loops(self) -> list[str]:
        """Bodies of loops that hold no other loop."""
        loops = self.loops()
        return [body for body in loops if not any(other != body and other in body for other in loops)]


@cache
def compiled(kernel, signature: tuple, architecture: tuple[int, int]) -> Compiled:
    """Compile a kernel for argument types, and link it.

    Parameters
    ----------
    kernel : as ``jit_cuda`` makes it
    signature : tuple of numba types
    architecture : (major, minor)
    """
    from cuda.bindings import nvjitlink
    from numba import cuda

    ptx, _ = cuda.compile_ptx(kernel.py_func, signature, cc=architecture)
    linker = nvjitlink.create(2, [f"-arch=sm_{architecture[0]}{architecture[1]}", "-verbose"])
    code = ptx.encode()
    nvjitlink.add_data(linker, nvjitlink.InputType.PTX, code, len(code), "kernel")
    nvjitlink.complete(linker)
    report = bytearray(nvjitlink.get_info_log_size(linker))
    nvjitlink.get_info_log(linker, report)
    text = report.decode()
    frame = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", text)
    used = re.findall(r"used (\d+) registers", text)
    shared = re.findall(r"(\d+) bytes smem", text)
    return Compiled(
        ptx,
        int(used[-1]),
        int(frame[2]) + int(frame[3]),
        int(frame[1]),
        int(shared[-1]) if shared else 0,
    )
