"""The study's data and network: any folder of images, and the same network for the same seed."""

import gzip
import json
import re
from pathlib import Path

import numpy as np
import pytest
from study_runs import run_study

torch = pytest.importorskip("torch")
Image = pytest.importorskip("PIL.Image")

from benchmarks.study import fashion, images, paper_text, paper_verdicts  # noqa: E402
from benchmarks.study.parts import Options  # noqa: E402

RESULT = Path(fashion.__file__).parent / "results" / "paper.json"
PICTURES = ("variance", "cosine", "entangled", "examples", "attribution")


def cells(folder, n=30, suffix="png"):
    """Two classes of images in colour, of many sizes, as in the malaria set: one has a dark spot."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(("Parasitized", "Uninfected")):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            height, width = rng.integers(40, 60, 2)
            pixels = rng.integers(150, 200, (height, width, 3))
            if not label:
                pixels[10:30, 12:34] = (90, 30, 120)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"cell_{i}.{suffix}")
        (folder / name / "Thumbs.db").write_bytes(b"no image")
    copy = folder / "cell_images" / "Uninfected"  # the malaria set holds itself
    copy.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(copy / "cell_0.png")
    return folder


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    return Options(True, None, tmp_path_factory.mktemp("work"))


def test_folder_of_images(tmp_path):
    raw = images.image_folder(cells(tmp_path))
    assert raw.classes == ("Parasitized", "Uninfected")
    assert raw.train[0].shape == (48, 3, 32, 32)
    assert raw.train[0].dtype == np.uint8
    assert np.bincount(raw.test[1]).tolist() == [6, 6]
    infected = raw.train[0][raw.train[1] == 0]
    assert infected[:, 1].min(axis=(1, 2)).max() < 60  # the spot is still there, and its labels are right
    assert raw.train[0][raw.train[1] == 1].min() >= 140
    again = images.image_folder(tmp_path)
    np.testing.assert_array_equal(raw.test[0], again.test[0])


def test_grey_images_stay_grey_and_16_bits_keep_their_range(tmp_path):
    ramp = np.linspace(0, 65535, 400).reshape(20, 20)
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(10):
            path = tmp_path / name / f"{i}.png"
            Image.fromarray(ramp.astype(np.uint16) if i % 2 else (ramp / 257).astype(np.uint8)).save(path)
    pixels = images.image_folder(tmp_path, side=20).train[0]
    assert pixels.shape == (16, 1, 20, 20)
    assert np.ptp(pixels, axis=0).max() <= 1
    Image.new("RGB", (9, 9), (255, 0, 0)).save(tmp_path / "a" / "0.png")
    assert images.image_folder(tmp_path).train[0].shape == (16, 3, 32, 32)


def test_broken_images_are_named(tmp_path):
    folder = cells(tmp_path)
    path = folder / "Uninfected" / "cell_3.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"cell_3\.png cannot be read as an image"):
        images.image_folder(folder)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"cell_3\.png cannot be read as an image"):
        images.image_folder(folder)


def test_folders_that_will_not_do(tmp_path):
    with pytest.raises(ValueError, match="at least two classes"):
        images.image_folder(tmp_path)
    with pytest.raises(ValueError, match=r"at least 10 images in .*Parasitized, got 3"):
        images.image_folder(cells(tmp_path / "few", n=3))


def test_idx_files_and_where_they_are_sought(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (5, 4, 3), np.uint8), np.arange(5, dtype=np.uint8)
    for part in ("train", "t10k"):
        head = b"\0\0\x08\x03" + np.array(pixels.shape, ">u4").tobytes()
        with gzip.open(tmp_path / f"{part}-images-idx3-ubyte.gz", "wb") as file:
            file.write(head + pixels.tobytes())
        with gzip.open(tmp_path / f"{part}-labels-idx1-ubyte.gz", "wb") as file:
            file.write(b"\0\0\x08\x01" + np.array([5], ">u4").tobytes() + labels.tobytes())
    monkeypatch.setenv("FASHION_MNIST", str(tmp_path))
    raw = images.fashion_mnist()
    np.testing.assert_array_equal(raw.test[0], pixels[:, None])
    np.testing.assert_array_equal(raw.train[1], labels)
    with gzip.open(tmp_path / "train-images-idx3-ubyte.gz", "wb") as file:
        file.write(head + pixels.tobytes()[:-1])
    with pytest.raises(ValueError, match="wanted an IDX file of bytes"):
        images.fashion_mnist()
    monkeypatch.setenv("FASHION_MNIST", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="dataset-fashion-mnist"):
        images.fashion_mnist()


def test_training_repeats_and_is_kept(quick):
    first = fashion.train(0, quick, epochs=2)
    kept = quick.work / (first.name.removesuffix("-float32") + ".pt")
    weights = torch.load(kept, weights_only=True)
    kept.unlink()
    again = fashion.train(0, quick, epochs=2)
    for name, value in again.model.state_dict().items():
        assert torch.equal(value, weights[name]), name
    assert first.accuracy == again.accuracy > 0.5
    other, untrained = fashion.train(1, quick, epochs=2), fashion.train(0, quick, epochs=0)
    assert not torch.equal(other.model.dense[0].weight, again.model.dense[0].weight)
    assert untrained.accuracy < 0.4
    half = fashion.train(0, quick, epochs=2, dtype=torch.bfloat16)
    assert half.model.dense[0].weight.dtype == torch.bfloat16
    assert abs(half.accuracy - first.accuracy) < 0.05


def test_the_paper_s_maps_exist(quick):
    store = fashion.record(fashion.train(0, quick, epochs=0), fashion.load(quick).test, quick, "test")
    assert store["conv1"].shape[1] > 22
    assert store["conv2"].shape[1] > 46
    labels = fashion.load(quick).test.labels
    np.testing.assert_array_equal(store.labels, labels)


def test_labels_and_classes_are_disturbed_as_asked(quick):
    data = fashion.load(quick)
    places, labels = fashion.choose(data, 0, len(data.train))
    assert len(places) == len(data.train)
    assert torch.equal(labels, data.train.labels[places])
    places, labels = fashion.choose(data, 0, 700)
    counts = np.bincount(labels)
    assert abs(len(places) - 700) <= 10
    assert np.ptp(counts / np.bincount(data.train.labels)) < 0.02
    places, labels = fashion.choose(data, 0, 700, label_noise=0.5)
    assert 0.4 < float((labels != data.train.labels[places]).double().mean()) < 0.5
    _, labels = fashion.choose(data, 0, len(data.train), imbalance=20)
    counts = np.bincount(labels)
    assert counts[0] / counts[-1] == pytest.approx(20, rel=0.1)
    assert (np.diff(counts) < 0).all()


def test_the_paper_s_own_case(tmp_path):
    """Two classes in colour, as those who have the malaria set would run it."""
    folder, out = cells(tmp_path / "cell_images", n=100), tmp_path / "mine"
    arguments = ["paper", "--quick", "--images", folder, "--out", out]
    run_study(*arguments, "--work", tmp_path / "work")
    content = json.loads((out / "results" / "paper.json").read_text(encoding="utf-8"))
    assert content["data"]["classes"] == ["Parasitized", "Uninfected"]
    assert content["data"]["shape"] == [3, 32, 32]
    text = (out / "README.md").read_text(encoding="utf-8")
    assert "32 x 32, RGB, 2 classes" in text
    assert str(tmp_path) not in text
    assert "nan" not in text
    figures = {path.name for path in (out / "figures").iterdir()}
    assert figures == {f"paper-{name}.png" for name in PICTURES}


def test_every_claim_is_counted_once_and_named():
    content = json.loads(RESULT.read_text(encoding="utf-8"))
    rows = paper_verdicts.verdicts(content)
    lead, _, *named = list(paper_text._answer(content))
    assert lead.startswith(f"**Of {len(rows)} claims")
    assert sum(map(int, re.findall(r"\b(\d+) (?:stand|is|are|fall|cannot)", lead))) == len(rows)
    assert all(any(row.short in line for line in named) for row in rows)
    kinds = {row.short: row.kind for row in rows}
    assert kinds["integrated gradients add up to the output's change"] == paper_verdicts.THEOREM
    assert kinds["map 22 of Conv1 and map 46 of Conv2 are such a pair"] == paper_verdicts.UNTESTABLE


def test_the_paper_s_share_stands_only_where_chance_does_not_give_it():
    content = json.loads(RESULT.read_text(encoding="utf-8"))
    dense = content["variance"]["layers"]["trained"]["dense"]
    found = []
    for share, independent in (
        ([0.84], [0.1]),
        ([0.27, 0.28], [0.1]),
        ([0.27], [0.29]),
        ([0.27, 0.84], [0.1]),
    ):
        dense |= {"share": share, "independent": independent}
        found.append(paper_verdicts.verdicts(content)[0].kind)
    kinds = paper_verdicts
    assert found == [kinds.NOT_REPRODUCED, kinds.YES, kinds.PARTLY, kinds.PARTLY]
