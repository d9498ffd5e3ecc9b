"""The statistics of the survival study: intervals that cover, rates that tell where they do not."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.study import survival_answer
from benchmarks.study.survival_intervals import REPLICATES, drift, interval, rate, subsamples
from benchmarks.study.survival_numbers import overlap, rank_correlation, same_pairs
from benchmarks.study.survival_tables import changed, counted_verdicts, main_table, number
from benchmarks.study.survival_verdicts import MOVES, STAYS, UNCLEAR, another_seed, standardised, verdict

N, M, TRIALS = 400, 40, 400


def coverage(draw, statistic, truth):
    """Share of samples whose interval holds the truth."""
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(TRIALS):
        sample = draw(rng)
        replicates = statistic(sample[subsamples(N, M, seed=trial)])
        low, high = interval(statistic(sample[None])[0], replicates, M, N)
        held += low <= truth <= high
    return held / TRIALS


def correlations(samples):
    centred = samples - samples.mean(axis=1, keepdims=True)
    x, y = centred[..., 0], centred[..., 1]
    return (x * y).sum(axis=1) / np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))


def pairs_of(rng):
    x, noise = rng.standard_normal((2, N))
    return np.stack([x, 0.6 * x + 0.8 * noise], axis=1)


def test_interval_of_a_mean_covers():
    assert 0.92 <= coverage(lambda rng: rng.normal(3, 2, N), lambda x: x.mean(axis=1), 3) <= 0.98


def test_interval_of_a_correlation_covers():
    assert 0.92 <= coverage(pairs_of, correlations, 0.6) <= 0.98


def test_interval_of_a_difference_of_paired_samples_covers():
    """As the study takes them: the same subsamples of both sides."""
    truth = 0.5

    def draw(rng):
        x = rng.standard_normal(N)
        return np.stack([x, x + truth + 0.1 * rng.standard_normal(N)], axis=1)

    assert 0.92 <= coverage(draw, lambda pairs: (pairs[..., 1] - pairs[..., 0]).mean(axis=1), truth) <= 0.98


def test_interval_does_not_cover_the_largest():
    """Of 30 correlations that are all 0: selection, not the network, makes the largest."""

    def largest(samples):
        centred = samples - samples.mean(axis=1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).sum(axis=1, keepdims=True))
        return np.einsum("rni,rn->ri", scaled[..., 1:], scaled[..., 0]).max(axis=1)

    assert coverage(lambda rng: rng.standard_normal((N, 31)), largest, 0.0) < 0.1


def test_rate_tells_a_mean_from_a_maximum():
    rng = np.random.default_rng(1)
    small, large = rng.random((2000, 30)), rng.random((2000, 300))
    assert rate(small.mean(axis=1), 30, large.mean(axis=1), 300) == pytest.approx(0.5, abs=0.05)
    assert rate(small.max(axis=1), 30, large.max(axis=1), 300) == pytest.approx(1, abs=0.1)
    assert rate(np.ones(5), 30, np.arange(5), 300) is None


def test_rate_allows_for_a_pool_that_is_not_endless():
    pool = np.random.default_rng(2).standard_normal(1000)
    few, many = (pool[subsamples(1000, size, seed=3, count=1000)].mean(axis=1) for size in (50, 500))
    assert rate(few, 50, many, 500, pool=1000) == pytest.approx(0.5, abs=0.04)
    assert rate(few, 50, many, 500) > 0.6


def test_drift_finds_a_bias_that_falls_with_the_number_of_samples():
    rng = np.random.default_rng(4)
    sample = rng.standard_normal(N)
    variance = sample.var()  # the plug-in: too small by 1/n
    replicates = sample[subsamples(N, M, seed=5, count=5000)].var(axis=1)
    assert drift(variance, replicates, M, N) == pytest.approx(-sample.var(ddof=1) / N, rel=0.3)


def test_subsamples_are_without_replacement_and_repeatable():
    draws = subsamples(50, 49, seed=1)
    assert draws.shape == (REPLICATES, 49)
    assert all(len(set(row)) == 49 for row in draws.tolist())
    assert (draws == subsamples(50, 49, seed=1)).all()
    with pytest.raises(ValueError, match="m: wanted more than 0 and fewer than n = 10, got 10"):
        interval(0.0, [1.0], 10, 10)


def test_overlap_is_zero_by_chance_and_one_for_the_same():
    rng = np.random.default_rng(6)
    first = rng.random((12, 20))
    assert overlap(first, first) == 1
    assert overlap(first, -first) == pytest.approx(-(100 / 240) / (10 - 100 / 240))
    drawn = [overlap(first, rng.random((12, 20))) for _ in range(2000)]
    assert abs(np.mean(drawn)) < 4 * np.std(drawn) / math.sqrt(2000)


def test_rank_correlation_is_spearmans():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(7)
    x, y = rng.integers(0, 5, (2, 60))
    assert rank_correlation(x, y) == pytest.approx(spearmanr(x, y)[0], abs=1e-12)
    assert rank_correlation(x, np.zeros(60)) == 0


def test_pairs_are_found_again_where_maps_have_changed_places():
    rng = np.random.default_rng(8)
    shapes = {("conv1", "conv2"): (6, 8), ("conv2", "dense"): (8, 5)}
    mi = {pair: rng.random(shape) for pair, shape in shapes.items()}
    moved = {"conv1": rng.permutation(6), "conv2": rng.permutation(8), "dense": rng.permutation(5)}
    # Map i of the first network is map moved[i] of the second.
    other = {}
    for (a, b), values in mi.items():
        other[a, b] = np.empty_like(values)
        other[a, b][np.ix_(moved[a], moved[b])] = values
    assert set(same_pairs(mi, other, moved).values()) == {1.0}
    assert max(same_pairs(mi, other).values()) < 1


def test_verdicts():
    def entry(shift, bracket):
        return {"shift": shift, "bracket": bracket}

    assert verdict(entry(3, [2, 4]), 1) == verdict(entry(-3, [-4, -2]), 1) == MOVES
    assert verdict(entry(0.5, [0.1, 0.9]), 1) == STAYS
    assert verdict(entry(1.5, [0.5, 2]), 1) == verdict(entry(0, [-2, 2]), 1) == UNCLEAR
    assert verdict(entry(2, None), 1) == MOVES
    assert standardised(entry(-3, None), 2) == -1.5
    assert standardised(entry(0, None), 0) == 0
    assert standardised(entry(1, None), 0) == math.inf


def test_three_seeds_are_a_short_yardstick():
    """A fourth seed leaves it often: the chance is told beside the table."""
    assert another_seed(1) > another_seed(2) > another_seed(3) > 0.01
    assert another_seed(1) < 0.5


def test_cells_tell_shift_bracket_and_verdict():
    assert [number(value) for value in (0.00004, -0.00004, -1e-9, 12345.0, -0.12345, 2)] == [
        *("0.00004", "-0.00004", "0", "12,345", "-0.123", "2")
    ]
    rows = {
        "moved": {"value": 3, "shift": 2.0, "bracket": [1.5, 2.5]},
        "open": {"value": 2, "shift": 0.8, "bracket": [0.5, 1.5]},
        "alone": {"value": 1, "shift": -0.2, "bracket": None},
    }
    content = {
        "seeds": [0, 1, 2],
        "clean": {"entropy, dense": [1, 1.5, 2]},
        "spread": {"entropy, dense": 1},
        "conditions": [
            {"title": title, "numbers": {"entropy, dense": entry}} for title, entry in rows.items()
        ],
    }
    cells = [line.strip("| ").split(" | ")[1] for line in list(main_table(content, ["entropy, dense"]))[2:]]
    assert cells == ["1, 1.5, 2; *1*", "**+2.0**: +2 [1.5, 2.5]", "+0.8?: +0.8 [0.5, 1.5]", "-0.2: -0.2"]


def content_of(shifts):
    """Results with one number that is counted and its twin, under conditions of these shifts."""
    return {
        "spread": {"effective rank, dense": 1, "entropy, dense": 1},
        "fewer_images": [200, 20],
        "conditions": [
            {
                "title": title,
                "numbers": {
                    name: {"shift": shift, "bracket": None}
                    for name in ("effective rank, dense", "entropy, dense")
                },
            }
            for title, shift in shifts.items()
        ],
    }


def test_the_lead_says_which_conditions_move_more_than_a_seed_does():
    shifts = {"stored as float16": 0, "other images": 0.5, "input noise 0.1": 0, "input noise 0.5": 9}
    shifts |= {"audited 200 images": 0, "audited 20 images": 5}
    lead = survival_answer._lead(content_of(shifts))
    assert lead.startswith("**Under half precision and other images next to nothing moves")
    assert "Under input noise more does. 20 images are too few to audit.**" in lead
    lead = survival_answer._lead(content_of(shifts | {"other images": 9, "audited 20 images": 0}))
    assert "Under other images and input noise more does.**" in lead
    assert "too few" not in lead


def test_twins_and_the_clean_case_are_not_counted():
    content = content_of({"other images": 0, "audited 200 images": 0, "audited 20 images": 5})
    assert [row["title"] for row in changed(content)] == ["other images", "audited 20 images"]
    assert list(counted_verdicts(content, content["conditions"][0])) == ["effective rank, dense"]


def test_the_committed_answer_names_no_number_without_its_size():
    path = Path(survival_answer.__file__).parent / "results" / "survival.json"
    text = "\n".join(survival_answer.answer(json.loads(path.read_text(encoding="utf-8"))))
    assert "yardsticks from 1" in text
    assert "nan" not in text
    assert "inf" not in text.replace("information", "")
