"""Samples with known content, and a store of them, for the store's tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from qixai_fast.store import ActivationStore, LayerSpec, create_store, open_store

LAYERS = {
    "encoder.layers.0": LayerSpec((4,), "float32", "bfloat16", "gap"),
    "../x": LayerSpec((2, 3, 3), "float16", "float32", "none"),
}
FILES = ("encoder.layers.0.npy", "x.npy", "labels.npy", "sample_ids.npy", "sample_ids_text.npy")
CHUNK = 10  # samples in a chunk of the stores made here
CHUNK_BYTES = CHUNK * (4 * 4 + 18 * 2 + 8 + 8 + 64)


def samples(start: int, stop: int) -> dict[str, Any]:
    """Arguments of ``append`` for a run of samples; the values depend on the sample only."""
    rows = np.arange(start, stop)
    wide = np.sin(rows[:, None] * 18 + np.arange(18))
    return {
        "arrays": {
            "encoder.layers.0": np.cos(rows[:, None] + np.arange(4)).astype(np.float32),
            "../x": wide.reshape(-1, 2, 3, 3).astype(np.float16),
        },
        "labels": rows % 3,
        "sample_ids": [f"bild {'é' * (row % 4)}{row}" for row in rows],
    }


def writer(path: Path, **options: Any) -> Any:
    """A writer of a store of these samples."""
    given = {"labels": True, "sample_ids": "str", "chunk_bytes": CHUNK_BYTES, "fingerprint": {"model": "m1"}}
    return create_store(path, LAYERS, **{**given, **options})


def fill(path: Path, n_samples: int, batch: int = 7, **options: Any) -> ActivationStore:
    """Write samples (after those that are there), and open the store."""
    with writer(path, **options) as opened:
        for start in range(opened.n_samples, n_samples, batch):
            opened.append(**samples(start, min(start + batch, n_samples)))
    return open_store(path)


def assert_holds(store: ActivationStore, n_samples: int) -> None:
    """The store has exactly the first samples, and verifies."""
    wanted = samples(0, n_samples)
    assert store.n_samples == n_samples
    for name, values in wanted["arrays"].items():
        np.testing.assert_array_equal(store[name], values)
        assert store[name].dtype == LAYERS[name].dtype
        assert not store[name].flags.writeable
        assert np.load(store.path / store.info[name].file, mmap_mode="r").shape[0] >= n_samples
    assert store.labels is not None
    assert store.sample_ids is not None
    assert store.labels.tolist() == wanted["labels"].tolist()
    assert store.sample_ids.tolist() == wanted["sample_ids"]
    assert store.verify() == []


def content(path: Path) -> dict[str, bytes]:
    """Bytes of every data file."""
    return {file: (path / file).read_bytes() for file in FILES}
