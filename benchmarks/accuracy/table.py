"""The accuracy results as Markdown."""

from benchmarks.environment import environment_line

MAIN = ("KSG-1", "KSG-2", "scikit-learn", "NPEET", "ennemi", "cKDTree + searchsorted")
SHOWN_SAMPLES = (100, 1_000, 10_000, 100_000)
WRONG = 0.1  # of the truth
LISTED_AT = 10_000


def _wrong(result, values, position):
    bias = values["bias"][position]
    return bias is None or abs(bias) > WRONG * result["truth"]


def _cell(content, result, estimator, position):
    """Bias and RMSE; bold where the bias is more than a tenth of the truth."""
    if estimator not in result["estimators"]:
        return "not installed"
    values = result["estimators"][estimator]
    lost = values["not_finite"][position]
    if lost is None:
        return "not run"
    if lost:
        return f"**infinite** {lost} of {content['repeats'][position]} times"
    mark = "**" if _wrong(result, values, position) else ""
    return f"{mark}{values['bias'][position]:+.4f}{mark}, {values['rmse'][position]:.4f}"


def _table(content, estimators, samples):
    yield "| distribution | truth | samples | " + " | ".join(estimators) + " |"
    yield "|" + "---|" * (3 + len(estimators))
    for name, result in content["distributions"].items():
        first, truth = name, f"{result['truth']:.4f}"
        for n in samples:
            position = content["samples"].index(n)
            cells = [_cell(content, result, estimator, position) for estimator in estimators]
            cells = [first, truth, f"{n:,}", *cells]
            yield "| " + " | ".join(cells) + " |"
            first = truth = ""


def _failures(content):
    """Who is off by more than a tenth where samples are many, and says nothing."""
    n = max(n for n in content["samples"] if n <= LISTED_AT)
    position = content["samples"].index(n)
    yield f"**Off by more than a tenth of the truth at {n:,} samples, without a word:**"
    yield ""
    for estimator in MAIN:
        wrong = []
        for name, result in content["distributions"].items():
            values = result["estimators"].get(estimator)
            if values and _wrong(result, values, position):
                bias = values["bias"][position]
                off = "infinite" if bias is None else f"{bias / result['truth']:+.0%}"
                wrong.append(f"{name} ({off})")
        yield f"- {estimator}: {'; '.join(wrong) or 'none'}"


def accuracy_lines(content):
    """All of the accuracy section."""
    estimators = next(iter(content["distributions"].values()))["estimators"]
    shown = [n for n in SHOWN_SAMPLES if n in content["samples"]]
    repeats = zip(content["samples"], content["repeats"], strict=True)
    yield from _failures(content)
    yield ""
    yield "Bias, RMSE in nats; bold where the bias is more than a tenth of the truth."
    yield ""
    yield from _table(content, MAIN, shown)
    yield ""
    yield (
        "Binned, 16 bins of equal width (quantile: of equal frequency). Corrections mend the bias of few "
        "samples; what coarse bins lose stays lost, and equal widths lose nearly all of a heavy tail."
    )
    yield ""
    yield from _table(content, [name for name in estimators if "binned" in name], shown)
    yield ""
    yield "Draws: " + ", ".join(f"{times} of N={n:,}" for n, times in repeats) + "."
    yield ""
    where = environment_line(content["environment"])
    yield f"Measured {content['measured']} at commit `{content['commit']}`: {where}"
