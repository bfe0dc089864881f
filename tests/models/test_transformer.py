"""The Transformer against the formulae of its papers, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from maskedconv import methods, models
from maskedconv.data.translation import TranslationSet
from maskedconv.models.tokens import BOS, EOS, PAD

VOCABULARY, LENGTH, DIM = 23, 7, 32
METHODS = {
    "trained": None,
    "masks": methods.supermask(k=0.3, weights="network", scale=False),
    "scaled masks": methods.supermask(k=0.7, weights="kaiming"),
}


def made(method="masks", fold=False, blocks=2, seed=0, dtype=torch.float64):
    chosen = METHODS[method]
    name = f"transformer_{blocks}_{DIM}"
    model = models.create(name, num_classes=VOCABULARY, method=chosen, fold=fold, seed=seed)
    return model.to(dtype)


def pairs(count=5, seed=0):
    """Random pairs [N, 2, LENGTH] with padding of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    found = torch.randint(EOS + 1, VOCABULARY, (count, 2, LENGTH), generator=generator)
    found[:, 1, 0] = BOS
    for row in range(count):
        found[row, 0, 2 + row % (LENGTH - 1) :] = PAD
        found[row, 1, 3 + row % (LENGTH - 2) :] = PAD
    return found


def plain_weight(layer):
    """The weight by the definition of the mask; its gradient goes straight through to |score|."""
    if not hasattr(layer, "scores"):
        return layer.weight
    scores, frozen = layer.scores, layer.frozen
    removed = int((1 - round(layer.settings.k, 6)) * scores.numel() + 1e-9)
    order = scores.detach().abs().flatten().sort(stable=True).indices
    mask = torch.ones_like(scores).flatten()
    mask[order[:removed]] = 0
    mask = mask.view_as(scores)
    return frozen * (mask + scores.abs() - scores.abs().detach())


def plain_attention(layer, query, memory, hidden):
    """Vaswani et al. 2017, equation 1, head by head; ``hidden`` [T, S] is True where not seen."""
    q, k, v = (x @ plain_weight(p).T for p, x in ((layer.q, query), (layer.k, memory),
                                                  (layer.v, memory)))  # fmt: skip
    size = DIM // layer.heads
    heads = []
    for head in range(layer.heads):
        part = slice(head * size, (head + 1) * size)
        logits = q[:, part] @ k[:, part].T / math.sqrt(size)
        heads.append(logits.masked_fill(hidden, -math.inf).softmax(1) @ v[:, part])
    return torch.cat(heads, 1) @ plain_weight(layer.out).T


def plain_norm(tokens):
    centred = tokens - tokens.mean(1, keepdim=True)
    return centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()


def plain_feed_forward(layer, tokens):
    return (tokens @ plain_weight(layer.fc1).T).clamp(min=0) @ plain_weight(layer.fc2).T


def plain_embedding(tokens, weight):
    places = []
    for place in range(len(tokens)):
        angles = [place / 10_000 ** (2 * (i // 2) / DIM) for i in range(DIM)]
        places.append([math.cos(a) if i % 2 else math.sin(a) for i, a in enumerate(angles)])
    # The network holds the sinusoids in float32.
    return weight[tokens] * math.sqrt(DIM) + torch.tensor(places).to(weight.dtype)


def plain_logits(model, pair):
    """The logits [T, VOCABULARY] of one pair [2, L] without padding in its source."""
    source, target = pair[0][pair[0] != PAD], pair[1]
    tokens = plain_embedding(source, plain_weight(model.encoder_embedding))
    nothing = torch.zeros(len(source), len(source), dtype=torch.bool)
    for layer in model.encoder:
        tokens = plain_norm(tokens + plain_attention(layer.attention, tokens, tokens, nothing))
        tokens = plain_norm(tokens + plain_feed_forward(layer.feed_forward, tokens))
    embedding = plain_weight(model.decoder_embedding)
    said = plain_embedding(target, embedding)
    later = torch.ones(len(target), len(target), dtype=torch.bool).triu(1)
    nothing = torch.zeros(len(target), len(source), dtype=torch.bool)
    for layer in model.decoder:
        said = plain_norm(said + plain_attention(layer.attention, said, said, later))
        said = plain_norm(said + plain_attention(layer.cross_attention, said, tokens, nothing))
        said = plain_norm(said + plain_feed_forward(layer.feed_forward, said))
    return said @ embedding.T


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_outputs_and_gradients(method, fold):
    if method == "trained" and fold:
        pytest.skip("there is no frozen weight to share")
    model, batch = made(method, fold), pairs()
    expected = torch.stack([plain_logits(model, pair) for pair in batch])
    found = model(batch)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    weights = torch.randn(found.shape, dtype=found.dtype, generator=torch.Generator())
    names = [name for name, _ in model.named_parameters()]
    gradients = torch.autograd.grad((found * weights).sum(), list(model.parameters()))
    others = torch.autograd.grad((expected * weights).sum(), list(model.parameters()))
    for name, gradient, other in zip(names, gradients, others, strict=True):
        torch.testing.assert_close(gradient, other, atol=1e-6, rtol=1e-5, msg=name)


def test_both_embeddings_of_the_decoder_are_one():
    """The gradient of its scores is that of the input plus that of the output embedding."""
    model, batch = made(), pairs(3)
    layer, memory = model.decoder_embedding, model.encode(batch[:, 0]).detach()
    visible = (batch[:, 0] != PAD)[:, None, None]
    model.decode(batch[:, 1], memory, visible).square().sum().backward()
    used = layer.weight.detach()
    parts = []
    for inside, outside in ((True, False), (False, True)):
        given, read = (used.clone().requires_grad_(wanted) for wanted in (inside, outside))
        said = model._embed(batch[:, 1], given)
        length = said.shape[1]
        earlier = torch.ones(length, length, dtype=torch.bool).tril()
        for one in model.decoder:
            said = one(said, memory, earlier, visible)
        F.linear(said, read).square().sum().backward()
        parts.append((given if inside else read).grad)
    expected = sum(parts) * layer.frozen * layer.scores.sign()
    torch.testing.assert_close(layer.scores.grad, expected.detach())


def test_later_tokens_and_padding_change_nothing():
    model, batch = made(fold=True).eval(), pairs(4)
    logits = model(batch)
    changed = batch.clone()
    changed[:, 1, 4:] = EOS + 1
    torch.testing.assert_close(model(changed)[:, :4], logits[:, :4])
    source = F.pad(batch[:, 0], (0, 3), value=PAD)
    wider = model.decode(batch[:, 1], model.encode(source), (source != PAD)[:, None, None])
    torch.testing.assert_close(wider, logits)


def greedily(model, source, length):
    """One source [S], decoded token by token with the full network at each step."""
    said = [BOS]
    while len(said) <= length and said[-1] != EOS:
        pair = torch.full((1, 2, max(len(source), len(said))), PAD)
        pair[0, 0, : len(source)], pair[0, 1, : len(said)] = source, torch.tensor(said)
        said.append(int(model(pair)[0, len(said) - 1].argmax()))
    return said[1:] + [PAD] * (length + 1 - len(said))


def sharpened(model):
    """``model`` with an embedding that makes EOS likely, so that translations end."""
    with torch.no_grad():
        model.decoder_embedding.frozen[EOS] *= 4
    return model


@pytest.mark.parametrize("seed", range(3))
def test_greedy_decoding(seed):
    model, sources = sharpened(made(fold=True, seed=seed)).eval(), pairs(8, seed)[:, 0]
    found = model.translate(sources, LENGTH)
    assert found.tolist() == [greedily(model, source, LENGTH) for source in sources]
    assert found.shape == (8, LENGTH)


def test_exact_match_is_the_same_by_decoding_and_by_prediction():
    """Targets are the network's own translations; half of them have one token changed."""
    model, given = sharpened(made(fold=True)).eval(), pairs(12)[:, 0]
    targets = model.translate(given, LENGTH)
    targets[::2, 1] = torch.where(targets[::2, 1] == EOS + 1, EOS + 2, EOS + 1)
    shifted = F.pad(targets[:, :-1], (1, 0), value=BOS)
    both = torch.stack([given, shifted], 1)
    task = TranslationSet("made", both, targets, both, targets, ("",) * VOCABULARY, "")
    with torch.no_grad():
        predicted = task.correct(model(both), targets)
    assert int(predicted) == 6
    assert task.measure(model)["exact_match"] == 50.0


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 8), (2, 3, 8)])
def test_input_is_checked(shape):
    with pytest.raises(ValueError, match=r"pairs is .*; expected \[N, 2, L\] of tokens"):
        made("trained")(torch.zeros(shape, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"pairs is \[1, 2, 3\] of torch.float32"):
        made("trained")(torch.zeros(1, 2, 3))


def test_initial_values():
    """Xavier uniform with gain 1/√2 for queries, keys and values; Kaiming uniform; N(0, 1/dim)."""
    model = models.create("transformer_1_256", num_classes=500, method=METHODS["masks"], seed=0)
    layer = model.encoder[0]
    for name, bound in (("q", math.sqrt(3 / 256 / 2)), ("v", math.sqrt(3 / 256 / 2)),
                        ("out", math.sqrt(3 / 256))):  # fmt: skip
        values = getattr(layer.attention, name).frozen
        assert 0.98 * bound < values.abs().max() <= bound
        assert abs(values.std().item() / (bound / math.sqrt(3)) - 1) < 0.01
    for values, inputs in ((layer.feed_forward.fc1.frozen, 256),
                           (layer.feed_forward.fc2.frozen, 1024)):  # fmt: skip
        assert 0.98 * math.sqrt(6 / inputs) < values.abs().max() <= math.sqrt(6 / inputs)
    assert abs(model.decoder_embedding.frozen.std().item() * 16 - 1) < 0.01
    plain = models.create("transformer_1_256", num_classes=500, seed=0)
    assert abs(plain.encoder[0].attention.q.weight.std().item() * 16 * math.sqrt(2) - 1) < 0.01


def test_no_biases_and_no_affine_norms():
    for model in (made("trained"), made("masks", fold=True)):
        assert {name.rpartition(".")[2] for name, _ in model.named_parameters()} <= {
            "weight", "scores"
        }  # fmt: skip
        assert not any(isinstance(module, nn.LayerNorm) for module in model.modules())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("transformer_2_20", {}, "dim is 20; expected a multiple of 16"),
        ("transformer_2_32", {"fold": True}, "fold is True; expected a method whose layers"),
        ("resnet_14", {"fold": True}, "fold is True; expected a method whose layers"),
        ("transformer_2_32", {"fold": 1}, "fold is 1"),
        ("transformer_0_32", {}, "transformer_B_D"),
    ],
)
def test_errors(name, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        models.create(name, **options)


@pytest.mark.parametrize("method", [methods.norm_only(), methods.random_positions(50)])
def test_methods_without_embeddings(method):
    """They would learn all of both embeddings besides."""
    with pytest.raises(ValueError, match=f"method is {method.name}, which has no layer for"):
        models.create("transformer_1_16", num_classes=20, method=method)
