"""Part 2: three pretrained networks, captured, audited and explained on real inputs."""

from __future__ import annotations

from benchmarks.study.pretrained_audits import audited
from benchmarks.study.pretrained_figures import draw
from benchmarks.study.pretrained_files import MissingFilesError
from benchmarks.study.pretrained_paths import paths_measured
from benchmarks.study.pretrained_photos import photo_case
from benchmarks.study.pretrained_reading import lines
from benchmarks.study.pretrained_rows import rows_measured
from benchmarks.study.pretrained_speech import speech_case
from benchmarks.study.pretrained_text import text_case

__all__ = ["draw", "lines", "measure"]

CASES = {"efficientnet": photo_case, "speaker": speech_case, "minilm": text_case}
N_EXPLAINED = {"efficientnet": 12, "speaker": 24, "minilm": 30}


def _measured(name, options):
    case = CASES[name](options.quick, 4 if options.quick else N_EXPLAINED[name])
    folder = options.work / f"pretrained-{name}"
    return {
        "title": case.title,
        "samples": case.samples,
        "n_units": sum(len(labels) for _, labels in case.batches),
        "unit": case.unit,
        "row": case.row,
        "layers": list(case.layers),
        "names": list(case.names),
        "classes": case.classes,
        "checks": {key: float(value) for key, value in case.checks.items()},
        "audit": audited(case, case.model, folder, options.quick),
        "untrained": audited(
            case, case.untrained, folder.with_name(folder.name + "-untrained"), options.quick
        ),
        "rows": rows_measured(case, folder.with_name(folder.name + "-rows"), options.quick),
        "paths": paths_measured(case),
    }


def measure(options):
    """All networks whose weights and inputs are installed; the others are named with what they lack.

    Quick sizes need nothing installed: small networks of the same kind with random weights and inputs.
    """
    networks, missing = {}, {}
    for name in CASES:
        try:
            networks[name] = _measured(name, options)
        except MissingFilesError as lack:
            missing[name] = str(lack)
    return {"pretrained": not options.quick, "networks": networks, "missing": missing}
