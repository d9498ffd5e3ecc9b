"""Two reports side by side: what changed is found, and what cannot be compared is refused."""

import copy
import json
import subprocess
import sys

import numpy as np
import pytest
from audit_example import example_results

from qixai_fast.auditing.comparing import compare_reports
from qixai_fast.auditing.reading import read_report
from qixai_fast.auditing.report.comparison_text import comparison_text
from qixai_fast.errors import StoreError


def _twice():
    first, arrays = example_results()
    return first, arrays, copy.deepcopy(first), copy.deepcopy(arrays)


def _dull(results, *reports, within=False):
    """Files of the first pair of two layers (or of a layer with itself), none of whose maps depend now."""
    pair = next(p for p in results["pairs"] if p["within"] == within)
    name = pair["mutual_info"]["arrays"]
    for tables in reports:
        tables[name]["max_pvalues"][:] = 0.5
    return name


def _partly_turned(components):
    """Two of five leading directions as they were, three others."""
    basis = np.linalg.svd(components)[2]
    return np.vstack([basis[:2], basis[5:8]])


def _save(folder, results, arrays):
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    for name, content in arrays.items():
        np.savez(folder / f"{name}.npz", **content)
    return folder


def test_a_report_is_the_same_as_itself():
    found = compare_reports(*_twice())
    assert found["left_out"] == []
    for layer in found["layers"]:
        assert layer["effective_rank"][0] == layer["effective_rank"][1]
        assert layer["overlap"] == pytest.approx(1)
        assert 0 < layer["overlap_by_chance"] < 1
    for couple in found["couples"]:
        assert couple["n_gained"] == couple["n_lost"] == 0
    assert all(item["cosine"] == pytest.approx(1) for item in found["attributions"])
    assert "none" in comparison_text(found)


def test_pairs_gained_and_lost_come_in_the_order_of_their_change():
    first, arrays, second, later = _twice()
    name = _dull(first, arrays, later)
    for place, rise in {(0, 1): 0.2, (3, 4): 0.9}.items():
        later[name]["max_pvalues"][place] = 0.01
        later[name]["values"][place] = arrays[name]["values"][place] + rise
    arrays[name]["max_pvalues"][2, 2] = 0.02
    couple = compare_reports(first, arrays, second, later)["couples"][0]
    assert (couple["n_gained"], couple["n_lost"]) == (2, 1)
    assert [(p["map_a"], p["map_b"]) for p in couple["gained"]] == [(3, 4), (0, 1)]
    assert couple["gained"][0]["max_pvalue"] == (0.5, 0.01)
    assert couple["lost"][0]["max_pvalue"] == (0.02, 0.5)
    few = compare_reports(first, arrays, second, later, n_top=1)["couples"][0]
    assert (few["n_gained"], len(few["gained"])) == (2, 1)
    text = comparison_text(compare_reports(first, arrays, second, later))
    assert "gained 2: maps 3 and 4" in text


def test_pairs_that_cross_the_threshold_by_other_permutations_alone_are_neither():
    """199 permutations give 0.03 where others give 0.06; they do not give 0.005 where others give 0.2."""
    first, arrays, second, later = _twice()
    name = _dull(first, arrays, later)
    arrays[name]["max_pvalues"][:, 0] = 0.06
    later[name]["max_pvalues"][:, 0] = 0.03
    arrays[name]["max_pvalues"][1, 1] = 0.045
    later[name]["max_pvalues"][1, 1] = 0.055
    couple = compare_reports(first, arrays, second, later)["couples"][0]
    assert (couple["n_gained"], couple["n_lost"]) == (0, 0)
    assert couple["n_compared"] == 8 * 12
    arrays[name]["max_pvalues"][2, 2], later[name]["max_pvalues"][2, 2] = 0.2, 0.005
    couple = compare_reports(first, arrays, second, later)["couples"][0]
    assert (couple["n_gained"], couple["n_lost"]) == (1, 0)


def test_only_maps_that_both_reports_compare_count():
    """Each report compares its maps of largest spread: the same number is another row in the other."""
    first, arrays, second, later = _twice()
    name = _dull(first)
    keep = np.arange(1, 8)
    for table in ("values", "max_pvalues"):
        later[name][table] = later[name][table][keep]
    later[name]["maps_a"] = later[name]["maps_a"][keep]
    couple = compare_reports(first, arrays, second, later)["couples"][0]
    assert couple["n_compared"] == 7 * 12
    assert couple["n_gained"] == couple["n_lost"] == 0


def test_within_a_layer_every_pair_counts_once():
    first, arrays, second, later = _twice()
    name = _dull(first, arrays, later, within=True)
    place = next(i for i, p in enumerate(first["pairs"]) if p["within"])
    later[name]["max_pvalues"][1, 2] = later[name]["max_pvalues"][2, 1] = 0.01
    couple = compare_reports(first, arrays, second, later)["couples"][place]
    assert couple["n_compared"] == 8 * 7 // 2
    assert couple["n_gained"] == 1
    assert couple["cka"] == (None, None)


def test_turned_components_overlap_as_far_as_their_span():
    first, arrays, second, later = _twice()
    name = first["layers"][2]["arrays"]
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
    later[name]["components"] = turn @ arrays[name]["components"]
    assert compare_reports(first, arrays, second, later)["layers"][2]["overlap"] == pytest.approx(1)
    later[name]["components"] = _partly_turned(arrays[name]["components"])
    assert compare_reports(first, arrays, second, later)["layers"][2]["overlap"] == pytest.approx(2 / 5)


def test_attributions_of_other_outputs_and_inputs_are_not_compared():
    first, arrays, second, later = _twice()
    second["attributions"]["samples"][0]["target"] = 9
    later["attributions"]["values_0"][1] *= -1
    items = compare_reports(first, arrays, second, later)["attributions"]
    assert items[0]["cosine"] is None
    assert items[1]["cosine"] == pytest.approx(-1)
    later["attributions"]["inputs_0"] = later["attributions"]["inputs_0"] + 1
    found = compare_reports(first, arrays, second, later)
    assert found["attributions"] == []
    assert found["left_out"] == ["attributions: the inputs are not the same"]
    second["attributions"] = None
    assert "only one" in compare_reports(first, arrays, second, later)["left_out"][0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r["layers"].pop(), "only the first report has dense"),
        (lambda r: r["layers"].reverse(), "in another order"),
        (lambda r: r["layers"][1].update(n_maps=99), "conv2 has 12 maps in the first and 99"),
        (lambda r: r["store"].update(n_samples=9), "300 and 9 samples"),
        (lambda r: r["plan"].update(n_bins=4), r"different plans: n_bins \(8 and 4\)"),
    ],
)
def test_reports_that_do_not_compare_are_refused(change, words):
    first, arrays, second, later = _twice()
    change(second)
    with pytest.raises(ValueError, match=words):
        compare_reports(first, arrays, second, later)


def test_the_text_says_in_short_what_changed_the_most():
    first, arrays, second, later = _twice()
    same = comparison_text(compare_reports(first, arrays, second, later))
    assert "No layer turned its leading directions." in same
    assert "Effective ranks stayed within 1 %." in same
    assert "0 became dependent beyond chance and 0 no longer are.\n" in same
    second["layers"][1]["effective_rank"] *= 2
    name = second["layers"][2]["arrays"]
    later[name]["components"] = _partly_turned(arrays[name]["components"])
    second["labels"]["layers"][0]["max"] *= 0.5
    dull = [p for p in first["pairs"] if (p["layer_a"], p["layer_b"]) == ("conv1", "dense")]
    information = _dull({"pairs": dull}, arrays, later)
    later[information]["max_pvalues"][3, 4] = 0.01
    text = comparison_text(compare_reports(first, arrays, second, later))
    short = text.partition("\n\nLayers\n")[0]
    assert "dense turned its leading directions the most: their overlap with those before is 0.40" in short
    assert "Effective rank changed the most in conv2: 3.7 → 7.4 directions in use." in short
    assert "knows of the class changed the most in conv1: " in short
    assert (
        "1 became dependent beyond chance and 0 no longer are, most of them between conv1 and dense." in short
    )


def test_similarity_that_chance_gives_has_a_star():
    first, arrays, second, later = _twice()
    text = comparison_text(compare_reports(first, arrays, second, later))
    assert "0.03* → 0.03*" in text
    assert "0.62 → 0.62" in text
    assert "* not beyond chance" in text


def test_reading_names_what_is_wrong(tmp_path):
    results, arrays = example_results()
    with pytest.raises(StoreError, match="no finished report"):
        read_report(tmp_path)
    folder = _save(tmp_path / "a", results, arrays)
    again, content = read_report(folder)
    assert again["layers"] == results["layers"]
    name = results["layers"][0]["arrays"]
    np.testing.assert_array_equal(content[name]["loadings"], arrays[name]["loadings"])
    (folder / f"{name}.npz").write_bytes(b"PK not really")
    with pytest.raises(StoreError, match="damaged report"):
        read_report(folder)
    (folder / f"{name}.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(StoreError, match="damaged report"):
        read_report(folder)
    (folder / f"{name}.npz").unlink()
    with pytest.raises(StoreError, match=f"{name}.npz is not there"):
        read_report(folder)
    (folder / "results.json").write_text(json.dumps({**results, "schema_version": 99}))
    with pytest.raises(StoreError, match="format 99"):
        read_report(folder)


def test_the_command_prints_tables_and_refuses_in_one_line(tmp_path):
    first, arrays, second, later = _twice()
    second["layers"][0]["effective_rank"] = 7.25
    a, b = _save(tmp_path / "a", first, arrays), _save(tmp_path / "b", second, later)

    def run(*options):
        command = [sys.executable, "-m", "qixai_fast", "compare", str(a), str(b), *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    done = run()
    assert done.returncode == 0, done.stderr
    assert "3.7 → 7.2" in done.stdout
    assert json.loads(run("--json").stdout)["layers"][0]["effective_rank"] == [3.7, 7.25]
    second["plan"]["n_bins"] = 5
    (b / "results.json").write_text(json.dumps(second))
    done = run()
    assert done.returncode == 1
    assert done.stderr.startswith("error: reports: audits by different plans: n_bins (8 and 5)")
    assert len(done.stderr.splitlines()) == 1
