"""The feature-major copy of a layer: made once, atomically, for the rows that are there."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from store_samples import fill, samples

from qixai_fast import StoreError
from qixai_fast.store import LayerSpec, columns, create_store, open_store


def copies(store):
    folder = store.path / "columns"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("n_samples", [0, 1, 35])
@pytest.mark.parametrize("block_bytes", [1, 200, 2**24])
def test_columns_are_the_rows_transposed(tmp_path, monkeypatch, n_samples, block_bytes):
    monkeypatch.setattr(columns, "_BLOCK_BYTES", block_bytes)
    store = fill(tmp_path / "s", n_samples)
    for name, values in samples(0, n_samples)["arrays"].items():
        found = store.columns(name)
        assert isinstance(found, np.memmap)
        assert found.flags.f_contiguous
        assert not found.flags.writeable
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(found, values.reshape(n_samples, -1 if n_samples else found.shape[1]))
        plain = np.load(found.filename, mmap_mode="r")
        assert plain.flags.f_contiguous
        np.testing.assert_array_equal(plain, found)
    assert store.verify() == []


@pytest.mark.parametrize("shape", [(1,), (63,), (64,), (65,), (130,), (3, 5, 7)])
def test_tiles_of_every_width(tmp_path, shape):
    values = np.random.default_rng(0).normal(size=(129, *shape)).astype(np.float32)
    with create_store(tmp_path / "s", {"a": LayerSpec(shape)}) as writer:
        writer.append({"a": values})
    np.testing.assert_array_equal(open_store(tmp_path / "s").columns("a"), values.reshape(129, -1))


def test_made_once_and_again_when_the_data_grew(tmp_path):
    store = fill(tmp_path / "s", 25)
    first = store.columns("../x")
    (name,) = copies(store)
    made = (store.path / "columns" / name).stat().st_mtime_ns
    again = open_store(store.path)
    again.columns("../x")
    assert copies(store) == [name]
    assert (store.path / "columns" / name).stat().st_mtime_ns == made
    grown = fill(tmp_path / "s", 35, resume=True)
    assert grown.columns("../x").shape == (35, 18)
    assert len(copies(grown)) == 1
    assert copies(grown) != [name]
    np.testing.assert_array_equal(first, samples(0, 25)["arrays"]["../x"].reshape(25, 18))


def test_other_layers_keep_their_copies(tmp_path):
    layers = {name: LayerSpec((2,)) for name in ("a", "a.b", "a.0123456789abcdef", "a-2")}
    for stop in (3, 5):
        with create_store(tmp_path / "s", layers, resume=True) as writer:
            writer.append({name: np.ones((stop, 2)) for name in layers})
        store = open_store(tmp_path / "s")
        for name in layers:
            store.columns(name)
        assert len(copies(store)) == 4
    assert store.verify() == []


def test_a_damaged_copy_is_named_and_made_again(tmp_path):
    store = fill(tmp_path / "s", 35)
    path = Path(store.columns("../x").filename)
    whole = path.read_bytes()
    path.write_bytes(whole[:-7] + bytes([whole[-7] ^ 1]) + whole[-6:])
    (problem,) = store.verify()
    assert str(path) in problem
    assert "differs from its checksum; delete it and it will be made again" in problem
    os.truncate(path, len(whole) - 1)
    (problem,) = store.verify()
    assert "wrong length; delete it" in problem
    with pytest.raises(StoreError, match=r"copy is damaged; delete it and it will be made again"):
        store.columns("../x")
    path.unlink()
    store.columns("../x")
    assert path.read_bytes() == whole


def test_a_killed_maker_leaves_nothing_in_the_way(tmp_path):
    """Killed half way: what it left is not taken for a copy, and goes when the next one is made."""
    store = fill(tmp_path / "s", 35)
    script = (
        "import os, signal, sys\n"
        "from qixai_fast.store import columns, open_store\n"
        "columns._BLOCK_BYTES = 200\n"
        "write, count = columns.write_all, [0]\n"
        "def killed(*arguments):\n"
        "    count[0] += 1\n"
        "    if count[0] == 40: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    write(*arguments)\n"
        "columns.write_all = killed\n"
        "open_store(sys.argv[1]).columns('../x')\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(store.path)], check=False)
    assert killed.returncode == -9
    (left,) = copies(store)
    assert left.endswith(".tmp")
    assert store.verify() == []
    grown = fill(tmp_path / "s", 37, resume=True)
    grown.columns("../x")
    (made,) = copies(grown)
    assert made.endswith(".npy")
    assert grown.verify() == []


def test_many_makers_at_once(tmp_path):
    fill(tmp_path / "s", 35)
    found, failed = [], []

    def make():
        try:
            found.append(np.array(open_store(tmp_path / "s").columns("../x")))
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert all(np.array_equal(values, found[0]) for values in found)
    assert len(copies(open_store(tmp_path / "s"))) == 1


def test_no_room_for_the_copy(tmp_path, monkeypatch):
    store = fill(tmp_path / "s", 35)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(columns, "write_all", full)
    with pytest.raises(StoreError, match=r"layer '../x' could not be written \(No space left on device\)"):
        store.columns("../x")
    assert copies(store) == []
    monkeypatch.undo()
    assert store.columns("../x").shape == (35, 18)


def test_memory_stays_small(tmp_path):
    """One streamed pass: resident memory does not follow the size of the layer."""
    import tracemalloc

    with create_store(tmp_path / "s", {"a": LayerSpec((512,))}) as writer:
        for _ in range(64):
            writer.append({"a": np.ones((1024, 512), np.float32)})
    store = open_store(tmp_path / "s")
    tracemalloc.start()
    store.columns("a")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert store["a"].nbytes == 128 * 2**20
    assert peak < 24 * 2**20
