"""Run Captum's own tests with its classes replaced by the drop-ins of qixai_fast.compat.captum.

    python tests/run_captum_tests.py CAPTUM [--json RESULT] [pytest options]

CAPTUM is a checkout of the installed Captum's version, or a bare clone of it, whose last commit is then
exported to a temporary folder: Captum's wheels leave its tests out. The tests run in a child process, in
which the classes are replaced wherever Captum and its tests look for them, before a test module is imported;
every call that reaches a drop-in is counted. What Captum itself builds on its own classes (attributions of
neurons) stays as it is. No test of the three classes is left out.

The exit status is pytest's, or 1 where a drop-in was never called.
"""

import argparse
import functools
import importlib
import inspect
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from pathlib import Path

DROP_INS = {
    "IntegratedGradients": "captum.attr._core.integrated_gradients",
    "LayerConductance": "captum.attr._core.layer.layer_conductance",
    "LayerIntegratedGradients": "captum.attr._core.layer.layer_integrated_gradients",
}
# Whole test modules about the three classes.
WHOLE = (
    "attr/test_integrated_gradients_basic.py",
    "attr/test_integrated_gradients_classification.py",
    "attr/layer/test_layer_conductance.py",
    "attr/layer/test_layer_integrated_gradients.py",
)
# Modules that compare other methods with them, or test all methods alike, named at the end of a test.
OTHERS = (
    "attr/neuron/test_neuron_conductance.py",
    "attr/neuron/test_neuron_integrated_gradients.py",
    "attr/test_data_parallel.py",
    "attr/test_deeplift_basic.py",
    "attr/test_deeplift_classification.py",
    "attr/test_gradient_shap.py",
    "attr/test_hook_removal.py",
    "attr/test_input_layer_wrapper.py",
    "attr/test_jit.py",
    "attr/test_targets.py",
    "metrics/test_infidelity.py",
    "metrics/test_sensitivity.py",
)
_OTHER_METHOD = re.compile(rf"_(?!({'|'.join(DROP_INS)})(NoiseTunnel)?$|True$|False$)[A-Z][A-Za-z]+$")


class Outcomes:
    """A pytest plugin that leaves out tests of other methods, and keeps how all others ended."""

    def __init__(self, calls):
        self.calls = calls
        self.before = 0
        self.ended = {}
        self.reaching = []

    def pytest_collection_modifyitems(self, items):
        items[:] = [item for item in items if not _OTHER_METHOD.search(item.name)]

    def pytest_runtest_setup(self, item):
        self.before = self.calls.total()

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome != "passed":
            outcome = "xfailed" if hasattr(report, "wasxfail") else report.outcome
            self.ended.setdefault(outcome, []).append(report.nodeid)
            if self.calls.total() > self.before:
                self.reaching.append(report.nodeid)


def counted(name, drop_in, calls):
    """The drop-in, counting the calls of ``attribute``, also those of Captum's NoiseTunnel."""

    def attribute(self, *args, **kwargs):
        calls[name] += 1
        return drop_in.attribute(self, *args, **kwargs)

    # What it takes is asked for below __wrapped__.
    attribute.__signature__ = inspect.signature(drop_in.attribute)

    @functools.wraps(attribute)
    def outer(self, *args, **kwargs):
        return attribute(self, *args, **kwargs)

    return type(name, (drop_in,), {"attribute": outer})


def replace(calls):
    """Put the drop-ins where tests import the classes from."""
    import captum.attr
    import captum.metrics

    from qixai_fast.compat import captum as drop_ins

    for name, home in DROP_INS.items():
        replacement = counted(name, getattr(drop_ins, name), calls)
        setattr(importlib.import_module(home), name, replacement)
        setattr(captum.attr, name, replacement)


def run_here(folder, result, rest):
    """In the child process: replace, run, and write down how it went."""
    import captum
    import pytest

    calls = Counter()
    replace(calls)
    outcomes = Outcomes(calls)
    modules = [folder / "tests" / module for module in (*WHOLE, *OTHERS)]
    alone = ["-p", "no:cacheprovider", "-p", "no:randomly", "-c", os.devnull, "--rootdir", str(folder)]
    status = int(pytest.main(["-q", *alone, *map(str, modules), *rest], plugins=[outcomes]))
    reached = {name: calls[name] for name in DROP_INS}
    print(
        f"Captum {captum.__version__}: {len(outcomes.reaching)} of these tests reached the drop-ins, "
        f"in calls of {reached}"
    )
    if result:
        found = {"calls": reached, "outcomes": outcomes.ended, "reaching": outcomes.reaching}
        Path(result).write_text(json.dumps(found), encoding="utf-8")
    return status or int(not all(reached.values()))


def export(source, folder):
    """The tests of a checkout or bare clone, alone in a folder, so that no other captum is imported."""
    source = Path(source)
    if (source / "tests" / "attr").is_dir():
        (folder / "tests").symlink_to((source / "tests").resolve(), target_is_directory=True)
        return
    archive = subprocess.run(
        ["git", "-C", str(source), "archive", "HEAD", "tests"], check=True, capture_output=True
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("captum", help="a checkout or bare clone of Captum")
    parser.add_argument("--json", type=Path, help="write calls and outcomes here")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options, rest = parser.parse_known_args()
    if options.here:
        return run_here(Path(options.captum), options.json, rest)
    with tempfile.TemporaryDirectory() as name:
        export(options.captum, Path(name))
        result = ["--json", str(options.json.resolve())] if options.json else []
        command = [sys.executable, str(Path(__file__).resolve()), name, "--here", *result, *rest]
        return subprocess.run(command, cwd=name, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
