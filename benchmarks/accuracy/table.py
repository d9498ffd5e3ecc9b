"""Mutual information: the results as Markdown, what matters first and all numbers folded away."""

import statistics

from benchmarks.accuracy.intervals import wilson
from benchmarks.accuracy.reading import FEWEST, cell_at, is_wrong, reading

LISTED_AT, COVERED_AT = 10_000, 1_000
TOOLS = ("scikit-learn", "NPEET", "ennemi", "cKDTree + searchsorted")
MAIN = ("KSG-1", "KSG-2", "binned, miller-madow", "binned, quantile, miller-madow", *TOOLS)
INTERVALS = [
    *((name, "local") for name in MAIN[:4]),
    ("KSG-1", "halves"),
    *((name, "halves") for name in TOOLS[:3]),
]
TITLES = {
    "pairs": "Two scalars",
    "precision": "Half precision: the same draws, rounded (what rounding itself costs is too little to show)",
    "vectors": "Vectors, and how many dimensions undo nearest neighbours",
    "labels": "A variable against class labels",
    "codes": "Two discrete variables",
    "conditional": "Conditional information of x and y given z",
}


def row(cells):
    return "| " + " | ".join(cells) + " |"


def head(cells):
    return [row(cells), "|" + "---|" * len(cells)]


def relative(truth, summary):
    """Bias in percent of the truth (nats where that is 0), bold where it is wrong."""
    if not summary:
        return "not run"
    if summary["not_finite"]:
        return f"**infinite** {summary['not_finite']} of {summary['draws']}"
    text = f"{summary['bias'] / truth:+.1%}" if truth else f"{summary['bias']:+.4f} nats"
    return f"**{text}**" if is_wrong(truth, summary) else text


def bias_table(group, names, samples):
    """One line a distribution and number of samples."""
    several = len(samples) > 1
    yield from head(["distribution", "truth", *(["samples"] if several else []), *names])
    for name, result in group["distributions"].items():
        start = [name, f"{result['truth']:.4f}"]
        for n in samples:
            cells = [relative(result["truth"], cell_at(group, result, estimator, n)) for estimator in names]
            yield row([*start, *([f"{n:,}"] if several else []), *cells])
            start = ["", ""]


def share_text(summary, kind):
    """Percent of draws whose interval holds the truth; bold where the binomial interval ends below 80."""
    if kind not in summary:
        return ""
    share = summary[kind]
    text = f"{share:.0%}"
    return f"**{text}**" if wilson(share, summary["draws"])[1] < 0.8 else text


def coverage_table(group, intervals, n):
    titles = [f"{name}{'' if kind == 'local' else ', halves'}" for name, kind in intervals]
    yield from head(["distribution", *titles])
    for name, result in group["distributions"].items():
        yield row(
            [name, *(share_text(cell_at(group, result, estimator, n), kind) for estimator, kind in intervals)]
        )


def coverage_by_samples(group, intervals):
    """For each interval: the median share over distributions, and how many stay below half."""
    yield from head(["interval", *(f"N={n:,}" for n in group["samples"])])
    for name, kind in intervals:
        cells = []
        for n in group["samples"]:
            summaries = [cell_at(group, result, name, n) for result in group["distributions"].values()]
            shares = [summary[kind] for summary in summaries if kind in summary]
            low = sum(share < 0.5 for share in shares)
            cells.append(f"{statistics.median(shares):.0%}; {low} of {len(shares)}" if shares else "")
        if any(cells):
            yield row([f"{name}{'' if kind == 'local' else ', halves'}", *cells])


def full_table(group, names):
    """Bias, RMSE, and coverage of both intervals, in nats and percent."""
    yield from head(["distribution", "truth", "samples", *names])
    for name, result in group["distributions"].items():
        start = [name, f"{result['truth']:.4f}"]
        for n in group["samples"]:
            cells = []
            for estimator in names:
                summary = cell_at(group, result, estimator, n)
                if not summary or summary["not_finite"]:
                    cells.append(relative(result["truth"], summary))
                    continue
                mark = "**" if is_wrong(result["truth"], summary) else ""
                held = [share_text(summary, kind) for kind in ("local", "halves")]
                bias_and_rmse = f"{mark}{summary['bias']:+.4f}{mark}, {summary['rmse']:.4f}"
                cells.append("; ".join([bias_and_rmse, *filter(None, held)]))
            yield row([*start, f"{n:,}", *cells])
            start = ["", ""]


def folded(title, body):
    return [f"<details><summary>{title}</summary>", "", *body, "", "</details>", ""]


def of_group(name, group):
    """The short tables of one group."""
    estimators = list(next(iter(group["distributions"].values()))["estimators"])
    largest = max(n for n in group["samples"] if n <= LISTED_AT)
    covered = min(group["samples"], key=lambda n: abs(n - COVERED_AT))
    names = [
        estimator for estimator in (MAIN if "KSG-1" in estimators else estimators) if estimator in estimators
    ]
    if name == "vectors":
        names = estimators
    several = [n for n in group["samples"] if n <= LISTED_AT] if name == "vectors" else [largest]
    if name in ("labels", "codes", "conditional"):
        several = [n for n in (covered, largest) if n in group["samples"]]
    several = list(dict.fromkeys(several))
    yield f"#### {TITLES[name]}"
    yield ""
    what = "Bias in percent of the truth" + (f", N={several[0]:,}" if len(several) == 1 else "")
    yield f"{what}; bold above a tenth by more than two standard errors of at least {FEWEST} draws."
    yield ""
    yield from bias_table(group, names, several)
    yield ""
    intervals = [pair for pair in INTERVALS if pair[0] in estimators]
    if name not in ("pairs", "precision", "vectors"):
        intervals = [(estimator, kind) for estimator in estimators for kind in ("local", "halves")]
    intervals = [
        (estimator, kind)
        for estimator, kind in intervals
        if any(
            kind in cell_at(group, result, estimator, covered) for result in group["distributions"].values()
        )
    ]
    if intervals and name != "precision":
        yield f"How often a 95 % interval held the truth, N={covered:,}; bold below 80."
        yield ""
        yield from coverage_table(group, intervals, covered)
        yield ""
    if name == "pairs" and intervals:
        yield "Median of that over the distributions, and how many stay below half:"
        yield ""
        yield from coverage_by_samples(group, INTERVALS)
        yield ""
    binned = [estimator for estimator in estimators if "binned" in estimator]
    others = [estimator for estimator in estimators if estimator not in binned]
    note = "bias, RMSE in nats; coverage of local and of halves"
    yield from folded(f"All numbers: {note}", full_table(group, others))
    if name == "pairs":
        yield from folded(f"All numbers of binned estimators, 16 bins: {note}", full_table(group, binned))


def draws_text(group):
    """How many draws: the most that an estimator had, and the fewest, where slow ones had fewer."""
    counts = {n: set() for n in group["samples"]}
    for result in group["distributions"].values():
        for values in result["estimators"].values():
            for n, draws in zip(group["samples"], values["draws"], strict=True):
                if draws:
                    counts[n].add(draws)
    return ", ".join(
        f"{max(found)} of N={n:,}"
        + (f" (slow ones: the first, at least {min(found)})" if len(found) > 1 else "")
        for n, found in counts.items()
    )


def lines(content):
    """All of the section on mutual information."""
    yield from reading(content)
    yield ""
    for name in TITLES:
        if name not in content["groups"]:
            yield f"#### {TITLES[name]}"
            yield ""
            yield "Not measured yet."
            yield ""
            continue
        group = content["groups"][name]
        yield from of_group(name, group)
        yield f"Draws: {draws_text(group)}."
        yield ""
