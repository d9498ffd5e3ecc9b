"""MiniLM over sentences: tokens of a sentence are its rows."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from benchmarks.environment import SEED
from benchmarks.study import minilm
from benchmarks.study.pretrained_cases import N_SHOWN, Case, Similarity, seeded
from benchmarks.study.pretrained_inputs import sentences

N_TOKENS = 16  # of the sentences whose single tokens are looked at, [CLS] and [SEP] among them


class FromWords(nn.Module):
    """A Transformer without padding from its word vectors on, which are numbers where tokens are not."""

    def __init__(self, model):
        super().__init__()
        self.positions, self.norm = model.embeddings.positions, model.embeddings.norm
        self.layers = model.layers

    def forward(self, words):
        x = self.norm(words + self.positions.weight[: words.shape[1]])
        padding = torch.zeros(words.shape[:2], dtype=torch.bool, device=words.device)
        for layer in self.layers:
            x = layer(x, padding)
        return nn.functional.normalize(x.mean(dim=1), dim=1)


def _like_bert(model):
    """Random weights as BERT begins with: normal, 0.02."""
    for part in model.modules():
        if isinstance(part, (nn.Linear, nn.Embedding)):
            nn.init.normal_(part.weight, std=0.02)
    return model


def text_case(quick, n_explained):
    """MiniLM over sentences."""
    if quick:
        rng = np.random.default_rng(SEED)
        tokens = [list(rng.integers(1, 50, 17 + number % 2)) for number in range(40)]
        labels, classes, words = np.arange(40) % 2, ["a", "b"], [str(number) for number in range(50)]
        model, untrained = (seeded(lambda: minilm.MiniLM(minilm.SMALL)) for _ in range(2))
    else:
        lines, labels, classes = sentences()
        pieces = minilm.WordPiece()
        tokens, words = [pieces(line) for line in lines], pieces.words
        model = minilm.load()
        untrained = seeded(lambda: _like_bert(minilm.MiniLM(minilm.configuration())))
    lengths = np.array([len(line) for line in tokens])
    # Only sentences of one length in a batch: a mean over tokens would count padding.
    batches = []
    for length in np.unique(lengths):
        places = np.flatnonzero(lengths == length)
        batches += [
            (torch.tensor([tokens[place] for place in part]), labels[part])
            for part in np.array_split(places, np.ceil(len(places) / 64))
        ]
    long = np.flatnonzero(lengths >= N_TOKENS)
    cut = torch.tensor([[*tokens[place][: N_TOKENS - 1], tokens[place][-1]] for place in long])
    with torch.no_grad():
        embedded = torch.cat([model(part) for part in cut.split(64)])
    cosines = embedded @ embedded.T
    cosines.fill_diagonal_(-1)
    neighbour = cosines.argmax(dim=1)
    chosen = torch.from_numpy(np.random.default_rng(SEED).permutation(len(cut))[:n_explained])
    word_vectors = model.embeddings.words.weight[cut[chosen]]
    mask = model.embeddings.words.weight[words.index("[MASK]") if "[MASK]" in words else 0]
    baselines = word_vectors.clone()
    baselines[:, 1:-1] = mask  # [CLS] and [SEP] stay
    depth = len(model.layers)
    middle = depth // 2
    return Case(
        title="MiniLM",
        samples=f"{len(tokens)} sentences, one of a fortune, on {len(classes)} topics (Debian's "
        f"`fortunes` and `fortunes-min`), means over all tokens for the audit; the first "
        f"{N_TOKENS - 2} tokens of the {len(long)} sentences that have as many, where tokens are looked at",
        unit="sentence",
        row="token",
        model=model,
        untrained=untrained,
        batches=batches,
        classes=classes,
        layers=("embeddings", *(f"layers.{number}" for number in range(depth))),
        names=("words", *(f"layer {number + 1}" for number in range(depth))),
        reduce="mean_tokens",
        row_batches=list(cut.split(64)),
        row_reduce="none",
        take_rows=np.asarray,
        wide=f"layers.{middle}.gelu",
        explained=Similarity(FromWords(model)),
        inputs=word_vectors,
        baselines=baselines,
        references=(embedded[neighbour[chosen]],),
        target=None,
        target_text="the cosine with the sentence nearest to it",
        part="tokens",
        conductors=(
            "model.norm",
            f"model.layers.{middle}.attention",
            f"model.layers.{middle}.narrow",
            f"model.layers.{middle}",
            f"model.layers.{depth - 1}",
        ),
        parts=lambda values: values.sum(dim=2)[:, 1:-1],
        without=lambda inputs, gone: torch.where(nn.functional.pad(gone, (1, 1))[:, :, None], mask, inputs),
        checks={
            "same_topic": float(np.mean(labels[long] == labels[long][neighbour])),
            "same_topic_chance": float(np.mean(labels[long][:, None] == labels[long])),
        },
        examples=[
            {
                "name": " ".join(words[token] for token in cut[neighbour[index]][1:-1]),
                "tokens": [words[token] for token in cut[index][1:-1]],
            }
            for index in chosen[:N_SHOWN].tolist()
        ],
    )
