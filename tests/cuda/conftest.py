"""Fixtures of the CUDA tests: a real GPU where there is one, else the simulator and a stand-in device.

The simulator takes the place of numba's CUDA for a whole process, so these tests run in one of their own:
``NUMBA_ENABLE_CUDASIM=1 pytest tests/cuda`` (``make test-cuda``), or ``make test-gpu`` where there is a GPU.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

try:
    import torch
except ImportError:
    torch = None
SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
if SIMULATED:
    # The simulator's manager polls its threads: with Python's 5 ms a turn it takes most of the time.
    sys.setswitchinterval(1e-4)

    from numba.cuda.simulator.kernelapi import FakeCUDAShared

    class _Allocations(dict):
        """A block's shared arrays, each made once.

        The simulator looks for an array, makes it and keeps it: threads that come to it together would have
        one each. From looking in vain until it is kept, the others wait.
        """

        def __init__(self):
            super().__init__()
            self._lock = threading.Lock()

        def get(self, key):
            self._lock.acquire()
            found = super().get(key)
            if found is not None:
                self._lock.release()
            return found

        def __setitem__(self, key, array):
            super().__setitem__(key, array)
            self._lock.release()

    _begin = FakeCUDAShared.__init__

    def _begin_with_lock(self, *arguments):
        _begin(self, *arguments)
        self._allocations = _Allocations()

    FakeCUDAShared.__init__ = _begin_with_lock

if torch is None or not (SIMULATED or torch.cuda.is_available()):
    collect_ignore_glob = ["*.py"]


class Device:
    """What a test asks of the device that it runs on.

    Attributes
    ----------
    backend : Backend
    simulated : bool
    """

    def __init__(self, backend, simulated, resident):
        self.backend, self.simulated, self._resident = backend, simulated, resident

    def put(self, array):
        """A tensor on the device."""
        tensor = torch.as_tensor(array).to(self.backend.device)
        self._resident[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    def empty(self, shape, dtype):
        """An uninitialised tensor on the device, for kernels to write to."""
        return torch.empty(shape, dtype=dtype, device=self.backend.device)


@pytest.fixture
def gpu(monkeypatch):
    """The device: ``gpu.backend.launch`` starts kernels, and public calls take ``device="cuda"``."""
    from qixai_fast import _device
    from qixai_fast._gpu import backend

    if not SIMULATED:
        return Device(backend.open_backend(0), False, {})
    from fake_device import FakeBackend

    fakes, resident = {}, {}
    adopted = _device.gpu_tensor

    def gpu_tensor(value):
        if not torch.is_tensor(value):
            return adopted(value)
        return value.detach() if value.untyped_storage().data_ptr() in resident else None

    monkeypatch.setattr(_device, "cuda_problem", lambda: None)
    monkeypatch.setattr(_device, "_cuda_devices", lambda: (2, 0))
    monkeypatch.setattr(_device, "gpu_tensor", gpu_tensor)
    monkeypatch.setattr(backend, "open_backend", lambda index: fakes.setdefault(index, FakeBackend(index)))
    return Device(backend.open_backend(0), True, resident)


@pytest.fixture
def small_blocks(gpu, monkeypatch):
    """Few threads a block, for every family: in the simulator each is a thread of Python."""
    if not gpu.simulated:
        return
    from qixai_fast.kernels import cells_cuda, digamma_cuda

    from qixai_fast._gpu import codes, cosine, joint_counts, ksg_points, unit_rows

    for module, name, threads in (
        (joint_counts, "_THREADS", 8),
        (joint_counts, "_SIDE", 2),
        (joint_counts, "MOST_THREADS", 32),
        (codes, "_THREADS", 16),
        (ksg_points, "_THREADS", 8),
        (digamma_cuda, "THREADS", 8),
        (cells_cuda, "THREADS", 8),
        (cosine, "SCAN_THREADS", 4),
        (unit_rows, "FEWEST_THREADS", 2),
        (unit_rows, "MOST_THREADS", 4),
    ):
        monkeypatch.setattr(module, name, threads)
