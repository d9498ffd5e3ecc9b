"""Stores behind URLs: read through checked copies in the cache, audited here and on a cluster."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import audit_data
import numpy as np
import pytest
from audit_data import activations, contents, make_store, plan
from store_samples import LAYERS, assert_holds, fill

from qixai_fast import StoreError
from qixai_fast.auditing.run import audit
from qixai_fast.store import ActivationStore, create_store, open_store

fsspec = pytest.importorskip("fsspec")
QUICK = {"test_samples": 100, "null_samples": 60, "n_permutations": 99}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QIXAI_FAST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "stores"


@pytest.fixture
def memory() -> Iterator[Any]:
    files = fsspec.filesystem("memory")
    yield files
    for path in files.ls("/", detail=False):
        files.rm(path, recursive=True)


def upload(files: Any, folder: Path, name: str) -> str:
    files.makedirs(f"/{name}", exist_ok=True)
    for path in folder.glob("*.*"):
        files.pipe_file(f"/{name}/{path.name}", path.read_bytes())
    return f"memory://{name}"


def zipped(folder: Path, path: Path) -> str:
    """A URL of a file system that other processes open, too, and that is no folder."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.glob("*.*"):
            archive.write(file, f"store/{file.name}")
    return f"zip://store::file://{path}"


def copied(cache: Path) -> set[str]:
    return {path.name for path in cache.glob("*/*.npy")}


class TestOpened:
    def test_holds_what_was_written(self, tmp_path, memory, own_cache):
        fill(tmp_path / "store", 25)
        store = open_store(upload(memory, tmp_path / "store", "a"))
        assert isinstance(store, ActivationStore)
        assert repr(store).startswith("<ActivationStore 'memory://a': 25 samples of")
        assert copied(own_cache) == set()
        store["../x"]
        assert copied(own_cache) == {"x.npy"}
        assert_holds(store, 25)
        local = open_store(tmp_path / "store")
        assert store.checksum == local.checksum
        for name in local:
            np.testing.assert_array_equal(store.columns(name), local.columns(name))
            copy = store.path / store.info[name].file
            assert copy.read_bytes() == (tmp_path / "store" / copy.name).read_bytes()
        assert sorted(memory.ls("/a", detail=False)) == sorted(
            f"/a/{path.name}" for path in (tmp_path / "store").glob("*.*")
        )

    def test_copies_are_made_once(self, tmp_path, memory, monkeypatch):
        fill(tmp_path / "store", 25)
        url = upload(memory, tmp_path / "store", "a")
        assert_holds(open_store(url), 25)
        monkeypatch.setattr("qixai_fast.store.remote._Source.chunks", lambda *_: pytest.fail("read again"))
        store = open_store(url)
        assert len(store["../x"]) == 25
        again = pickle.loads(pickle.dumps(store))
        np.testing.assert_array_equal(again["../x"], store["../x"])

    def test_a_store_that_grows(self, tmp_path, memory, own_cache):
        """The samples that were complete when it was opened; copies that nobody uses any more are deleted."""
        fill(tmp_path / "store", 15)
        url = upload(memory, tmp_path / "store", "a")
        before = open_store(url)
        before["../x"]
        fill(tmp_path / "store", 37, resume=True)
        upload(memory, tmp_path / "store", "a")
        after = open_store(url)
        assert_holds(after, 37)
        assert len(list(own_cache.iterdir())) == 2
        np.testing.assert_array_equal(before["encoder.layers.0"], after["encoder.layers.0"][:15])
        del before
        open_store(url)
        assert len(list(own_cache.iterdir())) == 1

    def test_a_file_url_is_read_in_place(self, tmp_path, own_cache):
        fill(tmp_path / "store", 5)
        store = open_store(f"file://{tmp_path}/store")
        assert store.path == tmp_path / "store"
        assert_holds(store, 5)
        assert not own_cache.exists()


class TestDamage:
    @pytest.fixture
    def url(self, tmp_path, memory):
        fill(tmp_path / "store", 25)
        return upload(memory, tmp_path / "store", "a")

    def flip(self, memory, file, place):
        data = bytearray(memory.cat_file(f"/a/{file}"))
        data[place] ^= 1
        memory.pipe_file(f"/a/{file}", bytes(data))

    def test_a_flipped_byte(self, url, memory, own_cache):
        self.flip(memory, "x.npy", -1)
        store = open_store(url)
        words = r"memory://a/x\.npy: chunk 2 differs from its checksum; restore it from a copy"
        with pytest.raises(StoreError, match=words):
            store["../x"]
        assert copied(own_cache) == set()
        (problem,) = store.verify()
        assert words.partition(";")[0].replace("\\", "") in problem
        # Verify reads what is remote also where copies are there.
        self.flip(memory, "x.npy", -1)
        assert store.verify() == []
        self.flip(memory, "x.npy", -1)
        assert len(store.verify()) == 1
        self.flip(memory, "x.npy", -1)
        copy = store.path / "x.npy"
        copy.write_bytes(copy.read_bytes()[:-1] + b"?")
        (problem,) = store.verify()
        assert str(copy) in problem

    def test_what_is_not_there(self, url, memory):
        memory.pipe_file("/a/x.npy", memory.cat_file("/a/x.npy")[:-1])
        with pytest.raises(StoreError, match=r"memory://a/x\.npy: is truncated"):
            open_store(url)
        memory.rm("/a/x.npy")
        with pytest.raises(StoreError, match=r"memory://a/x\.npy: is missing"):
            open_store(url)
        self.flip(memory, "manifest.json", 5)
        with pytest.raises(StoreError, match=r"memory://a/manifest\.json: "):
            open_store(url)
        with pytest.raises(StoreError, match=r"memory://b: is not an activation store"):
            open_store("memory://b")

    def test_what_cannot_be_opened(self, monkeypatch):
        with pytest.raises(StoreError, match=r"nonsense://b: cannot be opened \(Protocol not known"):
            open_store("nonsense://b")
        monkeypatch.setitem(sys.modules, "fsspec.core", None)
        with pytest.raises(ImportError, match="needs fsspec: pip install"):
            open_store("memory://a")

    def test_nothing_is_written_there(self, url):
        with pytest.raises(ValueError, match="local folder"):
            create_store(url, LAYERS)
        with pytest.raises(ValueError, match="local folder"):
            audit(url, "s3://bucket/report", progress=False)

    def test_a_cache_that_cannot_be_made(self, url, tmp_path, monkeypatch):
        (tmp_path / "file").write_text("x")
        monkeypatch.setenv("QIXAI_FAST_CACHE", str(tmp_path / "file"))
        with pytest.raises(OSError, match="copies of memory://a cannot be kept: Not a directory; set QIXAI"):
            open_store(url)

    def test_a_cache_without_room(self, url, tmp_path):
        disk = tmp_path / "cache"
        disk.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(disk)]
        if os.name != "posix" or subprocess.run(command, check=False, capture_output=True).returncode:
            pytest.skip("this user may not mount a file system")
        try:
            store = open_store(url)
            (store.path / "ballast").write_bytes(bytes(8192))
            with pytest.raises(OSError, match=r"a copy of memory://a/x\.npy.*No space left.*FAST_CACHE"):
                store["../x"]
            assert not list(store.path.glob("x.npy*"))
        finally:
            subprocess.run(["umount", "-l", str(disk)], check=False)


class TestAudited:
    @pytest.fixture(autouse=True)
    def simple(self, monkeypatch):
        audit_data.simplify(monkeypatch.setattr)

    def test_the_same_bits(self, tmp_path, memory, monkeypatch):
        monkeypatch.setattr("qixai_fast.auditing.context.COPIED_BYTES", 0)  # columns are copied, too
        make_store(tmp_path / "store")
        url = upload(memory, tmp_path / "store", "a")
        for store, out in ((tmp_path / "store", "local"), (url, "remote")):
            audit(store, tmp_path / out, plan=plan(**QUICK), progress=False)
        assert contents(tmp_path / "remote") == contents(tmp_path / "local")

    def test_on_workers_that_open_it_themselves(self, tmp_path, monkeypatch):
        pytest.importorskip("distributed")
        from dask_cluster import dask_cluster

        make_store(tmp_path / "store")
        audit(tmp_path / "store", tmp_path / "local", plan=plan(**QUICK), progress=False)
        url = zipped(tmp_path / "store", tmp_path / "store.zip")
        # Workers have a cache of their own, as on other machines.
        monkeypatch.setenv("QIXAI_FAST_CACHE", str(tmp_path / "workers"))
        with dask_cluster(tmp_path / "cluster", 2) as cluster, cluster.client(2) as client:
            monkeypatch.setenv("QIXAI_FAST_CACHE", str(tmp_path / "cache"))
            monkeypatch.setattr("qixai_fast.auditing.context.COPIED_BYTES", 0)
            audit(url, tmp_path / "remote", plan=plan(**QUICK), client=client, progress=False)
            assert contents(tmp_path / "remote") == contents(tmp_path / "local")
            there = {path.name for path in (tmp_path / "workers").rglob("*.npy")}
            assert there >= {f"{name}.npy" for name in activations()[0]}
            (tmp_path / "store.zip").rename(tmp_path / "gone.zip")
            with pytest.raises(StoreError, match=r"zip://store::.*: the worker at tcp://.* cannot read it"):
                audit(open_remote_again(url, tmp_path), plan=plan(**QUICK), client=client, progress=False)

    def test_the_commands(self, tmp_path, own_cache):
        make_store(tmp_path / "store")
        url = zipped(tmp_path / "store", tmp_path / "store.zip")
        command = [sys.executable, "-m", "qixai_fast"]
        run = [*command, "audit", url, "--out", str(tmp_path / "out"), "--n-permutations", "29", "--quiet"]
        ended = subprocess.run([*run, "--layers", "noise"], capture_output=True, text=True, timeout=120)
        assert ended.returncode == 0, ended.stderr
        ended = subprocess.run([*command, "verify", url], capture_output=True, text=True, timeout=120)
        assert f"{url}: 240 samples of 3 layers, all checksums right" in ended.stdout
        ended = subprocess.run(
            [*command, "verify", "s3://none/here"], capture_output=True, text=True, timeout=120
        )
        assert ended.returncode == 1
        assert ended.stderr.startswith("error: s3://none/here: ")


def open_remote_again(url: str, folder: Path) -> ActivationStore:
    """A store opened before its file went away."""
    (folder / "gone.zip").rename(folder / "store.zip")
    store = open_store(url)
    (folder / "store.zip").rename(folder / "gone.zip")
    return store
