"""More samples than an audit tests: values from all of them, codes and products made once and kept."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

import qixai_fast as qf
from qixai_fast.auditing import context as context_module
from qixai_fast.auditing import layer_codes
from qixai_fast.auditing.layer_codes import LayerCodes
from qixai_fast.auditing.layer_moments import LayerMoments
from qixai_fast.auditing.layer_state import entropy_and_purity
from qixai_fast.auditing.planning import dry_run

N, TESTED = 3000, 400
PLAN = qf.AuditPlan(n_permutations=99, n_bins=6, test_samples=TESTED, max_maps=5, n_top_pairs=3, n_jobs=1)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("large") / "store"
    rng = np.random.default_rng(0)
    labels = np.arange(N) % 3
    shared = rng.standard_normal((N, 1)) + labels[:, None]
    layers = {
        "a": np.maximum(rng.standard_normal((N, 8)) * np.linspace(0.5, 2, 8) + shared, 0).astype(np.float32),
        "b": np.maximum(rng.standard_normal((N, 6)) + shared, 0).astype(np.float16),
    }
    specs = {name: qf.LayerSpec(data.shape[1:], data.dtype.name) for name, data in layers.items()}
    with qf.create_store(path, layers=specs, labels=True) as writer:
        writer.append(layers, labels=labels)
    return path


@pytest.fixture(scope="module")
def report(store):
    return qf.audit(store, plan=PLAN, progress=False)


def largest(data: np.ndarray, count: int) -> np.ndarray:
    """Numbers of the maps of largest spread, in order."""
    return np.sort(np.argsort(-np.std(data.astype(np.float64), axis=0), kind="stable")[:count])


@pytest.mark.parametrize("correction", [None, "miller-madow", "panzeri-treves", "permutation-mean"])
@pytest.mark.parametrize("strategy", ["quantile", "uniform"])
def test_values_are_those_of_all_samples(store, strategy, correction):
    plan = qf.AuditPlan(
        n_permutations=9, n_bins=6, strategy=strategy, bias_correction=correction, test_samples=50
    )
    report = qf.audit(store, plan=plan, progress=False)
    layers = qf.open_store(store)
    options = {"n_bins": 6, "strategy": strategy, "bias_correction": correction}
    for pair in report.results["pairs"]:
        information = pair["mutual_info"]
        assert information["n_samples_tested"] == 50
        a, b = layers[pair["layer_a"]], None if pair["within"] else layers[pair["layer_b"]]
        expected = qf.pairwise_mutual_info_binned(a, b, **options)
        if pair["within"]:
            np.fill_diagonal(expected, np.nan)
        found = report.arrays[information["arrays"]]["values"]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_the_test_of_drawn_samples_finds_what_is_dependent(report):
    """All maps of both layers follow one signal, so that a few hundred samples show most pairs."""
    for pair in report.results["pairs"]:
        information = pair["mutual_info"]
        assert information["n_samples_tested"] == TESTED
        pvalues = report.arrays[information["arrays"]]["pvalues"]
        assert np.nanmin(pvalues) >= 1 / 100
        assert information["distinguishable"]
    labels = report.results["labels"]
    assert all(layer["n_samples_tested"] == TESTED for layer in labels["layers"])
    assert all(layer["n_max_p_below_alpha"] > 0 for layer in labels["layers"])


def test_the_test_of_drawn_samples_keeps_its_level(tmp_path):
    """Independent layers: family-wise p-values below 0.05 in about one of twenty audits."""
    rng = np.random.default_rng(1)
    found = 0
    for trial in range(60):
        path = tmp_path / str(trial)
        with qf.create_store(
            path, layers={"a": qf.LayerSpec((4,), "float32"), "b": qf.LayerSpec((4,), "float32")}
        ) as writer:
            writer.append({name: rng.standard_normal((300, 4)).astype(np.float32) for name in "ab"})
        plan = qf.AuditPlan(
            n_permutations=39, n_bins=4, test_samples=100, null_samples=50, pairs=[("a", "b")], n_top_pairs=0,
            n_components=2, random_state=trial, n_jobs=1,
        )  # fmt: skip
        (pair,) = qf.audit(path, plan=plan, progress=False).results["pairs"]
        found += pair["mutual_info"]["distinguishable"]
    assert found <= 10  # 3 are expected; more than 10 comes once in 3,000 times


def test_widest_maps_are_compared_and_ksg_reads_their_columns(store, report):
    layers = qf.open_store(store)
    for pair in report.results["pairs"]:
        tables = report.arrays[pair["mutual_info"]["arrays"]]
        for side, name in (("maps_a", pair["layer_a"]), ("maps_b", pair["layer_b"])):
            np.testing.assert_array_equal(tables[side], largest(layers[name], 5))
    table = report.results["entangled"]
    for row in table["rows"]:
        a, b = layers[row["layer_a"]][:, row["map_a"]], layers[row["layer_b"]][:, row["map_b"]]
        assert row["ksg"] == pytest.approx(qf.mutual_info_ksg(a, b), abs=1e-12)


@pytest.mark.parametrize("options", [{"n_jobs": 2}, {"max_memory": "4MB"}])
def test_same_bits_for_threads_and_budgets(store, report, options):
    fields = {
        name: getattr(PLAN, name)
        for name in ("n_permutations", "n_bins", "test_samples", "max_maps", "n_top_pairs")
    }
    other = qf.audit(store, plan=qf.AuditPlan(**fields, **options), progress=False)
    assert json.dumps(other.results["pairs"]) == json.dumps(report.results["pairs"])
    assert json.dumps(other.results["labels"]) == json.dumps(report.results["labels"])


def test_columns_of_a_large_layer_come_from_its_copy(store, report, monkeypatch):
    monkeypatch.setattr(context_module, "COPIED_BYTES", 0)
    other = qf.audit(store, plan=PLAN, progress=False)
    assert json.dumps(other.results["pairs"]) == json.dumps(report.results["pairs"])
    assert json.dumps(other.results["labels"]) == json.dumps(report.results["labels"])
    assert len(list((Path(store) / "columns").glob("*.npy"))) == 2


def test_codes_and_products_are_made_once_and_gone_in_the_end(store, tmp_path, monkeypatch):
    """The first audit is stopped in its last stage; the second makes no codes and reads no products again."""
    out = tmp_path / "out"
    from qixai_fast.auditing import run as run_module

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "ksg_stage", stop)
        with pytest.raises(KeyboardInterrupt):
            qf.audit(store, out, plan=PLAN, progress=False)
    kept = out / ".stages"
    assert len(list(kept.glob("*.codes.npy"))) == 2
    assert len(list(kept.glob("moments_*.npz"))) == 1
    for path in kept.glob("mutual_info_*.json"):
        path.unlink()

    def refuse(*_: object) -> None:
        raise AssertionError("made again")

    with monkeypatch.context() as patch:
        patch.setattr(layer_codes, "_write", refuse)
        patch.setattr(LayerMoments, "_read", refuse)
        for path in kept.glob("relation_*.json"):
            path.unlink()
        again = qf.audit(store, out, plan=PLAN, progress=False)
    whole = qf.audit(store, tmp_path / "other", plan=PLAN, progress=False)
    assert json.dumps(again.results) == json.dumps(whole.results)
    assert not list(kept.glob("*.codes.*"))
    assert not list(kept.glob("moments_*"))


class TestLayerCodes:
    columns = np.random.default_rng(3).standard_normal((500, 40))
    maps = np.arange(1, 40, 2)

    def make(self, folder, key="k"):
        return LayerCodes(folder).of("x", key, lambda: self.columns, self.maps, n_bins=5, strategy="quantile")

    def test_are_those_of_digitize(self, tmp_path):
        expected = qf.digitize(self.columns[:, self.maps], n_bins=5, strategy="quantile").codes
        np.testing.assert_array_equal(self.make(tmp_path), expected)
        np.testing.assert_array_equal(self.make(None), expected)

    @pytest.mark.parametrize("damage", ["flip", "cut", "note"])
    def test_damaged_files_are_made_again(self, tmp_path, damage):
        whole = np.array(self.make(tmp_path))
        path = tmp_path / ("x.codes.note" if damage == "note" else "x.codes.npy")
        data = bytearray(path.read_bytes())
        if damage == "cut":
            del data[-100:]
        else:
            data[-3] ^= 1
        path.write_bytes(bytes(data))
        np.testing.assert_array_equal(self.make(tmp_path), whole)

    def test_another_key_makes_them_again(self, tmp_path):
        self.make(tmp_path)
        before = (tmp_path / "x.codes.npy").stat().st_ino
        self.make(tmp_path, "another")
        assert (tmp_path / "x.codes.npy").stat().st_ino != before

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
    def test_a_full_disk_is_named_and_leaves_nothing(self, tmp_path):
        (tmp_path / ".x.codes.npy.tmp").symlink_to("/dev/full")
        with pytest.raises(OSError, match=r"x\.codes\.npy.*No space left"):
            self.make(tmp_path)
        assert list(tmp_path.iterdir()) == []


def test_entropy_and_purity_are_those_of_their_functions(store):
    layers = qf.open_store(store)
    from qixai_fast._validate import as_matrix

    for name in layers:
        found = entropy_and_purity(as_matrix(layers[name]), zero_samples="drop", n_jobs=1)
        assert found == (
            qf.von_neumann_entropy(layers[name], zero_samples="drop", n_jobs=1),
            qf.purity(layers[name], zero_samples="drop", n_jobs=1),
        )


def test_the_plan_knows_of_all_samples(store):
    few, many = (
        {cost.name: cost for cost in dry_run(store, plan=qf.AuditPlan(n_permutations=99, test_samples=count))}
        for count in (200, 2000)
    )
    name = "mutual_info_00_a_01_b"
    assert few[name].operations == 48 * (100 * 200 + N)
    assert many[name].operations == 48 * (100 * 2000 + N)
