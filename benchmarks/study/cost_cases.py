"""The networks whose explanations are timed, each with what it is explained on: inputs, baselines, groups.

All tools explain one number a sample: the logit of the class that a CNN predicts, the cosine between an
embedding and a fixed one ("whose voice?", "what is this sentence about?"). A group is what can be taken away
from an input as a whole: a square of pixels, a tenth of a second, a word piece. What is taken away is
replaced by the baseline, the same one for every tool.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

import qixai_fast as qf
from benchmarks.networks import frozen
from benchmarks.study import fashion, minilm, speaker
from benchmarks.study.pretrained_files import MissingFilesError
from benchmarks.study.pretrained_inputs import sentences, speech

SEED = 0
ANCHORS = 50  # inputs whose mean embedding is what others are compared with
PASS = 50  # rows of a forward pass where a tool leaves it to us


@dataclass(frozen=True)
class Sizes:
    """How much of everything is explained and looked at.

    Attributes
    ----------
    samples : int
        Explained by every tool.
    evaluations : int
        Rows that each tool that only calls the network may ask for, a sample.
    rows : int
        Of a layer, for instruments that look at whole layers.
    units : int
        Of a layer, for those that look at pairs one by one.
    permutations : int
    audit : bool
        Whether the whole audit runs: seconds at any size.
    """

    samples: int
    evaluations: int
    rows: int
    units: int
    permutations: int
    audit: bool = True


# All of it in eight minutes on one thread: LIME's default of 1,000 evaluations a sample for pictures alone.
SIZES = {
    "cnn": Sizes(samples=32, evaluations=1000, rows=10_000, units=64, permutations=199),
    "lstm": Sizes(samples=8, evaluations=300, rows=10_000, units=64, permutations=199),
    "transformer": Sizes(samples=8, evaluations=300, rows=10_000, units=64, permutations=199),
}
QUICK = Sizes(samples=6, evaluations=40, rows=200, units=8, permutations=19, audit=False)


@dataclass(frozen=True)
class Case:
    """A network, and what it is explained on.

    Attributes
    ----------
    name, about, explained, parts : str
        Of the network, where it is from, what the explained number is, what a group is; for text.
    model : Module
        Inputs to outputs (n, n_outputs).
    inputs, baselines : Tensor of shape (n, ...)
    target : Tensor of int64, shape (n,)
        Which output of each sample is explained.
    groups : array of int, shape of one input
        Group of every value; -1 for what always stays.
    picture : (int, int, int)
        Height, width and channels of an input as a picture for those tools that want one; a sequence of words
        has none, and an empty tuple.
    layers : tuple of str
        Looked at; instruments of one layer take the second, of two layers the second and the third.
    recorded : Tensor
        Inputs whose layers are looked at.
    reduce : str
        As for :func:`qixai_fast.capture`; with "none" every frame or token is a row.
    sizes : Sizes
    """

    name: str
    about: str
    explained: str
    parts: str
    model: nn.Module
    inputs: torch.Tensor
    baselines: torch.Tensor
    target: torch.Tensor
    groups: np.ndarray
    picture: tuple[int, ...]
    layers: tuple[str, ...]
    recorded: torch.Tensor
    reduce: str
    sizes: Sizes

    @property
    def n_groups(self):
        return int(self.groups.max()) + 1

    def scores(self, inputs, target):
        """The explained number of each row, without gradients; ``target`` is one index or one a row."""
        target = torch.as_tensor(target).expand(len(inputs))
        with torch.no_grad():
            parts = [self.model(part) for part in inputs.split(PASS)]
        return torch.cat(parts).gather(1, target[:, None])[:, 0].double().numpy()

    def masked(self, sample, kept):
        """Copies of a sample in which only some groups are left; ``kept`` is (n, n_groups) of bool."""
        stays = np.concatenate([kept, np.ones((len(kept), 1), bool)], axis=1)[:, self.groups]
        return torch.where(torch.from_numpy(stays), self.inputs[sample], self.baselines[sample])

    def grouped(self, values):
        """Attributions (n, ...) summed over the values of each group: (n, n_groups), float64."""
        flat = np.asarray(values, np.float64).reshape(len(values), -1)
        member = self.groups.reshape(-1)[:, None] == np.arange(self.n_groups)
        return flat @ member

    def rows(self, folder):
        """What the layers put out for ``recorded``, rows by units, one array a layer."""
        store = self.record(self.recorded, folder)
        arrays = [np.asarray(store[layer], np.float32) for layer in self.layers]
        return [array.reshape(-1, array.shape[-1])[: self.sizes.rows] for array in arrays]

    def record(self, inputs, folder):
        """A store of what the layers put out."""
        return qf.capture(
            self.model, inputs.split(PASS), self.layers, folder, reduce=self.reduce, progress=False
        )


def squares(shape, side):
    """Groups of pixels (channels, height, width): squares of ``side``, the same for all channels."""
    channels, height, width = shape
    rows, columns = np.arange(height) // side, np.arange(width) // side
    return np.broadcast_to(rows[:, None] * (columns[-1] + 1) + columns, (channels, height, width)).copy()


def pieces(shape, length):
    """Groups of frames (time, bands): stretches of ``length``."""
    time, bands = shape
    return np.repeat(np.arange(time) // length, bands).reshape(time, bands)


class Similarity(nn.Module):
    """Cosine between what an encoder puts out and a fixed embedding, both of length 1: (n, 1)."""

    def __init__(self, encoder, anchor):
        super().__init__()
        self.encoder = encoder
        self.register_buffer("anchor", anchor)

    def forward(self, inputs):
        return (self.encoder(inputs) @ self.anchor)[:, None]


class OfVectors(nn.Module):
    """MiniLM from the vectors of its tokens on, which have a gradient; without padding."""

    def __init__(self, model):
        super().__init__()
        self.norm, self.layers = model.embeddings.norm, model.layers
        self.register_buffer("positions", model.embeddings.positions.weight.detach())

    def forward(self, vectors):
        x = self.norm(vectors + self.positions[: vectors.shape[1]])
        padding = torch.zeros(vectors.shape[:2], dtype=torch.bool)
        for layer in self.layers:
            x = layer(x, padding)
        return nn.functional.normalize(x.mean(dim=1), dim=1)


def cnn(options, sizes):
    """The paper's network, seed 0."""
    data = fashion.load(options)
    model = fashion.train(SEED, options).model
    shape = tuple(data.test.images.shape[1:])
    inputs = data.test.images[: sizes.samples]
    return Case(
        name="CNN",
        about=f"the paper's, on {data.name}",
        explained="the logit of the predicted class",
        parts="squares of 4 x 4 pixels",
        model=model,
        inputs=inputs,
        baselines=torch.zeros_like(inputs),
        target=fashion.outputs(model, inputs).argmax(1),
        groups=squares(shape, 4),
        picture=(*shape[1:], shape[0]),
        layers=fashion.LAYERS,
        recorded=data.test.images[: sizes.rows],
        reduce="gap",
        sizes=sizes,
    )


def _clips(options):
    """Recordings of one voice (n, 160, 40); they take a while to read, and are kept."""
    path = options.work / "cost-speech.npy"
    if not path.is_file():
        frames, voices, _ = speech()
        options.work.mkdir(parents=True, exist_ok=True)
        np.save(path, frames[voices == 0])
    return torch.from_numpy(np.load(path))


def lstm(options, sizes):
    """The speaker encoder, on recordings of one voice."""
    return _of_frames(
        speaker.load(),
        _clips(options),
        sizes,
        frames=10,
        about="the speaker encoder of Resemblyzer, on recordings of 1.6 s",
        explained="the cosine with the mean embedding of the voice",
        parts="stretches of 100 ms",
    )


def _of_frames(encoder, clips, sizes, *, frames, **words):
    """An encoder of clips (n, frames, bands), explained by stretches of so many frames."""
    return _embedder(
        encoder,
        clips,
        torch.zeros_like(clips[:1]),
        sizes,
        name="LSTM",
        groups=pieces(clips.shape[1:], frames),
        picture=(*clips.shape[1:], 1),
        layers=("encoder.lstm.0", "encoder.lstm.1", "encoder.lstm.2"),
        **words,
    )


N_TOKENS = 16
TOPIC = "science"


def transformer(options, sizes):
    """MiniLM, on sentences about one topic, cut to the same length so that none is padded."""
    model, words = minilm.load(), minilm.WordPiece()
    lines, labels, topics = sentences()
    # The topic's sentences first: those are explained; the others are recorded, too.
    order = np.argsort(labels != topics.index(TOPIC), kind="stable")
    tokens = [words(lines[place]) for place in order]
    cut = torch.tensor([[*line[: N_TOKENS - 1], line[-1]] for line in tokens if len(line) >= N_TOKENS])
    encoder = OfVectors(model)
    vectors = model.embeddings.words(cut)
    baseline = vectors[:1].clone()
    baseline[:, 1:-1] = model.embeddings.words.weight[words.ids["[MASK]"]]  # [CLS] and [SEP] stay
    groups = pieces(vectors.shape[1:], 1) - 1
    groups[-1] = -1
    return _embedder(
        encoder,
        vectors,
        baseline,
        sizes,
        name="Transformer",
        about=f"MiniLM, on sentences of {N_TOKENS} tokens",
        explained=f"the cosine with the mean embedding of sentences about {TOPIC}",
        parts="tokens",
        groups=groups,
        picture=(),
        layers=("encoder.layers.1", "encoder.layers.3", "encoder.layers.5"),
    )


def _embedder(encoder, inputs, baseline, sizes, **about):
    with torch.no_grad():
        anchor = nn.functional.normalize(encoder(inputs[:ANCHORS]).mean(dim=0), dim=0)
    explained = inputs[: sizes.samples]
    n_recorded = -(-sizes.rows // inputs.shape[1])
    if n_recorded > len(inputs):
        raise ValueError(f"{about['name']}: wanted {n_recorded} inputs to record, got {len(inputs)}")
    return Case(
        model=frozen(Similarity(encoder, anchor)),
        inputs=explained,
        baselines=baseline.expand_as(explained).clone(),
        target=torch.zeros(len(explained), dtype=torch.int64),
        recorded=inputs[:n_recorded],
        reduce="none",
        sizes=sizes,
        **about,
    )


def small_lstm(options, sizes):
    """For --quick: a network of the same shape with random weights, on random frames."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        clips, encoder = torch.rand(20, 20, speaker.N_BANDS), frozen(speaker.SpeakerEncoder(16))
    return _of_frames(
        encoder,
        clips,
        sizes,
        frames=5,
        about="random weights, on random frames",
        explained="the cosine with the mean embedding",
        parts="stretches of 5 frames",
    )


def cases(options):
    """Networks by key, and why those that are left out are."""
    found, left_out = {}, {}
    wanted = {"cnn": cnn, "lstm": lstm, "transformer": transformer}
    if options.quick:
        wanted = {"cnn": cnn, "lstm": small_lstm}
    for key, make in wanted.items():
        try:
            found[key] = make(options, QUICK if options.quick else SIZES[key])
        except MissingFilesError as error:
            left_out[key] = str(error)
    return found, left_out
