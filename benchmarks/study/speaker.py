"""An LSTM that tells speakers apart, with the weights that Resemblyzer brings, and the spectra it reads.

Resemblyzer itself is never imported, since that wants librosa and webrtcvad. Its network is three LSTM
layers of 256 units over frames of 40 mel bands, and a linear layer over the last state (Wan et al. 2018,
"Generalized end-to-end loss for speaker verification").
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from benchmarks.networks import frozen
from benchmarks.study.pretrained_files import package_folder

RATE, WINDOW, HOP, N_BANDS = 16_000, 400, 160, 40  # samples a second, 25 ms, 10 ms
N_FRAMES = 160  # 1.6 s, what the network was trained on
LOUDNESS = 10 ** (-30 / 20)  # root mean square over full scale, as it was trained


class SpeakerEncoder(nn.Module):
    """Frames (n, time, 40) to embeddings (n, 256) of length 1.

    One module a layer, where the original has one for all, so that each layer's states can be hooked.
    """

    def __init__(self, width=256):
        super().__init__()
        self.lstm = nn.ModuleList(nn.LSTM(n, width, batch_first=True) for n in (N_BANDS, width, width))
        self.linear = nn.Linear(width, width)
        self.relu = nn.ReLU()

    def forward(self, frames):
        states = frames
        for layer in self.lstm:
            states, _ = layer(states)
        return nn.functional.normalize(self.relu(self.linear(states[:, -1])), dim=1)


def load():
    """The network with its weights, in evaluation mode."""
    file = package_folder("resemblyzer", "Resemblyzer") / "pretrained.pt"
    state = torch.load(file, map_location="cpu", weights_only=True)["model_state"]
    renamed = {}
    for name, value in state.items():
        module, _, weight = name.partition(".")
        if module == "lstm":  # "weight_ih_l2" becomes "weight_ih_l0" of the third module
            stem, number = weight.rsplit("_l", 1)
            name = f"lstm.{number}.{stem}_l0"
        if module in ("lstm", "linear"):  # the others scaled similarities in training
            renamed[name] = value
    model = SpeakerEncoder()
    model.load_state_dict(renamed)
    return frozen(model)


def _mel_filters():
    """Triangles over frequency (40, 201), each of area 1, as librosa's default (Slaney's scale) has them."""

    def hertz(mel):
        return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))

    top = 15 + np.log(RATE / 2 / 1000) * 27 / np.log(6.4)
    edges = hertz(np.linspace(0, top, N_BANDS + 2))
    slopes = edges[:, None] - np.fft.rfftfreq(WINDOW, 1 / RATE)
    widths = np.diff(edges)[:, None]
    triangles = np.minimum(-slopes[:-2] / widths[:-1], slopes[2:] / widths[1:])
    return np.maximum(triangles, 0) * (2 / (edges[2:] - edges[:-2]))[:, None]


def mel_frames(wave):
    """Mel power spectra (time, 40), float32, of one sound at 16 kHz, raised to the loudness of training."""
    wave = np.asarray(wave, np.float64)
    wave = wave * max(1.0, LOUDNESS / max(np.sqrt(np.mean(wave**2)), 1e-9))
    padded = np.pad(wave, WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    power = np.abs(np.fft.rfft(frames * hann)) ** 2
    return (power @ _mel_filters().T).astype(np.float32)


def without_pauses(frames, share=0.03):
    """Frames of at least ``share`` of the loud ones' power: a plain stand-in for a voice detector."""
    power = frames.sum(axis=1)
    return frames[power > share * np.quantile(power, 0.9)]
