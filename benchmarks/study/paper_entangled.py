"""Claim (c): pairs of maps of Conv1 and Conv2, such as 22 and 46, are entangled: they share information."""

from __future__ import annotations

import warnings

import numpy as np
from scipy.stats import ks_2samp, spearmanr

import qixai_fast as qf
from benchmarks.study import fashion
from benchmarks.study.paper_networks import PAIRS

NAMED = (22, 46)  # the pair that the paper names
BLOCK = 20  # images of like brightness that trade places
N_BINS = 40  # of the histogram


def measure(nets, options, sizes):
    """Mutual information of all pairs of maps; what chance, the images alone, and no training give."""
    data = fashion.load(options).test
    n = min(sizes.n_pairs, len(data) // 2)
    labels = data.labels[:n].numpy().astype(np.float64)
    brightness = data.images[:n].mean(dim=(1, 2, 3)).double().numpy()
    content = {"n": n, "n_all": len(data), "networks": {}, "histogram": {}}
    values = {}
    for kind, members in nets.items():
        found = [_one(net.maps["conv1"], net.maps["conv2"], n, labels, brightness, sizes) for net in members]
        values[kind] = [maps for maps, _ in found]
        content["networks"][kind] = [entry for _, entry in found]
    for entry, net in zip(content["networks"]["trained"], nets["trained"], strict=True):
        entry["null"] = null_maxima(net.maps["conv1"][:n], net.maps["conv2"][:n], sizes.n_maxima)
    content["pairs"] = {
        kind: {
            f"{a} {b}": [_binned(net.maps[a][:n], net.maps[b][:n], sizes) for net in members]
            for a, b in PAIRS
        }
        for kind, members in nets.items()
    }
    edges = np.linspace(0, max(maps.max() for kind in values.values() for maps in kind), N_BINS + 1)
    content["histogram"] = {"edges": edges.tolist()} | {
        kind: [np.histogram(np.maximum(maps, 0), edges)[0].tolist() for maps in found]
        for kind, found in values.items()
    }
    trained, untrained = values["trained"], values["untrained"]
    content["between_seeds"] = [
        float(ks_2samp(a.ravel(), b.ravel()).statistic)
        for i, a in enumerate(trained)
        for b in trained[i + 1 :]
    ]
    content["to_untrained"] = [
        float(ks_2samp(a.ravel(), b.ravel()).statistic) for a in trained for b in untrained
    ]
    return content


def _one(x, y, n, labels, brightness, sizes):
    """KSG values of all pairs on the first images, and what is asked about the strongest."""
    values = qf.pairwise_mutual_info_ksg(x[:n], y[:n])
    others = qf.pairwise_mutual_info_ksg(x[n : 2 * n], y[n : 2 * n])
    ranked = np.argsort(-values, axis=None, kind="stable")
    top = np.column_stack(np.unravel_index(ranked[: sizes.n_top], values.shape))
    again = np.argsort(-others, axis=None, kind="stable")[: sizes.n_top]
    strongest = tuple(top[0].tolist())
    # Chosen on some images, tested on others: nothing has to be corrected for the choice.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        test = qf.mutual_info_test(
            x[n : 2 * n],
            y[n : 2 * n],
            pairs=[strongest],
            estimator="ksg",
            n_permutations=sizes.n_tests,
            random_state=0,
        )
        correlation = np.abs(qf.cosine_similarity(x[:n], y[:n], axis=0, center=True))
    entry = {
        "max": float(values.max()),
        "median": float(np.median(values)),
        "p95": float(np.quantile(values, 0.95)),
        "strongest": list(strongest),
        "heldout": float(test.values[0]),
        "heldout_p": float(test.pvalues[0]),
        "named": float(values[NAMED]),
        "named_share_stronger": float((values > values[NAMED]).mean()),
        "same_order": float(spearmanr(values.ravel(), others.ravel()).statistic),
        "same_top": float(np.isin(again, ranked[: sizes.n_top]).mean()),
        "like_correlation": float(spearmanr(values.ravel(), correlation.ravel()).statistic),
        "given": _given(x[:n], y[:n], top, values, labels, brightness, sizes),
    }
    return values, entry


def null_maxima(x, y, n_shuffles):
    """The largest KSG value of all pairs once the images of one layer are shuffled, again and again."""
    rng = np.random.default_rng(0)
    return [float(qf.pairwise_mutual_info_ksg(x, rng.permutation(y)).max()) for _ in range(n_shuffles)]


def _given(x, y, top, values, labels, brightness, sizes):
    """What pairs share once class, brightness, or both are known, as a mean over the strongest and over all.

    An estimate of three variables leans towards 0, so that each stands beside a control: the same with
    classes and brightness of other images, which take nothing away. For the strongest pair also the p-value
    of conditional independence: one map's values trade places within a class, or among images of like
    brightness.
    """
    rng = np.random.default_rng(0)
    any_pairs = np.column_stack(
        np.unravel_index(rng.choice(values.size, len(top), replace=False), values.shape)
    )
    conditions = {
        "class": (labels, strata(labels, None)),
        "brightness": (brightness, strata(None, brightness)),
        "both": (np.column_stack([labels, brightness]), strata(labels, brightness)),
    }
    found = {"top": float(np.mean([values[i, j] for i, j in top]))}
    found["any"] = float(np.mean([values[i, j] for i, j in any_pairs]))
    order = rng.permutation(len(labels))
    for name, (known, blocks) in conditions.items():
        for pairs, which in ((top, "top"), (any_pairs, "any")):
            for tag, condition in (("", known), ("_control", known[order])):
                found[f"{which}_{name}{tag}"] = float(
                    np.mean([qf.conditional_mutual_info_ksg(x[:, i], y[:, j], condition) for i, j in pairs])
                )
        i, j = top[0]
        value = qf.conditional_mutual_info_ksg(x[:, i], y[:, j], known)
        nulls = [
            qf.conditional_mutual_info_ksg(shuffled_within(x[:, i], blocks, rng), y[:, j], known)
            for _ in range(sizes.n_shuffles)
        ]
        found[f"strongest_{name}"] = float(value)
        found[f"null_{name}"] = float(np.mean(nulls))
        found[f"p_{name}"] = (1 + int(np.sum(np.array(nulls) >= value))) / (1 + len(nulls))
    return found


def strata(labels, brightness):
    """Groups of images that are alike: of one class, of neighbouring brightness, or both."""
    labels = np.zeros(len(brightness)) if labels is None else labels
    groups = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if brightness is None:
            groups.append(members)
        else:
            members = members[np.argsort(brightness[members], kind="stable")]
            groups += np.array_split(members, max(1, len(members) // BLOCK))
    return groups


def shuffled_within(values, groups, rng):
    """Values trade places within each group."""
    shuffled = values.copy()
    for members in groups:
        shuffled[members] = values[rng.permutation(members)]
    return shuffled


def _binned(x, y, sizes):
    """How many pairs of two layers are dependent beyond chance, all of them taken together."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # q-values are not read here, so few rounds do
        test = qf.mutual_info_test(
            x,
            y,
            strategy="quantile",
            bias_correction="permutation-mean",
            n_permutations=sizes.n_rounds,
            random_state=0,
        )
    return {
        "n_pairs": int(test.values.size),
        "dependent": float((test.max_pvalues < 0.05).mean()),
        "max": float(test.values.max()),
        "median": float(np.median(test.values)),
    }
