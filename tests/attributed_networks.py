"""Networks and helpers for the tests of integrated gradients."""

import numpy as np
import pytest

import qixai_fast as qf
from qixai_fast._path_passes import TORCH_OWN

torch = pytest.importorskip("torch")
nn = torch.nn


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def seeded(build, seed=0):
    """A network with weights of its own seed, in evaluation mode; the global generator stays as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build().eval()


def cnn():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(8, 5),
    )


class SequenceModel(nn.Module):
    """An LSTM over sequences of given lengths, with a head on the last state."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 8, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x, lengths=None):
        if lengths is not None:
            x = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        _, (state, _) = self.lstm(x)
        return self.head(state[-1])


class Encoder(nn.Module):
    """A transformer encoder, averaged over all tokens. Without gradients torch zeroes those of padding."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(8, 3)

    def forward(self, x, padding):
        return self.head(self.encoder(x, src_key_padding_mask=padding).mean(1))


def budget_for(rows, *arguments, **options):
    """The ``max_memory`` that has room for so many rows in a pass."""
    with pytest.raises(qf.MemoryBudgetError, match="max_memory: one gradient needs") as caught:
        qf.integrated_gradients(*arguments, **options, max_memory=1)
    return caught.value.required + (rows - 1) * (caught.value.required - TORCH_OWN)


def assert_close(result, expected, **tolerance):
    np.testing.assert_allclose(result.detach().numpy(), expected, **tolerance)
