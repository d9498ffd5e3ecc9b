"""An audit gives the same bytes again: with other threads, after kills, from what it kept."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import audit_data
import numpy as np
import pytest
from audit_data import activations, contents, make_store, pair_of, plan

from qixai_fast.auditing import run as run_module
from qixai_fast.auditing.run import audit
from qixai_fast.auditing.runner import _NO_NUMBERS, code_digest
from qixai_fast.store import LayerSpec, create_store

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("audit") / "store"
    make_store(path)
    return path


@pytest.fixture
def short_reports(monkeypatch):
    audit_data.simplify(monkeypatch.setattr)


@pytest.fixture(scope="module")
def short(store, tmp_path_factory):
    """An undisturbed audit with a short report."""
    with pytest.MonkeyPatch.context() as patched:
        audit_data.simplify(patched.setattr)
        return audit_data.run(str(store), str(tmp_path_factory.mktemp("audit") / "short"))


@pytest.mark.usefixtures("short_reports")
class TestRepeatability:
    def test_threads_and_budget_do_not_change_results(self, store, short, tmp_path):
        for name, options in {"a": {"n_jobs": 1}, "b": {"n_jobs": 4, "max_memory": "80MB"}}.items():
            audit_data.run(str(store), str(tmp_path / name), **options)
            assert contents(tmp_path / name) == contents(short.out)

    def test_a_pair_does_not_depend_on_what_else_is_audited(self, store, short):
        alone = audit(store, plan=plan(layers=["conv", "noise"]), progress=False)
        name = "mutual_info_00_conv_02_noise"
        for field, table in alone.arrays[name].items():
            np.testing.assert_array_equal(table, short.arrays[name][field])
        assert (
            pair_of(alone.results, "conv", "noise")["cka"] == pair_of(short.results, "conv", "noise")["cka"]
        )

    def test_seeds(self, store):
        small = plan(layers=["conv", "noise"])
        one, same, other, fresh = (
            audit(store, plan=small, random_state=seed, progress=False).results for seed in (3, 3, 4, None)
        )
        assert one == same
        assert one["random_state"] == 3
        pairs = [pair_of(results, "conv", "noise") for results in (one, other, fresh)]
        null = [pair["mutual_info"]["null_mean"] for pair in pairs]
        assert len(set(null)) == 3

    def test_out_none_writes_nothing(self, store, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        before = sorted(store.rglob("*"))
        report = audit(store, plan=plan(layers=["noise"]), progress=False)
        assert (report.out, report.html) == (None, None)
        assert list(tmp_path.iterdir()) == []
        assert sorted(store.rglob("*")) == before

    def test_a_second_run_reads_stages_back(self, store, tmp_path):
        first = audit(store, tmp_path, plan=plan(), progress=False)
        again = audit(store, tmp_path, plan=plan(), progress=False)
        assert not any(stage["reused"] for stage in first.timings["stages"].values())
        assert all(stage["reused"] for stage in again.timings["stages"].values())
        assert again.results == first.results
        other = audit(store, tmp_path, plan=plan(n_neighbors=4), progress=False)
        fresh = {name for name, stage in other.timings["stages"].items() if not stage["reused"]}
        assert fresh == {"ksg", "labels_00_conv", "labels_01_dense", "labels_02_noise"}

    @pytest.mark.parametrize(
        "changes",
        [
            {"n_components": 2},
            {"n_bins": 4},
            {"strategy": "uniform"},
            {"bias_correction": "miller-madow"},
            {"n_permutations": 60},
            {"alpha": 0.2},
            {"n_top_pairs": 3},
            {"n_neighbors": 2},
            {"max_maps": 4},
            {"null_samples": 60},
            {"n_attributions": 2},
            {"n_steps": 6},
            {"max_n_steps": 30},
            {"tol": 0.0001},
            {"stability_noise": 0.5},
            {"n_noise": 1},
            {"min_stability": 0.9999},
            {"min_explained_variance": 0.999, "n_components": 2},
            {"layers": ["dense", "noise"]},
            {"pairs": [("noise", "conv"), ("dense", "dense")]},
        ],
        ids=lambda changes: next(iter(changes)),
    )
    def test_what_is_read_back_never_belongs_to_another_plan(self, store, short, tmp_path, changes):
        cached = tmp_path / "cached"
        shutil.copytree(short.out, cached)
        again = audit_data.run(str(store), str(cached), **changes)
        audit_data.run(str(store), str(tmp_path / "fresh"), **changes)
        assert contents(cached) == contents(tmp_path / "fresh")
        assert again.results["plan"] != short.results["plan"]
        body, other = (
            {key: value for key, value in results.items() if key not in ("plan", "plan_file")}
            for results in (again.results, short.results)
        )
        assert body != other

    def test_other_code_or_data_is_another_key(self, store, tmp_path, monkeypatch):
        small = plan(layers=["noise"])
        audit(store, tmp_path / "out", plan=small, progress=False)
        monkeypatch.setattr("qixai_fast.auditing.runner.code_digest", lambda: "newer code")
        newer = audit(store, tmp_path / "out", plan=small, progress=False)
        assert not any(stage["reused"] for stage in newer.timings["stages"].values())
        layers, labels = activations()
        with create_store(tmp_path / "store", layers={"noise": LayerSpec(shape=(5,))}, labels=True) as writer:
            writer.append({"noise": layers["noise"]}, labels=labels[::-1])
        other = audit(tmp_path / "store", tmp_path / "out", plan=small, progress=False)
        reused = {name for name, stage in other.timings["stages"].items() if stage["reused"]}
        assert reused == {"ksg"}  # the same layer under the same name, and no labels in it

    def test_code_digest_covers_kernels_and_engines_but_not_words(self):
        assert len(code_digest()) == 32
        for name in ("mutual_info/ksg.py", "auditing/pair_stages.py", "statistics.py", "_random.py"):
            assert not name.startswith(_NO_NUMBERS)
        assert "auditing/report/writer.py".startswith(_NO_NUMBERS)

    def test_files_of_a_larger_audit_do_not_stay(self, store, tmp_path):
        audit(store, tmp_path, plan=plan(), progress=False)
        (tmp_path / "notes.txt").write_text("mine")
        audit(store, tmp_path, plan=plan(layers=["noise"]), progress=False)
        left = {name for name in contents(tmp_path) if name.endswith(".npz")}
        assert left == {f"{kind}_02_noise.npz" for kind in ("layer", "relation", "mutual_info", "labels")}
        assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.usefixtures("short_reports")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
class TestKills:
    def children(self, store, out, *fatal):
        command = [sys.executable, audit_data.__file__, str(store), str(out), *map(str, fatal)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
        return done.stdout.split("\n")[:-1]

    def test_killed_again_and_again_in_one_place(self, store, short, tmp_path):
        counts = [1, 2, 3, 4, 5, 9, 12, 17, 20, 2, 3, 8, 12, 15, 18, 21, 1000]
        *killed, last = self.children(store, tmp_path / "out", *counts)
        assert last == "exit 0"
        assert killed.count("9") >= 14
        assert contents(tmp_path / "out") == contents(short.out)

    def test_killed_while_replacing_an_older_audit(self, store, short, tmp_path):
        audit(store, tmp_path, plan=plan(n_bins=4), progress=False)
        before = contents(tmp_path)
        assert self.children(store, tmp_path, 5, 9) == ["9", "9"]
        assert contents(tmp_path) == before  # the older audit stays whole while stages run
        self.children(store, tmp_path, 30, 12)
        after = contents(tmp_path)
        assert "results.json" not in after or after == before or after == contents(short.out)
        audit_data.run(str(store), str(tmp_path))
        assert contents(tmp_path) == contents(short.out)

    @pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
    def test_ended_from_outside_at_any_moment(self, store, short, tmp_path, end):
        code = (
            "import audit_data; audit_data.simplify_for_good(); "
            f"audit_data.run({str(store)!r}, {str(tmp_path)!r})"
        )
        for _ in range(2):
            child = subprocess.Popen(
                [sys.executable, "-c", code], cwd=Path(__file__).parent, stderr=subprocess.PIPE, text=True
            )
            deadline = time.monotonic() + 60
            known = len(list(tmp_path.glob(".stages/*.json")))
            while len(list(tmp_path.glob(".stages/*.json"))) < known + 4 and time.monotonic() < deadline:
                time.sleep(0.005)
            child.send_signal(end)
            _, errors = child.communicate()
            assert child.returncode == -end
            if end == signal.SIGINT:
                assert "KeyboardInterrupt: audit interrupted after" in errors
                assert "these are kept" in errors
        resumed = audit_data.run(str(store), str(tmp_path))
        assert any(stage["reused"] for stage in resumed.timings["stages"].values())
        assert contents(tmp_path) == contents(short.out)


@pytest.mark.usefixtures("short_reports")
def test_an_interruption_says_how_far_it_came_and_keeps_it(store, tmp_path, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(run_module, "ksg_stage", interrupted)
        with pytest.raises(KeyboardInterrupt, match="after 15 of 19 stages"):
            audit(store, tmp_path, plan=plan(), progress=False)
    assert not (tmp_path / "results.json").exists()
    resumed = audit(store, tmp_path, plan=plan(), progress=False)
    assert sum(stage["reused"] for stage in resumed.timings["stages"].values()) == 15
