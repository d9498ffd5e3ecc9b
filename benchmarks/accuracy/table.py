"""The accuracy results as Markdown."""

from benchmarks.environment import environment_line

MAIN = ("KSG-1", "KSG-2", "binned", "binned, miller-madow", "scikit-learn", "NPEET")
SHOWN_SAMPLES = (100, 1_000, 10_000, 100_000)
CORRECTED_AT = (100, 1_000)
WRONG = 0.1  # of the truth


def _cell(result, estimator, position):
    """Bias and RMSE; bold where the bias is more than a tenth of the truth."""
    if estimator not in result["estimators"]:
        return "not installed"
    values = result["estimators"][estimator]
    bias, rmse = values["bias"][position], values["rmse"][position]
    bias_text = f"{bias:+.4f}"
    if abs(bias) > WRONG * result["truth"]:
        bias_text = f"**{bias_text}**"
    return f"{bias_text}, {rmse:.4f}"


def _table(content, estimators, samples):
    yield "| distribution | truth | samples | " + " | ".join(estimators) + " |"
    yield "|" + "---|" * (3 + len(estimators))
    for name, result in content["distributions"].items():
        first, truth = name, f"{result['truth']:.4f}"
        for n in samples:
            position = content["samples"].index(n)
            cells = [first, truth, f"{n:,}", *(_cell(result, known, position) for known in estimators)]
            yield "| " + " | ".join(cells) + " |"
            first = truth = ""


def _silent_failures(content):
    """Who is off by more than a tenth where the samples are most, and nothing told."""
    for estimator in MAIN:
        wrong = [
            f"{name} ({values['bias'][-1] / result['truth']:+.0%})"
            for name, result in content["distributions"].items()
            if (values := result["estimators"].get(estimator))
            and abs(values["bias"][-1]) > WRONG * result["truth"]
        ]
        yield f"- {estimator}: {'; '.join(wrong) or 'none'}"


def accuracy_lines(content):
    """All of the accuracy section."""
    repeats = zip(content["samples"], content["repeats"], content["peer_repeats"], strict=True)
    estimators = next(iter(content["distributions"].values()))["estimators"]
    corrected = [name for name in estimators if "binned" in name]
    yield f"Off by more than a tenth of the truth at {content['samples'][-1]:,} samples:"
    yield ""
    yield from _silent_failures(content)
    yield ""
    yield "Bias, RMSE in nats; bold where the bias is more than a tenth of the truth."
    yield ""
    yield from _table(content, MAIN, [n for n in SHOWN_SAMPLES if n in content["samples"]])
    yield ""
    yield "Binned, 16 bins (of equal width, or equal frequency where it says quantile), with every correction:"
    yield ""
    yield from _table(content, corrected, [n for n in CORRECTED_AT if n in content["samples"]])
    yield ""
    yield "Repetitions, ours and peers': " + ", ".join(f"N={n:,}: {a} and {b}" for n, a, b in repeats) + "."
    yield ""
    where = environment_line(content["environment"])
    yield f"Measured {content['measured']} at commit `{content['commit']}`: {where}"
