"""The models against plain torch modules with the same weights, and the start that they share."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from adamw_book.models import CNN, MLP, RNN, QuadraticMLP, matrices

SHAPES = {
    "MLP": (MLP, 64),
    "MLP, LayerNorm": (lambda: MLP(depth=3, norm=True), 64),
    "CNN": (CNN, 64),
    "CNN, GroupNorm": (lambda: CNN(norm=True), 64),
    "RNN": (RNN, 64),
    "RNN, LayerNorm": (lambda: RNN(norm=True), 64),
    "QuadraticMLP": (lambda: QuadraticMLP(46, 16, 10), 46),
}


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def disturbed(model: nn.Module) -> nn.Module:
    """The model with parameters of no special value: norms start at one and biases at zero, which hides their place."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model


def copied(values: dict[str, torch.Tensor], into: nn.Module) -> nn.Module:
    """`into` with these values, all of its parameters given."""
    into.load_state_dict({name: value.detach().clone() for name, value in values.items()})
    return into


def same_function(model: nn.Module, plain: nn.Module, x: torch.Tensor, pairs: dict[str, str]) -> None:
    """Equal logits, and equal gradients of the cross-entropy for the parameters that `pairs` names (ours: theirs)."""
    y = torch.randint(10, (len(x),))
    ours, theirs = model(x), plain(x)
    torch.testing.assert_close(ours, theirs)
    for logits in (ours, theirs):
        functional.cross_entropy(logits, y).backward()
    for name, other in pairs.items():
        torch.testing.assert_close(model.get_parameter(name).grad, plain.get_parameter(other).grad, msg=name)


# ---- against plain torch


def plain_mlp(model: MLP, order: str) -> tuple[nn.Module, dict[str, str]]:
    """nn.Sequential with the weights of `model`, and which parameter is which. order: "norm, relu" or "relu, norm"."""
    layers, pairs = [], {}
    for i, layer in enumerate(model.layers):
        pairs |= {f"layers.{i}.{kind}": f"{len(layers)}.{kind}" for kind in ("weight", "bias")}
        layers.append(nn.Linear(layer.in_features, layer.out_features))
        if i < len(model.layers) - 1:
            for kind in order.split(", "):
                if kind == "relu":
                    layers.append(nn.ReLU())
                elif model.norms is not None:
                    pairs |= {f"norms.{i}.{part}": f"{len(layers)}.{part}" for part in ("weight", "bias")}
                    layers.append(nn.LayerNorm(layer.out_features))
    state = {theirs: model.get_parameter(ours) for ours, theirs in pairs.items()}
    assert len(pairs) == len(list(model.parameters()))
    return copied(state, nn.Sequential(*layers)), pairs


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("norm", [False, True])
def test_mlp_is_a_sequence_of_linear_norm_relu(depth, norm):
    model = disturbed(MLP(features=20, width=16, depth=depth, classes=10, norm=norm))
    x = torch.randn(7, 20)
    plain, pairs = plain_mlp(model, "norm, relu")
    same_function(model, plain, x, pairs)
    if norm:
        elsewhere, _ = plain_mlp(model, "relu, norm")
        assert (model(x) - elsewhere(x)).abs().max() > 0.01


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("channels", [(8, 16), (16, 24)])
def test_cnn_is_two_strided_convolutions_and_a_read_out(norm, channels):
    model = disturbed(CNN(channels=channels, norm=norm))
    a, b = channels
    norms = (nn.GroupNorm(a // 4, a), nn.GroupNorm(b // 4, b)) if norm else (nn.Identity(), nn.Identity())
    plain = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, a, 3, stride=2, padding=1),
        norms[0],
        nn.ReLU(),
        nn.Conv2d(a, b, 3, stride=2, padding=1),
        norms[1],
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(b * 2 * 2, 10),
    )
    places = {"conv1": 1, "norm1": 2, "conv2": 4, "norm2": 5, "head": 8}
    pairs = {f"{n}.{k}": f"{i}.{k}" for n, i in places.items() if norm or "norm" not in n for k in ("weight", "bias")}
    assert set(pairs) == {name for name, _ in model.named_parameters()}
    copied({theirs: model.get_parameter(ours) for ours, theirs in pairs.items()}, plain)
    same_function(model, plain, torch.rand(7, 64), pairs)


class PlainRNN(nn.Module):
    """torch's own recurrent network, read out after its last step."""

    def __init__(self, features: int, width: int, classes: int):
        super().__init__()
        self.features = features
        self.rnn = nn.RNN(features, width, nonlinearity="tanh", batch_first=True)
        self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, _ = self.rnn(x.view(len(x), -1, self.features))
        return self.head(states[:, -1])


@pytest.mark.parametrize(("features", "steps"), [(8, 8), (3, 5), (8, 1)])
def test_rnn_is_torchs_tanh_rnn_read_out_after_the_last_step(features, steps):
    model = disturbed(RNN(features, 32, 10))
    plain = PlainRNN(features, 32, 10)
    pairs = {
        "input.weight": "rnn.weight_ih_l0",
        "input.bias": "rnn.bias_ih_l0",
        "recurrent.weight": "rnn.weight_hh_l0",
        "head.weight": "head.weight",
        "head.bias": "head.bias",
    }
    assert set(pairs) == {name for name, _ in model.named_parameters()}
    values = {theirs: model.get_parameter(ours) for ours, theirs in pairs.items()}
    copied(values | {"rnn.bias_hh_l0": torch.zeros(32)}, plain)
    if steps == 1:
        del pairs["recurrent.weight"]  # takes no part
    x = torch.rand(7, features * steps)
    same_function(model, plain, x, pairs)
    assert torch.equal(model(x), model(x.view(7, steps, features)))


def test_rnn_reads_the_rows_of_an_image_from_top_to_bottom():
    model, image = RNN(), torch.rand(2, 8, 8)
    hidden = torch.zeros(2, 32)
    for row in range(8):
        hidden = torch.tanh(model.input(image[:, row]) + model.recurrent(hidden))
    torch.testing.assert_close(model(image.flatten(1)), model.head(hidden))


def test_rnn_normalises_what_enters_the_tanh_at_every_step():
    model, image = disturbed(RNN(norm=True)), torch.rand(5, 8, 8)
    hidden = torch.zeros(5, 32)
    for row in range(8):
        total = model.input(image[:, row]) + model.recurrent(hidden)
        spread = total.var(1, keepdim=True, unbiased=False) + 1e-5
        hidden = torch.tanh((total - total.mean(1, keepdim=True)) / spread.sqrt() * model.norm.weight + model.norm.bias)
    torch.testing.assert_close(model(image.flatten(1)), model.head(hidden))


def test_quadratic_mlp_squares_its_hidden_units_and_has_no_biases():
    model, x = QuadraticMLP(46, 16, 10), torch.randn(7, 46)
    assert {name: tuple(p.shape) for name, p in model.named_parameters()} == {
        "hidden.weight": (16, 46),
        "head.weight": (10, 16),
    }
    torch.testing.assert_close(
        model(x), functional.linear(functional.linear(x, model.hidden.weight) ** 2, model.head.weight)
    )
    torch.testing.assert_close(model(3 * x), 9 * model(x))


# ---- shapes and starts


@pytest.mark.parametrize("name", SHAPES)
def test_logits_have_one_column_a_class_and_examples_do_not_mix(name):
    make, features = SHAPES[name]
    model, x = disturbed(make()), torch.rand(6, features)
    logits = model(x)
    assert logits.shape == (6, 10)
    torch.testing.assert_close(model(x[2:4]), logits[2:4])
    assert list(model.buffers()) == [] and model.train()(x).equal(model.eval()(x))


@pytest.mark.parametrize("depth", [0, -1, 1.5])
def test_an_mlp_without_hidden_layers_is_refused(depth):
    with pytest.raises(ValueError, match=f"depth: {depth}; at least one hidden layer"):
        MLP(depth=depth)


@pytest.mark.parametrize("channels", [(2, 16), (8, 6), (0, 8)])
def test_channels_that_do_not_come_in_fours_have_no_groups(channels):
    with pytest.raises(ValueError, match=r"channels: (\(\d, \d+\); multiples of four|0; a positive whole number)"):
        CNN(channels, norm=True)


@pytest.mark.parametrize("shape", [(2, 4, 16), (2, 63), (2, 8, 4)])
def test_sequences_of_another_width_are_refused(shape):
    with pytest.raises(ValueError, match=r"x: shape .*; \(N, T·features\) or \(N, T, features\) is needed, features=8"):
        RNN()(torch.zeros(shape))


def test_sizes_are_those_asked_for():
    assert [tuple(layer.weight.shape) for layer in MLP(5, 7, 3, 4).layers] == [(7, 5), (7, 7), (7, 7), (4, 7)]
    assert MLP().norms is None and [norm.normalized_shape for norm in MLP(depth=2, norm=True).norms] == [(32,), (32,)]
    assert isinstance(CNN().norm1, nn.Identity)
    assert [(norm.num_groups, norm.num_channels) for norm in (CNN(norm=True).norm1, CNN(norm=True).norm2)] == [
        (2, 8),
        (4, 16),
    ]


def hidden_activations(model: MLP, x: torch.Tensor) -> list[torch.Tensor]:
    h = [x]
    for layer in list(model.layers)[:-1]:
        h.append(layer(h[-1]).relu())
    return h


def test_the_he_start_keeps_the_scale_of_activations_at_any_depth():
    x = torch.randn(200, 256)
    h = hidden_activations(MLP(256, 256, depth=12), x)
    sizes = np.array([a.square().mean().item() for a in h[1:]])
    np.testing.assert_allclose(sizes, 1.0, rtol=0.35)  # a random walk of small steps around 1
    # torch's own start loses a factor of six a layer: what the He start is there for
    layers = [nn.Linear(256, 256) for _ in range(12)]
    shrunk = x
    for layer in layers:
        shrunk = layer(shrunk).relu()
    assert shrunk.square().mean() < 0.01


def test_the_read_out_starts_with_unit_gain_and_all_biases_at_zero():
    model = MLP(256, 1024, depth=2, classes=1000)
    h = hidden_activations(model, torch.randn(100, 256))
    gain = model.layers[-1](h[-1]).square().mean() / h[-1].square().mean()
    assert gain.item() == pytest.approx(1.0, abs=0.1)
    for made in (model, CNN()):
        biases = [p for name, p in made.named_parameters() if name.endswith("bias")]
        assert len(biases) == 3 and not any(p.any() for p in biases)


def test_the_convolutions_start_from_he_too():
    model = CNN(channels=(256, 512))
    for layer, gain in ((model.conv1, 2), (model.conv2, 2), (model.head, 1)):
        fan_in = layer.weight[0].numel()
        assert layer.weight.var().item() * fan_in == pytest.approx(gain, rel=0.1)


def test_decay_acts_on_matrices_and_filters_alone():
    for model in (MLP(depth=2, norm=True), CNN(norm=True), RNN(norm=True), QuadraticMLP(4, 3, 2)):
        for name, parameter in model.named_parameters():
            assert matrices(name) == (parameter.ndim > 1), name
