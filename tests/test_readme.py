"""README.md: its code runs from top to bottom, and it claims nothing that no committed JSON shows."""

import json
import re
import sys
from pathlib import Path

import pytest
from markdown_code import RUN_ELSEWHERE, blocks, ran

from benchmarks import headlines, tables
from benchmarks.accuracy import reading

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("readme")


@pytest.fixture(scope="module")
def output(folder):
    """What the blocks print, run from top to bottom in an empty folder."""
    good, printed = ran([README], folder)[README]
    assert good, printed
    return printed


def test_python_blocks(output, folder):
    assert "(512, 12) float32" in output
    assert re.search(r"maps \d and \d: \d\.\d\d nats, family-wise p = 0\.005", output)
    assert (folder / "README" / "report" / "report.html").is_file()


def test_estimates_are_as_good_as_the_readme_lets_expect(output):
    errors = {
        name: float(value) for name, value in re.findall(r"^(.+?) +\d\.\d+ nats, error (\S+)$", output, re.M)
    }
    assert len(errors) == 4
    assert abs(errors["KSG"]) < 0.03
    assert abs(errors["KSG on float16"]) < 0.03
    assert abs(errors["binned, corrected"]) < 0.15


def test_shell_blocks(output, folder):
    lines = "".join(block.text for block in blocks(README) if block.language == "sh").splitlines()
    commands = re.findall(r"^qixai-fast (\w+)", "\n".join(lines), re.M)
    assert {"capture", "verify", "audit"} <= set(commands)
    assert output.count("\n$ qixai-fast ") == len([name for name in commands if name not in RUN_ELSEWHERE])
    assert (folder / "README" / "demo-report" / "report.html").is_file()


def test_links_and_pictures_exist():
    targets = re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", TEXT)
    assert targets
    for target in targets:
        assert (README.parent / target).is_file(), target


# Claims


def prose(text):
    """What is left without code, figures that code has written, formulas, pictures and addresses."""
    text = re.sub(r"<!-- headlines.*?<!-- end of headlines -->", "", text, flags=re.DOTALL)
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"`[^`]*`|!\[[^\]]*\]|\]\([^)]*\)|^## \d\. ", "", text, flags=re.MULTILINE)
    return re.sub(r"-ln\(1 - r²\)/2|# qixai-fast|BSD-3-Clause", "", text)


def test_figures_are_written_by_code():
    """Of speed and accuracy there is what benchmarks.headlines writes, and nothing else."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    known = {project["requires-python"].removeprefix(">="), "2410.16537"}  # and the paper's number
    assert set(re.findall(r"\d[\d.,]*\d|\d", prose(TEXT))) <= known


def test_words_promise_no_speed():
    assert not re.findall(r"\b(fast|faster|fastest|sooner|times|magnitude|percent)\b", prose(TEXT).lower())


def test_pages_say_what_is_measured():
    for path, before, after in tables.pages():
        assert before == after, f"{path}: stale, run python -m benchmarks.tables"


def test_what_was_not_measured_is_no_figure(tmp_path):
    """Without results there is no number of ours, and without a peer none of its."""
    slower = {"ratio": 0.5, "lowest_ratio": 0.4, "highest_ratio": 0.6}
    row = {"row": "w", "least": {"NPEET": 2}, "peers": {"NPEET": None, "ennemi": slower}}
    made_by = {"processor": "P", "cores": 2, "python": "3"}
    content = {"runs": {"x": made_by}, "rows": {"test_all_pairs": row}}
    (tmp_path / "ksg.json").write_text(json.dumps(content), encoding="utf-8")
    text = "\n".join(headlines.docs_lines(tmp_path))
    assert text.count("not measured") >= len(headlines.FAMILIES) + 2
    assert "|  | NPEET | not measured |" in text
    assert "| ksg | w | ennemi | 0.5 (0.4 to 0.6) |" in text
    assert "0 of 0 are kept" in text
    assert headlines.promises(tables.RESULTS)[0] <= headlines.promises(tables.RESULTS)[1]


def test_accuracy_counts_what_is_infinite_and_not_what_did_not_run(tmp_path):
    one = {"not_finite": [0], "bias": [0.02], "rmse": [0.02], "draws": [4]}
    estimators = {
        "KSG-1": one,
        "NPEET": {"not_finite": [None], "bias": [None], "rmse": [None], "draws": [None]},
        "ennemi": {"not_finite": [3], "bias": [None], "rmse": [None], "draws": [3]},
    }
    groups = {
        "pairs": {"samples": [10_000], "distributions": {"d": {"truth": 0.1, "estimators": estimators}}},
        "precision": {"samples": [10_000], "distributions": {}},
    }
    (tmp_path / "accuracy.json").write_text(json.dumps({"groups": groups}), encoding="utf-8")
    sentence = headlines.accuracy_sentence(tmp_path)
    assert sentence.startswith("Of 1 scalar cases (1 distributions)")
    assert "Vectors: not measured" in sentence
    assert "Beyond Normal: not measured" in sentence
    assert "KSG-1 (ours) 1" in sentence
    assert "NPEET 0" in sentence
    assert "ennemi 1" in sentence
    [line] = headlines.accuracy_lines(tmp_path)[2:]
    assert line == "| d | 0.100 | **+20.0%** | not run | not run | not run | **infinite** | not run |"


def test_accuracy_is_that_of_the_benchmarks():
    """The same counts as in benchmarks/README.md; nothing counted twice."""
    content = json.loads((tables.RESULTS / "accuracy.json").read_text(encoding="utf-8"))
    sentence = headlines.accuracy_sentence(tables.RESULTS)
    for estimator in ("KSG-1", "ennemi"):
        wrong, tried = reading.wrong_in(content, estimator, reading.GROUPS_OF_SCALARS)
        assert f"Of {tried} scalar cases" in sentence
        assert re.search(rf"{estimator}( \(ours\))? {len(wrong)}\b", sentence)
    assert not re.search("float64|float32", "".join(headlines.accuracy_lines(tables.RESULTS)))


def test_the_fastest_peer_is_never_left_out(tmp_path):
    peers = {
        name: {"ratio": ratio, "lowest_ratio": ratio, "highest_ratio": ratio}
        for name, ratio in {"scikit-learn": 9, "a limit": 0.95214, "one thread": 0.5, "slow": 99}.items()
    } | {"NPEET": None}
    row = {"row": "w", "least": {"a limit": 0.95238}, "peers": peers}
    made_by = {"processor": "P", "cores": 2, "python": "3"}
    content = {"runs": {"x": made_by}, "rows": {"test_all_pairs": row}}
    (tmp_path / "ksg.json").write_text(json.dumps(content), encoding="utf-8")
    text = "\n".join(headlines.family_lines(tmp_path))
    assert "|  | a limit | 0.952 " in text
    assert "slow" not in text
    assert "one thread" not in text
    assert headlines.short_lines(tmp_path)[-1] == "| ksg | w | a limit | 0.9521 | 0.9524 |"


def test_the_paper_is_answered_as_in_the_study(tmp_path):
    found = headlines.study_sentence(tables.RESULTS)
    assert found.partition(" Which, and why")[0] in (ROOT / "benchmarks/study/README.md").read_text(
        encoding="utf-8"
    )
    assert "not measured" in headlines.study_sentence(tmp_path / "results")
