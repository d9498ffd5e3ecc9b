"""An audit before it runs: what it will take, what does not fit, and the memory of the whole process."""

from __future__ import annotations

import json
import math
import re
import sys

import audit_data
import numpy as np
import pytest
from peak_memory import peak_of_audit

import qixai_fast as qf
from qixai_fast.auditing import rates as rates_module
from qixai_fast.auditing.costs import seconds_text, table
from qixai_fast.auditing.memory import take_columns, take_rows
from qixai_fast.auditing.plan import AuditPlan
from qixai_fast.auditing.planning import dry_run
from qixai_fast.auditing.rates import Rates
from qixai_fast.auditing.run import audit


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("planned") / "store"
    audit_data.make_store(path)
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(cache, monkeypatch):
    monkeypatch.setenv("QIXAI_FAST_CACHE", str(cache))


class TestDryRun:
    def test_stages_are_those_of_a_run_and_nothing_is_written(self, store, tmp_path):
        before = sorted(store.rglob("*"))
        costs = dry_run(store, tmp_path / "out", plan=AuditPlan(n_permutations=49))
        assert sorted(store.rglob("*")) == before
        assert not (tmp_path / "out").exists()
        report = audit(store, plan=AuditPlan(n_permutations=49), progress=False)
        assert [cost.name for cost in costs] == ["verify", *report.timings["stages"]]
        for cost in costs:
            assert cost.seconds > 0
            assert cost.operations > 0
            assert 0 < cost.least_memory <= cost.peak_memory

    def test_plan_and_actual_stand_side_by_side(self, store):
        report = audit(store, plan=AuditPlan(n_permutations=49), progress=True)
        planned = {cost.name: cost.seconds for cost in dry_run(store, plan=AuditPlan(n_permutations=49))}
        for name, stage in report.timings["stages"].items():
            assert stage["planned"]["seconds"] == pytest.approx(planned[name])
            assert stage["seconds"] > 0
        assert report.timings["verify"]["planned"]["bytes_read"] == 240 * (6 + 7 + 5) * 4
        json.dumps(report.timings, allow_nan=False)

    def test_more_work_costs_more(self, store):
        def total(**changes):
            return sum(cost.seconds for cost in dry_run(store, plan=AuditPlan(n_jobs=1, **changes)))

        assert total(n_permutations=999) > 2 * total(n_permutations=99)
        assert total(n_permutations=99) > total(n_permutations=99, max_maps=2)
        assert total(n_permutations=99) > total(n_permutations=99, pairs=[("conv", "dense")])
        assert total(n_permutations=99) > total(n_permutations=99, layers=["conv"])

    def test_attributions_are_listed_and_not_predicted(self, store):
        costs = dry_run(store, plan=AuditPlan(n_permutations=49), attributions=True)
        assert costs[-1].name == "attributions"
        assert math.isnan(costs[-1].seconds)
        assert table(costs).splitlines()[-1].split()[:2] == ["integrated", "gradients"]
        without = dry_run(store, plan=AuditPlan(n_permutations=49, n_attributions=0), attributions=True)
        assert [cost.name for cost in without] == [cost.name for cost in costs[:-1]]

    @pytest.mark.parametrize(
        ("options", "error", "words"),
        [
            ({"plan": AuditPlan(layers=["nose"])}, ValueError, "nearest are noise"),
            ({"plan": "absent.toml"}, OSError, "absent"),
            ({"plan": 3}, TypeError, "plan: wanted an AuditPlan"),
            ({"plan": AuditPlan(max_memory=2000)}, qf.MemoryBudgetError, "the stage '.*' needs"),
        ],
    )
    def test_what_fails_in_a_run_fails_here(self, store, tmp_path, options, error, words):
        with pytest.raises(error, match=words):
            dry_run(store, tmp_path / "out", **options)
        with pytest.raises(error, match=words):
            audit(store, tmp_path / "out", progress=False, **options)
        assert not (tmp_path / "out").exists()
        with pytest.raises(ValueError, match="in the store itself"):
            dry_run(store, store / "out")
        with pytest.raises(qf.StoreError):
            dry_run(tmp_path)

    def test_a_late_stage_is_refused_before_any_work(self, store, monkeypatch):
        """The budget named in the error then does for all stages."""
        plan = AuditPlan(n_permutations=49)
        worked = []
        monkeypatch.setattr(
            qf.store.ActivationStore, "verify", lambda self, progress=False: worked.append(1) or []
        )
        with pytest.raises(qf.MemoryBudgetError) as caught:
            audit(store, plan=AuditPlan(n_permutations=49, max_memory="100kB"), progress=False)
        assert worked == []
        enough = AuditPlan(n_permutations=49, max_memory=caught.value.required)
        report = audit(store, plan=enough, progress=False)
        assert report.results == audit(store, plan=plan, progress=False).results

    def test_times_for_people(self):
        assert seconds_text(59.9) == "60 s"
        assert seconds_text(3600) == "1.0 h"


class TestRates:
    def test_measured_once_and_kept(self, tmp_path, monkeypatch):
        monkeypatch.setenv("QIXAI_FAST_CACHE", str(tmp_path / "new"))
        assert math.isnan(Rates(measure=False).product())
        first = Rates().product()
        assert 1e-13 < first < 1e-6
        monkeypatch.setattr(rates_module, "_best", lambda *_: pytest.fail("measured again"))
        assert Rates().product() == Rates(measure=False).product() == first
        (file,) = (tmp_path / "new").iterdir()
        monkeypatch.setattr(rates_module, "__version__", "999")
        assert math.isnan(Rates(measure=False).product())
        monkeypatch.undo()
        monkeypatch.setenv("QIXAI_FAST_CACHE", str(tmp_path / "new"))
        for damage in (b"{", b"[]", b'{"product": ["x"]}', b'{"product": 3}'):
            file.write_bytes(damage)
            assert 1e-13 < Rates().product() < 1e-6

    def test_a_home_that_cannot_be_written_to(self, tmp_path, monkeypatch):
        (tmp_path / "file").write_text("x")
        monkeypatch.setenv("QIXAI_FAST_CACHE", str(tmp_path / "file" / "sub"))
        assert Rates().product() > 0


class TestProgress:
    def test_a_line_a_stage_where_there_is_no_terminal(self, store, capfd):
        report = audit(store, plan=AuditPlan(layers=["noise"], n_permutations=49), progress=True)
        out, err = capfd.readouterr()
        assert out == ""
        lines = [line for line in err.splitlines() if line.startswith("audit ")]
        assert len(lines) == len(report.timings["stages"]) == 5
        for number, line in enumerate(lines, start=1):
            assert re.fullmatch(
                rf"audit {number}/5: [^,]+(, [^,]+)?, \d+\.\d\d s, [\d.]+ k?B read(, about .+ left)?", line
            )
        assert lines[0].endswith(" left")
        assert not lines[-1].endswith(" left")

    def test_silence_where_none_is_wanted(self, store, capfd):
        audit(store, plan=AuditPlan(layers=["noise"], n_permutations=49), progress=False)
        assert capfd.readouterr() == ("", "")


class TestMemory:
    def test_rows_and_columns_as_numpy_takes_them(self, store):
        data = qf.open_store(store)["conv"]
        rows = np.sort(np.random.default_rng(0).choice(len(data), 50, replace=False))
        np.testing.assert_array_equal(take_rows(data, rows), data[rows])
        np.testing.assert_array_equal(take_rows(np.asarray(data), rows[::-1]), data[rows[::-1]])
        np.testing.assert_array_equal(take_columns(data, np.array([0, 3])), data[:, [0, 3]])

    @pytest.mark.skipif(sys.platform != "linux", reason="needs the kernel's own accounting")
    def test_the_whole_process_stays_within_its_budget(self, tmp_path):
        """An audit in a child, of a store of more than twice its budget."""
        n, d, budget = 490_000, 256, 470_000_000
        rng = np.random.default_rng(0)
        specs = {name: qf.LayerSpec((d,), "float32") for name in ("a", "b")}
        with qf.create_store(tmp_path / "store", specs) as writer:
            block = np.maximum(rng.standard_normal((4000, d), dtype=np.float32), 0)
            for start in range(0, n, len(block)):
                writer.append({name: np.roll(block, start // 4000 + i, 0) for i, name in enumerate(specs)})
        size = sum(file.stat().st_size for file in (tmp_path / "store").glob("*.npy"))
        assert size > 2 * budget
        plan = 'pairs = [["a", "b"]]\nn_permutations = 19\nmax_maps = 6\nn_top_pairs = 2\n'
        peak = peak_of_audit(tmp_path, plan, budget)
        assert peak < budget, f"{peak / 1e6:.0f} MB"
