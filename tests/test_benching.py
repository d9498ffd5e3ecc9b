"""The parts of ``qixai-fast bench``: its truths against other arithmetic, its verdicts on broken tools."""

import json
import math

import numpy as np
import pytest
from scipy.special import log_ndtr, ndtr, ndtri

import qixai_fast as qf
from qixai_fast.benching import (
    attributions,
    cases,
    information,
    racing,
    run_bench,
    similarity,
    spectrum,
    stored,
)
from qixai_fast.benching.reading import details, reading
from qixai_fast.benching.text import beside, case_lines, duration, number
from qixai_fast.benching.truths import Marginal, block_pairs, cut_gaussian, normals


def cut_by_grid(rho, p, q):
    """The same integral on a two-dimensional grid, all parts by their definition."""
    nodes, weights = np.polynomial.legendre.leggauss(400)
    s = math.sqrt(1 - rho**2)
    a, b = (ndtri(share) if share else -9.0 for share in (p, q))

    def grid(low):
        return low + (nodes + 1) * (9 - low) / 2, weights * (9 - low) / 2

    (x, wx), (y, wy) = grid(a), grid(b)
    normal = [np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) for z in (x, y)]
    log_ratio = -math.log(s) - (x[:, None] ** 2 - 2 * rho * x[:, None] * y + y**2) / (2 * s**2)
    log_ratio = log_ratio + (x[:, None] ** 2 + y**2) / 2
    total = wx @ (np.outer(*normal) * np.exp(log_ratio) * log_ratio) @ wy
    for low, share, (z, w, density) in ((a, p, (y, wy, normal[1])), (b, q, (x, wx, normal[0]))):
        if share:
            t = (low - rho * z) / s
            total += w @ (density * ndtr(t) * (log_ndtr(t) - math.log(share)))
    if p and q:
        both = p - wy @ (normal[1] * ndtr((a - rho * y) / s))
        total += both * math.log(both / (p * q))
    return total


@pytest.mark.parametrize(("rho", "p", "q"), [(0.6, 0, 0), (0.6, 0.5, 0), (-0.4, 0.1, 0.7), (0.9, 0.9, 0.5)])
def test_truth_of_a_cut_gaussian(rho, p, q):
    assert cut_gaussian(rho, p, q) == pytest.approx(cut_by_grid(rho, p, q), abs=1e-9)
    assert cut_gaussian(rho, p, q) == pytest.approx(cut_gaussian(rho, q, p), abs=1e-12)
    assert cut_gaussian(0.0, p, q) == 0


def test_planted_truth_is_that_of_the_users_marginals():
    rng = np.random.default_rng(0)
    X = np.column_stack([
        np.maximum(rng.standard_normal(20_000) + 0.3, 0) ** 1.5,
        rng.gamma(0.5, size=20_000),
        rng.choice([0.0, 1.0, 2.0], 20_000),  # no exact truth: left out
        -np.minimum(rng.exponential(size=20_000), 1.0),
    ]).astype(np.float32)  # fmt: skip
    values, truths = stored.planted(X, rng)
    assert values.shape == (20_000, 3)
    assert values.dtype == np.float32
    for planted, own in zip(values.T, X[:, [0, 1, 3]].T, strict=True):
        quantiles = np.linspace(0, 1, 11)
        np.testing.assert_allclose(
            np.quantile(planted, quantiles[1:-1]), np.quantile(own, quantiles[1:-1]), atol=0.03
        )
        assert (planted == own.min()).mean() == pytest.approx((own == own.min()).mean(), abs=0.02)
    found = [qf.mutual_info_ksg(values[:, i], values[:, j]) for i, j in [(0, 1), (0, 2), (1, 2)]]
    np.testing.assert_allclose(found, truths, atol=0.025)
    assert stored.planted(X[:, [0, 2]], rng) is None


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_planted_values_lie_on_the_lattice_of_the_column(kind):
    values = np.random.default_rng(1).standard_normal(5000).astype(np.float32)
    if kind == "float16":
        values = values.astype(np.float16)
    else:
        values = (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    marginal = Marginal.of(values)
    assert marginal.lattice.name == kind
    drawn = marginal.at(np.random.default_rng(2).standard_normal(5000)).astype(values.dtype)
    again = Marginal.of(drawn)
    assert again.lattice is not None
    assert again.lattice.name == kind


def test_pairs_take_turns_over_the_correlations():
    pairs, rhos = block_pairs([(3, 0.5), (3, 0.9)], 6)
    assert rhos == [0.9, 0.5, 0.0] * 2
    X = normals(np.random.default_rng(0), 50_000, [(3, 0.5), (3, 0.9)])
    found = [np.corrcoef(X[:, i], X[:, j])[0, 1] for i, j in pairs]
    np.testing.assert_allclose(found, rhos, atol=0.02)


def test_attributions_of_the_closed_form_are_complete_and_those_of_many_steps():
    rng = np.random.default_rng(3)
    x, W, b, v = rng.normal(size=(5, 4)), rng.normal(size=(9, 4)), rng.normal(size=9), rng.normal(size=9)
    exact = attributions.true_attributions(x, W, b, v)
    change = (np.maximum(x @ W.T + b, 0) - np.maximum(b, 0)) @ v
    np.testing.assert_allclose(exact.sum(axis=1), change, atol=1e-12)
    steps = (np.arange(20_000) + 0.5) / 20_000
    on = (steps[:, None, None] * (x @ W.T) + b > 0).mean(axis=0)
    np.testing.assert_allclose(exact, x * ((on * v) @ W), atol=1e-3)


def test_brute_force_ksg_is_ours():
    x, y = np.random.default_rng(0).standard_normal((2, 200))
    expected = qf.mutual_info_ksg(x, y, scale=None, atoms="none")
    assert information.brute_ksg(x, y) == pytest.approx(expected, abs=1e-12)


def test_true_singular_values_do_not_mind_an_offset():
    X = np.random.default_rng(0).standard_normal((6000, 8)) * np.geomspace(1, 1e-3, 8)
    np.testing.assert_allclose(spectrum.true_values(X + 4096.0), spectrum.true_values(X), rtol=1e-6)
    np.testing.assert_allclose(
        spectrum.true_values(X), np.linalg.svd(X - X.mean(axis=0), compute_uv=False), rtol=1e-12
    )


def test_missed_neighbours():
    truth = similarity.true_cosines(np.eye(2, 30) + 1e-3, np.random.default_rng(0).random((30, 30)))
    best = np.argsort(-truth, axis=1)[:, :10]
    assert similarity.missed(best, truth) == 0
    worst = np.argsort(truth, axis=1)[:, :1]
    assert similarity.missed(np.hstack([best[:, :9], worst]), truth) == pytest.approx(0.1)
    assert math.isnan(similarity.missed(np.hstack([best[:, :9], best[:, :1]]), truth))


def case_of(entrants, **changed):
    """Numbers that should be 1, from entrants given as functions of how many."""
    options = {
        "instrument": "ones", "data": "none", "truth": "1", "unit": "pair", "units": 6,
        "entrants": [cases.Entrant(name, make) for name, make in entrants.items()],
        "score": lambda values, units: cases.largest_error(np.asarray(values), np.ones(units)),
        "right": cases.constant(0.01), "wrong": cases.constant(0.1), "first": 2,
    }  # fmt: skip
    return cases.Case(**{**options, **changed})


def ones(units):
    return lambda: [1.0] * units


def with_warning(units):
    def call():
        import warnings

        warnings.warn("the data are bad", RuntimeWarning, stacklevel=1)
        return [2.0] * units

    return call


def broken(units):
    raise RuntimeError("no such thing")


def test_wrong_tools_are_called_wrong():
    entrants = {
        "qixai-fast": ones,
        "nearly": lambda units: lambda: [1.05] * units,
        "liar": lambda units: lambda: [1.5] * units,
        "honest": with_warning,
        "lost": lambda units: lambda: [float("nan")] * units,
        "broken": broken,
    }
    result = racing.race(case_of(entrants), 0.2)
    rows = {row["name"]: row for row in result["rows"]}
    assert {name: row["verdict"] for name, row in rows.items()} == {
        "qixai-fast": "right", "nearly": "off", "liar": "WRONG", "honest": "WRONG", "lost": "WRONG",
        "broken": "failed",
    }  # fmt: skip
    assert rows["liar"]["error"] == pytest.approx(0.5)
    assert rows["honest"]["warned"] == "the data are bad"
    assert rows["lost"]["error"] is None
    json.dumps(result, allow_nan=False)
    lines = {line.split()[0]: line for line in case_lines(result, 1)[4:]}
    assert "WRONG, and silent" in lines["liar"]
    assert "WRONG, though it warned" in lines["honest"]
    assert "failed" in lines["broken"]
    assert "RuntimeError: no such thing" in lines["broken"]
    (line,) = reading([result])
    assert line.startswith(
        "ones, 1 data set: right on it: qixai-fast. The fastest that is right: qixai-fast."
    )
    assert "WRONG without a warning: liar and lost. WRONG, though it warned: honest. Failed: broken." in line
    text = "\n".join(details([result]))
    assert "ones: liar was WRONG, without a warning: none (error 0.5)" in text
    assert "ones: honest was WRONG, though it warned" in text
    assert "ones: off but not wrong: nearly." in text
    assert "ones: broken failed: none." in text


def test_tools_that_are_wrong_alike_share_a_sentence():
    def liar(units):
        return lambda: [1.5] * units

    entrants = {"qixai-fast": ones, "one": liar, "two": liar, "three": with_warning, "four": with_warning}
    results = [racing.race(case_of({**entrants, "five": broken, "six": broken}, data=x), 0.1) for x in "ab"]
    (line,) = reading(results)
    assert "ones, 2 data sets: right on all of them: qixai-fast." in line
    assert "WRONG without a warning: one (on 2) and two (on 2)." in line
    assert [sentence for sentence in details(results) if "faster" not in sentence] == [
        "ones: one and two were WRONG, without a warning: a (error 0.5); b (error 0.5).",
        "ones: three and four were WRONG, though they warned: a (error 1); b (error 1).",
        "ones: five and six failed: a; b.",
    ]


def test_right_on_all_is_said_of_tools_that_ran_on_all():
    results = [
        racing.race(case_of({"qixai-fast": ones, **more}, data=data), 0.1)
        for data, more in (("a", {}), ("b", {"sometimes": ones}))
    ]
    assert "right on all of them: qixai-fast. " in reading(results)[0]


def test_numbers_are_written_out():
    assert [number(value) for value in (1.25e-7, 0.996, 9.96, 99.6, 121, 6412)] == [
        "1.2e-07", "1", "10", "100", "120", "6,400"
    ]  # fmt: skip
    assert [duration(value) for value in (0.9999, 0.01234, 9.9996e-4, 5e-10, 1234, 0)] == [
        "1 s", "12.3 ms", "1 ms", "0.5 ns", "1,230 s", "0 ns"
    ]  # fmt: skip
    assert beside({"ratio": 1 / 121}) == "120x faster"
    assert beside({"ratio": 6412.0}) == "6,400x slower"


def test_results_that_cannot_be_judged_are_failures():
    def odd(units):
        return lambda: "nothing like it"

    result = racing.race(case_of({"qixai-fast": ones, "odd": odd}), 0.1)
    assert [row["verdict"] for row in result["rows"]] == ["right", "failed"]
    assert "ValueError" in result["rows"][1]["detail"]


def test_a_layer_of_one_feature_is_left_out_in_words():
    layer = stored.Sample("logit", np.random.default_rng(0).standard_normal((60, 1)), 1)
    made = [step() for step in stored.steps([layer], n_jobs=1, seed=0)]
    assert "logit: one feature, so no spectrum" in made
    for case in made:
        if not isinstance(case, str):
            assert {row["verdict"] for row in racing.race(case, 0.1)["rows"]} <= {"right", "off", "WRONG"}


def test_ours_is_called_wrong_and_slow_like_any_other():
    def slow(units):
        def call():
            racing.time.sleep(0.02)
            return [3.0] * units

        return call

    entrants = {
        "qixai-fast": slow,
        "qixai-fast (other)": lambda m: lambda: slow(m)() and [1.0] * m,
        "peer": ones,
    }
    text = "\n".join(details([racing.race(case_of(entrants), 0.2)]))
    assert "qixai-fast was WRONG, without a warning" in text
    assert "on 1 of 1 another right tool is faster than qixai-fast" in text


def test_slow_tools_do_less_and_all_are_judged_by_what_all_did():
    def slow(units):
        def call():
            racing.time.sleep(0.01 * units)
            return [1.0] * units

        return call

    def wrong_later(units):  # wrong only where the slow one has not been
        return lambda: [1.0] * min(units, 2) + [9.0] * max(units - 2, 0)

    result = racing.race(case_of({"qixai-fast": wrong_later, "slow": slow}, units=50), 0.1)
    ours, theirs = result["rows"]
    assert (ours["units"], theirs["units"], result["judged_on"]) == (50, 2, 2)
    assert ours["verdict"] == "right"
    assert 0.008 < theirs["seconds"] < 0.05  # of one pair, not of two
    assert any("2 of 50 pairs" in line for line in case_lines(result, 1))


def test_what_a_first_call_compiles_is_not_held_against_it():
    calls = []

    def compiles(units):
        def call():
            if not calls:
                racing.time.sleep(0.3)
            calls.append(units)
            return [1.0] * units

        return call

    result = racing.race(case_of({"qixai-fast": compiles, "peer": ones}, units=50), 0.1)
    assert [row["units"] for row in result["rows"]] == [50, 50]
    assert result["judged_on"] == 50
    assert all(row["rounds"] >= 3 and row["seconds"] < 0.01 for row in result["rows"])


def test_a_tool_far_beyond_its_share_is_called_twice():
    calls = []

    def slow(units):
        return lambda: calls.append(racing.time.sleep(0.1)) or [1.0] * units

    rows = racing.race(case_of({"qixai-fast": ones, "slow": slow}), 0.1)["rows"]
    assert len(calls) == 2
    assert (rows[1]["units"], rows[1]["rounds"]) == (2, 1)
    assert rows[1]["ratio"] > 1


def test_tools_that_are_not_installed_are_named(monkeypatch):
    monkeypatch.setattr(information, "ksg_peers", lambda: {"NPEET": None})
    X = np.random.default_rng(0).standard_normal((200, 3))
    case = information.ksg_case(X, [(0, 1), (1, 2)], np.zeros(2), "noise", "0", n_jobs=1)
    result = racing.race(case, 0.05)
    assert [row["name"] for row in result["rows"]] == ["qixai-fast"]
    assert case_lines(result, 1)[-1].strip() == "cannot be imported here, not measured: NPEET"


def test_an_estimator_that_is_broken_is_found_on_planted_data(monkeypatch):
    X, truths = stored.planted(np.random.default_rng(0).random((1000, 4)), np.random.default_rng(1))
    pairs = [(i, j) for j in range(4) for i in range(j)]
    monkeypatch.setattr(information, "ksg_peers", lambda: {"clipped": lambda x, y: 0.0})
    case = information.ksg_case(X, pairs, truths, "planted", "known", n_jobs=1)
    verdicts = {row["name"]: row["verdict"] for row in racing.race(case, 0.2)["rows"]}
    assert verdicts == {"qixai-fast": "right", "clipped": "WRONG"}


def test_planted_truths_that_chance_hides_say_so():
    assert information.distinguishable(np.array([0.5, 0.3]), 1000)
    assert not information.distinguishable(np.array([0.05, 0.01]), 1000)
    X = np.random.default_rng(0).standard_normal((400, 5))
    X = np.maximum(X - 1.3, 0)  # nine zeros in ten hide most of what is planted
    case = stored._planted(stored.Sample("sparse", X, 5), information.ksg_case, 1, [0])
    assert "too little to be told from 0" in case.truth


def test_findings_name_what_the_data_have():
    rng = np.random.default_rng(0)
    X = np.maximum(rng.standard_normal((600, 6)), 0).astype(np.float32)
    X[:, 0] = 0
    X[:, 1] = 500 + rng.standard_normal(600)
    text = " ".join(stored.findings(stored.Sample("conv", X, 200)))
    for words in (
        "6 of 200 features",
        "1 of 6 maps have one value",
        "4 of 6 maps have an atom",
        "times the spread",
    ):
        assert words in text
    assert "20 samples of 6 features are few" in " ".join(stored.findings(stored.Sample("conv", X[:20], 6)))
    half = stored.findings(stored.Sample("conv", rng.standard_normal((600, 4)).astype(np.float16), 4))
    assert "lattice (float16)" in " ".join(half)
    assert stored.findings(stored.Sample("conv", rng.standard_normal((600, 4)), 4)) == []


def test_peers_that_draw_from_global_generators_are_seeded_and_put_them_back():
    torch = pytest.importorskip("torch")
    X = np.random.default_rng(0).standard_normal((200, 30))
    case = spectrum.spectrum_case(X, "noise", n_jobs=1, seed=0)
    drawing = [one for one in case.entrants if one.name in ("fbpca", "torch.pca_lowrank")]
    assert drawing
    states = np.random.get_state()[1].copy(), torch.get_rng_state()
    for entrant in drawing:
        np.testing.assert_array_equal(entrant.make(1)(), entrant.make(1)())
    attributions.gradients_case(4, 4, n_jobs=1, seed=0)
    np.testing.assert_array_equal(np.random.get_state()[1], states[0])
    assert torch.equal(torch.get_rng_state(), states[1])


def test_torch_peers_have_the_threads_that_torch_is_given():
    pytest.importorskip("torch")
    case = attributions.gradients_case(4, 4, n_jobs=2, seed=0)
    assert {entrant.threads for entrant in case.entrants} == {2}


def test_threads_of_libraries_are_put_back():
    faiss, torch = pytest.importorskip("faiss"), pytest.importorskip("torch")
    before = faiss.omp_get_max_threads(), torch.get_num_threads()
    with racing.threads_limited(before[1] + 1):
        assert (faiss.omp_get_max_threads(), torch.get_num_threads()) == (before[1] + 1,) * 2
    assert (faiss.omp_get_max_threads(), torch.get_num_threads()) == before


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"seconds": 0}, ValueError, "seconds"),
        ({"seconds": "long"}, TypeError, "seconds"),
        ({"layers": ["conv1"]}, ValueError, "of a store"),
        ({"n_samples": 100}, ValueError, "of a store"),
        ({"random_state": -1}, ValueError, "random_state"),
        ({"n_jobs": 0}, ValueError, "n_jobs"),
    ],
)
def test_bad_options(options, error, words):
    with pytest.raises(error, match=words):
        run_bench(**options)


def test_neighbours_that_are_wrong_by_rounding_say_so():
    rng = np.random.default_rng(0)
    X, Y = (rng.standard_normal((40, 8)) + 300 for _ in range(2))
    case = similarity.top_k_case(X.astype(np.float32), Y.astype(np.float32), "far off", n_jobs=1)
    shuffled = np.tile(np.arange(10), (40, 1))
    score = case.score(shuffled, 40)
    assert 0.5 < score.error < 1
    assert "short by" in score.detail
