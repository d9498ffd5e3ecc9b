"""Mutual information of features with a target holds against scikit-learn's: values, conventions, errors."""

import numpy as np
import pytest
import scipy.sparse as sp
from compat_peers import FEATURES, both_refuse, same, theirs
from sklearn.exceptions import DataConversionWarning

from qixai_fast.compat import sklearn as ours


def data(rng, kind, n, d):
    X = rng.standard_normal((n, d))
    if kind == "relu":
        return np.maximum(X, 0)
    if kind == "integers":
        return rng.randint(0, 6, (n, d))
    if kind == "offsets":
        return X * 10.0 ** rng.randint(-5, 6, d) + 10.0 ** rng.randint(-3, 7, d)
    if kind == "constant":
        X[:, 0] = 0.1
    if kind == "float32":
        return X.astype(np.float32)
    return X


@pytest.mark.parametrize("kind", ["plain", "relu", "integers", "offsets", "constant", "float32"])
@pytest.mark.parametrize("seed", [0, 1])
def test_regression_and_classif_equal_theirs(kind, seed):
    rng = np.random.RandomState(seed)
    n, d = rng.randint(40, 250), 3
    X = data(rng, kind, n, d)
    if seed:
        X = np.asfortranarray(X)
    mixed = rng.uniform(size=d) < 0.5 if kind == "integers" else "auto"
    y = rng.standard_normal(n) + (X[:, 1] - X[:, 1].mean()) / X[:, 1].std()
    few = np.array(["lo", "mid", "hi"])[(y > 0).astype(int) + (y > 1)]
    many = rng.randint(0, n // 3, n)
    options = {"discrete_features": mixed, "random_state": seed}
    for k in (1, 3, 10):
        same("mutual_info_regression", X, y, n_neighbors=k, **options)
        same("mutual_info_classif", X, few, n_neighbors=k, **options)
    for target in (y.astype(np.float32), np.round(y).astype(int), np.round(y).astype(np.float16)):
        same("mutual_info_regression", X, target, **options)
    for target in (many, y > 0):
        same("mutual_info_classif", X, target, **options)


def test_ties_within_the_noise():
    # A constant and few levels: noise of 1e-10 leaves ties among so many samples.
    rng = np.random.RandomState(0)
    n = 6000
    X = np.column_stack([np.ones(n), rng.randint(0, 2, n), rng.randint(0, 2, n) * 1e6])
    assert len(np.unique(1 + 1e-10 * rng.standard_normal(n))) < n
    same("mutual_info_classif", X, rng.randint(0, 2, n), random_state=3)
    same("mutual_info_regression", X, rng.randint(0, 3, n), random_state=3)


def test_constants_that_are_not_exact():
    # The deviation of a constant 0.1 is rounding: columns count it as 0, a target is divided by it.
    constant = np.full(50, 0.1)
    assert 0 < constant.std() < 1e-15
    X = np.column_stack([constant, np.random.RandomState(0).standard_normal(50)])
    same("mutual_info_regression", X, constant, random_state=0)
    same("mutual_info_classif", X, np.arange(50) % 2, random_state=0)


def test_float32_target_has_ties_that_count():
    # scikit-learn adds noise to a float32 target in float32, where it vanishes.
    rng = np.random.RandomState(0)
    y = rng.randint(0, 9, 300).astype(np.float32)
    X = rng.randint(0, 60, (300, 2))
    for k in (1, 3, 8):
        same("mutual_info_regression", X, y, discrete_features=True, n_neighbors=k, random_state=0)
        same("mutual_info_regression", X, y, n_neighbors=k, random_state=0)


@pytest.mark.filterwarnings("ignore:The number of unique classes")
def test_small_classes_and_classes_of_one():
    rng = np.random.RandomState(2)
    for n, levels in ((9, 4), (30, 12), (80, 60)):
        X, y = np.round(rng.standard_normal((n, 3)), 1), rng.randint(0, levels, n)
        for k in (1, 2, 5, 40):
            same("mutual_info_classif", X, y, n_neighbors=k, random_state=0)
    with pytest.raises(ValueError, match="0 sample"):
        ours.mutual_info_classif(X, np.arange(80))


@pytest.mark.parametrize("container", [sp.csr_matrix, sp.csc_array, sp.coo_array])
def test_sparse_features_are_discrete(container):
    rng = np.random.RandomState(0)
    dense = rng.randint(0, 3, (120, 5)) * rng.randint(0, 2, (120, 5))
    X, y = container(dense), rng.standard_normal(120) + dense[:, 0]
    value = same("mutual_info_regression", X, y, random_state=0)
    np.testing.assert_array_equal(
        value, ours.mutual_info_regression(dense, y, discrete_features=True, random_state=0)
    )
    same("mutual_info_classif", X, dense[:, 0], random_state=0)
    for discrete in (False, [0, 1]):
        with pytest.raises(ValueError, match="Sparse"):
            ours.mutual_info_classif(X, dense[:, 0], discrete_features=discrete)


def test_which_features_are_discrete():
    rng = np.random.RandomState(0)
    X = rng.randint(0, 4, (60, 3)).astype(float)
    y = X[:, 0] + rng.standard_normal(60)
    for chosen in (True, [2], [-1, 0], [True, False, True], np.array([0, 2], np.uint8), (1,)):
        same("mutual_info_regression", X, y, discrete_features=chosen, random_state=0)
    for bad in ([True] * 4, [1, 4], [0.0], [[True, False, True]], [True, True]):
        with pytest.raises(IndexError):
            ours.mutual_info_regression(X, y, discrete_features=bad)
    with pytest.raises(ValueError, match="at least one"):
        ours.mutual_info_regression(X, y, discrete_features=[])
    with pytest.raises(ValueError, match="discrete_features"):
        ours.mutual_info_regression(X, y, discrete_features="manual")
    with pytest.warns(UserWarning, match="expects discrete values") as caught:
        ours.mutual_info_classif(X + 0.5, X[:, 0], discrete_features=True)
    assert caught[0].filename == __file__


def test_noise_is_drawn_as_theirs():
    rng = np.random.RandomState(0)
    X, y = rng.standard_normal((50, 3)), rng.standard_normal(50)
    functions = ours.mutual_info_regression, theirs("mutual_info_regression")
    states = np.random.RandomState(5), np.random.RandomState(5)
    values = [f(X, y, random_state=s) for f, s in zip(functions, states, strict=True)]
    np.testing.assert_allclose(*values, rtol=1e-12)
    assert states[0].random_sample() == states[1].random_sample()
    drawn = []
    for function in functions:
        np.random.seed(7)
        drawn.append((*function(X, y), np.random.random_sample()))
    np.testing.assert_allclose(*drawn, rtol=1e-12)


def test_noise_is_drawn_in_blocks_of_rows():
    rng = np.random.RandomState(0)
    X, y = rng.standard_normal((700, 300)), rng.randint(0, 2, 700)
    same("mutual_info_classif", X, y, random_state=0)


def test_other_containers_and_types():
    torch = pytest.importorskip("torch")
    rng = np.random.RandomState(0)
    X, y = rng.standard_normal((60, 2)), rng.randint(0, 3, 60)
    expected = ours.mutual_info_classif(X, y, random_state=0)

    class Frame:
        """As much of a data frame as numpy asks for."""

        def __init__(self, values):
            self.values, self.shape = values, values.shape

        def __len__(self):
            return len(self.values)

        def __array__(self, dtype=None, copy=None):
            return np.asarray(self.values, dtype=dtype)

    read_only = X.copy()
    read_only.flags.writeable = False
    for form in (X.tolist(), Frame(X), Frame(X.astype(object)), X.astype(object), read_only, torch.tensor(X)):
        values = ours.mutual_info_classif(form, list(y), random_state=0)
        assert isinstance(values, np.ndarray)
        assert values.dtype == np.float64
        np.testing.assert_array_equal(values, expected)
    before = X.copy()
    ours.mutual_info_classif(X, y, copy=False)
    np.testing.assert_array_equal(X, before)
    np.testing.assert_array_equal(ours.mutual_info_classif(X, torch.tensor(y), random_state=0), expected)
    for strided in (np.repeat(X, 2, axis=1)[:, ::2], X[::-1][::-1]):
        np.testing.assert_array_equal(ours.mutual_info_classif(strided, y, random_state=0), expected)
    assert ours.mutual_info_score(torch.tensor([0, 1, 1]), [0, 1, 1]) == pytest.approx(
        ours.mutual_info_score([0, 1, 1], [0, 1, 1])
    )


@pytest.mark.parametrize("name", FEATURES)
def test_features_that_are_refused(name):
    X, y = np.random.RandomState(0).standard_normal((20, 3)), np.arange(20) % 2
    with_nan = X.copy()
    with_nan[4, 1] = np.nan
    cases = [
        ((X[:, 0], y), {}, ValueError, "Expected 2D"),
        ((X[:0], y[:0]), {}, ValueError, r"0 sample\(s\)"),
        ((X[:, :0], y), {}, ValueError, r"0 feature\(s\)"),
        ((X, y[:5]), {}, ValueError, r"inconsistent numbers of samples: \[20, 5\]"),
        ((X, np.column_stack([y, y])), {}, ValueError, "1d array"),
        ((with_nan, y), {}, ValueError, r"X contains NaN, first at \(4, 1\)"),
        ((X, np.where(y == 1, np.inf, 0.0)), {}, ValueError, "y contains infinity"),
        ((X * 1j, y), {}, ValueError, "Complex"),
        ((X.astype(str), y), {}, ValueError, "numeric"),
        ((np.array([["a", 1.0, 2.0]] * 20, dtype=object), y), {}, ValueError, "converted to numbers"),
        ((3, y), {}, ValueError, "'X' parameter of"),
        ((X, None), {}, ValueError, "'y' parameter of"),
        ((X, y), {"n_neighbors": 0}, ValueError, "n_neighbors"),
        ((X, y), {"n_neighbors": 2.0}, TypeError, "n_neighbors"),
        ((X, y), {"copy": 1}, TypeError, "copy"),
        ((X, y), {"n_jobs": 0}, ValueError, "n_jobs"),
        ((X, y), {"n_jobs": "2"}, TypeError, "n_jobs"),
        ((X, y), {"random_state": -1}, ValueError, "random_state"),
        ((X, y), {"random_state": np.random.default_rng(0)}, TypeError, "random_state"),
    ]
    for arguments, options, error, message in cases:
        both_refuse(name, arguments, options, error, message)


def test_targets_that_are_refused_or_warned_of():
    X = np.random.RandomState(0).standard_normal((30, 2))
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        ours.mutual_info_classif(X, X[:, 0])
    with pytest.raises(ValueError, match="Unknown label type: unknown"):
        ours.mutual_info_classif(X, np.array([None, 1, 2] * 10, dtype=object))
    with pytest.raises(ValueError, match="fewer than the 30 samples"):
        ours.mutual_info_regression(X, X[:, 0], n_neighbors=30)
    with pytest.raises(ValueError, match="converted to numbers"):
        ours.mutual_info_regression(X, ["a"] * 30)
    with pytest.raises(ValueError, match=r"X\[:, 1\]: its spread overflows"):
        ours.mutual_info_regression(X * [1, 1e200], X[:, 0])
    with pytest.warns(UserWarning, match="greater than 50%"):
        ours.mutual_info_classif(X, np.arange(30) // 2 * np.arange(30))
    with pytest.warns(DataConversionWarning, match="column-vector"):
        ours.mutual_info_regression(X, X[:, :1])


@pytest.mark.parametrize("name", FEATURES)
def test_same_bits_for_any_number_of_threads(name):
    rng = np.random.RandomState(0)
    X, y = rng.randint(0, 5, (300, 9)) + 0.0, rng.randint(0, 3, 300)
    options = {"discrete_features": [0, 3, 5], "random_state": 0}
    one = getattr(ours, name)(X, y, **options)
    for n_jobs in (1, 2, 4, -1):
        np.testing.assert_array_equal(getattr(ours, name)(X, y, n_jobs=n_jobs, **options), one)
    import joblib

    with joblib.parallel_config(backend="threading", n_jobs=2):
        np.testing.assert_array_equal(getattr(ours, name)(X, y, **options), one)
