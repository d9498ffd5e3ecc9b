"""What the numbers on mutual information say, in sentences that are made from them."""

import math
import statistics

from benchmarks.accuracy.intervals import wilson

WRONG = 0.1  # of the truth
WRONG_NATS = 0.01  # where the truth is 0
FEWEST = 3  # draws: the spread of fewer is no spread
AT, COVERED_AT = 10_000, 1_000
OURS = ("KSG-1", "KSG-2", "mixed (Ross)", "conditional KSG", "plug-in, miller-madow")
GROUPS_OF_SCALARS = ("pairs", "precision")


def cell_at(group, result, estimator, n):
    """What was found with n samples; empty where it did not run."""
    values = result["estimators"].get(estimator)
    if values is None or n not in group["samples"]:
        return {}
    position = group["samples"].index(n)
    found = {key: of_samples[position] for key, of_samples in values.items()}
    return {key: value for key, value in found.items() if value is not None}


def is_wrong(truth, summary):
    """Whether the bias is more than a tenth of the truth, by two standard errors; infinite values are wrong.

    Tools that are slow have few draws, whose mean may be far off by chance: of fewer than ``FEWEST`` nothing
    is said.
    """
    if summary["not_finite"]:
        return True
    bias, draws = abs(summary["bias"]), summary["draws"]
    if draws < FEWEST:
        return False
    spread = math.sqrt(max(summary["rmse"] ** 2 - bias**2, 0) / (draws - 1))
    return bias - 2 * spread > (WRONG * truth if truth else WRONG_NATS)


def off(truth, summary):
    if summary["not_finite"]:
        return "infinite"
    return f"{summary['bias'] / truth:+.0%}" if truth else f"{summary['bias']:+.3f} nats"


def repeats(distribution):
    """Whether a case of half precision is the same as one among the pairs."""
    return distribution.endswith(("float64", "float32"))


def wrong_in(content, estimator, groups):
    """Where it is wrong at the most samples that are listed, and of how many cases."""
    wrong, tried = [], 0
    for group in (content["groups"][name] for name in groups if name in content["groups"]):
        n = max(n for n in group["samples"] if n <= AT)
        for distribution, result in group["distributions"].items():
            summary = cell_at(group, result, estimator, n)
            if not summary or "draws" not in summary or repeats(distribution):
                continue
            tried += 1
            if is_wrong(result["truth"], summary):
                wrong.append(f"{distribution} ({off(result['truth'], summary)})")
    return wrong, tried


def wrong_text(content, estimator, groups):
    """The same as a line."""
    wrong, tried = wrong_in(content, estimator, groups)
    if not tried:
        return f"- {estimator}: not measured"
    return f"- {estimator}, {len(wrong)} of {tried}: {'; '.join(wrong) or 'none'}"


def coverage_reading(content):
    """Which intervals hold, where they collapse, and why."""
    group = content["groups"]["pairs"]
    n = min(group["samples"], key=lambda samples: abs(samples - COVERED_AT))
    shares, collapsed = [], []
    for name, result in group["distributions"].items():
        summary = cell_at(group, result, "KSG-1", n)
        if "local" not in summary:
            yield "**Intervals.** Not measured yet."
            return
        share = summary["local"]
        shares.append(share)
        if wilson(share, summary["draws"])[1] < 0.8:
            times = abs(summary["bias"]) / summary["local_half_width"]
            collapsed.append(f"{name} ({share:.0%}; its bias is {times:.1f} half widths)")
    draws = summary["draws"]
    low, high = wilson(0.95, draws)
    first, last = group["samples"][0], max(m for m in group["samples"] if m <= AT)
    quantiles = "binned, quantile, miller-madow"
    lost = [
        summary["local"] < 0.5
        for result in group["distributions"].values()
        for summary in [cell_at(group, result, quantiles, last)]
        if "local" in summary
    ]
    yield (
        f"**Intervals.** A share of 95 % counted in {draws} draws has itself a 95 % interval of {low:.0%} "
        f"to {high:.0%}. KSG-1 with the interval from its local values holds the truth in "
        f"{statistics.median(shares):.0%} of draws at N={n:,} (median over "
        f"distributions){_halves(group, n)}. It collapses where bias outweighs width: "
        f"{'; '.join(collapsed) or 'nowhere here'}. More samples do not always mend that, since widths "
        f"shrink, too{_trends(group, first, last)}. Binned intervals fare worse, as what bins lose does not "
        f"shrink at all: with quantiles and Miller-Madow {sum(lost)} of {len(lost)} distributions stay "
        f"below half at N={last:,}. No interval here knows of bias, and none should be read as if it did."
    )


def _halves(group, n):
    """The same of the interval from disjoint halves."""
    found = [cell_at(group, result, "KSG-1", n).get("halves") for result in group["distributions"].values()]
    found = [share for share in found if share is not None]
    return f", that from disjoint halves in {statistics.median(found):.0%}" if found else ""


def _trends(group, first, last):
    """Where KSG-1's interval holds the truth less often with many samples than with few."""
    found = []
    for name, result in group["distributions"].items():
        few, many = (cell_at(group, result, "KSG-1", n).get("local") for n in (first, last))
        if few is not None and many is not None and many < few - 0.2:
            found.append(f"{name} {few:.0%} to {many:.0%}")
    return f" (N={first:,} to {last:,}: {'; '.join(found)})" if found else ""


def corrections_reading(content):
    """Which correction is nearest to the truth, few samples and many."""
    group = content["groups"]["pairs"]
    names = [name for name in next(iter(group["distributions"].values()))["estimators"] if "binned" in name]
    found = []
    for n in (group["samples"][0], group["samples"][-1]):
        means = {
            name: statistics.mean(
                abs(cell_at(group, result, name, n)["bias"]) / result["truth"]
                for result in group["distributions"].values()
                if "bias" in cell_at(group, result, name, n)
            )
            for name in names
        }
        best = min(means, key=means.get)
        found.append(
            f"{'at' if found else 'At'} N={n:,} {best} is nearest (mean |bias| {means[best]:.0%} of the "
            f"truth; uncorrected, equal widths: {means['binned']:.0%})"
        )
    yield (
        f"**Binned.** {'; '.join(found)}. Corrections mend what few samples add; what bins lose stays "
        "lost, and equal widths lose nearly all of a heavy tail: take quantiles there."
    )


def reading(content):
    groups = content["groups"]
    yield "**Where ours is off by more than a tenth** (at the most samples up to 10,000):"
    yield ""
    for estimator in OURS:
        yield wrong_text(content, estimator, groups)
    yield ""
    if "vectors" in groups:
        yield (
            "Long vectors are the worst of these: nearest neighbours need samples that grow exponentially "
            "with dimension, so that a low value for layers as wholes means nothing. Take a few "
            "components, or `linear_cka` and `cca`."
        )
    yield (
        "On heavy tails take logarithms or ranks first: mutual information stays as it is, and nearest "
        "neighbours are right again."
    )
    yield ""
    yield "**The same of other tools, on scalars:**"
    yield ""
    for estimator in ("scikit-learn", "NPEET", "ennemi", "cKDTree + searchsorted"):
        yield wrong_text(content, estimator, GROUPS_OF_SCALARS)
    yield ""
    yield from coverage_reading(content)
    yield ""
    yield from corrections_reading(content)
