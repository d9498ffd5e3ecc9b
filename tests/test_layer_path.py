"""Networks that begin at a layer: integrated gradients of embeddings and other layers."""

import pytest
from attributed_networks import SequenceModel, assert_close, normal, seeded

import qixai_fast as qf
from qixai_fast._layer_path import layer_path

torch = pytest.importorskip("torch")
nn = torch.nn

IDS = torch.tensor([[3, 1, 4, 1, 5, 9], [2, 6, 5, 3, 5, 0], [8, 9, 7, 9, 3, 2]])
PADDING = torch.tensor([[False] * 6, [False] * 5 + [True], [False] * 6])


class Text(nn.Module):
    def __init__(self, batch_first=True):
        super().__init__()
        self.tokens, self.places = nn.Embedding(10, 8), nn.Embedding(6, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head, self.batch_first = nn.Linear(8, 3), batch_first

    def forward(self, ids, padding):
        x = self.tokens(ids) + self.places(torch.arange(ids.shape[1]))
        x = x if self.batch_first else x.transpose(0, 1)
        x = self.encoder(x, src_key_padding_mask=padding)
        return self.head(torch.tanh(x).mean(1 if self.batch_first else 0))


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", ["tokens", "encoder.layers.0.linear1", "encoder.layers.1"])
def test_the_path_between_a_layers_outputs(name, frozen):
    """Against a loop over nodes that puts the layer's output in place by hand."""
    model = seeded(Text).double().requires_grad_(not frozen)
    module = dict(model.named_modules())[name]
    path = layer_path(model, name, IDS, 1, PADDING)
    result = qf.integrated_gradients(
        path.model, path.inputs[0], baselines=path.baselines[0], target=1, additional_forward_args=path.extra,
        n_steps=8,
    )  # fmt: skip

    def run(ids, replaced=None):
        seen = []

        def hook(module, inputs, output):
            seen.append(output)
            return replaced

        handle = module.register_forward_hook(hook)
        torch.backends.mha.set_fastpath_enabled(False)
        value = model(ids, PADDING)[:, 1]
        torch.backends.mha.set_fastpath_enabled(True)
        handle.remove()
        return value, seen[0].detach()

    (_, end), (_, start) = run(IDS), run(torch.ones_like(IDS))
    total = torch.zeros_like(end)
    for i in range(8):
        point = (start + (i + 0.5) / 8 * (end - start)).requires_grad_()
        total += torch.autograd.grad(run(IDS, point)[0].sum(), point)[0] / 8
    assert_close(result.values, total * (end - start), rtol=1e-10, atol=1e-13)
    change = run(IDS)[0] - run(IDS, start)[0]
    assert_close(result.delta, (total * (end - start)).sum((1, 2)) - change.detach(), rtol=0, atol=1e-12)


def test_embeddings_agree_with_captum():
    captum = pytest.importorskip("captum.attr")
    model = seeded(Text)
    ours = qf.integrated_gradients(
        model, IDS, layer="tokens", baselines=1, target=1, additional_forward_args=PADDING, n_steps=20
    )
    theirs = captum.LayerIntegratedGradients(model, model.tokens).attribute(
        IDS, torch.ones_like(IDS), target=1, additional_forward_args=PADDING, n_steps=20,
        method="riemann_middle",
    )  # fmt: skip
    torch.testing.assert_close(ours.values, theirs, rtol=1e-4, atol=1e-6)


def test_samples_come_first_for_a_layer_that_has_time_first():
    first, last = seeded(Text).double(), seeded(lambda: Text(False)).double()
    by_layout = [
        qf.integrated_gradients(
            model, IDS, layer="encoder.layers.0", baselines=1, target=2, additional_forward_args=PADDING
        )
        for model in (first, last)
    ]
    assert by_layout[0].values.shape == (3, 6, 8)
    assert_close(by_layout[1].values, by_layout[0].values, rtol=1e-9, atol=1e-12)


def test_all_tensors_of_a_recurrent_layer_are_replaced_together():
    model, x = seeded(SequenceModel).double(), normal(3, 5, 3)
    path = layer_path(model, "lstm", x)
    assert [tuple(tensor.shape) for tensor in path.inputs] == [(3, 5, 8), (3, 1, 8), (3, 1, 8)]
    with torch.no_grad():
        assert_close(path.model(*path.inputs, x), model(x), rtol=1e-12)
        assert_close(path.model(*path.baselines, x), model(0 * x), rtol=1e-12)


def test_each_call_of_a_shared_embedding_has_its_own_activation():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens = nn.Embedding(10, 4)

        def forward(self, question, answer):
            return (self.tokens(question) * self.tokens(answer)).sum((1, 2))

    model = seeded(Pair).double()
    path = layer_path(model, model.tokens, (IDS, IDS.flip(1)))
    assert len(path.inputs) == 2
    assert_close(path.inputs[0].flip(1), path.inputs[1], rtol=0)
    with torch.no_grad():
        assert_close(path.model(*path.inputs, *path.extra), model(IDS, IDS.flip(1)), rtol=1e-12)


def test_layer_inputs_share_a_tensor_that_comes_in_three_times():
    """Self-attention takes query, key and value from one tensor: one activation, and no mask."""
    model = seeded(Text)
    path = layer_path(model, "encoder.layers.0.self_attn", IDS, 1, PADDING, at_input=True)
    assert [tuple(tensor.shape) for tensor in path.inputs] == [(3, 6, 8)]
    with torch.no_grad():
        assert path.model(path.inputs[0], *path.extra).shape == (3, 3)


def test_rows_are_taken_in_parts():
    model = seeded(Text)
    whole, parts = (layer_path(model, "tokens", IDS, 1, PADDING, rows=rows) for rows in (64, 2))
    assert torch.equal(whole.inputs[0], parts.inputs[0])
    assert torch.equal(whole.baselines[0], parts.baselines[0])


@pytest.mark.parametrize(
    ("layer", "options", "error", "message"),
    [
        ("token", {}, ValueError, "layer: 'token' is no module of the model; nearest: 'tokens'"),
        (3, {}, TypeError, "layer: wanted a module name or a module, got int"),
        (nn.Linear(2, 2), {}, ValueError, "layer: 'Linear' was not called in the forward pass"),
        ("encoder.layers", {}, ValueError, "layer: 'encoder.layers' was not called in the forward pass"),
        (
            "places",
            {},
            ValueError,
            r"layer: 'places' puts out shape \(6, 8\) for 2 samples and \(6, 8\) for 3",
        ),
        (
            "tokens",
            {"at_input": True},
            ValueError,
            "layer: 'tokens' takes no floating-point tensor.*output instead",
        ),
        ("tokens", {"baselines": 0.5}, TypeError, "baselines: wanted integers as the inputs"),
        ("tokens", {"baselines": IDS[0]}, ValueError, r"baselines: wanted a number, shape \(3, 6\)"),
        ("tokens", {"baselines": "pad"}, TypeError, "baselines: wanted a number or a torch tensor, got str"),
        ("tokens", {"baselines": (1, 2)}, TypeError, "baselines: wanted a number or .*got tuple"),
    ],
)
def test_layers_and_baselines_that_do_not_fit(layer, options, error, message):
    model = seeded(Text)
    with pytest.raises(error, match=message):
        layer_path(model, layer, IDS, additional_forward_args=PADDING, **options)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.backends.mha.get_fastpath_enabled()


def test_packed_sequences_have_no_row_for_each_sample():
    with pytest.raises(ValueError, match=r"layer: 'lstm' puts out a PackedSequence.*pad_packed_sequence"):
        layer_path(seeded(SequenceModel), "lstm", normal(3, 5, 3).float(), None, torch.tensor([3, 5, 1]))


def test_hooks_are_gone_after_errors_on_the_path():
    model = seeded(Text)
    path = layer_path(model, "tokens", IDS, 1, PADDING)
    with pytest.raises(
        ValueError, match=r"layer: 'tokens' hands on shape \(2, 6, 8\), but its activation has \(3,"
    ):
        path.model(path.inputs[0], IDS[:2], PADDING[:2])
    assert not model.tokens._forward_hooks
