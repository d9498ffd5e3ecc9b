"""An audit of a file several times its budget, in a child, by the kernel's own accounting."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest
import xxhash
from peak_memory import peak_of_audit

import qixai_fast as qf
from qixai_fast.store.format import read_manifest
from qixai_fast.store.journal import JOURNAL, Chunk, read_journal
from qixai_fast.store.npy import open_inside

_BUDGET = 450_000_000


def holed_store(path, n_features, n_samples):
    """Two chunks of values, then zeros: holes of the files: whole to every reader, hardly any disk."""
    specs = {name: qf.LayerSpec((n_features,), "float32") for name in ("a", "b")}
    rng = np.random.default_rng(0)
    with qf.create_store(path, specs) as writer:
        rows = read_manifest(path).chunk_rows
        for _ in range(2):
            block = np.maximum(rng.standard_normal((rows, n_features), dtype=np.float32), 0)
            writer.append({name: np.roll(block, place, 0) for place, name in enumerate(specs)})
    manifest = read_manifest(path)
    count = n_samples // rows
    zeros = xxhash.xxh3_64_hexdigest(bytes(rows * n_features * 4))
    for array in manifest.arrays():
        with open_inside(path, array.file, os.O_RDWR) as file:
            file.truncate(array.offset(count * rows))
            file.write(array.header(count * rows))
    with open(path / JOURNAL, "ab") as file:
        for index in range(len(read_journal(path, manifest).chunks), count):
            file.write(Chunk(index, (index + 1) * rows, 0, (zeros, zeros)).line())


@pytest.mark.skipif(sys.platform != "linux", reason="needs the kernel's own accounting")
def test_a_store_four_times_the_budget(tmp_path):
    """All of it is read, though few maps are compared."""
    holed_store(tmp_path / "store", 256, 900_000)
    files = list((tmp_path / "store").glob("*.npy"))
    assert sum(file.stat().st_size for file in files) > 4 * _BUDGET
    assert sum(512 * file.stat().st_blocks for file in files) < 300e6
    plan = 'pairs = [["a", "a"]]\nn_permutations = 19\nmax_maps = 2\nn_top_pairs = 0\n'
    peak = peak_of_audit(tmp_path, plan, _BUDGET)
    assert peak < _BUDGET, f"{peak / 1e6:.0f} MB"
