"""The study's parts run, and its page says what was measured."""

import os
import re

import pytest
from study_runs import run_study

from benchmarks.study import reading
from benchmarks.study.__main__ import HERE, main
from benchmarks.study.parts import PARTS


def test_readme_says_what_is_measured():
    text = (HERE / "README.md").read_text(encoding="utf-8")
    assert reading.readme_text(text, HERE / "results") == text


def test_results_name_no_machine():
    for path in (HERE / "results").glob("*.json"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"/(home|work|root|tmp|Users)/", text), path


ACCOUNTING = pytest.mark.skipif(
    not os.path.exists("/proc/self/clear_refs"), reason="needs Linux's accounting"
)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=ACCOUNTING if name == "cost" else ()) for name in PARTS]
)
def test_every_part_runs(name, tmp_path):
    """Small, and without what is not installed: a part then leaves out those rows, and says so."""
    run_study(name, "--quick", "--out", tmp_path, "--work", tmp_path / "work")
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert reading.section(name, tmp_path / "results") in text
    assert any((tmp_path / "figures").iterdir())


def test_numbers_of_other_images_or_small_sizes_are_not_those_committed(capsys):
    for options in (["--quick"], ["--images", "."]):
        with pytest.raises(SystemExit):
            main(options)
        assert "wanted --out" in capsys.readouterr().err
