"""The whole path on real input: train a small CNN on handwritten digits, capture its layers, audit them."""

from __future__ import annotations

import os
import shutil
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ._validate import Array, check_int
from .capturing import capture, state_digest
from .store import ActivationStore
from .store.format import MANIFEST, read_manifest
from .store.journal import JOURNAL
from .store.locking import LOCK, WriterLock

if TYPE_CHECKING:
    import torch

LAYERS = ("conv1", "conv2", "dense")
_BATCH = 256
_EPOCHS = 8
_TEST_SHARE = 0.2


@dataclass(frozen=True)
class Digits:
    """scikit-learn's 1,797 handwritten digits.

    Attributes
    ----------
    images : Tensor, shape (1797, 1, 8, 8)
        float32 in [0, 1].
    classes : Tensor of int64, shape (1797,)
    train, test : ndarray of int64
        Places of the images to train on and of those held out, the same share of every class.
    """

    images: torch.Tensor
    classes: torch.Tensor
    train: Array
    test: Array


@dataclass(frozen=True)
class DemoResult:
    """What a demo left.

    Attributes
    ----------
    report : Path
        ``report.html``.
    reading : list of str
        The results in a few plain sentences.
    accuracy : float
        Share of the held-out images that the network classifies correctly.
    """

    report: Path
    reading: list[str]
    accuracy: float


def run_demo(out: str | os.PathLike[str], *, seed: int = 0, progress: bool = True) -> DemoResult:
    """Train, capture and audit; the same numbers on every run with the same seed.

    Parameters
    ----------
    out : str or PathLike
        Folder for ``store`` and ``report``. A demo that is there is taken up where it stopped; one of
        another seed is replaced. Nothing else in the folder is touched.
    seed : int, default 0
        Seed of the split, the training and the audit.
    progress : bool, default True
        Show progress bars.

    Returns
    -------
    DemoResult

    Raises
    ------
    ImportError
        Without torch or scikit-learn.
    StoreError
        Where ``out/store`` holds other things, or cannot be written.
    """
    from . import audit

    seed = check_int(seed, "seed", low=0, high=2**32 - 1)
    digits = load_digits(seed)
    with one_torch_thread():
        model = digits_cnn(seed, progress=progress)
        accuracy = accuracy_of(model, digits)
        store = capture_digits(model, digits, Path(out) / "store", progress=progress)
        report = audit(
            store,
            Path(out) / "report",
            model=model,
            inputs=digits.images,
            random_state=seed,
            progress=progress,
        )
    trained = (
        f"A CNN trained on {len(digits.train)} handwritten digits classifies {accuracy:.1%} of the "
        f"{len(digits.test)} held-out ones correctly."
    )
    return DemoResult(Path(out) / "report" / "report.html", [trained, *report.reading], accuracy)


def load_digits(seed: int = 0) -> Digits:
    """The digits, and a stratified split that ``seed`` chooses."""
    try:
        import sklearn.datasets
        import torch
    except ModuleNotFoundError as error:
        raise ImportError(
            f"the demo needs {error.name}: pip install 'qixai-fast[torch,sklearn]'", name=error.name
        ) from None
    bunch = sklearn.datasets.load_digits()
    images = torch.tensor(bunch.images / 16, dtype=torch.float32).unsqueeze(1)
    rng = np.random.default_rng(seed)
    test = np.zeros(len(bunch.target), dtype=bool)
    for digit in np.unique(bunch.target):
        members = np.flatnonzero(bunch.target == digit)
        test[rng.choice(members, round(_TEST_SHARE * len(members)), replace=False)] = True
    return Digits(images, torch.tensor(bunch.target), np.flatnonzero(~test), np.flatnonzero(test))


def digits_cnn(seed: int = 0, *, progress: bool = False) -> torch.nn.Module:
    """A CNN trained on the digits (about a second): the same weights for the same seed.

    Modules: ``conv1`` (32 maps), ``conv2`` (64 maps), ``dense`` (64), each with batch normalisation and
    ReLU, and ``classes`` (10 logits); inputs (n, 1, 8, 8) in [0, 1].

    Examples
    --------
    ``qixai-fast audit STORE --model qixai_fast.demo:digits_cnn --inputs qixai_fast.demo:digits_inputs``
    """
    digits = load_digits(seed)
    import torch
    from torch import nn
    from tqdm import trange

    images, classes = digits.images[digits.train], digits.classes[digits.train]
    # Without batch normalisation, two in five units of the dense layer die in training.
    with one_torch_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            OrderedDict(
                conv1=nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
                pool1=nn.MaxPool2d(2),
                conv2=nn.Sequential(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()),
                pool2=nn.MaxPool2d(2),
                flatten=nn.Flatten(),
                dense=nn.Sequential(nn.Linear(256, 64), nn.BatchNorm1d(64), nn.ReLU()),
                classes=nn.Linear(64, 10),
            )
        )
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
        for _ in trange(_EPOCHS, desc="train", unit="epoch", disable=not progress):
            for chosen in torch.split(torch.randperm(len(images)), 64):
                loss = nn.functional.cross_entropy(model(images[chosen]), classes[chosen])
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
    return model.eval()


def digits_inputs() -> list[tuple[torch.Tensor, ...]]:
    """All digits as batches of images (b, 1, 8, 8) and classes (b,)."""
    digits = load_digits()
    return in_batches(digits.images, digits.classes)


def in_batches(*columns: torch.Tensor) -> list[tuple[torch.Tensor, ...]]:
    """Tensors of the same length, cut into batches."""
    import torch

    return list(zip(*(torch.split(column, _BATCH) for column in columns), strict=True))


def accuracy_of(model: torch.nn.Module, digits: Digits) -> float:
    """Share of the held-out images that a model classifies correctly."""
    import torch

    with torch.no_grad():
        predicted = model(digits.images[digits.test]).argmax(dim=1)
    return float((predicted == digits.classes[digits.test]).double().mean())


def capture_digits(
    model: torch.nn.Module, digits: Digits, path: Path, *, progress: bool = True
) -> ActivationStore:
    """Capture conv1, conv2 and dense for all images, with classes, and the images' places as sample ids."""
    import torch

    clear_old_demo(path, state_digest(model))
    return capture(
        model,
        in_batches(digits.images, digits.classes, torch.arange(len(digits.images))),
        LAYERS,
        path,
        labels=1,
        sample_ids=2,
        metadata={
            "demo": "scikit-learn digits",
            "model": "CNN on handwritten digits",
            "class_names": [str(digit) for digit in range(10)],
            "test_samples": digits.test.tolist(),
        },
        progress=progress,
    )


def clear_old_demo(path: Path, model_digest: str) -> None:
    """Remove a store that a demo captured from another model.

    Stores that are not from a demo, or that share their folder with other files, are left for
    :func:`capture` to refuse.
    """
    if not (path / MANIFEST).exists():
        return
    manifest = read_manifest(path)
    if "demo" not in manifest.metadata or manifest.fingerprint.get("model") == model_digest:
        return
    own = [*(array.file for array in manifest.arrays()), JOURNAL, f"{MANIFEST}.tmp", MANIFEST, LOCK]
    if not {entry.name for entry in path.iterdir()} <= {*own, "columns"}:
        return
    lock = WriterLock(path)
    try:
        shutil.rmtree(path / "columns", ignore_errors=True)
        # The manifest goes after the data: a removal that is interrupted is taken up by the next demo.
        for name in own:
            (path / name).unlink(missing_ok=True)
    finally:
        lock.release()


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Run torch on one thread: its sums then do not depend on the cores, and small batches are faster."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
