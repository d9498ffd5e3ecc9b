"""Planes of cost and error: they run, tell who fails in silence, and say so in words."""

import json
import math
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from benchmarks.planes import information, likeness, spectra
from benchmarks.planes.__main__ import GROUPS
from benchmarks.planes.figure import PANELS
from benchmarks.planes.measuring import Entrant, Plane, is_silent, is_wrong, measure
from benchmarks.planes.text import planes_text

ROOT = Path(__file__).parents[1]
MADE_BY = {
    "processor": "a processor", "architecture": "x", "cores": 2, "system": "Linux", "python": "3",
    "versions": {}, "threads": 1, "seed": 0,
}  # fmt: skip


def warns(result):
    def call(case):
        warnings.warn("this is ill-conditioned", RuntimeWarning, stacklevel=1)
        return result

    return call


def old(case):
    warnings.warn("old name", FutureWarning, stacklevel=1)
    return 2.0


def fails(case):
    raise ValueError("too few samples")


@pytest.fixture
def content():
    """One plane whose truth is 1."""
    entrants = [
        Entrant("ours", "a", "right", lambda case: 1.001, default=True, cost=2),
        Entrant("theirs", "a", "silent", lambda case: 2.0, default=True),
        Entrant("theirs", "b", "old", old, cost=1),
        Entrant("theirs", "b", "warned", warns(2.0), cost=1),
        Entrant("theirs", "b", "costly", lambda case: 1.0, cost=lambda result: 3 * result),
        Entrant("theirs", "b", "lost", lambda case: math.nan, cost=1),
        Entrant("theirs", "b", "raised", fails, cost=1),
    ]
    plane = Plane(
        "p", "g", "A plane", "work", "error / truth", [0, 1], entrants, lambda r, _: abs(r - 1), "passes"
    )
    return {
        "measured": "2030-01-02",
        "commit": "c" * 12,
        "environment": MADE_BY,
        "planes": {"p": measure(plane, rounds=2)},
    }


def test_silence_is_an_error_without_a_word(content):
    points = {point["setting"]: point for point in content["planes"]["p"]["points"]}
    assert points["right"]["error"] == pytest.approx(0.001)
    assert {name for name, point in points.items() if is_wrong(point)} == {
        "silent",
        "old",
        "warned",
        "lost",
    }
    assert {name for name, point in points.items() if is_silent(point)} == {"silent", "old", "lost"}
    assert points["warned"]["warned"] == ["RuntimeWarning: this is ill-conditioned"]
    assert points["costly"]["cost"] == 3
    assert points["raised"]["raised"] == "ValueError: too few samples"
    assert "seconds" not in points["raised"]


def test_words_name_who_fails_and_how(content):
    text = planes_text(content)
    assert "- theirs: *A plane*: silent (100 %)" in text
    assert "- theirs: *A plane*: old (100 %), lost (no number)" in text
    assert "- *A plane*: theirs, warned: 100 %, and says `RuntimeWarning: this is ill-conditioned`" in text
    assert "- *A plane*: theirs, raised: raises `ValueError: too few samples`" in text
    assert "2 passes (right; 0.1 %)" in text
    assert planes_text(None) == "Not measured yet."


def test_planes_run(tmp_path):
    command = [sys.executable, "-m", "benchmarks.planes", "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    content = json.loads((tmp_path / "planes.json").read_text())
    assert (tmp_path / "planes.png").read_bytes().startswith(b"\x89PNG")
    assert set(GROUPS) == {plane["group"] for plane in content["planes"].values()}
    assert set(content["planes"]) == {name for name, _ in PANELS}
    ours = [
        point
        for plane in content["planes"].values()
        for point in plane["points"]
        if point["tool"] == "qixai-fast" and point["default"]
    ]
    assert not any("raised" in point for point in ours)
    narrow = content["planes"]["pca 300"]["points"][0]
    assert narrow["setting"] == "pca"
    assert narrow["error"] < 1e-9
    assert narrow["cost"] == 1


def test_passes_over_a_file_are_counted(tmp_path):
    X = spectra.layer(np.random.default_rng(0), 40, 6, 1)
    path = tmp_path / "layer.npy"
    np.save(path, X)
    file = spectra.CountedFile(path)
    for _ in range(2):
        for first in range(0, 40, 10):
            assert np.array_equal(file[first : first + 10], X[first : first + 10])
    assert file.passes == 2


def test_truth_of_rectified_pairs_is_what_many_samples_say():
    """A quarter and more of both zero, one zero, and both positive: by counting and by known values."""
    assert information.rectified_truth(0.9) == pytest.approx(0.5543695742, abs=1e-8)
    assert information.rectified_truth(0.6) == pytest.approx(0.1528436781, abs=1e-8)


def test_half_precision_layers_overflow_their_own_type():
    X, _ = likeness.half_layers(np.random.default_rng(0), 20_000, 8)
    with np.errstate(over="ignore"):
        assert not np.isfinite((X[:, 0] * X[:, 0]).sum(dtype=np.float16))
    assert np.isfinite(X).all()
