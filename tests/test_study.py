"""The study's parts run, and its page says what was measured."""

import json

import pytest

from benchmarks.study import reading
from benchmarks.study.__main__ import HERE, main
from benchmarks.study.parts import PARTS


def test_readme_says_what_is_measured():
    text = (HERE / "README.md").read_text(encoding="utf-8")
    assert reading.readme_text(text, HERE / "results") == text


def test_results_name_no_machine():
    for path in (HERE / "results").glob("*.json"):
        text = path.read_text(encoding="utf-8")
        assert str(HERE) not in text
        assert "quick" not in json.loads(text)


@pytest.mark.parametrize("name", PARTS)
def test_every_part_runs(name, tmp_path):
    """Small, and without what is not installed: a part then leaves out those rows, and says so."""
    assert main([name, "--quick", "--out", str(tmp_path), "--work", str(tmp_path / "work")]) == 0
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert reading.section(name, tmp_path / "results") in text
    assert any((tmp_path / "figures").iterdir())


def test_numbers_of_other_images_or_small_sizes_are_not_those_committed(capsys):
    for options in (["--quick"], ["--images", "."]):
        with pytest.raises(SystemExit):
            main(options)
        assert "wanted --out" in capsys.readouterr().err
