"""Weighted sums of recorded gradients in a file, beside reading that file and nothing else."""

import os
import subprocess
import sys

import numpy as np
import pytest

import qixai_fast as qf
from benchmarks.peers import optional

torch = optional("torch")
STEPS, WIDTH = 50, 1000
PIECE = 1 << 20  # stays in a core's cache: nothing but the copy out of the system's page cache


def recorded(path, rng, size, dtype):
    """A file of about ``size`` bytes: every step has the same normal values, other ones for each sample."""
    n = max(1, size // (STEPS * WIDTH * np.dtype(dtype).itemsize))
    file = np.lib.format.open_memmap(path, "w+", dtype=dtype, shape=(STEPS, n, WIDTH))
    for first in range(0, n, 1000):
        values = rng.standard_normal((min(1000, n - first), WIDTH), np.float32)
        for step in file:
            step[first : first + 1000] = values
    file.flush()


def forget(path):
    """Drop the file from the page cache, as far as the system does that for a user."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def bare_read(path, *, cold):
    """Read a file from its first byte to its last into one small buffer."""
    buffer = bytearray(PIECE)

    def read():
        if cold:
            forget(path)
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass

    return read


def our_sum(path, *, cold):
    weights = np.full(STEPS, 1 / STEPS)

    def accumulate():
        if cold:
            forget(path)
        return qf.riemann_accumulate(np.load(path, mmap_mode="r"), weights, n_jobs=1)

    return accumulate


def recipes(path):
    """Weighted sums of the whole array, as one would write them."""
    weights = np.full(STEPS, 1 / STEPS)

    def in_torch():
        gradients = torch.from_numpy(np.load(path))
        return torch.tensordot(torch.from_numpy(weights).to(gradients.dtype), gradients, 1).numpy()

    return {
        "NumPy tensordot of the loaded file": lambda: np.tensordot(
            weights.astype(np.float32), np.load(path).astype(np.float32, copy=False), 1
        ),
        "torch.tensordot of the loaded file": torch and in_torch,
    }


PEAK = """
import sys, numpy as np, qixai_fast as qf
gradients = np.load(sys.argv[1], mmap_mode="r")
weights = np.full(len(gradients), 1 / len(gradients))
out = np.ones(gradients.shape[1:], np.float32)
qf.riemann_accumulate(np.ones((9, 2), gradients.dtype), np.ones(9), n_jobs=1)

def high_water():
    with open("/proc/self/status") as file:
        return int(file.read().split("VmHWM:")[1].split()[0]) * 1024

before = high_water()
qf.riemann_accumulate(gradients, weights, out=out, n_jobs=1, max_memory=int(sys.argv[2]))
print((high_water() - before) / 1e6)
"""


def compare(race, path, row, *, cold=False, least=None, budget="64", rounds=5):
    results = race(
        row,
        our_sum(path, cold=cold),
        {"reading the file": bare_read(path, cold=cold)} | ({} if cold else recipes(path)),
        least=least,
        rounds=rounds,
    )
    np.testing.assert_allclose(results["ours"], np.load(path, mmap_mode="r")[0], rtol=1e-6, atol=1e-7)
    command = [sys.executable, "-c", PEAK, str(path), f"{budget}000000"]
    peak = float(subprocess.run(command, capture_output=True, check=True).stdout)
    race.bound(f"MB above start, resident, with max_memory {budget} MB", peak, most=float(budget))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_in_page_cache(race, size, rng, tmp_path, dtype):
    path = tmp_path / "gradients.npy"
    recorded(path, rng, size(400_000_000, 1_000_000), dtype)
    compare(
        race, path, f"{STEPS} steps, {path.stat().st_size / 1e6:,.0f} MB of {dtype}, all in the page cache"
    )
    path.unlink()


@pytest.mark.large
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_from_disk(race, size, rng, tmp_path, dtype):
    path = tmp_path / "gradients.npy"
    recorded(path, rng, size(8_000_000_000, 1_000_000), dtype)
    row = f"{STEPS} steps, {path.stat().st_size / 1e9:,.1f} GB of {dtype}, dropped from the page cache before"
    compare(race, path, row, cold=True, least={"reading the file": 1 / 1.2}, rounds=3)
    path.unlink()
