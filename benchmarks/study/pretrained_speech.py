"""The LSTM over recorded announcements: moments of a recording are its rows."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from benchmarks.environment import SEED
from benchmarks.study import speaker
from benchmarks.study.pretrained_cases import N_SHOWN, Case, Similarity, seeded
from benchmarks.study.pretrained_inputs import speech

MOMENTS = slice(9, None, 10)  # of a recording: one in 100 ms


def _told_apart(embedded, voices, classes):
    """Voices found by the nearest mean of the others' embeddings, and cosines within and between."""
    sums = voices.T @ embedded
    centres = (
        sums - voices[:, :, None] * embedded[:, None, :]
    )  # (clips, voices, width): without the clip itself
    nearest = (nn.functional.normalize(centres, dim=2) @ embedded[:, :, None])[:, :, 0].argmax(dim=1)
    cosines = embedded @ embedded.T
    mean = (voices.T @ cosines @ voices) / (voices.sum(dim=0)[:, None] * voices.sum(dim=0))
    same = torch.eye(len(classes), dtype=torch.bool)
    return {
        "voices_found": float((nearest == voices.argmax(dim=1)).float().mean()),
        "cosine_same": float(mean[same].mean()),
        "cosine_other": float(mean[~same].mean()),
        "cosine_first_two": float(mean[0, 1]),
        "largest_cosine_other": float(mean[~same].max()),
    }


def _decibels(frames):
    """A recording for a figure: means of 5 moments, relative to the loudest, from -60 dB."""
    power = frames.unflatten(0, (-1, 5)).mean(dim=1)
    return (10 * torch.log10(power / power.max() + 1e-6)).round().int()


def speech_case(quick, n_explained):
    """The LSTM over recorded announcements."""
    if quick:
        torch.manual_seed(SEED)
        clips, labels, classes = torch.rand(40, 20, speaker.N_BANDS), np.arange(40) % 2, ["a", "b"]
        model, untrained = (seeded(lambda: speaker.SpeakerEncoder(16)) for _ in range(2))
    else:
        found, labels, classes = speech()
        clips = torch.from_numpy(found)
        model, untrained = speaker.load(), seeded(speaker.SpeakerEncoder)
    n, time = clips.shape[:2]
    every = slice(1, None, 4) if quick else MOMENTS
    with torch.no_grad():
        embedded = model(clips)
    voices = nn.functional.one_hot(torch.from_numpy(labels)).to(embedded.dtype)
    centres = (voices.T @ embedded) / voices.sum(dim=0)[:, None]
    chosen = torch.from_numpy(np.random.default_rng(SEED).permutation(n)[:n_explained])
    return Case(
        title="LSTM speaker encoder",
        samples=f"{n} recordings, the middle {time / 100:.1f} s of each, by {len(classes)} voices "
        "(Debian's `asterisk-core-sounds-*-wav` and `asterisk-prompt-it-menardi-wav`: telephone "
        "announcements, 8 kHz)",
        unit="recording",
        row="moment",
        model=model,
        untrained=untrained,
        batches=list(zip(clips.split(64), np.array_split(labels, range(64, n, 64)), strict=True)),
        classes=classes,
        layers=("lstm.0", "lstm.1", "lstm.2", "linear"),
        names=("LSTM 1", "LSTM 2", "LSTM 3", "linear"),
        reduce="last_token",
        row_batches=list(clips.split(64)),
        row_reduce="none",
        take_rows=lambda layer: np.asarray(layer[:, every] if layer.ndim == 3 else layer[:, None]),
        wide="lstm.2",
        explained=Similarity(model),
        inputs=clips[chosen],
        baselines=torch.zeros_like(clips[chosen]),
        references=(nn.functional.normalize(centres[torch.from_numpy(labels)[chosen]], dim=1),),
        target=None,
        target_text="the cosine with the mean embedding of its voice",
        part="moments of 50 ms",
        conductors=("model.lstm.0", "model.lstm.1", "model.lstm.2", "model.linear"),
        parts=lambda values: values.sum(dim=2).unflatten(1, (-1, 5)).sum(dim=2),
        without=lambda inputs, gone: inputs * ~gone.repeat_interleave(5, 1)[:, :, None],
        checks=_told_apart(embedded, voices, classes),
        examples=[
            {"name": classes[labels[index]], "picture": _decibels(clips[index]).tolist()}
            for index in chosen[:N_SHOWN].tolist()
        ],
    )
