"""What the benchmark of the CUDA paths decides and says, without a GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu.__main__ import fitting_scale, measured
from benchmarks.gpu.targets import NOT_YET, TARGETS, gpu_text
from qixai_fast._device import cuda_problem

ROOT = Path(__file__).parents[1]
MADE_BY = {
    "processor": "P",
    "architecture": "A",
    "cores": 2,
    "system": "S",
    "python": "3",
    "versions": {"torch": "2"},
    "threads": 2,
    "seed": 0,
}


def content(**measured):
    rows = {
        key: {"scale": 1, "seconds": 2.0, "measured": value, "roofline": 0.5, "limit": "copy"}
        for key, value in measured.items()
    }
    rates = {"copy": [4e12, "bytes/s"]}
    return {"runs": {"2026-01-02 abc 0": MADE_BY}, "card": "card T", "rates": rates, "rows": rows}


def test_nothing_measured_gives_no_number():
    text = gpu_text(None)
    assert text.count(NOT_YET) == 2 * len(TARGETS)
    assert "Measured" not in text
    assert " s |" not in text


def test_what_is_measured_is_held_against_its_promise():
    text = gpu_text(content(binned=6e11, pca=1.2))
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    binned, pca = (lines[TARGETS[key].work] for key in ("binned", "pca"))
    assert "| 6e+11 | yes | 2 s | 0.5 (copy) |" in binned
    assert "| 1.2 | **no** |" in pca
    assert NOT_YET in lines[TARGETS["cosine top-k"].work]
    assert "card T" in text
    less = content(binned=6e11)
    less["rows"]["binned"]["scale"] = 0.25
    assert "6e+11 (at 0.25 of the size)" in gpu_text(less)


@pytest.mark.parametrize(
    ("times", "share", "scale"),
    [
        ({1 / 64: 0.01}, 60, 1),
        ({1 / 64: 0.2}, 60, 1 / 2),
        ({1 / 64: 99}, 1, 1 / 64),
        ({1 / 64: 0.5, 1 / 8: 0.6}, 60, 1),  # nearly all of it is there at any size
        ({1 / 64: 0.5, 1 / 8: 4.0}, 60, 1 / 4),
        ({1 / 64: 1.0, 1 / 8: 0.9}, 60, 1),
        ({1 / 64: 1.0, 1 / 8: 99}, 60, 1 / 8),
    ],
)
def test_sizes_fit_the_time(times, share, scale):
    assert fitting_scale(times, share) == scale


class NoCard:
    def clear(self):
        pass


@pytest.mark.parametrize(
    ("fixed", "growing", "sizes"),
    [
        (0.5, 0.1, [1 / 64, 1 / 8, 1]),
        (0, 1.0, [1 / 64, 1 / 8, 1]),
        (0, 40, [1 / 64, 1 / 8, 1 / 4]),
        (99, 0, [1 / 64]),
    ],
)
def test_a_work_is_tried_small_first(fixed, growing, sizes):
    tried = []

    def work(card, row, scale, full):
        tried.append(scale)
        yield "line", {"seconds": fixed + growing * scale}

    rows = measured(NoCard(), "work", {"work": (work, {})}, 60, quick=False)
    assert tried == sizes
    assert rows["line"]["seconds"] == fixed + growing * sizes[-1]
    tried.clear()
    measured(NoCard(), "work", {"work": (work, {})}, 60, quick=True)
    assert tried == [1 / 64]


def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path):
    if cuda_problem() is None:
        pytest.skip("CUDA works here")
    for options in (["--check"], ["--json", tmp_path / "gpu.json"]):
        command = [sys.executable, "-m", "benchmarks.gpu", *map(str, options)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 1
        assert done.stderr.startswith("There is no GPU to run on: ")
    assert list(tmp_path.iterdir()) == []
