"""Parts of an audit: plan, files, warnings, words, the schema."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audit_example import example_results
from audit_schema import schema_problems

from qixai_fast.auditing.checks import find_warnings
from qixai_fast.auditing.context import find_classes, stem
from qixai_fast.auditing.files import AuditFiles, json_bytes, npz_bytes, write_atomic
from qixai_fast.auditing.findings import describe, read
from qixai_fast.auditing.plan import AuditPlan, resolve_plan
from qixai_fast.errors import StoreError
from qixai_fast.store import LayerSpec, create_store, open_store

PLAN = AuditPlan(n_permutations=199, n_bins=8)


def make_store(path: Path, n: int = 40, metadata: dict[str, Any] | None = None, **layers: tuple[int, ...]):
    rng = np.random.default_rng(0)
    specs = {name: LayerSpec(shape=shape, dtype="float32") for name, shape in layers.items()}
    with create_store(path, layers=specs, metadata=metadata or {}, labels=True) as writer:
        if n:
            data = {name: rng.random((n, *shape), dtype=np.float32) for name, shape in layers.items()}
            writer.append(data, labels=np.arange(n) % 3)
    return open_store(path)


class TestPlan:
    @pytest.mark.parametrize(
        ("field", "value", "error", "words"),
        [
            ("n_bins", 1, ValueError, "n_bins: wanted at least 2, got 1"),
            ("n_components", 0, ValueError, "n_components: wanted at least 1"),
            ("n_components", 2.5, TypeError, "n_components: wanted an integer"),
            ("n_permutations", 0, ValueError, "n_permutations"),
            ("strategy", "kmeans", ValueError, "strategy: wanted one of 'quantile', 'uniform'"),
            ("bias_correction", "magic", ValueError, "bias_correction"),
            ("alpha", 1.5, ValueError, "alpha: wanted a number between 0 and 1"),
            ("alpha", "small", TypeError, "alpha: wanted a number"),
            ("tol", 0.0, ValueError, "tol: wanted a number above 0"),
            ("tol", float("nan"), ValueError, "tol"),
            ("max_n_steps", 14, ValueError, "max_n_steps: .* at least 15"),
            ("layers", [], ValueError, "layers: wanted at least one"),
            ("layers", "conv1", TypeError, "layers: wanted a list"),
            ("layers", ["a", "a"], ValueError, "'a' named more than once"),
            ("max_memory", "lots", ValueError, "max_memory"),
            ("n_jobs", 0, ValueError, "n_jobs"),
        ],
    )
    def test_bad_values_are_named_at_once(self, field, value, error, words):
        with pytest.raises(error, match=words):
            AuditPlan(**{field: value})

    def test_what_is_open_follows_from_the_data(self, tmp_path):
        store = make_store(tmp_path, 600, a=(3,), b=(4,), c=(2,))
        plan, warnings = resolve_plan(AuditPlan(), store)
        assert plan.layers == ("a", "b", "c")
        assert plan.n_bins == 10  # 600 / 10**2 = 6 samples a cell; 11 would leave fewer than 5
        assert 6 / (1 + plan.n_permutations) <= plan.alpha / 2
        assert warnings == []
        chosen, _ = resolve_plan(AuditPlan(layers=["c", "a"], n_bins=4, n_permutations=9), store)
        assert (chosen.layers, chosen.n_bins, chosen.n_permutations) == (("a", "c"), 4, 9)

    def test_unknown_layer_lists_the_nearest(self, tmp_path):
        store = make_store(tmp_path, conv1=(3,), dense=(4,))
        with pytest.raises(ValueError, match=r"no layer 'conv'; the nearest are conv1"):
            resolve_plan(AuditPlan(layers=["conv"]), store)

    def test_layers_without_a_reduction(self, tmp_path):
        store = make_store(tmp_path, raw=(3, 2, 2), dense=(4,))
        plan, warnings = resolve_plan(AuditPlan(), store)
        assert plan.layers == ("dense",)
        assert [w["code"] for w in warnings] == ["layer_not_audited"]
        with pytest.raises(ValueError, match=r"raw \(40, 3, 2, 2\).*reduction"):
            resolve_plan(AuditPlan(layers=["raw", "dense"]), store)

    def test_empty_and_tiny_stores(self, tmp_path):
        with pytest.raises(StoreError, match="no complete sample"):
            resolve_plan(AuditPlan(), make_store(tmp_path / "a", 0, x=(3,)))
        with pytest.raises(ValueError, match=r"1 sample.*too few"):
            resolve_plan(AuditPlan(), make_store(tmp_path / "b", 1, x=(3,)))

    def test_memory_and_threads_are_no_part_of_results(self):
        fields = AuditPlan(max_memory="1GB", n_jobs=2).result_fields()
        assert "max_memory" not in fields
        assert "n_jobs" not in fields
        json.dumps(fields, allow_nan=False)


class TestClasses:
    def labels(self, tmp_path, values, metadata=None):
        specs = {"a": LayerSpec(shape=(2,), dtype="float32")}
        with create_store(tmp_path, layers=specs, labels=True, metadata=metadata or {}) as writer:
            writer.append({"a": np.ones((len(values), 2), np.float32)}, labels=np.asarray(values))
        return find_classes(open_store(tmp_path))

    def test_names_come_from_the_metadata(self, tmp_path):
        classes, _ = self.labels(tmp_path, [2, 0, 2, 0], {"class_names": ["cat", "dog", "eel"]})
        assert classes.names == ["cat", "eel"]
        assert classes.codes.tolist() == [1, 0, 1, 0]

    def test_labels_without_names(self, tmp_path):
        classes, _ = self.labels(tmp_path, [-1, 7, 7, -1], {"class_names": ["cat"]})
        assert classes.names == ["-1", "7"]

    @pytest.mark.parametrize(
        ("values", "why"), [([3, 3, 3, 3], "the same label"), ([1, 2, 3, 4], "4 values on 4 samples")]
    )
    def test_labels_that_are_no_classes(self, tmp_path, values, why):
        classes, reason = self.labels(tmp_path, values)
        assert classes is None
        assert why in reason


class TestFiles:
    STAGE = ({"value": 1.5, "list": [1, 2]}, {"a": np.arange(6.0).reshape(2, 3), "b": np.array([1, 2])})

    def test_a_stage_comes_back_as_it_was(self, tmp_path):
        files = AuditFiles(tmp_path)
        with files.locked():
            files.write("one", "key", self.STAGE)
            result, arrays = files.read("one", "key")
        assert result == self.STAGE[0]
        assert {k: v.tolist() for k, v in arrays.items()} == {k: v.tolist() for k, v in self.STAGE[1].items()}

    def test_another_key_damage_and_absence_are_read_as_nothing(self, tmp_path):
        files = AuditFiles(tmp_path)
        with files.locked():
            files.write("one", "key", self.STAGE)
            assert files.read("one", "other") is None
            assert files.read("two", "key") is None
            path = tmp_path / ".stages" / "one.npz"
            data = bytearray(path.read_bytes())
            data[200] ^= 1
            path.write_bytes(data)
            assert files.read("one", "key") is None
            (tmp_path / ".stages" / "one.json").write_bytes(b"{")
            assert files.read("one", "key") is None

    def test_the_same_arrays_give_the_same_bytes(self):
        assert npz_bytes(self.STAGE[1]) == npz_bytes(copy.deepcopy(self.STAGE[1]))

    def test_json_is_strict(self):
        with pytest.raises(ValueError):
            json_bytes({"value": float("nan")})

    def test_two_audits_do_not_share_a_directory(self, tmp_path):
        pytest.importorskip("fcntl")
        with (
            AuditFiles(tmp_path).locked(),
            pytest.raises(ValueError, match="another audit is writing"),
            AuditFiles(tmp_path).locked(),
        ):
            pass

    def test_foreign_files_are_refused_and_left_alone(self, tmp_path):
        (tmp_path / "results.json").write_text("mine")
        with pytest.raises(ValueError, match=r"results\.json that no audit wrote"):
            AuditFiles(tmp_path)
        assert (tmp_path / "results.json").read_text() == "mine"
        assert not (tmp_path / ".stages").exists()

    def test_a_file_and_a_store_are_refused(self, tmp_path):
        (tmp_path / "file").write_text("x")
        with pytest.raises(ValueError, match="is a file"):
            AuditFiles(tmp_path / "file")
        make_store(tmp_path / "store", a=(2,))
        with pytest.raises(ValueError, match="is a store of activations"):
            AuditFiles(tmp_path / "store")

    def test_publishing_replaces_its_own_files_only(self, tmp_path):
        files = AuditFiles(tmp_path)
        with files.locked():
            for stage in ("one", "two"):
                files.write(stage, "key", self.STAGE)
            (files.fresh_folder() / "report.html").write_text("first")
            (files.fresh_folder() / "figures").mkdir()
            (tmp_path / ".stages" / "new" / "figures" / "old.png").write_text("old")
            files.publish(["one", "two"], ["one", "two"], b"{}")
            (tmp_path / "notes.txt").write_text("mine")
            (files.fresh_folder() / "report.html").write_text("second")
            files.publish(["one"], ["one"], b"{}\n")
        left = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file())
        assert left == [
            ".stages/audit.json",
            ".stages/lock",
            ".stages/one.json",
            ".stages/one.npz",
            ".stages/published.json",
            "notes.txt",
            "one.npz",
            "report.html",
            "results.json",
        ]
        assert (tmp_path / "report.html").read_text() == "second"

    def test_a_list_of_published_files_cannot_reach_outside(self, tmp_path):
        victim = tmp_path / "victim.txt"
        victim.write_text("keep")
        files = AuditFiles(tmp_path / "out")
        with files.locked():
            listed = tmp_path / "out" / ".stages" / "published.json"
            listed.write_text(json.dumps(["../victim.txt", str(victim), 3]))
            files.fresh_folder()
            files.publish([], [], b"{}")
        assert victim.read_text() == "keep"

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    def test_a_full_disk_names_the_file(self, tmp_path):
        (tmp_path / ".one.tmp").symlink_to("/dev/full")
        with pytest.raises(OSError, match=r"No space left.*one"):
            write_atomic(tmp_path / "one", b"x" * 10)
        assert list(tmp_path.iterdir()) == []

    def test_stems_are_safe_and_do_not_collide(self, tmp_path):
        class Context:
            store = ("a/b", "a_b", "../x", "é")

        names = [stem("layer", Context, name) for name in Context.store]
        assert names == ["layer_00_a_b", "layer_01_a_b", "layer_02_x", "layer_03"]


class TestWarnings:
    """Each failure put into the example gives its warning, and without it there is none."""

    def clean(self):
        results, _ = example_results()
        for layer in results["layers"]:
            layer.update(dead_maps=[], duplicate_groups=[])
        for sample in results["attributions"]["samples"]:
            sample["converged"] = True
        results["attributions"].update(n_converged=6, n_stable=6)
        assert find_warnings(results, PLAN) == []
        return results

    def codes(self, results, plan=PLAN):
        found = find_warnings(results, plan)
        assert all(w["text"].endswith(".") and w["what_to_do"].endswith(".") for w in found)
        return [(w["code"], w["layers"]) for w in found]

    def test_low_explained_variance(self):
        results = self.clean()
        for component in results["layers"][1]["components"]:
            component["cumulative"] /= 2
        assert self.codes(results) == [("low_explained_variance", ["conv2"])]

    @pytest.mark.parametrize(
        ("field", "value", "code"),
        [
            ("dead_maps", [3, 4], "dead_maps"),
            ("constant_maps", [1], "constant_maps"),
            ("duplicate_groups", [[0, 2, 5]], "duplicate_maps"),
            ("n_samples", 30, "too_few_samples"),
        ],
    )
    def test_layers(self, field, value, code):
        results = self.clean()
        results["layers"][0][field] = value
        assert self.codes(results) == [(code, ["conv1"])]

    def test_mutual_information_like_its_null(self):
        results = self.clean()
        for place, names in ((3, ["conv1"]), (1, ["conv1", "dense"])):
            results["pairs"][place]["mutual_info"]["distinguishable"] = False
            assert ("mutual_information_indistinguishable", names) in self.codes(results)
        results["labels"]["layers"][2]["n_max_p_below_alpha"] = 0
        assert self.codes(results)[-1] == ("mutual_information_indistinguishable", ["dense"])

    def test_too_few_permutations_is_not_taken_for_no_dependence(self):
        results = self.clean()
        for pair in results["pairs"]:
            pair["mutual_info"]["distinguishable"] = False
        assert self.codes(results, AuditPlan(n_permutations=9, n_bins=8)) == [("too_few_permutations", [])]

    def test_attributions(self):
        results = self.clean()
        results["attributions"].update(n_stable=4, n_converged=5)
        assert self.codes(results) == [("unstable_attributions", []), ("attributions_not_converged", [])]


class TestWords:
    def test_findings_cover_every_section_and_state_its_numbers(self):
        results, _ = example_results()
        text = {finding["section"]: finding["text"] for finding in describe(results, PLAN)}
        assert list(text) == ["spectrum", "maps", "similarity", "entanglement", "labels", "attributions"]
        assert "conv2: 4 components hold 90 % of the variance of 12 maps" in text["spectrum"]
        assert "conv1: 5 components hold 97 % of the variance of 8 maps" in text["spectrum"]
        assert "Dead maps: 1 in conv2" in text["maps"]
        assert "CKA 0.62" in text["similarity"]
        assert "5 of 6" in text["attributions"]

    def test_the_largest_value_is_not_sold_where_it_is_chance(self):
        results, _ = example_results()
        for row in results["entangled"]["rows"]:
            row["selection_pvalue"] = 0.4
        lines = [line for line in read(results, PLAN) if "nats" in line and "ayers, map" in line]
        assert len(lines) == 2
        assert all("indistinguishable from chance (p = 0.4" in line for line in lines)

    def test_cka_like_its_null_is_said_to_be_chance(self):
        results, _ = example_results()
        for pair in results["pairs"]:
            if pair["cka"] is not None:
                pair["cka"].update(significant=False, pvalue=0.3)
        assert any("No two layers are more alike than chance" in line for line in read(results, PLAN))

    def test_one_layer_without_pairs_labels_or_attributions(self):
        results, _ = example_results()
        results.update(layers=results["layers"][:1], pairs=[], labels=None, attributions=None)
        results["entangled"]["rows"] = []
        assert [finding["section"] for finding in describe(results, PLAN)] == ["spectrum", "maps"]
        assert len(read(results, PLAN)) == 2

    def test_a_constant_layer(self):
        results, _ = example_results()
        results["layers"][0].update(total_variance=0.0, effective_rank=None)
        assert "conv1: all 8 maps are constant" in describe(results, PLAN)[0]["text"]


def test_the_example_keeps_the_schema():
    results, arrays = example_results()
    results["plan"] = AuditPlan().result_fields()
    assert schema_problems(results) == []
    stems = [layer["arrays"] for layer in results["layers"]] + [results["attributions"]["arrays"]]
    stems += [pair[part]["arrays"] for pair in results["pairs"] for part in ("cosine", "mutual_info")]
    stems += [layer["arrays"] for layer in results["labels"]["layers"]]
    assert sorted(stems) == sorted(arrays)


def test_the_schema_checker_sees_what_is_wrong():
    results, _ = example_results()
    results["layers"][0]["n_maps"] = "8"
    del results["pairs"][0]["cosine"]["n_pairs"]
    results["attributions"]["samples"][0]["extra"] = 1
    assert sorted(problem.split(":")[0] for problem in schema_problems(results)) == [
        "results.attributions.samples[0].extra",
        "results.layers[0].n_maps",
        "results.pairs[0].cosine.n_pairs",
    ]


def test_importing_the_plan_brings_no_heavy_library():
    code = (
        "import sys, qixai_fast.auditing.plan, qixai_fast.auditing.results;"
        "sys.exit(' '.join({'torch', 'matplotlib', 'sklearn'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
