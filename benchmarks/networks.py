"""Networks for the benchmarks of attributions."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

N_TRAINING = 1500


def frozen(model):
    """In evaluation mode, and without gradients of weights: an attribution wants none."""
    return model.eval().requires_grad_(False)


def convolutions(width=32, n_classes=10):
    """Three convolutions over colour images, (n, 3, side, side)."""
    torch.manual_seed(0)
    layers = []
    for n_in, n_out in ((3, width), (width, 2 * width), (2 * width, 2 * width)):
        layers += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.ReLU()]
    layers.insert(4, nn.MaxPool2d(2))
    return frozen(
        nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(32 * width, n_classes))
    )


class _Residual(nn.Module):
    """Two convolutions around which their input goes, too."""

    def __init__(self, n_in, n_out, stride):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(n_out),
            nn.ReLU(),
            nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(n_out),
        )
        same = n_in == n_out and stride == 1
        self.around = nn.Identity() if same else nn.Conv2d(n_in, n_out, 1, stride, bias=False)

    def forward(self, x):
        return torch.relu(self.body(x) + self.around(x))


def residual(width=64, n_blocks=2, n_classes=1000):
    """A ResNet of four stages for colour images; the standard ResNet-18's shape with 64 and 2."""
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, width, 7, 2, 3, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    ]
    n_in = width
    for stage in range(4):
        for block in range(n_blocks):
            n_out = width * 2**stage
            layers.append(_Residual(n_in, n_out, 2 if stage and not block else 1))
            n_in = n_out
    return frozen(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n_in, n_classes)))


class DigitLSTM(nn.Module):
    """Reads an 8 x 8 digit row by row."""

    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(8, 64, batch_first=True), nn.Linear(64, 10)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


def digit_cnn():
    """Three convolutions over an 8 x 8 digit."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 10),
    )


def trained_on_digits(make, shape, n_samples, epochs=20):
    """A trained network, and held-out digits with their labels."""
    digits = load_digits()
    x = torch.tensor(digits.data / 16, dtype=torch.float32).reshape(-1, *shape)
    y = torch.tensor(digits.target)
    torch.manual_seed(0)
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    order = np.random.default_rng(0)
    for _ in range(epochs):
        for batch in np.array_split(order.permutation(N_TRAINING), 24):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    held_out = slice(N_TRAINING, N_TRAINING + n_samples)
    return frozen(model), x[held_out], y[held_out]
