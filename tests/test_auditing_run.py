"""A whole audit: what it finds, where its numbers come from, and bad input."""

from __future__ import annotations

import json
import tracemalloc

import audit_data
import numpy as np
import pytest
from audit_data import CLASSES, N, activations, make_store, pair_of, plan, small_model
from audit_schema import schema_problems

from qixai_fast.auditing.run import audit
from qixai_fast.errors import MemoryBudgetError, StoreError
from qixai_fast.mutual_info.binned import mutual_info_binned
from qixai_fast.mutual_info.ksg import mutual_info_ksg
from qixai_fast.mutual_info.mixed import mutual_info_mixed
from qixai_fast.store import LayerSpec, create_store

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("audit") / "store"
    make_store(path)
    return path


@pytest.fixture(scope="module")
def report(store, tmp_path_factory):
    return audit_data.run(str(store), str(tmp_path_factory.mktemp("audit") / "report"))


@pytest.fixture
def short_reports(monkeypatch):
    audit_data.simplify(monkeypatch.setattr)


class TestFindings:
    """The audit of data with a known outcome."""

    def test_results_keep_the_schema_and_are_strict_json(self, report):
        assert schema_problems(report.results) == []
        on_disk = json.loads((report.out / "results.json").read_bytes(), parse_constant=pytest.fail)
        assert on_disk == report.results

    def test_dead_and_duplicate_maps(self, report):
        conv, dense, noise = report.results["layers"]
        assert (conv["dead_maps"], conv["duplicate_groups"]) == ([3], [[0, 5]])
        assert (dense["dead_maps"], noise["duplicate_groups"]) == ([], [])
        codes = {(w["code"], *w["layers"]) for w in report.warnings}
        assert {("dead_maps", "conv"), ("duplicate_maps", "conv")} <= codes

    def test_the_maps_that_share_a_signal_come_first(self, report):
        rows = report.results["entangled"]["rows"]
        first = next(row for row in rows if not row["within"])
        assert (first["layer_a"], first["layer_b"], first["map_b"]) == ("conv", "dense", 0)
        assert first["map_a"] in (0, 5)
        assert first["selection_pvalue"] <= 0.05
        inside = next(row for row in rows if row["within"])
        assert (inside["layer_a"], inside["map_a"], inside["map_b"], inside["duplicate"]) == (
            "conv",
            0,
            5,
            True,
        )
        assert [row["rank"] for row in rows if row["within"]] == list(range(1, 21))

    def test_noise_is_told_from_dependence(self, report):
        for a, b, related in (("conv", "dense", True), ("conv", "noise", False), ("dense", "noise", False)):
            pair = pair_of(report.results, a, b)
            assert pair["mutual_info"]["distinguishable"] is related
            assert pair["cka"]["significant"] is related
            assert (pair["schmidt"] is not None) is related
            code = "mutual_information_indistinguishable"
            silent = next(w["text"] for w in report.warnings if w["code"] == code)
            assert (f"between {a} and {b}" in silent) is not related

    def test_the_informative_maps_know_the_class(self, report):
        labels = report.results["labels"]
        assert labels["label_entropy"] == pytest.approx(np.log(3))
        conv, dense, noise = labels["layers"]
        assert conv["best"][0]["map"] in (0, 5)
        assert dense["best"][0]["map"] == 0
        assert dense["best"][0]["max_pvalue"] == 1 / 150
        assert noise["n_max_p_below_alpha"] == 0
        assert ("mutual_information_indistinguishable", "noise") in {
            (w["code"], *w["layers"]) for w in report.warnings
        }

    def test_attributions_are_complete_and_named(self, report):
        section = report.results["attributions"]
        assert len(section["samples"]) == 4
        for sample in section["samples"]:
            assert sample["converged"]
            assert sample["relative_delta"] <= section["tol"]
            assert sample["label"] == CLASSES[sample["sample"] % 3]
        arrays = report.arrays["attributions"]
        assert arrays["values_0"].shape == arrays["inputs_0"].shape == (4, 4)
        model, inputs = small_model()
        with torch.no_grad():
            predicted = model(inputs[arrays["sample"]])
            at_zero = model(torch.zeros(1, 4))[0, predicted.argmax(1)].numpy()
        assert [s["target"] for s in section["samples"]] == predicted.argmax(1).tolist()
        change = np.array([s["output"] for s in section["samples"]]) - at_zero
        total = arrays["values_0"].sum(axis=1)
        np.testing.assert_allclose(total - change, arrays["delta"], atol=1e-4)

    def test_every_section_has_a_finding_and_the_report_is_there(self, report):
        sections = [finding["section"] for finding in report.results["findings"]]
        assert sections == ["spectrum", "maps", "similarity", "entanglement", "labels", "attributions"]
        assert report.results["skipped"] == {}
        assert report.html.stat().st_size > 10_000
        assert report.reading


class TestNumbers:
    """The same numbers as from the engines, or from a formula."""

    def test_spectrum(self, report):
        data = activations()[0]["dense"].astype(float)
        values = np.linalg.eigvalsh(np.cov(data.T))[::-1]
        arrays = report.arrays["layer_01_dense"]
        np.testing.assert_allclose(arrays["explained_variance_ratio"], values / values.sum(), rtol=1e-6)
        scores = (data - data.mean(axis=0)) @ arrays["components"].T
        expected = np.corrcoef(np.hstack([scores, data]).T)[:7, 7:]
        np.testing.assert_allclose(arrays["loadings"], expected, atol=1e-5)
        np.testing.assert_allclose(arrays["std"], data.std(axis=0, ddof=1), rtol=1e-10)
        np.testing.assert_allclose(arrays["zero_fraction"], (data == 0).mean(axis=0))
        np.testing.assert_allclose(arrays["scores"], scores[:, :2], atol=1e-4)

    def test_cosines_and_their_null(self, report):
        layers, _ = activations()
        conv, dense = layers["conv"].astype(float), layers["dense"].astype(float)
        arrays = report.arrays["relation_00_conv_01_dense"]
        live = [0, 1, 2, 4, 5]
        expected = np.corrcoef(conv[:, live].T, dense.T)[:5, 5:]
        np.testing.assert_allclose(arrays["cosine_centred"][live], expected, atol=1e-6)
        assert not arrays["cosine_centred"][3].any()
        rng = np.random.default_rng(0)
        norms = np.outer(np.linalg.norm(conv, axis=0), np.linalg.norm(dense, axis=0))
        norms[3] = 1.0
        draws = [conv.T @ dense[rng.permutation(N)] / norms for _ in range(400)]
        np.testing.assert_allclose(arrays["cosine_raw_null"], np.mean(draws, axis=0), atol=0.015)

    def test_the_threshold_for_cosines_holds_its_level(self, report):
        cosine = pair_of(report.results, "conv", "noise")["cosine"]
        layers, _ = activations()
        rng = np.random.default_rng(1)
        first, second = (
            (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-9) for x in (layers["conv"], layers["noise"])
        )
        beyond = 0
        for _ in range(1000):
            largest = np.abs(first.T @ second[rng.permutation(N)] / N).max()
            beyond += largest > cosine["centred_threshold"]
        assert 5 <= beyond <= 70  # at most 5 %, and not uselessly strict

    def test_mutual_information(self, report):
        layers, labels = activations()
        conv, dense = layers["conv"], layers["dense"]
        table = report.arrays["mutual_info_00_conv_01_dense"]
        options = {"n_bins": 6, "strategy": "quantile", "bias_correction": "permutation-mean"}
        assert report.results["plan"]["n_bins"] == 6
        for i, j in ((0, 0), (2, 5), (3, 1)):
            direct = mutual_info_binned(conv[:, i], dense[:, j], **options)
            assert table["values"][i, j] == pytest.approx(direct, abs=1e-12)
        inside = report.arrays["mutual_info_00_conv"]["values"]
        assert np.isnan(np.diagonal(inside)).all()
        np.testing.assert_array_equal(inside, inside.T)
        for row in report.results["entangled"]["rows"][:3]:
            x, y = layers[row["layer_a"]][:, row["map_a"]], layers[row["layer_b"]][:, row["map_b"]]
            assert row["ksg"] == pytest.approx(mutual_info_ksg(x, y), abs=1e-12)
        known = report.arrays["labels_01_dense"]["values"]
        np.testing.assert_allclose(known, mutual_info_mixed(dense, labels), atol=1e-12)

    def test_cka_and_its_null(self, report):
        layers, _ = activations()
        conv, dense = (layers[name] - layers[name].mean(axis=0, dtype=float) for name in ("conv", "dense"))
        size = np.linalg.norm(conv.T @ conv) * np.linalg.norm(dense.T @ dense)
        rng = np.random.default_rng(3)
        null = [np.linalg.norm(conv.T @ dense[rng.permutation(N)]) ** 2 / size for _ in range(2000)]
        cka = pair_of(report.results, "conv", "dense")["cka"]
        assert cka["value"] == cka["tested_value"]
        assert cka["value"] == pytest.approx(np.linalg.norm(conv.T @ dense) ** 2 / size, rel=1e-6)
        assert cka["null_mean"] == pytest.approx(np.mean(null), rel=0.05)
        assert cka["null_q95"] == pytest.approx(np.quantile(null, 0.95), rel=0.1)
        assert cka["pvalue"] == 1 / 150

    def test_cka_of_many_samples_is_tested_on_some(self, store, report):
        few = audit(store, plan=plan(null_samples=60), progress=False)
        cka, whole = (pair_of(r.results, "conv", "dense")["cka"] for r in (few, report))
        assert cka["n_samples_tested"] == 60
        assert cka["value"] == whole["value"]
        assert cka["tested_value"] != whole["tested_value"]
        assert cka["null_mean"] > 2 * whole["null_mean"]  # chance is larger in fewer samples


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "error", "words"),
        [
            ({"model": torch.nn.Linear(4, 3)}, ValueError, "inputs: wanted together with model"),
            ({"inputs": torch.ones(3, 4)}, ValueError, "model: wanted together with inputs"),
            ({"target": 1}, ValueError, "target: has no meaning without a model"),
            ({"model": "net", "inputs": torch.ones(3, 4)}, TypeError, "model: wanted a torch.nn.Module"),
            ({"model": torch.nn.Linear(4, 3), "inputs": 3}, TypeError, "inputs: wanted a tensor"),
            (
                {"model": torch.nn.Linear(4, 3), "inputs": []},
                ValueError,
                "inputs: wanted at least one sample",
            ),
            (
                {"model": torch.nn.Linear(4, 3), "inputs": torch.ones(3, 4, dtype=torch.long)},
                TypeError,
                "inputs: wanted floating-point",
            ),
            (
                {"model": torch.nn.Linear(4, 3), "inputs": torch.ones(3, 4), "target": 3},
                ValueError,
                "target: wanted outputs 0 to 2",
            ),
            (
                {"model": torch.nn.Linear(4, 3), "inputs": torch.ones(3, 4), "target": [0, 1]},
                ValueError,
                "target: .*each of 3 inputs, got 2",
            ),
            ({"plan": {"n_bins": 4}}, TypeError, "plan: wanted an AuditPlan, a path or None"),
            ({"random_state": "x"}, TypeError, "random_state"),
            ({"random_state": -1}, ValueError, "random_state"),
        ],
    )
    def test_arguments_are_named_before_any_stage(self, store, tmp_path, options, error, words):
        with pytest.raises(error, match=words):
            audit(store, tmp_path / "out", progress=False, **options)
        assert not (tmp_path / "out").exists()

    def test_no_store(self, tmp_path):
        with pytest.raises(StoreError):
            audit(tmp_path / "nowhere")

    def test_out_in_the_store(self, store):
        for out in (store, store / "report"):
            with pytest.raises(ValueError, match=r"out: .* store"):
                audit(store, out, progress=False)
        assert not (store / "report").exists()

    def test_nan_names_layer_row_and_column(self, tmp_path):
        data = np.ones((20, 3), np.float32)
        data[7, 1] = np.nan
        with create_store(tmp_path, layers={"conv": LayerSpec(shape=(3,), dtype="float32")}) as writer:
            writer.append({"conv": data})
        with pytest.raises(ValueError, match="layer 'conv': nan at row 7, column 1"):
            audit(tmp_path, progress=False)

    def test_a_budget_too_small(self, store):
        with pytest.raises(MemoryBudgetError) as caught:
            audit(store, plan=plan(max_memory=2000), progress=False)
        assert caught.value.required > 2000


@pytest.mark.usefixtures("short_reports")
class TestCorners:
    def test_the_budget_is_kept(self, tmp_path):
        rng = np.random.default_rng(0)
        n, budget = 20_000, 40_000_000
        shape = {name: LayerSpec(shape=(d,), dtype="float32") for name, d in (("a", 24), ("b", 32))}
        with create_store(tmp_path, layers=shape, labels=True) as writer:
            data = {name: rng.random((n, *spec.shape), dtype=np.float32) for name, spec in shape.items()}
            writer.append(data, labels=rng.integers(0, 4, n))
        del data
        tight = plan(n_permutations=3, max_memory=budget, n_top_pairs=2, n_jobs=2)
        tracemalloc.start()
        audit(tmp_path, plan=tight, progress=False)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < budget

    def store_of(self, path, labels=None, **layers):
        specs = {name: LayerSpec(shape=data.shape[1:], dtype="float32") for name, data in layers.items()}
        with create_store(path, layers=specs, labels=labels is not None) as writer:
            writer.append({name: data.astype(np.float32) for name, data in layers.items()}, labels=labels)
        return path

    def test_constant_layers_and_single_maps(self, tmp_path):
        rng = np.random.default_rng(0)
        path = self.store_of(
            tmp_path / "store",
            flat=np.full((30, 3), 2.0),
            dead=np.zeros((30, 2)),
            one=rng.random((30, 1)),
            live=rng.random((30, 4)),
        )
        report = audit(path, tmp_path / "out", plan=plan(), progress=False)
        assert schema_problems(report.results) == []
        flat, dead, one, _ = report.results["layers"]
        assert (flat["constant_maps"], flat["dead_maps"]) == ([0, 1, 2], [])
        assert (dead["dead_maps"], dead["von_neumann_entropy"], dead["n_zero_samples"]) == ([0, 1], None, 30)
        assert flat["effective_rank"] == pytest.approx(1.0)
        assert one["components"][0]["top_maps"] == [{"map": 0, "loading": pytest.approx(1.0), "weight": 1.0}]
        assert not any(pair["within"] and pair["layer_a"] == "one" for pair in report.results["pairs"])
        assert pair_of(report.results, "flat", "live")["cka"]["value"] == 0.0
        assert report.results["skipped"]["labels"] == "the store holds no labels"

    def test_one_layer_of_one_map(self, tmp_path):
        path = self.store_of(tmp_path / "store", one=np.arange(12.0)[:, None])
        report = audit(path, tmp_path / "out", plan=plan(), progress=False)
        assert schema_problems(report.results) == []
        assert report.results["pairs"] == []
        assert set(report.results["skipped"]) == {"similarity", "entanglement", "labels", "attributions"}

    def test_wide_layers_are_compared_by_their_largest_maps(self, tmp_path):
        rng = np.random.default_rng(0)
        wide = rng.random((40, 30)) * np.linspace(1, 3, 30)
        path = self.store_of(tmp_path / "store", wide=wide, thin=rng.random((40, 3)))
        report = audit(path, plan=plan(max_maps=8, n_components=3), progress=False)
        pair = pair_of(report.results, "wide", "thin")
        assert (pair["n_maps_a"], pair["n_maps_b"]) == (8, 3)
        chosen = report.arrays["mutual_info_00_wide_01_thin"]["maps_a"]
        np.testing.assert_array_equal(chosen, np.sort(np.argsort(-wide.astype(np.float32).std(axis=0))[:8]))
        assert {row["map_a"] for row in report.results["entangled"]["rows"] if not row["within"]} <= set(
            chosen.tolist()
        )
        assert {w["code"] for w in report.warnings} >= {"too_few_samples", "low_explained_variance"}
        direct = mutual_info_binned(
            wide[:, chosen[2]].astype(np.float32),
            np.asarray(audit_store(path)["thin"])[:, 1],
            n_bins=4,
            strategy="quantile",
            bias_correction="permutation-mean",
        )
        values = report.arrays["mutual_info_00_wide_01_thin"]["values"]
        assert values[2, 1] == pytest.approx(direct, abs=1e-12)

    def test_copies_far_apart_are_found(self, tmp_path, monkeypatch):
        monkeypatch.setattr("qixai_fast.auditing.layer_stages._TILE", 4)
        rng = np.random.default_rng(0)
        data = rng.random((50, 12))
        data[:, 9] = 3 * data[:, 1] + 1
        data[:, 11] = data[:, 9] / 2
        data[:, 4] = -data[:, 2]  # a mirror image is no copy
        path = self.store_of(tmp_path / "store", wide=data)
        report = audit(path, plan=plan(), progress=False)
        assert report.results["layers"][0]["duplicate_groups"] == [[1, 9, 11]]

    def test_batches_and_tuples_of_inputs(self, store):
        model, inputs = small_model()
        whole = audit(store, model=model, inputs=inputs, plan=plan(layers=["noise"]), progress=False)
        batches = [(part, torch.zeros(len(part))) for part in inputs.split(50)]
        parts = audit(store, model=model, inputs=batches, plan=plan(layers=["noise"]), progress=False)
        assert parts.results == whole.results

        class Two(torch.nn.Module):
            def forward(self, a, b):
                return torch.stack([a.sum(1) * b.sum(1), a.sum(1)], dim=1)

        two = audit(
            store,
            model=Two(),
            inputs=(inputs, inputs[:, :2]),
            target=0,
            plan=plan(layers=["noise"]),
            progress=False,
        )
        assert two.arrays["attributions"]["values_1"].shape == (4, 2)
        assert {sample["target"] for sample in two.results["attributions"]["samples"]} == {0}

    def test_the_model_is_left_as_it_was(self, store):
        model, inputs = small_model()
        net = torch.nn.Sequential(model, torch.nn.Dropout(0.5))
        net.train()
        net[0].eval()
        modes = [module.training for module in net.modules()]
        threads = torch.get_num_threads()
        audit(store, model=net, inputs=inputs, plan=plan(layers=["noise"]), progress=False)
        assert [module.training for module in net.modules()] == modes
        assert torch.get_num_threads() == threads
        assert all(weight.grad is None for weight in net.parameters())

    def test_a_network_that_flips_under_noise_is_called_unstable(self, store):
        class Wild(torch.nn.Module):
            def forward(self, x):
                return torch.sin(200 * x).sum(1, keepdim=True)

        inputs = torch.linspace(0.5, 1.5, 80).reshape(20, 4)
        report = audit(store, model=Wild(), inputs=inputs, plan=plan(layers=["noise"]), progress=False)
        assert "unstable_attributions" in {w["code"] for w in report.warnings}
        assert {sample["target"] for sample in report.results["attributions"]["samples"]} == {None}


def audit_store(path):
    from qixai_fast.store import open_store

    return open_store(path)
