"""``weight`` and ``bias`` of a MaskedConv2d behave as in nn.Conv2d, or raise before any change."""

from __future__ import annotations

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.nn import functional as F
from torch.nn.utils import (
    fuse_conv_bn_eval,
    parameters_to_vector,
    parametrize,
    prune,
    vector_to_parameters,
)

from maskedconv import MaskedConv2d, models


def layer_of(**options):
    return MaskedConv2d(4, 6, 3, **{"learned": 2, **options})


def snapshot(layer):
    return {key: value.clone() for key, value in layer.state_dict().items()}


def refused(layer, change, error=(RuntimeError, AttributeError), match="assembled"):
    """``change`` raises an error with a remedy, and changes nothing."""
    before, attributes = snapshot(layer), set(vars(layer))
    with pytest.raises(error, match=match):
        change()
    assert set(vars(layer)) == attributes
    assert layer.state_dict().keys() == before.keys()
    for key, value in layer.state_dict().items():
        assert torch.equal(value, before[key]), key


# Changes that work as on nn.Conv2d.


@pytest.mark.parametrize("frozen", ["random", "zero"])
@pytest.mark.parametrize("slice_dim", range(4))
def test_changes_in_place(slice_dim, frozen):
    layer = layer_of(slice_dim=slice_dim, frozen=frozen)
    plain = layer.to_conv2d()
    other = torch.randn(6, 4, 3, 3)

    def change(conv):
        conv.weight.data *= 0.1
        conv.bias.data += 2
        with torch.no_grad():
            conv.weight *= 3
            conv.weight[1:3] -= 1
            conv.weight.unbind(1)[2].mul_(2)
            conv.weight.mT.mul_(0.5)
            conv.bias.clamp_(max=2.1)
            torch.nn.init.trunc_normal_(conv.weight, generator=torch.Generator().manual_seed(1))
            torch.add(conv.weight, 1, out=conv.weight.detach())

    change(layer)
    change(plain)
    kept = layer.weight.narrow(slice_dim, 0, layer.num_learned)
    assert torch.equal(kept, plain.weight.narrow(slice_dim, 0, layer.num_learned))
    if frozen == "random":
        assert torch.equal(layer.weight, plain.weight)
        assert torch.equal(layer.bias, plain.bias)
        layer.weight.data = other
        assert torch.equal(layer.weight, other)
        vector = torch.randn(layer.weight.numel() + 6)
        vector_to_parameters(vector, [layer.weight, layer.bias])
        assert torch.equal(parameters_to_vector([layer.weight, layer.bias]), vector)
    else:
        assert not layer.weight.narrow(slice_dim, layer.num_learned, layer.num_frozen).any()


def test_an_assembled_weight_set_to_itself():
    layer = layer_of()
    layer.weight, layer.bias = layer.weight, layer.bias
    without = layer_of(bias=False)
    without.bias = None
    assert without.bias is None


def test_data_of_its_own_keeps_up():
    layer = layer_of()
    weight = layer.weight
    weight.data = torch.ones(6, 4, 3, 3)
    assert (weight == 1).all()
    assert (layer.weight == 1).all()


# Reading.


def test_numpy_reads_and_cannot_write():
    layer = layer_of()
    weight = layer.weight.detach()
    for array in (weight.numpy(), np.asarray(weight), weight.view(-1).numpy()):
        assert np.array_equal(array.reshape(-1), weight.flatten().tolist())
        with pytest.raises(ValueError, match="read-only"):
            array.fill(1)
    before = snapshot(layer)
    assert torch.equal(torch.from_dlpack(weight.clone()), weight)
    refused(layer, lambda: torch.from_dlpack(weight).fill_(1))
    assert torch.equal(layer.learned, before["learned"])
    assert np.asarray(weight, dtype=np.float64).dtype == np.float64


@pytest.mark.parametrize("learned", [0, 2, 1.0])
def test_copies_and_pickles_hold_the_values_alone(learned):
    layer = layer_of(learned=learned)
    file = io.BytesIO()
    torch.save([layer.weight, layer.bias.detach()], file)
    file.seek(0)
    weight, bias = torch.load(file, weights_only=True)
    copies = [weight, copy.deepcopy(layer.weight), pickle.loads(pickle.dumps(layer.weight))]
    for other in copies:
        assert type(other) is torch.Tensor
        assert torch.equal(other, layer.weight)
        assert other.requires_grad == layer.weight.requires_grad
    assert torch.equal(bias, layer.bias)
    weight.data.fill_(7)
    assert not (layer.weight == 7).any()


# Errors.

CHANGES = {
    "parameter": lambda c: setattr(c, "weight", nn.Parameter(torch.zeros(6, 4, 3, 3))),
    "bias parameter": lambda c: setattr(c, "bias", nn.Parameter(torch.zeros(6))),
    "tensor": lambda c: setattr(c, "weight", torch.zeros(6, 4, 3, 3)),
    "other layer's": lambda c: setattr(c, "weight", layer_of().weight),
    "a view": lambda c: setattr(c, "weight", c.weight.detach()),
    "no bias": lambda c: setattr(c, "bias", None),
    "delete": lambda c: delattr(c, "weight"),
    "delete bias": lambda c: delattr(c, "bias"),
    "register": lambda c: c.register_parameter("weight", nn.Parameter(torch.zeros(6, 4, 3, 3))),
    "requires_grad": lambda c: setattr(c.weight, "requires_grad", False),
    "requires_grad_": lambda c: c.bias.requires_grad_(False),
    "detach_": lambda c: c.weight.detach_(),
    "grad": lambda c: setattr(c.weight, "grad", None),
    "an attribute": lambda c: setattr(c.weight, "no_decay", True),
    "data of another shape": lambda c: setattr(c.weight, "data", torch.zeros(6, 4)),
    "data of another type": lambda c: setattr(c.weight, "data", torch.zeros(6, 4, 3, 3).double()),
    "data of a view": lambda c: setattr(c.weight[0], "data", torch.zeros(4, 3, 3)),
    "set_": lambda c: c.weight.detach().set_(torch.zeros(6, 4, 3, 3)),
    "resize_": lambda c: c.weight.detach().resize_(2, 2),
    "share_memory_": lambda c: c.weight.share_memory_(),
    "hook": lambda c: c.weight.register_hook(print),
    "swap_tensors": lambda c: torch.utils.swap_tensors(c.weight, torch.zeros(6, 4, 3, 3)),
    "functional_call": lambda c: torch.func.functional_call(
        c, {"learned": torch.ones(2, 4, 3, 3), "weight": torch.zeros(6, 4, 3, 3)},
        (torch.zeros(1, 4, 5, 5),),
    ),
    "fuse_conv_bn_eval": lambda c: fuse_conv_bn_eval(c.eval(), nn.BatchNorm2d(6).eval()),
}  # fmt: skip


@pytest.mark.parametrize("frozen", ["random", "zero"])
@pytest.mark.parametrize("name", CHANGES)
def test_what_would_be_lost_raises(name, frozen):
    layer = layer_of(frozen=frozen)
    refused(layer, lambda: CHANGES[name](layer))


@pytest.mark.parametrize("frozen", ["random", "zero"])
def test_gradients_are_read_where_they_are(frozen):
    layer = layer_of(frozen=frozen)
    assert layer_of(learned=0).weight.grad is None  # as of a Conv2d that does not learn
    layer(torch.randn(1, 4, 5, 5)).sum().backward()
    refused(layer, lambda: layer.weight.grad)
    with pytest.raises(ValueError, match="non-leaf"):
        torch.optim.SGD([layer.weight], lr=1)
    weight = layer.weight
    weight.retain_grad()
    weight.sum().backward()
    assert (weight.grad == 1).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda c: nn.utils.weight_norm(c),
        lambda c: nn.utils.spectral_norm(c),
        lambda c: nn.utils.parametrizations.weight_norm(c),
        lambda c: nn.utils.parametrizations.spectral_norm(c),
        lambda c: prune.l1_unstructured(c, "weight", 0.5),
        lambda c: parametrize.register_parametrization(c, "weight", nn.Identity()),
    ],
)
def test_reparametrisations_take_the_learned_part_only(change):
    layer = layer_of()
    refused(layer, lambda: change(layer), error=(KeyError, TypeError, ValueError), match="weight")


@pytest.mark.parametrize(
    "change",
    [
        lambda c: nn.utils.parametrizations.weight_norm(c, "learned"),
        lambda c: nn.utils.parametrizations.spectral_norm(c, "learned"),
        lambda c: prune.l1_unstructured(c, "learned", 0.5),
    ],
)
def test_reparametrised_learned_part(change):
    layer, x = layer_of(), torch.randn(2, 4, 5, 5)
    change(layer)
    torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight, layer.bias))
    layer(x).sum().backward()
    assert all(p.grad is not None for p in layer.parameters())


def test_a_layer_made_by_type_alone_is_named():
    with pytest.raises(TypeError, match=r"learned is missing.*to_conv2d\(\)"):
        type(layer_of())(4, 2, 3, bias=False)


def test_fused_with_batch_norm_as_a_plain_convolution():
    layer, norm, x = layer_of().eval(), nn.BatchNorm2d(6).eval(), torch.randn(2, 4, 5, 5)
    norm.running_mean.normal_()
    fused = fuse_conv_bn_eval(layer.to_conv2d(), norm)
    torch.testing.assert_close(fused(x), norm(layer(x)))


# In compiled code.


@pytest.mark.parametrize("frozen", ["random", "zero"])
@pytest.mark.parametrize("learned", [0, 2, 1.0])
def test_read_in_compiled_code(learned, frozen):
    layer = layer_of(learned=learned, frozen=frozen)
    x = torch.randn(1, 4, 5, 5)

    def loss(x):
        weight = layer.weight.detach()
        views = weight[0].abs().sum() + weight.view(-1).max() + (1 - layer.weight.data.mT).norm()
        return layer.weight.square().sum() + views + layer.bias.sum() + layer(x).sum()

    expected = loss(x)
    out = torch.compile(loss, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(out, expected)
    if learned:
        grads = [torch.autograd.grad(y, [layer.learned])[0] for y in (out, expected)]
        torch.testing.assert_close(*grads)


# Without values.


def test_fake_tensors():
    with FakeTensorMode():
        model = models.create("wrn_10_1", learned=0.5, seed=0)
        assert model.conv1.weight.shape == (16, 3, 3, 3)
        out = model(torch.randn(2, 3, 8, 8))
        assert out.shape == (2, 10)
        out.sum().backward()
    assert model.conv1.learned.grad.shape == (8, 3, 3, 3)
