"""The command line, as separate processes: what a user types, reads, and gets back as exit code."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import qixai_fast as qf

MODEL = """
import torch

def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))

def batches():
    torch.manual_seed(1)
    x = torch.randn(240, 6)
    return [(x[i : i + 32], x[i : i + 32].argmax(1) % 3) for i in range(0, 240, 32)]

def slow_batches():
    import time
    for batch in batches() * 50:
        time.sleep(0.02)
        yield batch

def broken():
    raise ValueError("this user's own function says no")

number = 3
"""


def run(*arguments, cwd, **options):
    return subprocess.run(
        [sys.executable, "-m", "qixai_fast", *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, timeout=300, **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a user's module in it, and a store captured by the command line."""
    path = tmp_path_factory.mktemp("user")
    (path / "mine.py").write_text(MODEL)
    done = run(
        "capture", "store", "--model", "mine:network", "--inputs", "mine:batches",
        "--layers", "1", "--layers", "2", "--labels", "1", "--quiet", cwd=path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return path


def test_capture_leaves_a_store(folder):
    store = qf.open_store(folder / "store")
    assert store["1"].shape == (240, 8)
    assert store.labels.shape == (240,)


def test_audit_leaves_a_report_and_reads_it_out(folder):
    done = run(
        "audit", "store", "--out", "report", "--model", "mine:network", "--inputs", "mine:batches",
        "--n-permutations", 49, "--quiet", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith(str(folder / "report" / "report.html"))
    results = json.loads((folder / "report" / "results.json").read_text())
    for line in results["reading"]:
        assert line in done.stdout
    assert results["attributions"]["samples"]


def test_a_plan_file_chooses_and_options_go_before_it(folder):
    (folder / "plan.toml").write_text('layers = ["1"]\nn_permutations = 39\nrandom_state = 5\nn_bins = 4\n')
    command = ["audit", "store", "--out", "planned", "--plan", "plan.toml", "--n-permutations", 29, "--quiet"]
    done = run(*command, cwd=folder)
    assert done.returncode == 0, done.stderr
    results = json.loads((folder / "planned" / "results.json").read_text())
    plan = results["plan"]
    assert (plan["layers"], plan["n_permutations"], plan["n_bins"]) == (["1"], 29, 4)
    assert results["random_state"] == 5
    assert (folder / "planned" / "plan.toml").read_text() == results["plan_file"]


def test_a_dry_run_prints_the_plan_and_leaves_nothing(folder, tmp_path):
    environment = {**os.environ, "QIXAI_FAST_CACHE": str(tmp_path)}
    before = sorted(folder.rglob("*"))
    command = ["audit", "store", "--dry-run", "--n-permutations", 49, "--max-memory", "2GB"]
    done = run(*command, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["stage", "read", "operations", "memory", "planned"]
    assert any(line.startswith("mutual information, 1 and 2 ") for line in lines)
    assert lines[-1].startswith("about ")
    assert sorted(folder.rglob("*")) == before


def test_verify_finds_a_flipped_byte(folder):
    done = run("verify", "store", "--quiet", cwd=folder)
    assert done.returncode == 0
    assert "all checksums right" in done.stdout
    store = qf.open_store(folder / "store")
    file = folder / "store" / store.info["1"].file
    whole = file.read_bytes()
    damaged = bytearray(whole)
    damaged[-5] ^= 1
    file.write_bytes(damaged)
    try:
        done = run("verify", "store", "--quiet", cwd=folder)
    finally:
        file.write_bytes(whole)
    assert done.returncode == 1
    assert file.name in done.stderr
    assert "Traceback" not in done.stderr


def test_info():
    done = run("info", "--json", cwd=".")
    facts = json.loads(done.stdout)
    assert {"qixai-fast", "numpy", "numba", "cores", "BLAS", "threading layer", "CUDA"} <= facts.keys()
    assert facts["numpy"] == np.__version__
    assert run("info", cwd=".").stdout.startswith("qixai-fast ")
    assert run("--version", cwd=".").stdout.strip() == f"qixai-fast {qf.__version__}"


def test_warmup_fills_the_cache(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    done = run("warmup", cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "cache").rglob("*.nbc"))
    seconds = {line.rsplit(None, 2)[0]: float(line.split()[-2]) for line in done.stdout.splitlines()}
    again = run("warmup", cwd=tmp_path, env=environment)
    cached = {line.rsplit(None, 2)[0]: float(line.split()[-2]) for line in again.stdout.splitlines()}
    assert cached.keys() == seconds.keys()
    assert sum(cached.values()) < sum(seconds.values())


@pytest.mark.parametrize("command", ["demo", "capture", "audit", "verify", "bench", "info", "warmup"])
def test_every_command_has_help_with_an_example(command):
    done = run(command, "--help", cwd=".")
    assert done.returncode == 0
    assert f"Example: qixai-fast {command}" in " ".join(done.stdout.split())


def _capture(model, layers):
    return ["capture", "s2", "--model", model, "--inputs", "mine:batches", "--layers", layers]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["verify", "nowhere"], 1, "nowhere"),
        (["audit", "nowhere", "--out", "x"], 1, "nowhere"),
        (["audit", "store"], 2, "--out"),
        (["audit", "nowhere", "--dry-run"], 1, "nowhere"),
        (["audit", "store", "--dry-run", "--max-memory", "20MB"], 1, "for Python, its libraries"),
        (["frobnicate"], 2, "frobnicate"),
        (["audit", "store", "--out", "x", "--model", "mine:network"], 2, "--inputs"),
        (["audit", "store", "--out", "x", "--layers", "7"], 1, "'7'"),
        (["audit", "store", "--out", "x", "--plan", "absent.toml"], 1, "absent.toml"),
        (["audit", "store", "--out", "x", "--plan", "mine.py"], 1, "mine.py: not TOML"),
        (["audit", "store", "--out", "x", "--max-memory", "lots"], 1, "'lots'"),
        (["audit", "store", "--out", "x", "--n-permutations", "0"], 2, "--n-permutations"),
        (_capture("mine", "1"), 1, "module:function"),
        (_capture("absent:f", "1"), 1, "'absent'"),
        (_capture("mine:absent", "1"), 1, "absent"),
        (_capture("mine:number", "1"), 1, "not a func"),
        (_capture("mine:broken", "1"), 1, "says no"),
        (_capture("mine:network", "conv"), 1, "conv"),
        ([*_capture("mine:network", "1"), "--dtype", "int8"], 2, "int8"),
        ([*_capture("mine:network", "1"), "--reduce", "1=gap", "--reduce", "max"], 2, "--reduce"),
    ],
)  # fmt: skip
def test_mistakes_get_one_clear_line_and_no_traceback(folder, arguments, code, words):
    done = run(*arguments, cwd=folder)
    assert done.returncode == code, done.stderr
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    if code == 1:
        lines = done.stderr.strip().splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith("error: ")
    assert not (folder / "s2").exists() or not any((folder / "s2").glob("*.npy"))


def test_ctrl_c_in_capture_leaves_a_store_to_go_on_with(folder):
    command = [
        sys.executable, "-m", "qixai_fast", "capture", "slow", "--model", "mine:network",
        "--inputs", "mine:slow_batches", "--layers", "1", "--labels", "1", "--quiet",
    ]  # fmt: skip
    child = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (folder / "slow" / "manifest.json").exists() and time.monotonic() < deadline:
        assert child.poll() is None, child.communicate()[1]
        time.sleep(0.05)
    time.sleep(1.0)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 130
    assert errors.strip() == "interrupted. Run the same command again to go on."
    kept = qf.open_store(folder / "slow").n_samples
    assert 0 < kept < 240 * 50
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert qf.open_store(folder / "slow").n_samples == 240 * 50
