"""The section of the benchmarks' README: every part with its figures, its text and where it was measured."""

import importlib
import json

from benchmarks.accuracy.parts import PARTS, file_of
from benchmarks.environment import environment_line

TITLES = {
    "information": "Mutual information where the truth is known",
    "beyond_normal": "The tasks of Beyond Normal",
    "spectra": "PCA against offset",
    "similarity": "CKA",
    "gradients": "Integrated gradients: completeness",
}
FIGURES = {
    "information": {
        "accuracy.png": "RMSE against the number of samples, one panel a distribution",
        "accuracy_coverage.png": "Share of draws whose interval holds the truth, by distribution and "
        "interval",
    },
    "beyond_normal": {"accuracy_beyond_normal.png": "Estimate less truth, by task and estimator"},
    "spectra": {"accuracy_spectra.png": "Error of singular values against offset, by precision and tool"},
    "similarity": {"accuracy_similarity.png": "Plain and debiased CKA against samples"},
    "gradients": {"accuracy_gradients.png": "Delta and error of attributions against steps"},
}


def page_lines(results):
    for name in PARTS:
        yield f"### {TITLES[name]}"
        yield ""
        path = results / f"{file_of(name)}.json"
        if not path.is_file():
            yield "Not measured yet."
            yield ""
            continue
        content = json.loads(path.read_text(encoding="utf-8"))
        for file, what in FIGURES[name].items():
            yield f"![{what}]({file})"
            yield ""
        yield from importlib.import_module(f"benchmarks.accuracy.{name}").lines(content)
        yield ""
        where = environment_line(content["environment"])
        yield f"Measured {content['measured']} at commit `{content['commit']}`: {where}"
        yield ""
