"""The drop-ins as a whole: scikit-learn's own tests pass on them, and they fit where its functions did."""

import inspect
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from compat_peers import FEATURES, SCORES, theirs

from qixai_fast.compat import sklearn as ours


@pytest.mark.parametrize("name", SCORES + FEATURES)
def test_signature_is_theirs(name):
    def parameters(function):
        return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]

    assert parameters(getattr(ours, name)) == parameters(theirs(name))


def test_in_a_pipeline_of_theirs():
    from sklearn.base import clone
    from sklearn.datasets import load_iris
    from sklearn.feature_selection import GenericUnivariateSelect, SelectKBest
    from sklearn.metrics import make_scorer
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.tree import DecisionTreeClassifier

    X, y = load_iris(return_X_y=True)
    chosen = [
        SelectKBest(function, k=2).fit(X, y).get_support().tolist()
        for function in (ours.mutual_info_classif, theirs("mutual_info_classif"))
    ]
    assert chosen[0] == chosen[1] == [False, False, True, True]
    select = GenericUnivariateSelect(ours.mutual_info_classif, mode="percentile", param=50)
    pipeline = clone(
        pickle.loads(pickle.dumps(make_pipeline(select, DecisionTreeClassifier(random_state=0))))
    )
    assert cross_val_score(pipeline, X, y, n_jobs=2).mean() > 0.9
    scorer = make_scorer(ours.adjusted_mutual_info_score)
    assert cross_val_score(pipeline, X, y, scoring=scorer).mean() > 0.7


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_works_without_scikit_learn():
    code = """
import sys
sys.modules["sklearn"] = None  # any import of it fails
import numpy as np
from qixai_fast.compat.sklearn import *
X = np.random.RandomState(0).standard_normal((80, 2))
assert mutual_info_regression(X, X[:, 0], random_state=0)[0] > 1
assert mutual_info_classif(X, X[:, 0] > 0, random_state=0, discrete_features=[False, False])[0] > 0.4
assert adjusted_mutual_info_score([0, 1], ["a", "b"]) == 1
for bad in (lambda: mutual_info_classif(X, X[:, 0] > 0, n_neighbors=0), lambda: mutual_info_score(1, [2])):
    try:
        bad()
    except (ValueError) as error:
        assert isinstance(error, TypeError), error
    else:
        raise SystemExit("not refused")
"""
    run(code)


def test_importing_is_cheap():
    heavy = "{'sklearn', 'scipy', 'torch', 'numba'}"
    code = f"import sys, qixai_fast.compat.sklearn; print({heavy} & {{*sys.modules}})"
    assert run(code).strip() == "set()"


def test_their_own_tests_pass_on_ours(tmp_path):
    script = Path(__file__).with_name("run_sklearn_tests.py")
    result = tmp_path / "result.json"
    done = subprocess.run(
        [sys.executable, script, "--json", result],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    if "installed without its tests" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    found = json.loads(result.read_text(encoding="utf-8"))
    assert set(found["outcomes"]) <= {"passed", "skipped", "xfailed"}
    assert found["deselected"] == []
    assert set(SCORES + FEATURES) < set(found["calls"])
    assert min(found["calls"].values()) > 10, found["calls"]
    passed = "\n".join(found["outcomes"]["passed"])
    for needed in (
        "test_mutual_info.py::test_compute_mi_cd_unique_label",
        "test_supervised.py::test_adjusted_mutual_info_score",
        "test_common.py::test_format_invariance[mutual_info_score]",
        "test_function_param_validation[sklearn.feature_selection.mutual_info_classif]",
        "test_extmath.py::test_randomized_svd_power_iteration_normalizer",
        "test_extmath.py::test_randomized_svd_infinite_rank",
        "test_pairwise.py::test_cosine_similarity[csr_array]",
        "test_function_param_validation[sklearn.utils.extmath.randomized_svd]",
    ):
        assert needed in passed
