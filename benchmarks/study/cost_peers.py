"""Other people's explainers, each called as its documentation shows, on the samples and baselines of ours.

Where a tool works on groups (superpixels, stretches of frames, word pieces), it gets those of all others.
"""

from __future__ import annotations

import re

import numpy as np
import torch
from torch import nn

from benchmarks.peers import optional

STEPS = 50

captum = optional("captum.attr")
shap = optional("shap")
lime_image, lime_text = optional("lime.lime_image"), optional("lime.lime_text")


def _attributed(tool, case, part, rows):
    """What a tool of Captum says of some samples."""
    return tool.attribute(
        case.inputs[part],
        case.baselines[part],
        case.target[part],
        n_steps=STEPS,
        internal_batch_size=rows,
        return_convergence_delta=True,
    )[0]


def captum_ig(case, rows=None):
    """Integrated gradients; ``rows`` a pass, or all at once as by default."""
    tool = captum.IntegratedGradients(case.model)
    return lambda part, seed: _attributed(tool, case, part, rows)


def captum_conductance(case, rows=None):
    """Layer conductance, layer by layer: (n, units) of each."""
    modules = dict(case.model.named_modules())
    tools = [captum.LayerConductance(case.model, modules[name]) for name in case.layers]

    def explain(part, seed):
        found = [_attributed(tool, case, part, rows) for tool in tools]
        return [values[0] if isinstance(values, tuple) else values for values in found]

    return explain


def captum_lrp(case):
    """Relevance by the epsilon rule, for ``Flatten``, too: Captum has none for it; this one passes it on."""
    from captum.attr._utils.lrp_rules import EpsilonRule

    tool = captum.LRP(case.model)
    flat = [module for module in case.model.modules() if isinstance(module, nn.Flatten)]

    def explain(part, seed):
        for module in flat:  # it is taken away at the end of each call
            module.rule = EpsilonRule()
        return tool.attribute(case.inputs[part], case.target[part]).detach()

    return explain


def _of_rank_one(found):
    """The values of the one output that was asked for, of what SHAP's gradient tools return."""
    values = found[0] if isinstance(found, tuple) else found
    return torch.from_numpy(np.asarray(values)[..., 0])


def shap_gradient(case):
    """Expected gradients, 200 draws (the default) between the sample and the one baseline."""

    def explain(part, seed):
        found = []
        for i in range(*part.indices(len(case.inputs))):
            tool = shap.GradientExplainer(case.model, case.baselines[i : i + 1])
            found.append(_of_rank_one(tool.shap_values(case.inputs[i : i + 1], ranked_outputs=1, rseed=seed)))
        return torch.cat(found)

    return explain


def shap_deep(case):
    """DeepLIFT's rules, from the one baseline.

    SHAP's check of the sum is off: in 0.51 it takes the first output for that which ``ranked_outputs`` chose.
    """

    def explain(part, seed):
        found = []
        for i in range(*part.indices(len(case.inputs))):
            tool = shap.DeepExplainer(case.model, case.baselines[i : i + 1])
            values = tool.shap_values(case.inputs[i : i + 1], ranked_outputs=1, check_additivity=False)
            found.append(_of_rank_one(values))
        return torch.cat(found)

    return explain


def shap_kernel(case):
    """Shapley values of groups by weighted regression, without the default's selection of ten groups."""
    absent, present = np.zeros((1, case.n_groups)), np.ones((1, case.n_groups))

    def explain(part, seed):
        np.random.seed(seed)  # noqa: NPY002
        found = []
        for i in range(*part.indices(len(case.inputs))):
            tool = shap.KernelExplainer(_of_groups(case, i), absent)
            found.append(
                tool.shap_values(present, nsamples=case.sizes.evaluations, l1_reg=0, silent=True).reshape(-1)
            )
        return np.array(found)

    return explain


def _of_groups(case, i):
    return lambda kept: case.scores(case.masked(i, np.asarray(kept) > 0.5), case.target[i])


def shap_partition(case):
    """Owen values of a tree that halves the picture, or the row of words, again and again."""
    shape = case.picture or (case.n_groups, 1, 1)
    masker = shap.maskers.Image(np.zeros(shape), shape)

    def explain(part, seed):
        found = []
        for i in range(*part.indices(len(case.inputs))):
            call, x = (_of_pictures if case.picture else _of_words)(case, i)
            tool = shap.PartitionExplainer(call, masker)
            values = tool(x[None], max_evals=case.sizes.evaluations, batch_size=50, silent=True).values[0]
            found.append(from_picture(case, values) if case.picture else values.reshape(-1))
        return np.array(found)

    return explain


def compile_partitions():
    """Have SHAP compile what PartitionExplainer and its masker need."""
    if shap:
        shape = (2, 2, 1)
        tool = shap.PartitionExplainer(
            lambda x: x.sum(axis=(1, 2, 3)), shap.maskers.Image(np.zeros(shape), shape)
        )
        tool(np.ones((1, *shape)), max_evals=10, batch_size=50, silent=True)


def as_picture(case, x):
    """An input as an array of height, width and channels."""
    x = x.numpy()
    return np.moveaxis(x, 0, -1) if x.ndim == 3 else x[..., None]


def from_picture(case, picture):
    """Pictures (..., height, width, channels) in the shape of inputs."""
    return np.moveaxis(picture, -1, -3) if case.inputs.ndim == 4 else picture[..., 0]


def _of_pictures(case, i):
    def call(pictures):
        inputs = torch.from_numpy(np.ascontiguousarray(from_picture(case, pictures), np.float32))
        return case.scores(inputs, case.target[i])

    return call, as_picture(case, case.inputs[i]).astype(np.float64)


def _of_words(case, i):
    groups = _of_groups(case, i)
    return (lambda kept: groups(kept.reshape(len(kept), -1))), np.ones((case.n_groups, 1, 1))


def lime_pictures(case):
    """A linear model of superpixels that are there or not."""
    channels = case.groups.ndim == 3
    segments = case.groups[0] if channels else case.groups

    def explain(part, seed):
        found = []
        for i in range(*part.indices(len(case.inputs))):
            call, x = _of_pictures(case, i)
            tool = lime_image.LimeImageExplainer(random_state=seed)
            # A grey picture comes back three times over.
            answer = tool.explain_instance(
                x if x.shape[-1] == 3 else x[..., 0],
                lambda pictures, call=call, n=x.shape[-1]: call(pictures[..., :n])[:, None],
                labels=(0,),
                top_labels=None,
                hide_color=0,
                num_samples=case.sizes.evaluations,
                segmentation_fn=lambda picture: segments,
            )
            found.append(_coefficients(answer, case.n_groups))
        return np.array(found)

    return explain


def lime_words(case):
    """A linear model of words that are there or not; words are told apart by position."""
    sentence = " ".join(f"w{j}" for j in range(case.n_groups))

    def explain(part, seed):
        found = []
        for i in range(*part.indices(len(case.inputs))):
            groups = _of_groups(case, i)

            def call(sentences, groups=groups):
                kept = np.zeros((len(sentences), case.n_groups))
                for row, text in zip(kept, sentences, strict=True):
                    row[[int(number) for number in re.findall(r"w(\d+)", text)]] = 1
                return groups(kept)[:, None]

            tool = lime_text.LimeTextExplainer(
                bow=False, mask_string="gone", random_state=seed, class_names="s"
            )
            answer = tool.explain_instance(
                sentence, call, labels=(0,), num_features=case.n_groups, num_samples=case.sizes.evaluations
            )
            found.append(_coefficients(answer, case.n_groups))
        return np.array(found)

    return explain


def _coefficients(answer, n_groups):
    values = np.zeros(n_groups)
    for group, value in answer.local_exp[0]:
        values[group] = value
    return values


def lime_for(case):
    """LIME for pictures or for words; None where it is not installed."""
    if case.picture:
        return lime_pictures if lime_image else None
    return lime_words if lime_text else None
