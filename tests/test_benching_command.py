"""``qixai-fast bench`` as a user runs it: in a process of its own, on a store and without one."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import qixai_fast as qf
from qixai_fast.benching import run_bench, stored
from qixai_fast.store import LayerSpec, create_store


def command(*arguments):
    return [sys.executable, "-m", "qixai_fast", "bench", *map(str, arguments)]


def run(*arguments, cwd):
    return subprocess.run(command(*arguments), cwd=cwd, capture_output=True, text=True, timeout=300)


def activations(n):
    rng = np.random.default_rng(0)
    early = rng.standard_normal((n, 4)) @ rng.standard_normal((4, 12)) + 0.5 * rng.standard_normal((n, 12))
    late = np.maximum(early[:, :8] @ rng.standard_normal((8, 10)), 0)
    return {"early": early, "late": late, "wide": rng.standard_normal((n, 3, 2, 2)) + 60}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a store of three layers, one of no samples, and one cut short."""
    path = tmp_path_factory.mktemp("bench")
    shapes = {"early": (12,), "late": (10,), "wide": (3, 2, 2)}
    dtypes = {"early": "float32", "late": "float16", "wide": "float32"}
    specs = {name: LayerSpec(shape, dtypes[name]) for name, shape in shapes.items()}
    for name, n in (("store", 700), ("empty", 0), ("short", 700)):
        with create_store(path / name, specs) as writer:
            if n:
                writer.append(activations(n))
    file = path / "short" / qf.open_store(path / "short").info["early"].file
    os.truncate(file, file.stat().st_size // 2)
    with create_store(path / "nan", {"early": LayerSpec((2,), "float32")}) as writer:
        writer.append({"early": np.full((100, 2), np.nan)})
    return path


def test_on_a_store(folder):
    done = run("--store", "store", "--out", "out", "--seconds", "2", "--samples", "600", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["bench.json", "bench.md", "bench.png"]
    content = json.loads((folder / "out" / "bench.json").read_text())
    assert {case["instrument"] for case in content["cases"]} == {
        "KSG mutual information", "binned mutual information", "singular values (PCA)", "cosine similarity",
        "nearest rows by cosine", "CKA of two layers",
    }  # fmt: skip
    text = (folder / "out" / "bench.md").read_text()
    for sentence in content["reading"] + content["details"] + content["findings"] + content["left_out"]:
        assert sentence in done.stdout
        assert sentence in text
    assert len(content["reading"]) == 6  # a line an instrument
    ours = [row for case in content["cases"] for row in case["rows"] if row["name"] == "qixai-fast"]
    ksg = [case for case in content["cases"] if case["instrument"].startswith("KSG")]
    # Shuffled and planted for each layer; by definition for those without ties (late is rectified).
    assert [sum(case["source"] == name for case in ksg) for name in ("early", "late", "wide")] == [3, 2, 3]
    assert all(case["rows"][0]["verdict"] == "right" for case in ksg)
    assert all(row["seconds"] > 0 for row in ours)
    assert any("late" in one and "atom" in one for one in content["findings"])
    assert any("wide" in one and "times the spread" in one for one in content["findings"])
    assert any("no model" in one for one in content["left_out"])
    assert (folder / "out" / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert str(folder) not in json.dumps(content)


def test_without_a_store(tmp_path):
    done = run("--seconds", "1", "--quiet", "--out", "a/b", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "a" / "b" / "bench.json").read_text())
    kinds = {case["data"].split(",")[0] for case in content["cases"]}
    assert {"plain", "after ReLU", "float16", "offset of 100 spreads"} <= kinds
    assert "Which is right" in done.stdout
    assert done.stderr == ""
    offset = next(
        {row["name"]: row["error"] for row in case["rows"]}
        for case in content["cases"]
        if case["instrument"] == "singular values (PCA)" and "offset" in case["data"]
    )
    assert offset["qixai-fast pca"] < 1e-6
    assert offset["scikit-learn PCA"] > 0.01  # float32 covariances, as released


def test_the_same_seed_draws_the_same_data(folder):
    store, rows = qf.open_store(folder / "store"), np.arange(0, 700, 2)

    def drawn(seed):
        rng = np.random.default_rng(seed)
        X = stored.draw(store, "early", rows, rng, stored.FIXED_BYTES + 5 * stored.VALUE_BYTES * len(rows)).X
        return X, stored.shuffled(X, rng), *stored.planted(X, rng)

    for first, second in zip(drawn(4), drawn(4), strict=True):
        np.testing.assert_array_equal(first, second)
    assert (drawn(4)[0] != drawn(5)[0]).any()


@pytest.mark.parametrize(
    ("store", "options", "error", "words"),
    [
        ("nowhere", {}, qf.StoreError, "nowhere"),
        ("empty", {}, ValueError, "has 0 samples; a bench needs at least 50"),
        ("nan", {}, ValueError, "layer 'early': nan in sample 0, feature 0"),
        ("store", {"layers": ["conv"]}, ValueError, "no layer 'conv'"),
        ("store", {"n_samples": 701}, ValueError, "at most the 700 samples"),
        ("store", {"n_samples": 3}, ValueError, "n_samples"),
        ("store", {"layers": ["early,late"]}, ValueError, "give --layers once for each"),
        ("store", {"out": "store/manifest.json"}, ValueError, "is a file, wanted a folder"),
        ("store", {"out": "store"}, ValueError, "is in the store itself"),
        ("store", {"out": "out/../store/bench"}, ValueError, "is in the store itself"),
        (None, {"max_memory": "lots"}, ValueError, "max_memory: 'lots' is not a size"),
    ],
)
def test_mistakes(folder, monkeypatch, store, options, error, words):
    monkeypatch.chdir(folder)
    with pytest.raises(error, match=words):
        run_bench(store, **options)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--store", "short"], 1, "is truncated in chunk 0"),
        (["--store", "store", "--max-memory", "1MB"], 1, "fewer samples would do"),
        (["--store", "store", "--max-memory", "1MB"], 1, "error: --max-memory: a bench on"),
        (["--store", "store", "--max-memory", "1MB"], 1, "; --max-memory 1"),
        (["--store", "store", "--max-memory", "lots"], 1, "error: --max-memory: 'lots'"),
        (["--store", "store", "--samples", "3"], 1, "error: --samples: wanted"),
        (["--store", "store", "--jobs", "0"], 1, "error: --jobs: 0 has no meaning"),
        (["--layers", "early"], 2, "--store"),
        (["--max-memory", "1GB"], 2, "--store"),
        (["store"], 2, "wanted --store store"),
    ],
)
def test_mistakes_get_one_clear_line(folder, arguments, code, words):
    done = run(*arguments, cwd=folder)
    assert done.returncode == code, done.stderr
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    if code == 1:
        assert len(done.stderr.strip().splitlines()) == 1


def test_ctrl_c_leaves_nothing(folder):
    child = subprocess.Popen(
        command("--store", "store", "--out", "never", "--seconds", "200"),
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert "KSG" in child.stderr.readline()
    time.sleep(0.5)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 130
    assert errors.strip().splitlines()[-1] == "interrupted. Nothing was written."
    assert not (folder / "never").exists()


def test_a_sample_is_drawn_within_the_budget(folder):
    store = qf.open_store(folder / "store")
    rows, rng = np.array([3, 5, 600]), np.random.default_rng(0)
    whole = stored.draw(store, "wide", rows, rng, None)
    np.testing.assert_array_equal(whole.X, store["wide"][rows].reshape(3, 12))
    some = stored.draw(store, "wide", rows, rng, stored.FIXED_BYTES + 5 * stored.VALUE_BYTES * 3)
    assert some.X.shape == (3, 5)
    assert some.n_features == 12
    most = stored.features_within(10**9, 10_000, 10**6)
    assert most * 10_000 * stored.VALUE_BYTES < 10**9
    # Further layers wait in their own precision.
    assert stored.features_within(10**9, 10_000, 10**6, n_layers=4) < most
    with pytest.raises(qf.MemoryBudgetError) as caught:
        stored.features_within(10**6, 10_000, 12)
    assert stored.features_within(caught.value.required, 10_000, 12) == 2


def test_nothing_heavy_is_imported_for_other_commands():
    heavy = {"torch", "sklearn", "qixai_fast.benching"}
    code = f"import sys, qixai_fast.cli; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
