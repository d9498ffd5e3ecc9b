"""EfficientNet-Lite0 over photographs: views of a photograph are its rows."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from benchmarks.environment import SEED
from benchmarks.networks import frozen, residual
from benchmarks.study import efficientnet
from benchmarks.study.pretrained_cases import N_SHOWN, Case, seeded
from benchmarks.study.pretrained_inputs import photographs

N_VIEWS = 4
WHITE = 1.0  # as the network reads it: the ground of the photographs, and so the baseline
N_ANIMALS = 398  # ImageNet's classes begin with these


def _calibrated(model, images):
    """Batch statistics of these images: random weights without them put out next to nothing."""
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # a plain mean
    model.train()
    with torch.no_grad():
        for batch in images:
            model(batch)
    return frozen(model)


def _patches(side, n):
    """``parts`` and ``without`` of square patches of ``side`` pixels, ``n`` a side of the image."""

    def parts(values):
        return values.sum(dim=1).unflatten(2, (n, side)).unflatten(1, (n, side)).sum(dim=(2, 4)).flatten(1)

    def without(inputs, gone):
        places = gone.view(-1, 1, n, n).repeat_interleave(side, 2).repeat_interleave(side, 3)
        return torch.where(places, WHITE, inputs)

    return parts, without


def _animals(predicted, labels, classes):
    """How often an animal, and how often anything else, is taken for one."""
    is_animal = labels == (classes.index("animal") if "animal" in classes else 0)
    called = predicted < N_ANIMALS
    return {
        "animals_called_animal": called[is_animal].mean(),
        "others_called_animal": called[~is_animal].mean(),
    }


def photo_case(quick, n_explained):
    """EfficientNet-Lite0 over photographs."""
    if quick:
        rng = np.random.default_rng(SEED)
        views = rng.integers(0, 255, (40, 2, 32, 32, 3), np.uint8)
        labels, classes, names = np.arange(40) % 2, ["a", "b"], [str(number) for number in range(40)]
        model = untrained = residual(8, 1, 10)
        layers, wide = ("4", "6", "9"), "2"
        conductors = ("4", "4.body.4", "6")
    else:
        views, labels, classes, names = photographs(N_VIEWS)
        model = efficientnet.load()
        untrained = seeded(efficientnet.without_weights)
        layers = (*(f"_blocks.{number}" for number in (0, 2, 4, 7, 10, 14, 15)), "_swish#2")
        wide, conductors = "_blocks.4._swish", ("_blocks.2", "_blocks.7._bn2", "_blocks.7", "_blocks.14")
    n, n_views = views.shape[:2]
    whole = efficientnet.to_input(views[:, 0])
    if not quick:
        untrained = _calibrated(untrained, whole.split(32))
    with torch.no_grad():
        predicted = torch.cat([model(part) for part in whole.split(32)])
    # Photographs it is surest of, one in four, so that not all are of one kind.
    chosen = predicted.softmax(dim=1).amax(dim=1).argsort(descending=True)[::4][:n_explained]
    side = whole.shape[2] // 14 if not quick else 8
    parts, without = _patches(side, whole.shape[2] // side)
    return Case(
        title="EfficientNet-Lite0",
        samples=f"{n} photographs of the Debian package `tuxpaint-stamps-default`, cut out on white, "
        f"one whole view each for the audit; {n_views} views each ({n_views - 1} random windows of "
        "60 to 90 % of the side) where rows within a photograph are looked at",
        unit="photograph",
        row="view",
        model=model,
        untrained=untrained,
        batches=list(zip(whole.split(32), np.array_split(labels, range(32, n, 32)), strict=True)),
        classes=classes,
        layers=layers,
        names=tuple(name.replace("_blocks.", "block ").replace("_swish#2", "head") for name in layers),
        reduce="gap",
        row_batches=[
            efficientnet.to_input(part)
            for part in np.array_split(views.reshape(-1, *views.shape[2:]), n // 8)
        ],
        row_reduce="gap",
        take_rows=lambda layer: np.asarray(layer).reshape(n, n_views, -1),
        wide=wide,
        explained=model,
        inputs=whole[chosen],
        baselines=torch.full_like(whole[chosen], WHITE),
        references=(),
        target=predicted[chosen].argmax(dim=1),
        target_text="the logit of the predicted class",
        part=f"patches of {side} x {side} pixels",
        conductors=conductors,
        parts=parts,
        without=without,
        checks=_animals(predicted.argmax(dim=1).numpy(), labels, classes),
        examples=[
            {"name": names[index].split("/")[-1], "picture": views[index, 0, ::4, ::4].tolist()}
            for index in chosen[:N_SHOWN].tolist()
        ],
    )
