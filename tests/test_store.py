"""Writing and reading activation stores: what goes in comes out, in any batches."""

from __future__ import annotations

import json
import os
import pickle
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_samples import CHUNK, FILES, LAYERS, assert_holds, content, fill, samples, writer

import qixai_fast as qf
from qixai_fast._memory import release_pages
from qixai_fast.store import LayerSpec, columns, create_store, open_store
from qixai_fast.store.format import DTYPES, safe_file_names
from qixai_fast.store.npy import bytes_of, npy_header


@pytest.mark.parametrize("n_samples", [0, 1, 9, 10, 11, 35])
def test_round_trip(tmp_path, n_samples):
    store = fill(tmp_path / "s", n_samples, metadata={"class_names": ["a", "b", "c"]})
    assert_holds(store, n_samples)
    assert list(store) == list(LAYERS)
    assert len(store) == 2
    assert "../x" in store
    assert store.metadata == {"class_names": ["a", "b", "c"]}
    assert store.fingerprint == {"model": "m1"}
    info = store.info["encoder.layers.0"]
    assert (info.shape, info.dtype, info.source_dtype) == ((n_samples, 4), "float32", "bfloat16")
    assert (info.reduction, info.file) == ("gap", "encoder.layers.0.npy")
    assert sorted(os.listdir(tmp_path)) == ["s"]


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 37), max_size=8), sessions=st.lists(st.integers(0, 37), max_size=3))
def test_batches_and_interruptions_leave_the_same_store(tmp_path_factory, cuts, sessions):
    """Data, chunk checksums and the digest depend on the samples only."""
    whole = fill(tmp_path_factory.mktemp("whole") / "s", 37)
    path = tmp_path_factory.mktemp("cut") / "s"
    for stop in [*sorted(sessions), 37]:
        with writer(path, resume=True) as opened:
            ends = sorted({opened.n_samples, *(cut for cut in cuts if opened.n_samples < cut < stop), stop})
            for start, end in pairwise(ends):
                opened.append(**samples(start, end))
    store = open_store(path)
    assert_holds(store, 37)
    assert content(path) == content(whole.path)
    assert store.checksum == whole.checksum


def test_the_digest_tells_stores_apart(tmp_path):
    """Other values, another reduction, another number of samples: another digest. Metadata: the same."""

    def digest(name, spec, values, **options):
        with create_store(tmp_path / name, {"a": spec}, **options) as opened:
            opened.append({"a": np.array(values)[:, None]})
        return open_store(tmp_path / name).checksum

    spec = LayerSpec((1,), reduction="gap")
    first = digest("first", spec, [1.0, 2.0])
    assert len(first) == 32
    assert digest("same", spec, [1.0, 2.0], metadata={"model": "other"}) == first
    others = {
        digest("value", spec, [1.0, 2.0000002]),
        digest("fewer", spec, [1.0]),
        digest("reduction", LayerSpec((1,), reduction="max"), [1.0, 2.0]),
        digest("source", LayerSpec((1,), source_dtype="bfloat16", reduction="gap"), [1.0, 2.0]),
    }
    assert len(others | {first}) == 5


def test_chunks_do_not_follow_the_batches(tmp_path):
    fill(tmp_path / "s", 35, batch=1)
    lines = (tmp_path / "s" / "journal.jsonl").read_text().splitlines()
    stops = [json.loads(line.split(" ", 1)[1])["stop"] for line in lines[1:]]
    assert stops == [10, 20, 30, 35]


def test_the_manifest_names_everything(tmp_path):
    fill(tmp_path / "s", 12)
    manifest = json.loads((tmp_path / "s" / "manifest.json").read_text())
    assert (manifest["format"], manifest["version"]) == ("qixai-fast activation store", 1)
    assert (manifest["n_samples"], manifest["labels"], manifest["sample_ids"]) == (12, True, "str")
    assert manifest["layers"][0] == {
        "name": "encoder.layers.0",
        "file": "encoder.layers.0.npy",
        "shape": [4],
        "dtype": "float32",
        "source_dtype": "bfloat16",
        "reduction": "gap",
    }


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(tmp_path, dtype):
    values = np.array([[0, 1], [1, 0], [1, 1]], dtype=dtype)
    with create_store(tmp_path / "s", {"a": LayerSpec((2,), dtype)}) as opened:
        opened.append({"a": values})
    store = open_store(tmp_path / "s")
    assert store["a"].dtype == dtype
    np.testing.assert_array_equal(store["a"], values)
    plain = np.load(tmp_path / "s" / "a.npy", mmap_mode="r", allow_pickle=False)
    np.testing.assert_array_equal(plain, values)
    assert store.labels is None
    assert store.sample_ids is None


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**18), st.lists(st.integers(1, 9), min_size=0, max_size=3), st.sampled_from(DTYPES))
def test_headers_grow_in_place(n_rows, row_shape, dtype):
    """numpy itself reads the header, and its length is that of an empty file's."""
    import io

    raw = npy_header(np.dtype(dtype), (n_rows, *row_shape), fortran_order=False)
    assert len(raw) == len(npy_header(np.dtype(dtype), (0, *row_shape), fortran_order=False))
    assert len(raw) % 64 == 0
    file = io.BytesIO(raw)
    assert np.lib.format.read_magic(file) == (1, 0)
    assert np.lib.format.read_array_header_1_0(file) == ((n_rows, *row_shape), False, np.dtype(dtype))


@pytest.mark.parametrize("dtype", [np.float16, np.dtype("float16"), "float16"])
def test_numpy_spellings_of_a_dtype(tmp_path, dtype):
    create_store(tmp_path / "s", {"a": LayerSpec((2,), dtype)}).close()
    assert open_store(tmp_path / "s").info["a"].dtype == "float16"


def test_torch_tensors_and_odd_arrays(tmp_path):
    torch = pytest.importorskip("torch")
    layers = {"a": LayerSpec((3,), "float32", "bfloat16"), "b": LayerSpec((3,), "float16")}
    strided = np.arange(24, dtype=np.float64).reshape(4, 6)[:, ::2]
    strided.flags.writeable = False
    with create_store(tmp_path / "s", layers, sample_ids=True, labels=True) as opened:
        tensor = torch.tensor(strided).to(torch.bfloat16).requires_grad_()
        opened.append({"a": tensor, "b": strided}, labels=torch.arange(4), sample_ids=torch.arange(4) * 10)
        opened.append({"a": strided.astype(np.int32), "b": np.asfortranarray(strided)}, [7] * 4, range(4))
        opened.append({"a": np.empty((0, 3)), "b": np.empty((0, 3))}, labels=[], sample_ids=[])
    store = open_store(tmp_path / "s")
    np.testing.assert_array_equal(store["a"], np.vstack([strided, strided]))
    np.testing.assert_array_equal(store["b"], np.vstack([strided, strided]))
    assert store.sample_ids.tolist() == [0, 10, 20, 30, 0, 1, 2, 3]
    assert store.labels.dtype == store.sample_ids.dtype == np.int64
    assert not store.labels.flags.writeable


def test_special_values_are_stored_as_they_are(tmp_path):
    values = np.array([[np.nan, np.inf, -0.0, 6e-8]], dtype=np.float16)
    with create_store(tmp_path / "s", {"a": LayerSpec((4,), "float16")}) as opened:
        opened.append({"a": values})
        opened.append({"a": values.astype(np.float32)})
    assert open_store(tmp_path / "s")["a"].tobytes() == values.tobytes() * 2


def test_a_sample_larger_than_a_chunk(tmp_path):
    with create_store(tmp_path / "s", {"a": LayerSpec((100,))}, chunk_bytes=8) as opened:
        opened.append({"a": np.ones((3, 100))})
    assert open_store(tmp_path / "s").verify() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arrays": {"encoder.layers.0": np.zeros((2, 4))}}, "missing: ../x; unknown: none"),
        ({"arrays": {**samples(0, 2)["arrays"], "y": np.zeros((2, 1))}}, "unknown: y"),
        (
            {"arrays": {**samples(0, 2)["arrays"], "../x": np.zeros((2, 3, 3))}},
            r"wanted shape \(b, 2, 3, 3\)",
        ),
        ({"arrays": {**samples(0, 2)["arrays"], "../x": np.zeros((3, 2, 3, 3))}}, "wanted 2 samples"),
        ({"arrays": {**samples(0, 2)["arrays"], "../x": np.zeros((2, 2, 3, 3), complex)}}, "complex128"),
        (
            {"arrays": {**samples(0, 2)["arrays"], "../x": np.full((2, 2, 3, 3), 1e6)}},
            "too large for float16",
        ),
        ({"arrays": np.zeros((2, 4))}, "wanted a dict"),
        ({"labels": None}, "labels: the store keeps them"),
        ({"labels": [1]}, r"labels: wanted shape \(2,\)"),
        ({"labels": ["cat", "dog"]}, "labels: wanted integers"),
        ({"labels": [0.5, 1.0]}, "labels: wanted integers"),
        ({"labels": np.array([0, 2**63], np.uint64)}, "does not fit int64"),
        ({"sample_ids": None}, "sample_ids: the store keeps them"),
        ({"sample_ids": ["a"]}, "sample_ids: wanted a sequence of 2 strings"),
        ({"sample_ids": "ab"}, "sample_ids: wanted a sequence of 2 strings"),
        ({"sample_ids": [1, 2]}, "sample_ids: wanted strings, got int at row 0"),
        ({"sample_ids": ["a", "b\0"]}, "row 1 ends with a NUL"),
        ({"sample_ids": ["a", "\ud800"]}, "row 1 is not valid Unicode"),
    ],
)
def test_bad_batches_add_nothing(tmp_path, change, message):
    with writer(tmp_path / "s") as opened:
        opened.append(**samples(0, 5))
        with pytest.raises((ValueError, TypeError), match=message):
            opened.append(**{**samples(5, 7), **change})
        assert opened.n_samples == 5
        opened.append(**samples(5, 7))
    assert_holds(open_store(tmp_path / "s"), 7)


def test_integers_that_would_wrap_around(tmp_path):
    with create_store(tmp_path / "s", {"a": LayerSpec((1,), "int8")}) as opened:
        opened.append({"a": np.array([[-128], [127]])})
        with pytest.raises(ValueError, match=r"arrays\['a'\]: 128 does not fit int8"):
            opened.append({"a": np.array([[0], [128]])})
        with pytest.raises(TypeError, match="float64 cannot be stored as int8"):
            opened.append({"a": np.array([[0.0]])})
        with pytest.raises(ValueError, match="labels: the store was created without"):
            opened.append({"a": np.array([[1]])}, labels=[1])
    with pytest.raises(ValueError, match="closed"):
        opened.append({"a": np.array([[1]])})


@pytest.mark.parametrize(
    ("layers", "options", "message"),
    [
        ({}, {}, "at least one layer"),
        ({"a": (3,)}, {}, "LayerSpec"),
        ({1: LayerSpec((3,))}, {}, "str names"),
        ({"a": LayerSpec(())}, {}, "sizes of at least 1"),
        ({"a": LayerSpec((0,))}, {}, "sizes of at least 1"),
        ({"a": LayerSpec((2.5,))}, {}, "tuple of integers"),
        ({"a": LayerSpec(3)}, {}, "tuple of integers"),
        ({"a": LayerSpec((3,), "bfloat16")}, {}, "source_dtype='bfloat16'"),
        ({"a": LayerSpec((3,), "complex64")}, {}, "dtype wanted as one of"),
        ({"a": LayerSpec((3,), "object")}, {}, "dtype wanted as one of"),
        ({"a": LayerSpec((3,), object())}, {}, "dtype wanted as one of"),
        ({"a": LayerSpec((3,))}, {"sample_ids": "float64"}, "sample_ids"),
        ({"a": LayerSpec((3,))}, {"labels": "yes"}, "labels"),
        ({"a": LayerSpec((3,))}, {"chunk_bytes": 0}, "chunk_bytes"),
        ({"a": LayerSpec((3,))}, {"metadata": {"x": np.float32(1)}}, "metadata: wanted plain JSON"),
        ({"a": LayerSpec((3,))}, {"metadata": {"x": float("nan")}}, "metadata: wanted plain JSON"),
        ({"a": LayerSpec((3,))}, {"fingerprint": [1]}, "fingerprint: wanted a dict"),
    ],
)
def test_bad_specifications_touch_no_disk(tmp_path, layers, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        create_store(tmp_path / "s", layers, **options)
    assert not (tmp_path / "s").exists()


NAMES = [
    "../x",
    "..",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "Ünïcode 層",
    "Conv",
    "conv",
    "conv-2",
    "CON",
    "",
    ".",
    "a\nb",
]
NAMES += ["labels", "sample_ids", "sample_ids_text", "w" * 5000, "w" * 4999, "-rf", "a\0b"]


def test_any_layer_name_stays_inside(tmp_path):
    layers = {name: LayerSpec((1,)) for name in NAMES}
    with create_store(tmp_path / "s", layers, labels=True) as opened:
        opened.append({name: [[float(i)]] for i, name in enumerate(NAMES)}, labels=[3])
    store = open_store(tmp_path / "s")
    assert list(store) == NAMES
    assert [store[name][0, 0] for name in NAMES] == list(range(len(NAMES)))
    files = [store.info[name].file for name in NAMES]
    assert len({file.lower() for file in files} | {"labels.npy"}) == len(NAMES) + 1
    assert {path.name for path in tmp_path.iterdir()} == {"s"}
    assert set(files) < set(os.listdir(tmp_path / "s"))
    assert store.verify() == []


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=12), unique=True, max_size=8))
def test_file_names_are_safe_and_different(names):
    files = list(safe_file_names(names).values())
    assert len(set(files)) == len(names)
    for file in files:
        assert file == os.path.basename(file) == file.lower()
        assert file.isascii()
        assert file.endswith(".npy")
        assert not file.startswith((".", "-"))


def test_an_unknown_layer_lists_the_nearest(tmp_path):
    store = fill(tmp_path / "s", 3)
    with pytest.raises(KeyError, match=r"nearest: encoder\.layers\.0"):
        store["encoder.layer.0"]
    with pytest.raises(KeyError, match="no layer 'zzz'"):
        store.columns("zzz")
    assert store.get("zzz") is None


def test_a_reader_sees_what_was_complete_when_it_opened(tmp_path):
    with writer(tmp_path / "s") as opened:
        opened.append(**samples(0, 25))
        early = open_store(tmp_path / "s")
        assert_holds(early, 2 * CHUNK)
        opened.append(**samples(25, 47))
        assert_holds(early, 2 * CHUNK)
        assert_holds(open_store(tmp_path / "s"), 4 * CHUNK)
    assert_holds(early, 2 * CHUNK)
    assert_holds(open_store(tmp_path / "s"), 47)


def test_readers_during_writing_never_fail(tmp_path):
    """Opened over and over while a writer commits: never an error, never fewer samples than before."""
    writer(tmp_path / "s").close()
    done = threading.Event()
    seen, failures = [], []

    def read():
        while not done.is_set():
            try:
                store = open_store(tmp_path / "s")
                seen.append(store.n_samples)
                np.testing.assert_array_equal(store["../x"], samples(0, store.n_samples)["arrays"]["../x"])
            except Exception as error:
                failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        store = fill(tmp_path / "s", 600, batch=10, resume=True)
    finally:
        done.set()
        reader.join()
    assert failures == []
    assert seen == sorted(seen)
    assert store.n_samples == 600


def test_stores_travel_between_processes_without_their_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = fill("s", 500)
    store["../x"].sum()
    raw = pickle.dumps(store)
    assert len(raw) < 20_000
    monkeypatch.chdir("/")
    assert_holds(pickle.loads(raw), 500)
    assert os.path.samefile(store["../x"].filename, tmp_path / "s" / "x.npy")


def test_pages_are_let_go(tmp_path, monkeypatch):
    """A streamed pass over rows or columns does not grow resident memory to the size of the file."""
    with create_store(tmp_path / "s", {"a": LayerSpec((1024,))}) as opened:
        for _ in range(16):
            opened.append({"a": np.ones((1024, 1024), np.float32)})
    store = open_store(tmp_path / "s")
    resident = []

    def watched(array):
        resident.append(_mapped_bytes())
        return bytes_of(array)

    before = _mapped_bytes()
    monkeypatch.setattr(columns, "_BLOCK_BYTES", 2**20)
    monkeypatch.setattr(columns, "bytes_of", watched)
    by_column = store.columns("a")
    assert store.verify() == []
    assert len(resident) == 64
    for start in range(0, store.n_samples, 256):
        view = store["a"][start : start + 256]
        assert view.sum() == view.size
        release_pages(view)
        resident.append(_mapped_bytes())
    for start in range(0, 1024, 64):
        view = by_column[:, start : start + 64]
        assert view.sum() == view.size
        release_pages(view)
        resident.append(_mapped_bytes())
    assert max(resident) - before < 12 * 2**20


def _mapped_bytes():
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("RssFile"):
            return int(line.split()[1]) * 1024
    pytest.skip("no RssFile on this system")


def test_the_writer_keeps_its_buffers_only(tmp_path):
    import tracemalloc

    layers = {"a": LayerSpec((256,))}
    batch = np.ones((64, 256), np.float32)
    with create_store(tmp_path / "s", layers, chunk_bytes=2**20) as opened:
        tracemalloc.start()
        for _ in range(200):
            opened.append({"a": batch})
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2**19


def test_public_names():
    for name in ("open_store", "create_store", "ActivationStore", "StoreWriter", "LayerSpec", "StoreError"):
        assert getattr(qf, name).__name__ == name
    assert set(FILES) >= {"labels.npy", "sample_ids.npy"}
