"""Plans as TOML files: read, written, refused with a place, and embedded in what they gave."""

from __future__ import annotations

import math
from dataclasses import fields

import audit_data
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qixai_fast.auditing.plan import AuditPlan
from qixai_fast.auditing.plan_file import parse_plan, plan_text, read_plan
from qixai_fast.auditing.run import audit

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
FRACTIONS = st.floats(0, 1, exclude_min=True, exclude_max=True)
POSITIVE = st.floats(0, math.inf, exclude_min=True, exclude_max=True)
VALUES = {
    "layers": st.none() | st.lists(NAMES, min_size=1, max_size=3, unique=True),
    "pairs": st.none() | st.lists(st.tuples(NAMES, NAMES), min_size=1, max_size=3, unique_by=frozenset),
    "n_bins": st.none() | st.integers(2, 4096),
    "strategy": st.sampled_from(["quantile", "uniform"]),
    "bias_correction": st.sampled_from([None, "miller-madow", "permutation-mean"]),
    "n_permutations": st.none() | st.integers(1, 10**9),
    "alpha": FRACTIONS,
    "min_stability": st.floats(-1, 1, exclude_min=True, exclude_max=True),
    "min_explained_variance": FRACTIONS,
    "tol": POSITIVE,
    "stability_noise": POSITIVE,
    "n_steps": st.integers(1, 100),
    "max_n_steps": st.integers(300, 10**6),
    "null_samples": st.integers(8, 10**6),
    "test_samples": st.integers(8, 10**6),
    "max_memory": st.none() | st.sampled_from(["2GB", "1.5 MiB", 10**9, 2.5e9]),
    "n_jobs": st.none() | st.integers(1, 64) | st.just(-1),
    "random_state": st.none() | st.integers(0, 2**63 - 1),
}
WHOLE = [field.name for field in fields(AuditPlan) if field.name not in VALUES]


class TestText:
    @settings(max_examples=60, deadline=None)
    @given(st.fixed_dictionaries({}, optional={**VALUES, **dict.fromkeys(WHOLE, st.integers(2, 1000))}))
    def test_every_field_comes_back_as_it_was(self, chosen):
        plan = AuditPlan(**chosen)
        text = plan_text(plan)
        assert parse_plan(text) == plan
        assert plan_text(parse_plan(text)) == text

    def test_fields_are_known(self):
        names = {field.name for field in fields(AuditPlan)}
        assert VALUES.keys() <= names
        for name in names - {"layers", "pairs", "n_bins", "n_permutations"} - {"max_memory", "n_jobs"}:
            assert name == "random_state" or f"{name} = " in plan_text(AuditPlan())

    @pytest.mark.parametrize(
        ("text", "error", "words"),
        [
            ("n_bin = 8", ValueError, r"p, line 1: a plan has no 'n_bin'; the nearest are n_bins, "),
            ("\n\n[layer]\na = 1", ValueError, r"p, line 3: a plan has no 'layer'; the nearest are layers"),
            ("alpha = 0.1\nn_bins = '8'", TypeError, "p, line 2: n_bins: wanted an integer, got str"),
            ("# n_bins\n  n_bins = 1", ValueError, "p, line 2: n_bins: wanted at least 2, got 1"),
            ("n_bins = 8.0", TypeError, "p, line 1: n_bins: wanted an integer, got float"),
            ("n_bins = true", TypeError, "p, line 1: n_bins"),
            ("n_bins.x = 1", TypeError, "p, line 1: n_bins: wanted an integer, got dict"),
            ("alpha = nan", ValueError, "p, line 1: alpha"),
            ("alpha = 1979-05-27", TypeError, "p, line 1: alpha: wanted a number"),
            ("strategy = 1", ValueError, "p, line 1: strategy: wanted one of"),
            ("bias_correction = 'None'", ValueError, "p, line 1: bias_correction: wanted one of"),
            ("layers = 3", TypeError, "p, line 1: layers: wanted a list of layer names or None, got 3"),
            ("layers = [1]", TypeError, "p, line 1: layers: wanted a list"),
            ("layers = 'conv'", TypeError, "p, line 1: layers: wanted a list"),
            ("[layers]\na = 1", TypeError, "p, line 1: layers: wanted a list"),
            ("pairs = ['ab']", TypeError, "p, line 1: pairs: wanted a list of pairs .* got 'ab' in it"),
            ("pairs = [['a']]", TypeError, "p, line 1: pairs: .* got .'a'. in it"),
            ("pairs = [['a', 'b'], ['b', 'a']]", ValueError, "p, line 1: pairs: 'b' and 'a' named more"),
            ("pairs = []", ValueError, "p, line 1: pairs: wanted at least one pair"),
            ("random_state = -1", ValueError, "p, line 1: random_state: wanted at least 0"),
            ("max_memory = 'lots'", ValueError, "p, line 1: max_memory: 'lots' is not a size"),
            ("n_jobs = 0", ValueError, "p, line 1: n_jobs"),
            ("n_bins 8", ValueError, "p: not TOML: .*line 1"),
            ("n_bins = 8\nn_bins = 9", ValueError, "p: not TOML: Cannot overwrite a value"),
        ],
    )  # fmt: skip
    def test_mistakes_are_named_with_their_place(self, text, error, words):
        with pytest.raises(error, match=words):
            parse_plan(text, "p")

    def test_files_that_are_no_plans(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            read_plan(tmp_path / "absent.toml")
        (tmp_path / "bytes.toml").write_bytes(b"n_bins = 8 # \xff")
        with pytest.raises(ValueError, match=r"bytes\.toml: not UTF-8 text \(.* at byte 13\)"):
            read_plan(tmp_path / "bytes.toml")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("planned") / "store"
    audit_data.make_store(path)
    return path


@pytest.fixture
def short_reports(monkeypatch):
    audit_data.simplify(monkeypatch.setattr)


@pytest.mark.usefixtures("short_reports")
class TestAudits:
    def test_the_embedded_plan_gives_the_same_bytes(self, store, tmp_path):
        """All that was left open, the seed and all that was chosen come from the report's own plan."""
        written = tmp_path / "mine.toml"
        written.write_text('pairs = [["noise", "conv"], ["dense", "dense"]]\nalpha = 0.1\nn_jobs = 1\n')
        first = audit(store, tmp_path / "a", plan=str(written), random_state=11, progress=False)
        again = audit(store, tmp_path / "b", plan=tmp_path / "a" / "plan.toml", progress=False)
        assert audit_data.contents(tmp_path / "a") == audit_data.contents(tmp_path / "b")
        assert again.results["random_state"] == 11
        assert "n_jobs" not in first.results["plan_file"]
        assert f"n_permutations = {first.results['plan']['n_permutations']}\n" in first.results["plan_file"]
        other = audit(store, plan=written, progress=False)
        assert other.results["random_state"] == 0
        assert other.results["pairs"] != first.results["pairs"]

    def test_pairs_are_compared_as_chosen(self, store):
        chosen = AuditPlan(pairs=[("noise", "conv"), ("dense", "dense")], n_permutations=99)
        report = audit(store, plan=chosen, progress=False)
        pairs = [(pair["layer_a"], pair["layer_b"]) for pair in report.results["pairs"]]
        assert pairs == [("conv", "noise"), ("dense", "dense")]
        assert [layer["name"] for layer in report.results["layers"]] == ["conv", "dense", "noise"]
        whole = audit(store, plan=AuditPlan(n_permutations=99), progress=False)
        for pair in report.results["pairs"]:
            same = audit_data.pair_of(whole.results, pair["layer_a"], pair["layer_b"])
            assert pair == same
        inside = audit(store, plan=AuditPlan(pairs=[("dense", "dense")], n_permutations=99), progress=False)
        assert inside.results["skipped"]["similarity"] == "the plan asks for no pair of two layers"

    @pytest.mark.parametrize(
        ("pairs", "words"),
        [
            ([("conv", "nose")], r"pairs: no layer 'nose' is audited; the nearest are noise"),
            ([("conv", "dense")], r"pairs: no layer 'dense' is audited"),
        ],
    )
    def test_pairs_of_layers_that_are_not_audited(self, store, pairs, words):
        with pytest.raises(ValueError, match=words):
            audit(store, plan=AuditPlan(layers=["conv", "noise"], pairs=pairs), progress=False)
