"""Damaged, foreign and unfinished stores: one clear error, naming file, chunk and mend."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import xxhash
from store_samples import FILES, assert_holds, fill, samples, writer

from qixai_fast import StoreError
from qixai_fast.store import LayerSpec, create_store, cut_back, open_store
from qixai_fast.store.format import canonical_json


@pytest.fixture
def tmp_path(tmp_path):
    """A folder where syncing costs nothing, if there is one."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.fixture
def path(tmp_path):
    """A closed store of 35 samples in four chunks of 10, 10, 10 and 5."""
    fill(tmp_path / "s", 35)
    return tmp_path / "s"


def refused(path, *words):
    """Opening and resuming both refuse, with one line that has all the words."""
    for attempt in (lambda: open_store(path), lambda: writer(path, resume=True)):
        with pytest.raises(StoreError) as caught:
            attempt()
        message = str(caught.value)
        assert "\n" not in message
        for word in words:
            assert word in message, message
    return message


def edit(path, offset, change=lambda byte: byte ^ 1):
    raw = bytearray(path.read_bytes())
    raw[offset] = change(raw[offset])
    path.write_bytes(raw)


def signed(text):
    """A journal line with a right checksum."""
    return xxhash.xxh3_64_hexdigest(text).encode() + b" " + text + b"\n"


@pytest.mark.parametrize("file", FILES)
def test_truncated_file(path, file):
    whole = (path / file).read_bytes()
    start = len(whole) - len(whole) // 8
    os.truncate(path / file, start)
    message = refused(path, str(path / file), "is truncated in chunk ", "restore it from a copy")
    keep = int(re.search(r"cut_back\(.*, (\d+)\)", message)[1])
    assert keep % 10 == 0
    # The mend, followed to the letter.
    assert cut_back(path, keep) == keep
    assert_holds(open_store(path), keep)
    assert_holds(fill(path, 35, resume=True), 35)
    assert (path / file).read_bytes() == whole


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("n_bytes", [0, 5, 60])
def test_truncated_header(path, file, n_bytes):
    os.truncate(path / file, n_bytes)
    refused(path, str(path / file), ".npy", "restore it from a copy, or capture again")


@pytest.mark.parametrize("file", FILES)
def test_one_flipped_byte(path, file):
    """Every byte of the data is watched: the first, one within each chunk, the last."""
    whole = (path / file).read_bytes()
    data = int.from_bytes(whole[8:10], "little") + 10
    store = open_store(path)
    found = set()
    for offset in {data, *range(data, len(whole), max(1, (len(whole) - data) // 7)), len(whole) - 1}:
        edit(path / file, offset)
        (problem,) = store.verify()
        assert str(path / file) in problem
        assert "differs from its checksum" in problem
        assert "restore it from a copy, or keep the first" in problem
        found.add(int(re.search(r"chunk (\d) \(samples", problem)[1]))
        (path / file).write_bytes(whole)
    assert found == {0, 1, 2, 3}
    assert store.verify() == []


def test_a_flipped_byte_is_cut_back_and_captured_again(path):
    whole = (path / "x.npy").read_bytes()
    edit(path / "x.npy", len(whole) - 5 * 36 - 1)
    (problem,) = open_store(path).verify()
    assert "x.npy: chunk 2 (samples 20 to 29)" in problem
    assert "cut_back" in problem
    assert cut_back(path, 20) == 20
    assert_holds(fill(path, 35, resume=True), 35)
    assert (path / "x.npy").read_bytes() == whole


@pytest.mark.parametrize("file", [file for file in FILES if file != "sample_ids.npy"])
def test_a_flipped_byte_in_the_partial_chunk_is_not_sealed_in(path, file):
    edit(path / file, (path / file).stat().st_size - 1)
    with pytest.raises(StoreError, match=r"chunk 3 \(samples 30 to 34\) differs from its checksum") as caught:
        writer(path, resume=True)
    assert str(caught.value).startswith(str(path / file))
    assert cut_back(path, 30) == 30
    assert_holds(fill(path, 35, resume=True), 35)


@pytest.mark.parametrize("file", [*FILES, "journal.jsonl"])
def test_missing_file(path, file):
    (path / file).unlink()
    refused(path, f"{path / file}: is missing", "restore it from a copy")


def test_every_flipped_byte_of_a_header_is_refused_or_harmless(path, monkeypatch):
    """No damaged header crashes or gives other values."""
    monkeypatch.setattr("qixai_fast.store.npy.time.sleep", lambda seconds: None)
    whole = (path / "x.npy").read_bytes()
    messages = set()
    for offset in range(128):
        for bit in (1, 64):
            edit(path / "x.npy", offset, lambda byte, bit=bit: byte ^ bit)
            try:
                np.testing.assert_array_equal(open_store(path)["../x"], samples(0, 35)["arrays"]["../x"])
            except StoreError as error:
                messages.add(str(error).partition(":")[0])
            (path / "x.npy").write_bytes(whole)
    assert messages == {str(path / "x.npy")}


def test_verify_names_a_header_that_counts_too_few(path):
    raw = (path / "x.npy").read_bytes()
    (path / "x.npy").write_bytes(raw.replace(b"(35, 2, 3, 3)", b"(15, 2, 3, 3)"))
    (problem,) = open_store(path).verify()
    assert "x.npy: its .npy header counts 15 rows, the journal 35" in problem
    writer(path, resume=True).close()
    assert (path / "x.npy").read_bytes() == raw


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("unpickled",)


def test_a_pickle_posing_as_npy(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (path / "x.npy").write_bytes(pickle.dumps(Bomb()))
    refused(path, str(path / "x.npy"), "is a Python pickle", "nothing was unpickled")
    buffer = io.BytesIO()
    np.save(buffer, np.array([Bomb()], dtype=object), allow_pickle=True)
    (path / "x.npy").write_bytes(buffer.getvalue())
    refused(path, str(path / "x.npy"), "nothing was unpickled")
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((35, 2, 3, 3), np.float32), ["float32", "manifest says float16"]),
        (np.zeros((35, 18), np.float16), ["(35, 18)"]),
        (np.zeros((35, 2, 3, 3), np.float16, order="F"), ["Fortran order"]),
        (np.float16(0), ["shape ()"]),
        (np.zeros((35, 2, 3, 3), ">f2"), ["manifest says float16"]),
        (np.zeros(35, [("a", "f4")]), ["x.npy"]),
    ],
)
def test_another_array_under_the_name(path, array, words):
    np.save(path / "x.npy", array)
    refused(path, str(path / "x.npy"), *words)


def test_links_and_odd_files_are_not_opened(path, tmp_path):
    elsewhere = tmp_path / "elsewhere.npy"
    shutil.move(path / "x.npy", elsewhere)
    (path / "x.npy").symlink_to(elsewhere)
    refused(path, str(path / "x.npy"), "symbolic link")
    (path / "x.npy").unlink()
    os.mkfifo(path / "x.npy")
    refused(path, str(path / "x.npy"), "not a regular file")
    (path / "x.npy").unlink()
    (path / "x.npy").mkdir()
    refused(path, str(path / "x.npy"), "not a regular file")


def rewrite(path, change, *, sign=True):
    """Change the manifest, and sign it as the store would."""
    content = json.loads((path / "manifest.json").read_text())
    del content["checksum"]
    change(content)
    if sign:
        content["checksum"] = xxhash.xxh3_64_hexdigest(canonical_json(content))
    (path / "manifest.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    "file",
    ["../x.npy", "/etc/passwd", "a/b.npy", "..", "", "x.npy\n", "X.npy", ".x.npy", "a\\b.npy", "x.pkl"],
)
def test_a_manifest_whose_file_escapes(path, tmp_path, file):
    (tmp_path / "x.npy").write_bytes((path / "x.npy").read_bytes())
    rewrite(path, lambda content: content["layers"][1].update(file=file))
    refused(path, f"{path / 'manifest.json'}", repr(file), "not a plain name within the store")


def test_a_newer_version(path):
    rewrite(path, lambda content: content.update(version=2, layers="of another kind"))
    refused(path, "manifest.json", "store version 2, this qixai-fast reads up to 1", "upgrade qixai-fast")


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(version="1"),
        lambda content: content.update(version=0),
        lambda content: content.update(layers=[]),
        lambda content: content.update(layers=3),
        lambda content: content["layers"].append(content["layers"][0]),
        lambda content: content["layers"][0].update(file="x.npy"),
        lambda content: content["layers"][0].update(file="labels.npy"),
        lambda content: content["layers"][0].update(shape=[-4]),
        lambda content: content["layers"][0].update(shape=[10**30]),
        lambda content: content["layers"][0].update(shape="4"),
        lambda content: content["layers"][0].update(dtype="object"),
        lambda content: content["layers"][0].update(name=["a"]),
        lambda content: content["layers"][0].pop("reduction"),
        lambda content: content["layers"][0].update(source_dtype="float64"),
        lambda content: content.update(chunk_rows=0),
        lambda content: content.update(chunk_rows=11),
        lambda content: content.update(n_samples=-1),
        lambda content: content.update(n_samples=36),
        lambda content: content.update(labels=None),
        lambda content: content.update(labels=False),
        lambda content: content.update(sample_ids="float"),
        lambda content: content.update(metadata=[]),
        lambda content: content.pop("fingerprint"),
    ],
)
def test_damaged_manifests(path, change):
    rewrite(path, change)
    refused(path, str(path), "restore it from a copy")


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"{}", b"[" * 100_000, b'{"format": "x"}']
)
def test_files_that_are_no_manifest(path, raw):
    (path / "manifest.json").write_bytes(raw)
    refused(path, str(path / "manifest.json"))


def test_verify_names_an_edited_manifest(path):
    rewrite(path, lambda content: content.update(metadata={"class_names": ["x"]}), sign=False)
    (problem,) = open_store(path).verify()
    assert "manifest.json: was changed after it was written" in problem


def test_directories_that_are_no_store(path, tmp_path):
    with pytest.raises(StoreError, match="no such directory"):
        open_store(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="is a file; a store is a directory"):
        open_store(path / "x.npy")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match=r"is not an activation store \(it has no manifest.json\)"):
        open_store(tmp_path / "foreign")
    for resume in (True, False):
        with pytest.raises(StoreError, match="choose a new directory"):
            writer(tmp_path / "foreign", resume=resume)
    assert os.listdir(tmp_path / "foreign") == ["thesis.tex"]
    with pytest.raises(StoreError, match="is a file, not a directory"):
        writer(path / "x.npy")
    (path / "manifest.json").unlink()
    for _ in range(2):
        with pytest.raises(StoreError, match="it is not an activation store"):
            writer(path, resume=True)
        (path / "journal.jsonl").unlink(missing_ok=True)
    assert (path / "x.npy").stat().st_size > 1000


def test_a_store_is_not_overwritten(path):
    with pytest.raises(StoreError, match="already holds a store of 35 samples; resume it"):
        writer(path)
    assert_holds(open_store(path), 35)


def test_a_torn_last_line_is_what_a_killed_writer_leaves(tmp_path):
    """Without the close, the manifest counts nothing: the last line may be cut anywhere."""
    path = tmp_path / "s"
    opened = writer(path)
    opened.append(**samples(0, 20))
    opened._lock.release()
    raw = (path / "journal.jsonl").read_bytes()
    last = raw.rindex(b"\n", 0, -1) + 1
    for end in (*range(last, len(raw), 9), len(raw) - 1):
        (path / "journal.jsonl").write_bytes(raw[:end])
        assert_holds(open_store(path), 10)
    for tail in (b"\0" * 4096, raw[last : last + 30] + b"\0" * 50 + b"\n", b"\n\n\xff\n"):
        (path / "journal.jsonl").write_bytes(raw[:last] + tail)
        assert_holds(open_store(path), 10)
        with writer(path, resume=True) as opened:
            assert opened.n_samples == 10
            opened.append(**samples(10, 20))
            opened._lock.release()
        assert (path / "journal.jsonl").read_bytes() == raw


def test_lost_lines_of_a_closed_store(path):
    """A closed store knows how many samples it had."""
    raw = (path / "journal.jsonl").read_bytes()
    (path / "journal.jsonl").write_bytes(raw[: raw.rindex(b"\n", 0, -1) + 1])
    message = refused(path, "journal.jsonl", "counts 35 samples, the journal only 30", "chunk 3")
    assert f"cut_back({str(path)!r}, 30)" in message
    assert cut_back(path, 30) == 30
    assert_holds(fill(path, 35, resume=True), 35)


@pytest.mark.parametrize("line", [1, 2, 3])
def test_a_corrupted_line_in_the_middle(path, line):
    lines = (path / "journal.jsonl").read_bytes().splitlines(keepends=True)
    lines[line] = lines[line].replace(b'"stop"', b'"stoq"')
    (path / "journal.jsonl").write_bytes(b"".join(lines))
    keep = 10 * (line - 1)
    refused(path, "journal.jsonl", f"line {line + 1} (chunk {line - 1}, samples from {keep} on) is damaged")
    assert cut_back(path, keep) == keep
    assert_holds(open_store(path), keep)
    assert_holds(fill(path, 35, resume=True), 35)


@pytest.mark.parametrize(
    "text",
    [
        b'{"chunk":9,"stop":40,"text":0,"xxh3":[]}',
        b'{"chunk":1,"stop":20,"text":0,"xxh3":["a","b","c","d","e"]}',
        b'{"chunk":3,"stop":41,"text":99999,"xxh3":["a","b","c","d","e"]}',
        b'{"chunk":3,"stop":34,"text":99999,"xxh3":["a","b","c","d","e"]}',
        b'{"chunk":"x","stop":34,"text":99999,"xxh3":["a","b","c","d","e"]}',
        b"{}",
        b"[]",
        b"3",
        b"x",
    ],
)
def test_lines_that_do_not_follow(path, text):
    with open(path / "journal.jsonl", "ab") as file:
        file.write(signed(text))
    refused(path, "journal.jsonl", "line 6 (chunk 4, samples from 35 on) is damaged", "cut_back")


@pytest.mark.parametrize("raw", [b"", b"{}\n", b"\x80\x04.", signed(b"{}"), signed(b"[]")])
def test_files_that_are_no_journal(path, raw):
    (path / "journal.jsonl").write_bytes(raw)
    refused(path, str(path / "journal.jsonl"), "restore it from a copy")


def test_the_journal_of_another_store(path, tmp_path):
    with create_store(tmp_path / "t", {"a": LayerSpec((4,))}) as opened:
        opened.append({"a": np.zeros((35, 4))})
    shutil.copy(tmp_path / "t" / "journal.jsonl", path)
    refused(path, "journal.jsonl", "does not belong to the manifest")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fingerprint": {"model": "m2"}}, "fingerprint.model is 'm1' in the store, 'm2' in this capture"),
        ({"fingerprint": {"model": "m1", "n": {"a": 1}}}, "fingerprint.n is None in the store"),
        ({"fingerprint": {}}, "fingerprint.model is 'm1' in the store, None in this capture"),
        ({"labels": False}, "labels: True in the store, False"),
        ({"sample_ids": "int64"}, "sample_ids: 'str' in the store, 'int64'"),
    ],
)
def test_resuming_another_capture(path, change, message):
    with pytest.raises(StoreError, match="was captured differently") as caught:
        writer(path, resume=True, **change)
    assert message in str(caught.value)
    assert_holds(open_store(path), 35)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (LayerSpec((5,), "float32", "bfloat16", "gap"), "shape is (4,) in the store, (5,)"),
        (LayerSpec((4,), "float16", "bfloat16", "gap"), "dtype is 'float32' in the store, 'float16'"),
        (LayerSpec((4,), "float32", "float32", "gap"), "source_dtype is 'bfloat16' in the store, 'float32'"),
        (LayerSpec((4,), "float32", "bfloat16", "max"), "reduction is 'gap' in the store, 'max'"),
    ],
)
def test_resuming_other_layers(tmp_path, spec, message):
    options = {"fingerprint": {"model": "m1"}}
    create_store(tmp_path / "s", {"a": LayerSpec((4,), "float32", "bfloat16", "gap")}, **options).close()
    with pytest.raises(StoreError, match="layer 'a'") as caught:
        create_store(tmp_path / "s", {"a": spec}, resume=True, **options)
    assert message in str(caught.value)
    with pytest.raises(StoreError, match=r"layers: the store has \['a'\], this capture \['b'\]"):
        create_store(tmp_path / "s", {"b": spec}, resume=True, **options)


def test_resuming_other_samples(path):
    with writer(path, resume=True) as opened:
        given = samples(28, 42)
        opened.check_samples(28, labels=given["labels"], sample_ids=given["sample_ids"])
        opened.check_samples(28, labels=np.asarray(given["labels"], np.uint8))
        given["sample_ids"][5] = "other"
        with pytest.raises(StoreError, match="sample 33 has sample id 'bild é33' in the store and 'other'"):
            opened.check_samples(28, labels=given["labels"], sample_ids=given["sample_ids"])
        with pytest.raises(StoreError, match="sample 28 has label 1 in the store and 0 in this"):
            opened.check_samples(28, labels=np.zeros(14, int))
        opened.check_samples(35, labels=np.zeros(14, int), sample_ids=["other"] * 14)
        opened.check_samples(0, labels=samples(0, 3)["labels"], sample_ids=samples(0, 3)["sample_ids"])
        with pytest.raises(StoreError, match="sample 0 has sample id 'bild 0' in the store and 'x'"):
            opened.check_samples(0, sample_ids=["x"])


def test_a_store_that_became_shorter_while_open(path):
    store = open_store(path)
    os.truncate(path / "labels.npy", 200)
    os.truncate(path / "x.npy", 200)
    with pytest.raises(StoreError, match=r"labels\.npy: became shorter"):
        _ = store.labels
    with pytest.raises(StoreError, match=r"x\.npy: became shorter"):
        store["../x"]
    assert any("x.npy: chunk 1 (samples 10 to 19) is truncated" in problem for problem in store.verify())


def test_damaged_text_of_sample_ids(path):
    store = open_store(path)
    whole = (path / "sample_ids.npy").read_bytes()
    edit(path / "sample_ids.npy", len(whole) - 3)
    with pytest.raises(StoreError, match="text of the sample ids is damaged"):
        _ = store.sample_ids
    (path / "sample_ids.npy").write_bytes(whole)
    edit(path / "sample_ids_text.npy", (path / "sample_ids_text.npy").stat().st_size - 1, lambda byte: 0xFF)
    with pytest.raises(StoreError, match="text of the sample ids is damaged"):
        _ = store.sample_ids


def test_cut_back_keeps_whole_chunks(path):
    assert cut_back(path, 99) == 35
    assert cut_back(path, 34) == 30
    assert_holds(open_store(path), 30)
    with writer(path, resume=True), pytest.raises(StoreError, match="another writer"):
        cut_back(path, 10)
    assert cut_back(path, 0) == 0
    assert_holds(open_store(path), 0)
    with pytest.raises(ValueError, match="n_samples"):
        cut_back(path, -1)
    assert_holds(fill(path, 35, resume=True), 35)
