"""What each instrument costs beside SHAP, LIME, LRP and Captum, on three networks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.study import cost_figure, fashion
from benchmarks.study.cost_cases import SEED
from benchmarks.study.cost_method import method
from benchmarks.study.cost_reading import answer, reading
from benchmarks.study.cost_words import layer_lines, local_lines, multiples_lines


def measure(options):
    """Everything, in children of one process that loads networks and tools once."""
    fashion.train(SEED, options)  # here, so that the process that forks has not trained
    with tempfile.TemporaryDirectory() as folder:
        asked = {
            "quick": options.quick,
            "images": options.images and str(options.images.resolve()),
            "work": str(options.work.resolve()),
        }
        Path(folder, "options.json").write_text(json.dumps(asked), encoding="utf-8")
        # Bars take time. The variable is read when tqdm is imported, so a child has to be born with it.
        environment = os.environ | {"TQDM_DISABLE": "1"}
        command = [sys.executable, "-m", "benchmarks.study.cost_worker", folder]
        subprocess.run(command, check=True, env=environment)
        return json.loads(Path(folder, "found.json").read_text(encoding="utf-8"))


def lines(content):
    """The section: what it comes to, how it is measured, tables and reading by network."""
    networks = list(content["networks"].values())
    yield from answer(networks)
    yield from ("", "Time a sample, as multiples of our integrated gradients at 50 steps:", "")
    yield from multiples_lines(networks)
    yield from ("", f"![Seconds beside peak memory of every instrument](figures/{cost_figure.NAME})", "")
    yield from method(content)
    for network in networks:
        yield from ("", f"### {network['name']}: {network['about']}", "")
        yield (
            f"Explained: {network['explained']}, of {network['samples']} samples in {network['groups']} "
            f"parts ({network['parts']}). Our passes are of {network['rows_a_pass']} rows at most, as "
            f"the package chooses; tools that only call the network get {network['evaluations']:,} "
            "evaluations a sample, in passes of 50 rows (LIME on pictures: 10, its default)."
        )
        yield from ("", *local_lines(network), "", *layer_lines(network), "")
        yield from (f"- {sentence}" for sentence in reading(network))


def draw(content, folder):
    """Write the figure."""
    cost_figure.draw(content, folder)
