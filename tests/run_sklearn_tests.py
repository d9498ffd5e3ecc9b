"""Run scikit-learn's own tests with its functions replaced by the drop-ins of qixai_fast.compat.sklearn.

    python tests/run_sklearn_tests.py [--json RESULT] [pytest options]

Every reference that scikit-learn's modules hold to a function is replaced before a test module is imported,
and every call that reaches a drop-in is counted. The exit status is pytest's, or 1 where a drop-in was never
called. scikit-learn's wheels bring its tests along.
"""

import argparse
import functools
import importlib
import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn

from qixai_fast.compat import _features
from qixai_fast.compat import sklearn as drop_ins


def compute_mi(x, y, x_discrete, y_discrete, n_neighbors=3):
    """The estimators behind regression and classif on values as given: scikit-learn's tests call its own."""
    if x_discrete and not y_discrete:
        return compute_mi(y, x, y_discrete, x_discrete, n_neighbors)
    estimator = _features.Estimator(np.asarray(y), y_discrete, n_neighbors)
    if x_discrete:
        return estimator.of_discrete(np.asarray(x))
    estimator.prepare_for_continuous()
    return estimator.of_continuous(np.asarray(x, dtype=np.float64))


@dataclass(frozen=True)
class DropIn:
    """A function of scikit-learn that has a drop-in, and its tests.

    Attributes
    ----------
    home : str
        The module that defines the function, below ``sklearn``.
    public : str or None
        The module that users import it from; None for what only tests import.
    tests : tuple of str
        Test modules, below scikit-learn's folder.
    function : callable, optional
        The drop-in, where it is not the function of that name in ``qixai_fast.compat.sklearn``.
    """

    home: str
    public: str | None
    tests: tuple[str, ...]
    function: Callable[..., Any] | None = None


_CLUSTER_TESTS = (
    "metrics/cluster/tests/test_supervised.py",
    "metrics/cluster/tests/test_common.py",
    "metrics/tests/test_score_objects.py",
)
_FEATURE_TESTS = (
    "feature_selection/tests/test_mutual_info.py",
    "feature_selection/tests/test_feature_select.py",
)
_SUPERVISED, _MUTUAL_INFO = "metrics.cluster._supervised", "feature_selection._mutual_info"
DROP_INS = {
    "mutual_info_score": DropIn(_SUPERVISED, "metrics", _CLUSTER_TESTS),
    "normalized_mutual_info_score": DropIn(
        _SUPERVISED,
        "metrics.cluster",
        (*_CLUSTER_TESTS, "cluster/tests/test_hierarchical.py", "manifold/tests/test_spectral_embedding.py"),
    ),
    "adjusted_mutual_info_score": DropIn(_SUPERVISED, "metrics.cluster", _CLUSTER_TESTS),
    "mutual_info_regression": DropIn(_MUTUAL_INFO, "feature_selection", _FEATURE_TESTS),
    "mutual_info_classif": DropIn(_MUTUAL_INFO, "feature_selection", _FEATURE_TESTS),
    "randomized_svd": DropIn("utils.extmath", "utils.extmath", ("utils/tests/test_extmath.py",)),
    "cosine_similarity": DropIn("metrics.pairwise", "metrics.pairwise", ("metrics/tests/test_pairwise.py",)),
    "_compute_mi": DropIn(_MUTUAL_INFO, None, _FEATURE_TESTS, compute_mi),
}
# The end of a test's id: why it cannot pass with a drop-in.
DESELECTED = {}

calls = Counter()


def counted(name, function, original):
    """The drop-in, counting its calls; with scikit-learn's table of valid parameters, for its tests."""

    @functools.wraps(function)
    def call(*args, **kwargs):
        calls[name] += 1
        return function(*args, **kwargs)

    if hasattr(original, "_skl_parameter_constraints"):
        call._skl_parameter_constraints = original._skl_parameter_constraints
    return call


def replace_everywhere():
    """Replace the functions in all modules of scikit-learn that are loaded, and in its scorers."""
    for name, drop_in in DROP_INS.items():
        importlib.import_module(f"sklearn.{drop_in.public or drop_in.home}")
        original = getattr(importlib.import_module(f"sklearn.{drop_in.home}"), name)
        if drop_in.function is None:
            replacement = counted(name, getattr(drop_ins, name), original)
            setattr(drop_ins, name, replacement)  # pickled by name, it is found again
        else:
            replacement = counted(name, drop_in.function, original)
        for module_name, module in list(sys.modules.items()):
            if module_name.partition(".")[0] == "sklearn":
                for attribute in [key for key, value in vars(module).items() if value is original]:
                    setattr(module, attribute, replacement)
                for table in [value for value in vars(module).values() if isinstance(value, dict)]:
                    for key in [key for key, value in table.items() if value is original]:
                        table[key] = replacement
        for scorer in importlib.import_module("sklearn.metrics._scorer")._SCORERS.values():
            if scorer._score_func is original:
                scorer._score_func = replacement


class Outcomes:
    """A pytest plugin that leaves out deselected tests, and keeps how all others ended."""

    def __init__(self):
        self.ended = {}
        self.deselected = []

    def pytest_collection_modifyitems(self, config, items):
        out = [item for item in items if any(item.nodeid.endswith(name) for name in DESELECTED)]
        items[:] = [item for item in items if item not in out]
        config.hook.pytest_deselected(items=out)
        self.deselected += [item.nodeid for item in out]

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome != "passed":
            outcome = "xfailed" if hasattr(report, "wasxfail") else report.outcome
            self.ended.setdefault(outcome, []).append(report.nodeid)


def what_to_run(folder):
    """Whole test modules; of the tests of all public functions, those of the replaced ones."""
    modules = dict.fromkeys(module for drop_in in DROP_INS.values() for module in drop_in.tests)
    missing = [module for module in modules if not (folder / module).is_file()]
    if missing:
        raise SystemExit(f"this scikit-learn was installed without its tests: {', '.join(missing)}")
    checks = folder / "tests" / "test_public_functions.py"
    return [str(folder / module) for module in modules] + [
        f"{checks}::test_function_param_validation[sklearn.{drop_in.public}.{name}]"
        for name, drop_in in DROP_INS.items()
        if drop_in.public
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="write calls and outcomes here")
    options, rest = parser.parse_known_args()
    os.environ.setdefault("SKLEARN_RUN_FLOAT32_TESTS", "1")
    replace_everywhere()
    folder = Path(sklearn.__file__).parent
    outcomes = Outcomes()
    alone = ["-p", "no:cacheprovider", "-p", "no:randomly", "-c", os.devnull, "--rootdir", str(folder)]
    status = int(pytest.main(["-q", *alone, *what_to_run(folder), *rest], plugins=[outcomes]))
    reached = {name: calls[name] for name in DROP_INS}
    print(f"scikit-learn {sklearn.__version__}, calls that reached the drop-ins: {reached}")
    if options.json:
        result = {"calls": reached, "outcomes": outcomes.ended, "deselected": outcomes.deselected}
        options.json.write_text(json.dumps(result), encoding="utf-8")
    return status or int(not all(reached.values()))


if __name__ == "__main__":
    sys.exit(main())
