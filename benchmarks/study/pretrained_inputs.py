"""Photographs, recorded speech and sentences, read from installed packages.

All choices are fixed by a seed or by the order of names, so that the same packages give the same samples.
"""

from __future__ import annotations

import re
import wave
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.signal import resample_poly

from benchmarks.environment import SEED
from benchmarks.study import efficientnet, speaker
from benchmarks.study.pretrained_files import debian_files

STAMPS = Path("/usr/share/tuxpaint/stamps")
KINDS = {  # folder of the package to class; folders of drawings, signs and letters are not read
    "animals": "animal",
    "food": "food",
    "plants": "plant",
    "household": "thing",
    "hobbies": "thing",
    "sports": "thing",
    "vehicles": "vehicle",
}
SOUNDS = Path("/usr/share/asterisk/sounds")
VOICES = {  # folder to Debian package
    "en_US_f_Allison": "asterisk-core-sounds-en-wav",
    "es_MX_f_Allison": "asterisk-core-sounds-es-wav",
    "fr_CA_f_June": "asterisk-core-sounds-fr-wav",
    "it_IT_f_Menardi": "asterisk-prompt-it-menardi-wav",
    "it_IT_m_Carlo": "asterisk-core-sounds-it-wav",
    "ru_RU_f_IvrvoiceRU": "asterisk-core-sounds-ru-wav",
}
N_CLIPS = 80  # a voice
FORTUNES = Path("/usr/share/games/fortunes")
TOPICS = (  # files of fortunes about one thing each
    *("art", "computers", "education", "food", "law", "linux", "literature"),
    *("love", "politics", "science", "sports", "startrek", "work"),
)
N_SENTENCES = 100  # a topic, at most
CHARACTERS = (50, 220)  # of a sentence


def _on_white(file):
    image = Image.open(file).convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _view(image, zoom, left, top, flip):
    """A square window on an image that was put in the middle of a white square, as the network reads it."""
    side = round(max(image.size) * 1.1)
    square = Image.new("RGB", (side, side), "white")
    square.paste(image, ((side - image.size[0]) // 2, (side - image.size[1]) // 2))
    window = side * zoom
    box = (left * (side - window), top * (side - window))
    corners = (*box, box[0] + window, box[1] + window)
    seen = square.resize((efficientnet.SIDE,) * 2, Image.Resampling.BICUBIC, box=corners)
    return np.asarray(seen.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else seen)


def photographs(n_views):
    """Photographs cut out on white, one whole and ``n_views - 1`` random views of each.

    Returns
    -------
    views : ndarray of uint8, shape (n, n_views, 224, 224, 3)
        The first is the whole; others are windows of 60 to 90 % of the side, half of them mirrored.
    labels : ndarray of int, shape (n,)
    classes : list of str
    names : list of str
        Of the photographs, such as ``"animals/mammals/cats/lion"``.
    """
    files = debian_files(STAMPS, "**/*.png", "tuxpaint-stamps-default")
    names = [file.relative_to(STAMPS).with_suffix("").as_posix() for file in files]
    kept = [
        (file, name)
        for file, name in zip(files, names, strict=True)
        if name.split("/")[0] in KINDS and "cartoon" not in name.split("/")
    ]
    rng = np.random.default_rng(SEED)
    views = np.empty((len(kept), n_views, efficientnet.SIDE, efficientnet.SIDE, 3), np.uint8)
    for row, (file, _) in zip(views, kept, strict=True):
        image = _on_white(file)
        row[0] = _view(image, 1, 0, 0, False)
        for place in range(1, n_views):
            row[place] = _view(image, rng.uniform(0.6, 0.9), *rng.uniform(size=2), rng.uniform() < 0.5)
    classes = sorted(set(KINDS.values()))
    labels = np.array([classes.index(KINDS[name.split("/")[0]]) for _, name in kept])
    return views, labels, classes, [name for _, name in kept]


def _clip(file):
    """The middle 1.6 s of a recording of 8 kHz, without pauses, as mel frames; None where it is shorter."""
    with wave.open(str(file)) as sound:
        samples = np.frombuffer(sound.readframes(-1), "<i2") / 2**15
        factor, rest = divmod(speaker.RATE, sound.getframerate())
    if rest or len(samples) * factor < 1.6 * speaker.RATE:
        return None
    frames = speaker.without_pauses(speaker.mel_frames(resample_poly(samples, factor, 1)))
    start = (len(frames) - speaker.N_FRAMES) // 2
    return frames[start : start + speaker.N_FRAMES] if start >= 0 else None


def speech():
    """Telephone announcements by six voices: mel frames (n, 160, 40), voice of each, names of voices."""
    clips, labels = [], []
    for label, (voice, package) in enumerate(VOICES.items()):
        files = debian_files(SOUNDS / voice, "**/*.wav", package)
        order = np.random.default_rng(SEED).permutation(len(files))
        long_enough = (clip for clip in (_clip(files[place]) for place in order) if clip is not None)
        found = list(islice(long_enough, N_CLIPS))
        clips += found
        labels += [label] * len(found)
    return np.stack(clips), np.array(labels), list(VOICES)


def _sentence(text):
    """The first sentence of a fortune that is plain and neither short nor long; None without one."""
    text = re.sub(r"\n\s+--.*", "", text, flags=re.S)  # who said it
    for found in re.split(r"(?<=[.!?])\s+(?=[A-Z])", re.sub(r"\s+", " ", text).strip()):
        low, high = CHARACTERS
        if low <= len(found) <= high and re.fullmatch(r"[A-Z][A-Za-z0-9 ,;:'()-]*[.!?]", found):
            return found
    return None


def sentences():
    """One sentence of each of many fortunes (sayings and jokes), topic of each, names of topics."""
    debian_files(FORTUNES, "science", "fortunes fortunes-min")
    topics = {}
    for topic in TOPICS:
        text = (FORTUNES / topic).read_text(encoding="utf-8", errors="replace")
        found = list(dict.fromkeys(line for line in map(_sentence, text.split("\n%\n")) if line))
        chosen = np.random.default_rng(SEED).permutation(len(found))[:N_SENTENCES]
        topics[topic] = [found[place] for place in sorted(chosen)]
    labels = np.repeat(np.arange(len(topics)), [len(found) for found in topics.values()])
    return [line for found in topics.values() for line in found], labels, list(topics)
