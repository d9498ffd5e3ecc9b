"""Images to learn from, as bytes: Fashion-MNIST, folders of pictures, handwritten digits."""

from __future__ import annotations

import gzip
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FASHION = Path("/usr/share/datasets/fashion-mnist")  # of the Debian package dataset-fashion-mnist
FASHION_CLASSES = (
    *("T-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "boot"),
)
SIDE = 32  # of pictures in a folder, once they are read
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
TEST_SHARE = 0.2
FEWEST = 10  # images of a class


@dataclass(frozen=True)
class Raw:
    """Bytes (n, channels, height, width) with labels, to train on and to test with, and names of classes."""

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    classes: tuple[str, ...]


def read_idx(path):
    """An array of bytes from a gzip-compressed IDX file."""
    with gzip.open(path) as file:
        content = file.read()
    kind, n_axes = content[2], content[3]
    shape = np.frombuffer(content, ">u4", n_axes, offset=4)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * n_axes).copy()  # torch wants it writable
    if content[:2] != b"\0\0" or kind != 8 or values.size != shape.prod(dtype=np.int64):
        raise ValueError(f"{path}: wanted an IDX file of bytes")
    return values.reshape(shape)


def fashion_mnist():
    """60,000 images to train on and 10,000 to test with, 28 x 28 in grey, ten kinds of clothes."""
    folder = Path(os.environ.get("FASHION_MNIST", FASHION))
    if not (folder / "train-images-idx3-ubyte.gz").is_file():
        raise FileNotFoundError(
            f"Fashion-MNIST is not in {folder}: install the Debian package dataset-fashion-mnist, set "
            "FASHION_MNIST to a folder with its four .gz files, or give --images"
        )
    train, test = (
        (
            read_idx(folder / f"{part}-images-idx3-ubyte.gz")[:, None],
            read_idx(folder / f"{part}-labels-idx1-ubyte.gz"),
        )
        for part in ("train", "t10k")
    )
    return Raw(train, test, FASHION_CLASSES)


def quick_digits():
    """scikit-learn's 1,797 handwritten digits, 8 x 8 made 16 x 16."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.kron(digits.images * (255 / 16), np.ones((2, 2))).astype(np.uint8)[:, None]
    return _split(images, digits.target, tuple(map(str, range(10))))


def image_folder(folder, *, side=SIDE):
    """A folder with one folder of PNG or JPEG files a class; all become ``side`` x ``side``.

    Images are grey where all of them are, RGB otherwise. Files of other kinds, and folders without images,
    are left out: the malaria set comes with ``Thumbs.db`` and with a copy of itself.
    """
    files = {
        inner.name: sorted(path for path in inner.iterdir() if path.suffix.lower() in SUFFIXES)
        for inner in sorted(folder.iterdir())
        if inner.is_dir()
    }
    files = {name: paths for name, paths in files.items() if paths}
    if len(files) < 2:
        raise ValueError(f"--images: wanted a folder of images for each of at least two classes in {folder}")
    for name, paths in files.items():
        if len(paths) < FEWEST:
            raise ValueError(
                f"--images: wanted at least {FEWEST} images in {folder / name}, got {len(paths)}"
            )
    grey = True
    images, labels = [], []
    for label, paths in enumerate(files.values()):
        for path in paths:
            pixels, is_grey = _pixels(path, side)
            grey &= is_grey
            images.append(pixels)
            labels.append(label)
    images = np.stack(images).transpose(0, 3, 1, 2)
    images = images[:, :1] if grey else images
    return _split(np.ascontiguousarray(images), np.array(labels), tuple(files))


def _pixels(path, side):
    """RGB bytes of an image, and whether it is grey."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode.startswith("I"):  # 16 bits, which Pillow would clip
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            grey = image.mode in ("L", "1", "LA")
            image = image.convert("L" if grey else "RGB").convert("RGB")
            return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR)), grey
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises all three on broken files
        raise ValueError(f"--images: {path} cannot be read as an image: {error}") from error


def _split(images, labels, classes):
    """A fifth of every class is held out."""
    rng = np.random.default_rng(8)
    held_out = np.zeros(len(labels), bool)
    for label in range(len(classes)):
        members = np.flatnonzero(labels == label)
        held_out[rng.choice(members, round(TEST_SHARE * len(members)), replace=False)] = True
    return Raw((images[~held_out], labels[~held_out]), (images[held_out], labels[held_out]), classes)
