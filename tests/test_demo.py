"""The demo: the same network and numbers every time, on real images, in a folder it may share."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import qixai_fast as qf
from qixai_fast.capturing import state_digest
from qixai_fast.demo import (
    LAYERS,
    accuracy_of,
    capture_digits,
    digits_cnn,
    digits_inputs,
    load_digits,
    run_demo,
)


@pytest.fixture(scope="module")
def digits():
    return load_digits(0)


@pytest.fixture(scope="module")
def model():
    return digits_cnn(0)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    return out, run_demo(out, progress=False)


def files_of(folder):
    """Bytes of every file below a folder, but for seconds, locks, and the audit's own notes on its stages."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
        and file.name not in ("timings.json", "writer.lock")
        and file.parent.name != ".stages"
    }


def test_training_gives_the_same_weights_for_a_seed_whatever_the_threads_and_the_state_of_torch(model):
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(threads + 1)
    try:
        torch.manual_seed(99)
        again = digits_cnn(0)
        assert torch.get_num_threads() == threads + 1
        after = torch.rand(3)
        torch.manual_seed(99)
        assert torch.equal(after, torch.rand(3)), "training leaves torch's own random numbers alone"
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert state_digest(digits_cnn(1)) != state_digest(model)


def test_network_is_accurate_on_images_it_has_not_seen(digits, model):
    assert len(digits.images) == 1797
    assert not set(digits.train) & set(digits.test)
    assert len(digits.train) + len(digits.test) == 1797
    shares = np.bincount(digits.classes[digits.test]) / np.bincount(digits.classes)
    assert np.all(np.abs(shares - 0.2) < 0.01)
    assert accuracy_of(model, digits) > 0.97
    assert not model.training


def test_network_has_the_layers_of_the_paper(digits, model):
    shapes, x = {}, digits.images[:2]
    with torch.no_grad():
        for name, module in model.named_children():
            x = module(x)
            shapes[name] = tuple(x.shape[1:])
    assert [shapes[name] for name in (*LAYERS, "classes")] == [(32, 8, 8), (64, 4, 4), (64,), (10,)]


def test_store_has_every_image_and_exact_zeros_after_relu(done, digits, model):
    store = qf.open_store(done[0] / "store")
    assert store.verify() == []
    assert {name: layer.shape for name, layer in store.items()} == {
        "conv1": (1797, 32),
        "conv2": (1797, 64),
        "dense": (1797, 64),
    }
    assert np.array_equal(store.labels, digits.classes)
    assert np.array_equal(store.sample_ids, np.arange(1797))
    assert store.metadata["class_names"] == list("0123456789")
    assert np.mean(store["dense"] == 0) > 0.05
    assert all(layer.min() >= 0 for layer in store.values())
    assert not any((layer == 0).all(axis=0).any() for layer in store.values()), "no map is dead"
    with torch.no_grad():
        logits = model.classes(torch.from_numpy(np.array(store["dense"])))
    assert torch.equal(logits.argmax(1), model(digits.images).argmax(1))


def test_report_and_reading(done):
    out, result = done
    assert result.report == out / "report" / "report.html"
    assert "<html" in result.report.read_text(encoding="utf-8")
    assert f"{result.accuracy:.1%}" in result.reading[0]
    assert len(result.reading) > 4
    results = json.loads((out / "report" / "results.json").read_text())
    assert [layer["name"] for layer in results["layers"]] == list(LAYERS)


def test_numbers_are_the_same_in_another_process_with_other_threads(done, tmp_path):
    code = f"from qixai_fast.demo import run_demo; run_demo({str(tmp_path)!r}, progress=False)"
    threads = {"NUMBA_NUM_THREADS": "3", "OMP_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "3"}
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **threads}, check=True)
    here, there = files_of(done[0]), files_of(tmp_path)
    assert list(here) == list(there)
    assert [name for name in here if here[name] != there[name]] == []


def test_running_again_goes_on_with_what_is_there(done):
    out, first = done
    (out / "notes.txt").write_text("mine")
    before = files_of(out)
    again = run_demo(out, progress=False)
    assert again == first
    assert files_of(out) == before


def test_a_demo_of_another_seed_is_replaced_and_nothing_else(tmp_path, digits, model):
    path = tmp_path / "store"
    first = capture_digits(model, digits, path, progress=False)
    first.columns("conv1")
    untouched = capture_digits(model, digits, path, progress=False)
    assert untouched.checksum == first.checksum
    replaced = capture_digits(digits_cnn(1), load_digits(1), path, progress=False)
    assert replaced.checksum != first.checksum
    assert replaced.verify() == []
    assert np.array_equal(replaced.columns("conv1"), replaced["conv1"])
    (path / "notes.txt").write_text("mine")
    before = files_of(path)
    with pytest.raises(qf.StoreError, match="captured differently"):
        capture_digits(model, digits, path, progress=False)
    assert files_of(path) == before


def test_a_store_that_no_demo_made_is_refused_and_kept(tmp_path, digits, model):
    path = tmp_path / "store"
    qf.capture(digits_cnn(1), [digits.images[:9]], "conv1", path, progress=False)
    before = files_of(path)
    with pytest.raises(qf.StoreError, match="captured differently"):
        capture_digits(model, digits, path, progress=False)
    assert files_of(path) == before


def test_inputs_for_the_command_line(digits):
    batches = digits_inputs()
    assert torch.equal(torch.cat([images for images, _ in batches]), digits.images)
    assert torch.equal(torch.cat([classes for _, classes in batches]), digits.classes)


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, "0"])
def test_seeds_that_are_none(tmp_path, seed):
    with pytest.raises((TypeError, ValueError), match="seed: wanted"):
        run_demo(tmp_path, seed=seed, progress=False)
    assert not any(tmp_path.iterdir())


def test_without_scikit_learn_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'qixai-fast\[torch,sklearn\]'"):
        load_digits()
