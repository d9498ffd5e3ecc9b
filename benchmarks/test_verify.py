"""Verifying a store beside reading its files and nothing else, and the checksum's own speed in memory."""

import os
import subprocess
import sys
from functools import partial

import pytest
import xxhash

import qixai_fast as qf
from qixai_fast.store import LayerSpec, create_store

WIDTH = 1024
CHECKSUM = xxhash.xxh3_64  # what the journal has: its lines say "xxh3"
PIECE = 1 << 23
ROWS = 16_384  # written at a time


def stored(path, rng, size):
    """A store of two layers, about ``size`` bytes in all, and its files."""
    block = rng.standard_normal((ROWS, WIDTH), "float32")
    left = max(1, size // (2 * 4 * WIDTH))
    with create_store(path, {"first": LayerSpec((WIDTH,)), "second": LayerSpec((WIDTH,))}) as writer:
        while left:
            rows = block[: min(left, ROWS)]
            writer.append({"first": rows, "second": rows})
            left -= len(rows)
    return sorted(path.glob("*.npy"))


def forget(files):
    """Drop the files from the page cache, as far as the system does that for a user."""
    for path in files:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def bare_read(files, cold):
    """Read the files from first byte to last into one buffer, by one thread."""
    buffer = bytearray(PIECE)
    if cold:
        forget(files)
    for path in files:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def verified(path, files, cold, n_jobs):
    if cold:
        forget(files)
    return qf.open_store(path).verify(n_jobs=n_jobs)


PEAK = """
import concurrent.futures, sys, tqdm, qixai_fast as qf
store = qf.open_store(sys.argv[1])

def high_water():
    with open("/proc/self/status") as file:
        return int(file.read().split("VmHWM:")[1].split()[0]) * 1024

before = high_water()
assert store.verify(n_jobs=2) == []
print((high_water() - before) / 1e6)
"""


def compare(race, folder, rng, size, *, cold, n_jobs, least=None, rounds=5):
    files = stored(folder / "store", rng, size)
    total = sum(path.stat().st_size for path in files)
    where = "dropped from the page cache before" if cold else "all in the page cache"
    threads = f"{n_jobs} thread{'s' if n_jobs > 1 else ''}"
    amount = f"{total / 1e9:,.1f} GB" if total >= 1e8 else f"{total / 1e6:,.1f} MB"
    results = race(
        f"verify {amount} (XXH3, 64 bit), {threads}, {where}",
        partial(verified, folder / "store", files, cold, n_jobs),
        {"reading the files, 1 thread": partial(bare_read, files, cold)},
        least=least,
        unit="GB",
        units=total / 1e9,
        rounds=rounds,
    )
    assert results["ours"] == []
    peak = subprocess.run([sys.executable, "-c", PEAK, folder / "store"], capture_output=True, check=True)
    race.bound("MB above start, resident", float(peak.stdout), most=16)
    for path in files:
        path.unlink()


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_in_page_cache(race, size, rng, tmp_path, n_jobs):
    compare(race, tmp_path, rng, size(1_000_000_000, 1_000_000), cold=False, n_jobs=n_jobs)


@pytest.mark.large
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_from_disk(race, size, rng, tmp_path, n_jobs):
    compare(
        race, tmp_path, rng, size(4_000_000_000, 1_000_000), cold=True, n_jobs=n_jobs,
        least={"reading the files, 1 thread": 0.7}, rounds=3,
    )  # fmt: skip


def test_checksum_alone(race, size, rng):
    """How fast the checksum itself is: what verifying costs beyond reading."""
    piece = rng.bytes(1 << 20)
    count = size(1000, 10)

    def hashed(function):
        state = function()
        for _ in range(count):
            state.update(piece)
        return state.hexdigest()

    race(
        f"XXH3 (64 bit) of {count} MiB in memory, in pieces of 1 MiB, 1 thread",
        partial(hashed, CHECKSUM),
        {"XXH3, 128 bit": partial(hashed, xxhash.xxh3_128), "XXH64": partial(hashed, xxhash.xxh64)},
        unit="GB",
        units=count * (1 << 20) / 1e9,
    )
