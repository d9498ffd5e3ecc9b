"""Benchmarks run, time what they say, and their tables say what was measured."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import qixai_fast as qf
from benchmarks import compile_time, racing, tables
from benchmarks.audits import audits_text
from benchmarks.environment import THREAD_LIMITS

ROOT = Path(__file__).parents[1]


def run(*command):
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_every_benchmark_runs():
    """All in one process: starting one for each suite would take longer than the suites."""
    out = run("pytest", "benchmarks", "--quick", "--benchmark-disable", "-v", "-p", "no:cacheprovider")
    for path in (ROOT / "benchmarks").glob("test_*.py"):
        assert re.search(rf"{path.name}::.* PASSED", out), f"{path.name}: nothing ran"


IMPORTED = """
import importlib, os, sys
import torch
before = dict(os.environ), torch.get_num_threads()
for name in sys.argv[1:]:
    importlib.import_module(name)
    assert (dict(os.environ), torch.get_num_threads()) == before, name
"""


def test_what_tests_import_limits_no_threads():
    """Else the whole suite would run on one thread, and hide what only several show."""
    pytest.importorskip("torch")
    modules = set()
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("benchmarks"):
                both = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
                modules |= {name for name in both if is_module(name)}
    assert {"benchmarks.study.__main__", "benchmarks.study.dependence"} <= modules
    environment = {name: value for name, value in os.environ.items() if name not in THREAD_LIMITS}
    command = [sys.executable, "-c", IMPORTED, *sorted(modules)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]


def is_module(name):
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def test_every_suite_has_a_title():
    suites = {path.stem.removeprefix("test_") for path in (ROOT / "benchmarks").glob("test_*.py")}
    assert suites <= set(tables.SUITES)


def test_first_calls_are_timed(tmp_path):
    run("benchmarks.compile_time", "--quick", "--out", tmp_path)
    content = json.loads((tmp_path / "compile_time.json").read_text())
    assert set(content["calls"]) == set(compile_time.QUICK)
    text = "\n".join(compile_time.compile_lines(content))
    first = content["calls"]["riemann_accumulate"]
    # Nothing stays in a cache of another process: a call that compiled nothing takes less.
    assert first["empty_cache"] > first["warm_cache"] > first["second_call"] > 0
    assert f"| riemann_accumulate | {first['empty_cache']:.2f} s |" in text


def test_every_public_function_has_a_first_call():
    classes = {name for name in qf.__all__ if isinstance(getattr(qf, name), type)}
    figures = {name for name in qf.__all__ if name.startswith("plot_")}
    timed = {name.split(",")[0] for name in compile_time.CALLS} | {"create_store"}  # the set-up of others
    assert set(qf.__all__) - classes - figures <= timed


def test_table_of_first_calls_tells_broken_promises():
    made_by = next(
        iter(json.loads((tables.RESULTS / "ksg.json").read_text(encoding="utf-8"))["runs"].values())
    )
    calls = {
        "kept": {"empty_cache": 2.9, "warm_cache": 0.05, "second_call": 0.001},
        "broken": {"empty_cache": 3.1, "warm_cache": 0.2, "second_call": 0.001},
    }
    about = {"measured": "2030-01-02", "commit": "c" * 12, "environment": made_by, "runs": 3}
    text = "\n".join(compile_time.compile_lines(about | {"calls": calls}))
    assert "1 of 2 first calls took at most 3 s with nothing compiled, 1 of 2" in text
    assert "| kept | 2.90 s | yes | 50 ms | yes | 1 ms |" in text
    assert "| broken | 3.10 s | **no** | 200 ms | **no** | 1 ms |" in text


def test_readme_says_what_is_measured():
    text = tables.README.read_text(encoding="utf-8")
    assert tables.readme_text(text) == text


def test_results_name_no_machine_and_keep_no_raw_times():
    told = {"processor", "architecture", "cores", "system", "python", "versions", "threads", "seed", "quick"}
    for path in tables.RESULTS.glob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        about = [content["environment"]] if "environment" in content else content["runs"].values()
        for made_by in about:
            assert set(made_by) <= told
        for row in content.get("rows", {}).values():
            assert "data" not in row
        found = re.search(r"/(home|work|root|tmp|Users)/", path.read_text(encoding="utf-8"))
        assert not found, path


class Clock:
    """Time that passes only when a call says so."""

    def __init__(self):
        self.now = 0.0

    def takes(self, seconds, result):
        steps = iter(seconds)

        def call():
            self.now += next(steps)
            return result

        return call


class Benchmark:
    """What a race uses of pytest-benchmark's fixture."""

    enabled = True

    def __init__(self, clock):
        self.clock, self.extra_info = clock, {}

    def pedantic(self, call, setup, rounds):
        data = []
        for _ in range(rounds):
            setup()
            start = self.clock.now
            result = call()
            data.append(self.clock.now - start)
        self.stats = SimpleNamespace(stats=SimpleNamespace(data=data))
        return result


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(racing.time, "perf_counter", lambda: clock.now)
    return clock


def test_race_takes_the_median_of_the_rounds_ratios_a_unit(clock):
    benchmark = Benchmark(clock)
    ours = clock.takes([0.9, 9, 10, 20, 10], "ours")  # two to warm up, one where that takes long
    peer = (clock.takes([99, 4, 4, 16], "theirs"), 2)
    results = racing.Race(benchmark)(
        "work", ours, {"peer": peer, "gone": None}, least={"peer": 3}, units=20, rounds=3
    )
    assert results == {"ours": "ours", "peer": "theirs"}
    info = benchmark.extra_info
    assert info["seconds"] == 0.5
    assert info["peers"] == {
        "peer": {"seconds": 2, "ratio": 4, "lowest_ratio": 2, "highest_ratio": 16},
        "gone": None,
    }


def test_race_does_not_mind_what_a_first_call_compiles(clock):
    benchmark = Benchmark(clock)
    ours = clock.takes([5, *[0.003] * 100], 0)
    racing.Race(benchmark)("work", ours, {}, rounds=2)
    assert benchmark.stats.stats.data == pytest.approx([0.021] * 2)


def test_race_repeats_calls_that_are_too_short(clock):
    benchmark = Benchmark(clock)
    ours, peer = clock.takes([0.004] * 100, 0), clock.takes([0.008] * 100, 0)
    racing.Race(benchmark)("work", ours, {"peer": peer}, rounds=2)
    assert benchmark.stats.stats.data == pytest.approx([0.02] * 2)
    assert benchmark.extra_info["seconds"] == pytest.approx(0.004)
    assert benchmark.extra_info["peers"]["peer"]["ratio"] == pytest.approx(2)


def test_race_refuses_a_promise_about_nobody(clock):
    with pytest.raises(ValueError, match="nobody"):
        racing.Race(Benchmark(clock))("work", int, {}, least={"nobody": 2})


def entry(name, seconds=2.0, failed=False, **extra):
    return {
        "fullname": f"benchmarks/test_suite.py::{name}",
        "name": name,
        "extra_info": {"failed": failed} | extra,
        "stats": {"median": seconds, "rounds": 3, "data": [seconds] * 3},
    }


def a_run(*entries, quick=False, commit="a" * 40, dirty=False):
    return {
        "datetime": "2030-01-02T03:04:05+00:00",
        "commit_info": {"id": commit, "dirty": dirty},
        "machine_info": {"quick": quick},
        "benchmarks": list(entries),
    }


@pytest.fixture
def suite(tmp_path):
    """A folder with one suite of two functions, and a way to take runs into it."""
    (tmp_path / "test_suite.py").write_text("def test_a(x):\n    pass\n\ndef test_b(x):\n    pass\n")

    def take(*entries, **options):
        tables.take_in(a_run(*entries, **options), tmp_path, tmp_path)
        return json.loads((tmp_path / "suite.json").read_text())

    return take


def test_a_run_replaces_its_functions_and_keeps_the_others(suite):
    suite(entry("test_a[1]"), entry("test_a[2]"), entry("test_b"))
    content = suite(entry("test_a[2]", 3.0), commit="b" * 40)
    assert {name: row["seconds"] for name, row in content["rows"].items()} == {"test_b": 2, "test_a[2]": 3}
    assert len(content["runs"]) == 2
    content = suite(entry("test_b"), commit="b" * 40)
    assert [stamp.split()[1] for stamp in content["runs"]] == ["b" * 12]


def test_changes_since_the_commit_are_told(suite):
    content = suite(entry("test_a"), dirty=True)
    assert [stamp.split()[1] for stamp in content["runs"]] == ["a" * 12 + "-dirty"]


def test_rows_of_functions_that_are_gone_go(suite, tmp_path):
    suite(entry("test_a"), entry("test_b"))
    (tmp_path / "test_suite.py").write_text("def test_b(x):\n    pass\n")
    assert list(suite(entry("test_b"))["rows"]) == ["test_b"]


def test_failed_benchmarks_have_no_row_and_quick_runs_are_no_results(suite):
    assert list(suite(entry("test_a", failed=True), entry("test_b"))["rows"]) == ["test_b"]
    with pytest.raises(ValueError, match="--quick"):
        suite(entry("test_a"), quick=True)


def measured(ratio):
    return {"seconds": 0.002, "ratio": ratio, "lowest_ratio": ratio / 2, "highest_ratio": ratio * 2}


def test_table_tells_kept_broken_and_unmeasured_promises():
    row = {
        "row": "I(x;y|z)",
        "unit": "pair",
        "seconds": 1.5e-5,
        "least": {"kept": 5, "broken": 100, "absent": 2},
        "peers": {"kept": measured(8.0), "broken": measured(99.9), "absent": None, "free": measured(1.0)},
        "bounds": {"megabytes": {"measured": 10, "most": 9}},
    }
    lines = {line[2]: line for line in tables.table_lines({"test_a": row})}
    assert lines["kept"][:2] == [r"I(x;y\|z)", "15 µs a pair"]
    assert lines["kept"][3:] == ["2 ms", "**8x** (4 to 16)", "5x", "yes"]
    assert lines["broken"][-2:] == ["100x", "**no**"]
    assert lines["absent"][3:] == ["not installed", "not measured", "2x", "not measured"]
    assert lines["free"][-2:] == ["", ""]
    assert lines["megabytes"][3:] == ["10", "", "at most 9", "**no**"]


def test_marks_must_be_there():
    with pytest.raises(ValueError, match="speed"):
        tables.with_section("no marks", "speed", "body")


@pytest.mark.parametrize(
    ("seconds", "text"), [(12, "12 s"), (0.0335, "33.5 ms"), (4.44e-5, "44.4 µs"), (6e-8, "60 ns")]
)
def test_duration(seconds, text):
    assert tables.duration(seconds) == text


def test_tables_of_audits_say_what_is_missing_and_what_differs():
    assert audits_text(None, None).count("Not measured yet.") == 2
    made_by = json.loads((tables.RESULTS / "ksg.json").read_text(encoding="utf-8"))["runs"]
    made_by = next(iter(made_by.values()))
    audit = {
        "environment": made_by,
        "arguments": {"layers": 2, "features": 10, "samples": 1_000_000, "max_memory": "2GB"},
        "seconds": 30.4,
        "peak_memory_bytes": 1.25e9,
        "kinds": {"layer": {"actual": 10.0, "planned": 8.0}, "ksg": {"actual": 20.0, "planned": 32.0}},
    }
    worker = {
        "seconds": 60.0,
        "ratio": 2.0,
        "same_bits": False,
        "tasks": 7,
        "empty_task": 2e-3,
        "real_task": 0.01,
    }
    scaling = {
        "environment": made_by, "layers": 2, "features": 10, "samples": 300, "permutations": 99,
        "local": {"n_jobs": 2, "seconds": 30.0}, "workers": {"4": worker},
    }  # fmt: skip
    text = audits_text(audit, scaling)
    assert "| layer | 10.0 | 8.0 | 1.25 |" in text
    assert "| all | 30.0 | 40.0 | 0.75 |" in text
    assert "(0.1 GB)" in text
    assert "| 4 Dask | 60.0 | 2.00 | **no** | 7 | 2.0 ms | 10.0 ms |" in text
