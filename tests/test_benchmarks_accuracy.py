"""The accuracy benchmarks run, count what they say they count, and their text says what was measured."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import qixai_fast as qf
from benchmarks import tables
from benchmarks.accuracy import beyond_normal, intervals, measuring, page, reading, spectra, table
from benchmarks.accuracy.distributions import PAIRS
from benchmarks.accuracy.estimators import BINNED, codes_local

ROOT = Path(__file__).parents[1]
PARTS = ("information", "spectra", "similarity", "gradients")


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Small sizes, in a process of its own: it limits the threads of all libraries."""
    folder = tmp_path_factory.mktemp("accuracy")
    command = [sys.executable, "-m", "benchmarks.accuracy", *PARTS, "--quick", "--out", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_every_part_leaves_results_figures_and_text(quick):
    for file in ("accuracy", "accuracy_coverage", *(f"accuracy_{part}" for part in PARTS[1:])):
        assert (quick / f"{file}.png").read_bytes().startswith(b"\x89PNG")
    text = tables.accuracy_text(quick)
    assert text.count("Not measured yet.") == 1  # Beyond Normal was not asked for
    groups = json.loads((quick / "accuracy.json").read_text())["groups"]
    result = groups["pairs"]["distributions"]["Gaussian, ρ=0.6"]
    assert result["truth"] == pytest.approx(0.2231)
    found = reading.cell_at(groups["pairs"], result, "KSG-1", 100)
    assert found["draws"] == 2
    assert f"{found['bias']:+.4f}" in text
    assert f"{found['rmse']:.4f}" in text
    assert set(groups) == set(measuring.GROUPS) == set(table.TITLES)


def test_the_same_again(quick):
    again = measuring.measure(("pairs", 0, (100, 2, 0)))
    group = json.loads((quick / "accuracy.json").read_text())["groups"]["pairs"]
    kept = reading.cell_at(group, group["distributions"][PAIRS[0].name], "KSG-2", 100)
    assert again["KSG-2"]["bias"] == pytest.approx(kept["bias"], rel=1e-3)


def float32_covariances(X):
    """Uncentred moments less the squared means, in float32: cancellation leaves nothing."""
    mean = X.mean(0)
    values, vectors = np.linalg.eigh(X.T @ X / np.float32(len(X)) - np.outer(mean, mean))
    kept = np.sqrt(np.maximum(values[::-1], 0) * len(X))[: spectra.N_COMPONENTS]
    return kept, vectors.T[::-1][: spectra.N_COMPONENTS], None


def refuses(X):
    raise TypeError("float64 only")


def test_ours_keeps_its_promise_on_offsets_and_covariances_in_float32_do_not(monkeypatch):
    X = spectra.data((1_000, 16), 1_000, "float32", 0)
    exact = spectra.truth(X)
    assert spectra.errors_of("qf.pca", X, exact)["singular_values"] < 1e-6
    monkeypatch.setitem(spectra.TOOLS, "theirs", float32_covariances)
    assert spectra.errors_of("theirs", X, exact)["singular_values"] > spectra.WRONG


def test_peers_may_refuse_and_ours_may_not(monkeypatch):
    for name in ("theirs", "qf.pca"):
        monkeypatch.setitem(spectra.TOOLS, name, refuses)
    assert spectra.errors_of("theirs", None, None) is None
    with pytest.raises(TypeError, match="float64 only"):
        spectra.errors_of("qf.pca", None, None)


def test_widths_of_a_mean_are_those_of_its_standard_error():
    """For a mean both intervals are known: 1.96 standard errors, and Student's t of the splits."""
    n, rng = 200, np.random.default_rng(0)
    widths = {"local": [], "halves": []}
    for _ in range(300):
        x = rng.standard_normal(n)
        widths["local"].append(intervals.local_width(x))
        widths["halves"].append(intervals.halves_width(np.mean, [x], rng))
    assert np.mean(widths["local"]) == pytest.approx(1.96 / math.sqrt(n), rel=0.02)
    rms = math.sqrt(np.mean(np.square(widths["halves"])))
    assert rms == pytest.approx(intervals.STUDENT / math.sqrt(n), rel=0.06)


def test_wilson_is_the_textbooks():
    low, high = intervals.wilson(0.9, 100)
    assert (low, high) == pytest.approx((0.8256, 0.9448), abs=1e-4)
    assert intervals.wilson(1.0, 10)[1] == pytest.approx(1)


def test_local_values_of_cells_average_to_the_plug_in_estimate():
    rng = np.random.default_rng(0)
    x, y = rng.integers(4, size=300), rng.integers(3, size=300)
    assert codes_local(x, y).mean() == pytest.approx(qf.mutual_info_discrete(x, y), abs=1e-12)
    x, y = rng.standard_normal(300), rng.standard_normal(300)
    for name in ("binned", "binned, quantile"):
        assert BINNED[name].local(x, y).mean() == pytest.approx(BINNED[name].value(x, y), abs=1e-12)


def test_a_tally_counts_what_holds_the_truth_and_what_is_infinite():
    tally = measuring.Tally(1.0)
    for estimate, width in ((1.1, 0.2), (1.3, 0.2), (0.9, 0.1000001), (1.0, 0.0)):
        tally.add(estimate, local=width)
    found = tally.summary()
    assert found["local"] == 0.75
    assert found["bias"] == pytest.approx(0.075)
    assert found["rmse"] == pytest.approx(math.sqrt((0.01 + 0.09 + 0.01) / 4))
    tally.add(math.inf, local=math.inf)
    found = tally.summary()
    assert found["not_finite"] == 1
    assert found["local"] == 0.6
    assert "bias" not in found


def test_cells_say_wrong_infinite_and_not_run():
    ran = {"draws": 5, "not_finite": 0}
    assert table.relative(0.5, ran | {"bias": -0.06, "rmse": 0.06}) == "**-12.0%**"
    assert table.relative(0.5, ran | {"bias": -0.06, "rmse": 0.07}) == "-12.0%"  # by chance, it may be
    assert table.relative(0.5, ran | {"bias": 0.02, "rmse": 0.02}) == "+4.0%"
    assert table.relative(0.5, ran | {"draws": 1, "bias": 0.2, "rmse": 0.2}) == "+40.0%"  # one: who knows
    assert table.relative(0.0, ran | {"bias": 0.02, "rmse": 0.02}) == "**+0.0200 nats**"
    assert table.relative(0.5, {"draws": 4, "not_finite": 3}) == "**infinite** 3 of 4"
    assert table.relative(0.5, {}) == "not run"
    assert table.share_text({"draws": 200, "local": 0.5}, "local") == "**50%**"
    assert table.share_text({"draws": 4, "local": 0.75}, "local") == "75%"  # of 4: nothing is known


@pytest.mark.parametrize("distribution", [PAIRS[0], PAIRS[9]], ids=lambda d: d.name)
def test_pairwise_forms_give_the_same(distribution):
    """So that the table's rows hold for them, too."""
    x, y = distribution.sample(np.random.default_rng(0), 500)
    X, Y = x.reshape(-1, 1), y.reshape(-1, 1)
    for algorithm in (1, 2):
        value = qf.mutual_info_ksg(x, y, algorithm=algorithm)
        assert qf.pairwise_mutual_info_ksg(X, Y, algorithm=algorithm)[0, 0] == pytest.approx(value, abs=1e-12)
    for strategy in ("uniform", "quantile"):
        for correction in (None, "miller-madow", "panzeri-treves", "grassberger", "permutation-mean"):
            options = {"strategy": strategy, "bias_correction": correction}
            value = qf.mutual_info_binned(x, y, **options)
            assert qf.pairwise_mutual_info_binned(X, Y, **options)[0, 0] == pytest.approx(value, abs=1e-12)


def test_tasks_of_beyond_normal_are_read_from_what_their_package_left(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for number, d in enumerate((1, 6)):
        x = rng.standard_normal((3, 200, d)).astype(np.float32)
        y = (0.8 * x + 0.6 * rng.standard_normal(x.shape)).astype(np.float32)
        np.savez(
            tmp_path / f"{number:02d}_t.npz", x=x, y=y, truth=0.5108 * d, name=f"task {d}", version="9.9"
        )
    monkeypatch.setattr(beyond_normal, "TASKS", tmp_path)
    content = beyond_normal.measure(quick=True, processes=1)
    one, six = content["tasks"].values()
    assert one["estimates"]["KSG-1"]["mean"] == pytest.approx(0.5108, abs=0.1)
    assert six["estimates"]["CCA, as if Gaussian"]["mean"] == pytest.approx(6 * 0.5108, rel=0.1)
    assert six["estimates"]["binned, miller-madow"] is None  # takes no vectors
    assert beyond_normal.right_in(content, "KSG-1", 1)[1] == 1
    text = "\n".join(beyond_normal.lines(content))
    assert "benchmark-mi 9.9" in text
    assert "task 6 (-" in text  # named as wrong: nearest neighbours in twelve dimensions
    beyond_normal.draw(content, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1_000


def test_rules_are_told_apart(quick):
    content = json.loads((quick / "accuracy_gradients.json").read_text())
    for network in content["networks"].values():
        rules = network["rules"]["float64"]
        for cells in rules.values():
            assert all(0 <= cell["delta"] <= cell["worst_delta"] for cell in cells)
        assert rules["ours, middle"][-1]["error"] < rules["ours, left"][-1]["error"]
    assert "| ours, middle |" in tables.accuracy_text(quick)


def test_every_part_has_a_title_and_figures():
    assert set(page.TITLES) == set(page.FIGURES) == set(page.PARTS)
