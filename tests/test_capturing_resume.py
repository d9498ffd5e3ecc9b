"""A capture that was killed, interrupted or failed goes on where it stopped, and ends with the same bytes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from test_capturing import cnn, images, run
from torch import nn

import qixai_fast as qf
from qixai_fast import capturing

CHUNK = 5000  # bytes: some seven samples of conv1

CHILD = """
import sys
from functools import partial
sys.path.insert(0, sys.argv[1])
from qixai_fast import capturing
from test_capturing_resume import CHUNK, arguments
capturing.create_store = partial(capturing.create_store, chunk_bytes=CHUNK)

def told(batches):
    for number, batch in enumerate(batches):
        print(number, flush=True)
        if number == int(sys.argv[3]):
            sys.stdin.readline()
        yield batch

call = arguments()
call["batches"] = told(call["batches"])
capturing.capture(path=sys.argv[2], **call)
"""
N_BATCHES = 30


def arguments():
    x, n = images(150), 150
    return {
        "model": cnn(),
        "batches": list(
            zip(x.split(5), (torch.arange(n) % 3).split(5), torch.arange(n).split(5), strict=True)
        ),
        "layers": ["conv1", "head"],
        "labels": 1,
        "sample_ids": 2,
        "reduce": {"conv1": "none", "head": "gap"},
        "progress": False,
    }


def content(path):
    """Bytes of every data file of a store."""
    return {file.name: file.read_bytes() for file in path.glob("*.npy")}


def counted(model):
    """The model, and a list that grows by the size of every batch it runs."""
    sizes = []
    model.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    return model, sizes


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(capturing, "create_store", partial(capturing.create_store, chunk_bytes=CHUNK))


@pytest.fixture
def uninterrupted(tmp_path, small_chunks):
    return qf.capture(path=tmp_path / "whole", **arguments())


def child(path, pause_at):
    """A capture in another process; it waits before batch ``pause_at``."""
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(path), str(pause_at)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(process, batch):
    for line in process.stdout:
        if int(line) == batch:
            return
    pytest.fail(f"the child ended early: {process.stderr.read()}")


@pytest.mark.parametrize("pause_at", [0, 2, 17])
def test_kill_9_then_resume_equals_an_uninterrupted_capture(tmp_path, uninterrupted, pause_at):
    process = child(tmp_path / "s", pause_at)
    wait_for(process, pause_at)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    process.communicate()
    call = arguments()
    call["model"], sizes = counted(call["model"])
    kept = qf.open_store(tmp_path / "s").n_samples if pause_at else 0
    assert kept <= pause_at * 5
    store = qf.capture(path=tmp_path / "s", **call)
    assert sum(sizes) == 150 - kept // 5 * 5, "complete batches are not run again"
    assert content(store.path) == content(uninterrupted.path)
    assert store.checksum == uninterrupted.checksum
    assert store.verify() == []


def test_kill_9_at_any_moment(tmp_path, uninterrupted):
    """Killed in the midst of running and writing, several times over, with no regard to batches."""
    for pause in (3, 9, 15, 24):
        process = child(tmp_path / "s", N_BATCHES)
        for line in process.stdout:
            if int(line) >= pause:
                break
        process.kill()
        process.communicate()
    store = qf.capture(path=tmp_path / "s", **arguments())
    assert content(store.path) == content(uninterrupted.path)
    assert store.verify() == []


def test_ctrl_c_keeps_all_whole_batches(tmp_path, uninterrupted):
    process = child(tmp_path / "s", 11)
    wait_for(process, 11)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode != 0
    assert "KeyboardInterrupt" in errors
    assert qf.open_store(tmp_path / "s").n_samples == 55
    assert qf.open_store(tmp_path / "s").verify() == []
    call = arguments()
    call["model"], sizes = counted(call["model"])
    store = qf.capture(path=tmp_path / "s", **call)
    assert sum(sizes) == 95
    assert store.checksum == uninterrupted.checksum
    assert all(np.array_equal(store[name], uninterrupted[name]) for name in store)
    assert np.array_equal(store.sample_ids, np.arange(150))


def test_a_batch_that_is_partly_there_is_run_whole_and_completed(tmp_path):
    x = images(20)
    run(cnn(), x[:13].split(6), "conv1", tmp_path / "s")
    model, sizes = counted(cnn())
    store = run(model, x.split(6), "conv1", tmp_path / "s")
    assert sizes == [6, 2]
    np.testing.assert_allclose(store["conv1"], run(cnn(), [x], "conv1", tmp_path / "t")["conv1"], rtol=1e-6)


def test_a_complete_store_is_returned_without_running_the_model(tmp_path):
    first = run(cnn(), images().split(6), "conv1", tmp_path / "s")
    before = content(first.path)
    model, sizes = counted(cnn())
    assert run(model, images().split(6), "conv1", tmp_path / "s").n_samples == 20
    assert sizes == []
    assert content(first.path) == before


def test_own_forward_resumes_by_running_what_is_there_too(tmp_path):
    def forward(model, batch):
        return model(batch)

    run(cnn(), images(12).split(6), "conv1", tmp_path / "s", forward=forward)
    model, sizes = counted(cnn())
    assert run(model, images(20).split(6), "conv1", tmp_path / "s", forward=forward).n_samples == 20
    assert sizes == [6, 6, 6, 2]


def other_state():
    model = cnn()
    with torch.no_grad():
        model.norm.running_var[2] += 1e-6
    return model


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": other_state}, "fingerprint.model"),
        ({"model": lambda: cnn().double(), "batches": lambda: [images().double()]}, "fingerprint.model"),
        ({"layers": lambda: ["norm"]}, "fingerprint.layers"),
        ({"reduce": lambda: "max"}, "fingerprint.reduce.conv1 is 'gap' in the store, 'max'"),
        ({"dtype": lambda: "float64"}, "fingerprint.dtype is 'float32' in the store, 'float64'"),
        ({"batches": lambda: [images().flip(0)]}, "fingerprint.first_sample"),
        ({"labels": lambda: lambda b: torch.zeros(len(b), dtype=int)}, "labels: False in the store, True"),
        ({"sample_ids": lambda: lambda b: range(len(b))}, "sample_ids: None in the store, 'int64'"),
        ({"resume": lambda: False}, "already holds a store of 20 samples; resume it with resume=True"),
        ({"batches": lambda: [images()[:15]]}, "has 20 samples, the batches only the first 15"),
    ],
)
def test_another_capture_does_not_go_on_with_a_store(tmp_path, changes, words):
    run(cnn(), [images()], "conv1", tmp_path / "s")
    before = content(tmp_path / "s")
    call = {"model": cnn, "batches": lambda: [images()], "layers": lambda: "conv1", **changes}
    call = {name: make() for name, make in call.items()}
    with pytest.raises(qf.StoreError, match=re.escape(words)):
        run(call.pop("model"), call.pop("batches"), call.pop("layers"), tmp_path / "s", **call)
    assert content(tmp_path / "s") == before


@pytest.mark.parametrize(("name", "word"), [("labels", "label"), ("sample_ids", "sample id")])
def test_labels_and_ids_must_repeat(tmp_path, name, word):
    """The first sample is the same: only the order of the later ones tells a shuffled loader."""
    values = torch.arange(20)
    run(cnn(), [(images(), values)], "conv1", tmp_path / "s", **{name: 1})
    values[[7, 8]] = values[[8, 7]]
    with pytest.raises(qf.StoreError, match=f"sample 7 has {word} 7 in the store and 8 in this capture"):
        run(cnn(), [(images(), values)], "conv1", tmp_path / "s", **{name: 1})


def test_a_folder_that_is_no_store_is_left_alone(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "notes.txt").write_text("mine")
    with pytest.raises(qf.StoreError, match="not an activation store"):
        run(cnn(), [images()], "conv1", tmp_path / "s")
    assert os.listdir(tmp_path / "s") == ["notes.txt"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk(tmp_path, monkeypatch, small_chunks):
    """The second chunk does not fit; the first stays, the model is as it was; later there is room again."""
    import qixai_fast.store.writer as writer

    write, calls = writer.write_all, []

    def full(file, offset, data):
        calls.append(offset)
        if len(calls) > 12:
            with open("/dev/full", "wb", buffering=0) as device:
                device.write(b"x")
        write(file, offset, data)

    monkeypatch.setattr(writer, "write_all", full)
    call = arguments()
    call["model"].train()
    with pytest.raises(qf.StoreError, match=r"No space left.*the first \d+ samples are complete"):
        qf.capture(path=tmp_path / "s", **call)
    assert all(module.training and not module._forward_hooks for module in call["model"].modules())
    monkeypatch.undo()
    kept = qf.open_store(tmp_path / "s").n_samples
    assert 0 < kept < 150
    assert qf.capture(path=tmp_path / "s", **arguments()).n_samples == 150
    assert qf.open_store(tmp_path / "s").verify() == []


def test_state_digest_sees_names_shapes_dtypes_and_values():
    def digest(model):
        return capturing.state_digest(model)

    assert digest(cnn()) == digest(cnn().eval())
    linear = nn.Linear(2, 2)
    models = [
        nn.ModuleDict({"a": linear}),
        nn.ModuleDict({"b": linear}),
        cnn(),
        other_state(),
        cnn().to(torch.bfloat16),
        nn.Sequential(nn.Linear(2, 3, bias=False)),
        nn.Sequential(nn.Linear(3, 2, bias=False)),
        nn.Sequential(),
    ]
    assert len({digest(model) for model in models}) == len(models)
