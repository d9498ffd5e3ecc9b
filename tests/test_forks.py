"""Forks, workers and threads around our calls, each scenario in a process of its own with a time limit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import forked_calls
import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def run(scenario, **environment):
    """Run a scenario; a hang ends by its own time limit, with the stacks of all threads on stderr."""
    code = f"import forked_calls; forked_calls.main({scenario!r})"
    done = subprocess.run(
        [sys.executable, "-W", "ignore::UserWarning", "-c", code],
        cwd=Path(__file__).parent, env={**os.environ, **environment}, capture_output=True, text=True,
        timeout=forked_calls.SECONDS + 20,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr[-6000:]
    return done.stderr


@pytest.mark.parametrize(
    "scenario",
    [
        *("after_use", "while_busy", "half_held", "first_import", "import_that_logs", "eight_threads"),
        "fresh_processes",
    ],
)
def test_right_and_no_hang(scenario):
    assert run(scenario) == ""


def test_backends_of_joblib():
    pytest.importorskip("joblib")
    run("joblib")


def test_workers_of_a_data_loader():
    pytest.importorskip("torch")
    run("data_loader")


@pytest.mark.parametrize("layer", ["workqueue", "omp"])
def test_numbas_own_threads_beside_ours(layer):
    """workqueue ends a process that starts it in two threads, omp one that forks: never by our calls."""
    run("numba_layer", NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS="2")
