"""The transformer against torch's own layers with the same weights, alone and stacked."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from adamw_book.ensemble import accuracy, cross_entropy
from adamw_book.replicas import initial_parameters, over_replicas
from adamw_book.task import cross_entropies
from adamw_book.transformer import GPT

SMALL = {"vocabulary": 11, "context": 7, "width": 12, "depth": 2, "heads": 3}


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def disturbed(**options) -> GPT:
    """A small model whose weights, gains among them, are of the size that tells their places apart."""
    model = GPT(**SMALL | options)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model


class Plain(nn.Module):
    """nn.TransformerEncoderLayer under a causal mask, between embeddings and a read-out, with the weights of a GPT."""

    def __init__(self, model: GPT, norm: str):
        super().__init__()
        width, depth = model.tokens.weight.shape[1], len(model.blocks)
        self.tokens, self.positions = model.tokens, model.positions
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, SMALL["heads"], 4 * width, 0.0, "gelu", batch_first=True, norm_first=norm == "pre", bias=False
            )
            for _ in range(depth)
        )
        self.norm, self.head = model.norm, model.head or model.tokens
        for layer, block in zip(self.layers, model.blocks, strict=True):
            own = {
                "self_attn.in_proj_weight": block.qkv, "self_attn.out_proj.weight": block.mix,
                "linear1.weight": block.up, "linear2.weight": block.down, "norm1.weight": block.norm1,
                "norm2.weight": block.norm2,
            }  # fmt: skip
            layer.load_state_dict({name: part.weight for name, part in own.items()})

    def forward(self, x):
        h = self.tokens(x) + self.positions(torch.arange(x.shape[1]))
        for layer in self.layers:
            h = layer(h, src_mask=nn.Transformer.generate_square_subsequent_mask(x.shape[1]), is_causal=True)
        return self.norm(h) @ self.head.weight.T


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("length", [7, 4])
def test_logits_and_gradients_are_those_of_torchs_layers(norm, tied, length):
    model, x = disturbed(norm=norm, tied=tied), torch.randint(11, (5, length))
    plain = Plain(model, norm)
    ours, theirs = model(x), plain(x)
    assert ours.shape == (5, length, 11)
    torch.testing.assert_close(ours, theirs)
    targets = torch.randint(11, (5, length))
    loss = functional.cross_entropy(theirs.flatten(0, 1), targets.flatten())
    expected = torch.autograd.grad(loss, [layer.self_attn.in_proj_weight for layer in plain.layers])
    loss = cross_entropy(ours[None], targets[None]).sum()
    for got, wanted in zip(torch.autograd.grad(loss, [b.qkv.weight for b in model.blocks]), expected, strict=True):
        torch.testing.assert_close(got, wanted)


def test_without_norms_a_block_adds_attention_and_perceptron():
    model, x = disturbed(norm="none"), torch.randint(11, (5, 7))
    h = model.tokens(x) + model.positions.weight
    for block in model.blocks:
        parts = block.qkv(h).unflatten(2, (3, 3, 4)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(*parts, is_causal=True).transpose(1, 2).flatten(2)
        h = h + block.mix(mixed)
        h = h + block.down(functional.gelu(block.up(h)))
    torch.testing.assert_close(model(x), model.head(h))


@pytest.mark.parametrize("norm", ["pre", "post", "none"])
def test_no_token_sees_a_later_one(norm):
    model, x = disturbed(norm=norm), torch.randint(11, (4, 7))
    other = x.clone()
    other[:, 5:] = (x[:, 5:] + 1) % 11
    before, after = model(x), model(other)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert (before[:, 5:] - after[:, 5:]).abs().min() > 1e-6


@pytest.mark.parametrize("norm", ["pre", "post", "none"])
def test_a_stack_is_each_model_alone(norm):
    def make():
        return GPT(**SMALL, norm=norm)

    parameters = {name: p + 0.3 * torch.randn_like(p) for name, p in initial_parameters(make, [3, 4, 3]).items()}
    x = torch.randint(11, (3, 5, 7))
    stacked = over_replicas(make)(parameters, x)
    for i in range(3):
        model = make()
        model.load_state_dict({name: p[i] for name, p in parameters.items()})
        torch.testing.assert_close(stacked[i], model(x[i]))


def test_it_starts_as_gpt_2_does():
    model = GPT(width=64, depth=3)
    for name, p in model.named_parameters():
        if "norm" in name:
            assert torch.equal(p, torch.ones(64))
        else:
            scale = math.sqrt(6) if name.endswith(("mix.weight", "down.weight")) else 1
            assert scale * p.std().item() == pytest.approx(0.02, rel=0.06), name
    assert list(model.buffers()) == [] and len(list(model.parameters())) == 3 * 6 + 4
    assert sum(p.numel() for p in GPT(tied=True).parameters()) == sum(p.numel() for p in GPT().parameters()) - 128 * 32


def gradient_of_rows(model: GPT) -> torch.Tensor:
    x = torch.randint(8, (5, 7))  # tokens 8, 9, 10 never occur
    functional.cross_entropy(model(x).flatten(0, 1), x.flatten()).backward()
    return model.tokens.weight.grad.abs().amax(1)


def test_the_row_of_an_unused_token_gets_no_gradient_unless_the_read_out_is_tied():
    assert (gradient_of_rows(disturbed())[8:] == 0).all() and (gradient_of_rows(disturbed())[:8] > 0).all()
    assert (gradient_of_rows(disturbed(tied=True)) > 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "late"}, "norm: 'late'; choose from 'pre', 'post', 'none'"),
        ({"heads": 5}, "width: 12; a multiple of heads=5 is needed"),
        ({"depth": 0}, "depth: 0; a positive whole number"),
        ({"vocabulary": 2.5}, "vocabulary: 2.5; a positive whole number"),
    ],
)
def test_impossible_sizes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GPT(**SMALL | options)


def test_more_tokens_than_the_context_holds_are_refused():
    with pytest.raises(ValueError, match=r"x: shape \(2, 8\); at most 7 tokens in a row"):
        GPT(**SMALL)(torch.zeros(2, 8, dtype=torch.long))


# ---- targets that are sequences


def test_loss_and_accuracy_of_sequences_are_means_over_all_their_places():
    logits, targets = torch.randn(3, 4, 5, 11, dtype=torch.float64), torch.randint(11, (3, 4, 5))
    places = -logits.log_softmax(3).gather(3, targets[..., None])[..., 0]
    torch.testing.assert_close(cross_entropies(logits, targets), places)
    torch.testing.assert_close(cross_entropy(logits, targets), places.mean((1, 2)))
    torch.testing.assert_close(
        accuracy(logits, targets), (logits.argmax(3) == targets).double().mean((1, 2)).float()
    )  # fmt: skip
    flat = logits.flatten(1, 2), targets.flatten(1)
    torch.testing.assert_close(cross_entropy(*flat), cross_entropy(logits, targets))
    logits[1, 2, 3, 4] = math.nan
    assert accuracy(logits, targets)[1] == 0
