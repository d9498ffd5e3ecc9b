"""What this machine and installation offer: the text behind ``qixai-fast info``."""

from __future__ import annotations

import importlib.metadata
import platform

import psutil
from threadpoolctl import threadpool_info

from . import __version__
from ._device import cuda_problem
from ._memory import format_bytes
from ._threads import usable_cores

_PACKAGES = ("numpy", "numba", "scipy", "torch", "scikit-learn", "dask", "numba-cuda", "matplotlib", "xxhash")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _blas() -> str:
    import scipy.linalg  # noqa: F401  (brings its own BLAS into the process, which is to be listed)

    found = {
        f"{entry['internal_api']} {entry['version']} ({entry.get('architecture', 'unknown')})"
        for entry in threadpool_info()
        if entry["user_api"] == "blas"
    }
    return ", ".join(sorted(found)) or "none found"


def _gpu(index: int) -> str:
    import torch

    found = torch.cuda.get_device_properties(index)
    return (
        f"cuda:{index} {found.name} ({format_bytes(found.total_memory)}, {found.multi_processor_count} "
        f"multiprocessors, sm_{found.major}{found.minor})"
    )


def _cuda() -> str:
    reason = cuda_problem()
    if reason is not None:
        return f"no: {reason}"
    import torch

    return ", ".join(_gpu(index) for index in range(torch.cuda.device_count()))


def environment() -> dict[str, str]:
    """Names and values, in the order in which to show them."""
    memory = psutil.virtual_memory()
    return {
        "qixai-fast": __version__,
        "Python": f"{platform.python_version()} ({platform.system()}, {platform.machine()})",
        **{package: _version(package) for package in _PACKAGES},
        "cores": f"{usable_cores()} usable of {psutil.cpu_count()}",
        "memory": f"{format_bytes(memory.total)}, {format_bytes(memory.available)} available",
        "BLAS": _blas(),
        "threading layer": "none needed: serial kernels without the GIL under a thread pool of our own",
        "CUDA": _cuda(),
    }
