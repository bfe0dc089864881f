"""Changes of an assembled weight that was read earlier, and where its values live elsewhere."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize, prune

from maskedconv.nn import MaskedConv2d, SupermaskLinear
from maskedconv.nn.positions import PositionsLinear


def layer_of(**options):
    return MaskedConv2d(4, 6, 3, **{"learned": 2, **options})


def both_of(**options):
    layer = layer_of(**options)
    return layer, layer.to_conv2d()


def assert_same(layer, plain):
    assert torch.equal(layer.weight, plain.weight)
    assert torch.equal(layer.bias, plain.bias)


def clamped_after_a_step(conv):
    weight, bias = conv.weight, conv.bias.data
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter[:2] += 5
    weight.data.clamp_(-4.9, 4.9)
    bias[5] = 1


def scaled_after_data_changed(conv):
    """``.data`` leaves no trace in the version of a tensor."""
    view = conv.weight.detach()[1]
    (conv.learned if isinstance(conv, MaskedConv2d) else conv.weight).data[1] = 3
    view *= 2


def read_after_data_changed(conv):
    """The weight is an operand, and not changed itself."""
    view, total = conv.weight.detach(), torch.zeros(6, 4, 3, 3)
    split = isinstance(conv, MaskedConv2d)
    (conv.learned if split else conv.weight).data[1] = 3
    (conv.frozen.data[0] if split else conv.weight.data[2]).fill_(4)
    total.add_(view)
    conv.weight.data.copy_(2 * total)


def swapped(conv):
    first, second = conv.weight.data[0], conv.weight.data[5]
    kept = first.clone()
    first.copy_(second)
    second.copy_(kept)


def several_at_once(conv):
    with torch.no_grad():
        torch._foreach_zero_([conv.weight[0], conv.weight[1], conv.weight[5], conv.bias[3:]])
        torch._foreach_mul_([conv.weight[2:4], conv.weight[4:, 1]], 3)


def by_functions(conv):
    with torch.no_grad():
        F.relu(conv.weight, inplace=True)
        torch.ops.aten.mul_(conv.weight, 2)
        torch.ops.aten.add_.Scalar(conv.weight[4], 2)
        torch.sub(conv.weight, 1, out=conv.weight.detach())


OF_FILTERS = [clamped_after_a_step, read_after_data_changed, scaled_after_data_changed]
OF_WEIGHTS = [by_functions, several_at_once, swapped]
CHANGES = [*((change, 0) for change in OF_FILTERS), *((c, d) for c in OF_WEIGHTS for d in (0, 1))]


@pytest.mark.parametrize(("change", "slice_dim"), CHANGES)
def test_a_change_undoes_no_other(change, slice_dim):
    layer, plain = both_of(slice_dim=slice_dim)
    change(layer)
    change(plain)
    assert_same(layer, plain)


def test_a_change_that_no_name_tells_of_raises():
    layer = layer_of()
    weight, before = layer.weight.detach(), layer.weight.clone()
    with pytest.raises(RuntimeError, match="the change by embedding would be lost"):
        F.embedding(torch.arange(6), weight.flatten(1), max_norm=0.1)
    assert torch.equal(layer.weight, before)


def test_an_operand_that_autograd_saved_is_not_touched():
    layer, x = layer_of(), torch.ones(6, 4, 3, 3, requires_grad=True)
    weight = layer.weight
    product = x * weight
    torch.zeros(6, 4, 3, 3).add_(weight.detach())
    product.sum().backward()
    assert torch.equal(x.grad, layer.weight)


# Inference mode, compiled code, other layouts.


@pytest.mark.parametrize("learned", [0, 2, 1.0])
@pytest.mark.parametrize("frozen", ["random", "zero"])
def test_inference_mode(frozen, learned):
    layer = layer_of(frozen=frozen, learned=learned)
    expected = layer.weight.norm(), layer.bias.sum()
    with torch.inference_mode():
        assert (layer.weight.norm(), layer.bias.sum()) == expected
        assert torch.equal(layer.to_conv2d().weight, layer.weight)
        layer.weight.mul_(2)
        layer.weight[0].neg_()
    torch.testing.assert_close(layer.weight.norm(), 2 * expected[0])
    layer.weight.sum()


@pytest.mark.parametrize("learned", [0, 2])
def test_an_input_of_compiled_code(learned):
    layer = layer_of(learned=learned)

    def total(weight):
        return weight.square().sum()

    torch.compiler.reset()
    assert torch.equal(torch.compile(total, backend="eager")(layer.weight), total(layer.weight))
    torch.compiler.reset()
    compiled = torch.compile(total, backend="eager", fullgraph=True)
    with pytest.raises(torch._dynamo.exc.Unsupported, match=r"pass a copy .`weight.clone"):
        compiled(layer.weight)
    assert torch.equal(compiled(layer.weight.clone()), total(layer.weight))


@pytest.mark.parametrize("convert", ["to_mkldnn", "to_sparse", "to_sparse_csr"])
def test_other_layouts(convert):
    weight = layer_of().weight.detach().flatten(1).clone()
    layer = layer_of()
    layer.weight.data.flatten(1).copy_(weight)
    if convert == "to_mkldnn" and not torch.backends.mkldnn.is_available():
        pytest.skip("no oneDNN")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some layouts are in beta state
        found = getattr(layer.weight.detach().flatten(1), convert)()
    assert torch.equal(found.to_dense(), weight)


@pytest.mark.parametrize("slice_dim", range(4))
def test_memory_format_of_the_weight(slice_dim):
    layer, plain = both_of(slice_dim=slice_dim)
    start, x = copy.deepcopy(plain), torch.randn(2, 4, 5, 5)
    for memory_format in (torch.channels_last, torch.contiguous_format):
        for conv in (layer, plain):
            nn.utils.convert_conv2d_weight_memory_format(conv, memory_format)
        assert layer(x).stride() == plain(x).stride()
        assert layer.frozen.is_contiguous(memory_format=memory_format)
        assert_same(layer, start)


# Frozen zeros.


@pytest.mark.parametrize("slice_dim", [0, 1])
@pytest.mark.parametrize("learned", [0, 2])
def test_changes_of_frozen_zeros_are_dropped(learned, slice_dim):
    """Initialisers write the whole weight, so that nothing warns of them."""
    layer = layer_of(frozen="zero", learned=learned, slice_dim=slice_dim)
    zeros = layer.weight.data.movedim(slice_dim, 0)[3:]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for initialise in (nn.init.normal_, nn.init.dirac_, nn.init.ones_):
            initialise(layer.weight)
        nn.init.ones_(layer.bias)
        zeros[0] = 1
        layer.bias.data[4:] = 1
        zeros.add_(1)  # of what the layer has, which are zeros
    assert zeros.unique().tolist() == [1]
    assert layer.weight.sum() == learned * layer.weight.numel() / layer.weight.size(slice_dim)
    assert layer.bias.sum() == (learned if slice_dim == 0 else 6)


@pytest.mark.parametrize("frozen", ["random", "zero"])
@pytest.mark.parametrize("learned", [0, 2, 1.0])
def test_a_change_assembles_nothing_anew(frozen, learned, monkeypatch):
    """Initialisers such as dirac_ make one for each filter."""
    layer = layer_of(frozen=frozen, learned=learned)
    weight = layer.weight
    monkeypatch.setattr(MaskedConv2d, "_full_weight", None)
    nn.init.dirac_(weight)
    weight.data[1:].mul_(2)
    monkeypatch.undo()
    plain = torch.zeros(6, 4, 3, 3)
    nn.init.dirac_(plain)[1:].mul_(2)
    plain[layer.weight_shape[0] - layer.num_zeros :] = 0
    assert torch.equal(layer.weight, plain)


def test_repr_assembles_nothing(monkeypatch):
    """Shards of FSDP2 cannot be joined with the frozen part."""
    layers = layer_of(), layer_of(bias=False)
    monkeypatch.setattr(MaskedConv2d, "_full_bias", None)
    assert ["bias=False" in repr(layer) for layer in layers] == [False, True]


def parametrized(layer, name):
    parametrize.register_parametrization(layer, name, nn.Softplus(), unsafe=True)


def pruned(layer, name):
    prune.l1_unstructured(layer, name, 0.5)


@pytest.mark.parametrize("change", [parametrized, pruned], ids=["parametrized", "pruned"])
@pytest.mark.parametrize("part", ["learned", "bias_learned"])
def test_a_computed_part_is_not_half_written(part, change):
    """Its values would be lost, and the frozen ones be new."""
    layer = layer_of()
    change(layer, part)
    whole = "bias" if part == "bias_learned" else "weight"
    before = copy.deepcopy(layer.state_dict())
    for write in (nn.init.zeros_, lambda one: one.data[-1].fill_(7)):
        with pytest.raises(RuntimeError, match=f"{part} of a .*, so that values of {whole} that"):
            write(getattr(layer, whole))
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())
    other = getattr(layer, "weight" if whole == "bias" else "bias")
    nn.init.ones_(other)
    assert (getattr(layer, "weight" if whole == "bias" else "bias") == 1).all()


def test_other_computed_parts_are_not_half_written():
    layer = PositionsLinear(4, 3)
    layer.learn_(torch.tensor([1, 5, 7]))
    prune.l1_unstructured(layer, "values", 0.5)
    masked = SupermaskLinear(4, 3)
    prune.l1_unstructured(masked, "scores", 0.5)
    frozen = layer.frozen.clone(), masked.frozen.clone()
    with pytest.raises(RuntimeError, match="values of a PositionsLinear is parametrized or pruned"):
        nn.init.zeros_(layer.weight)
    with pytest.raises(RuntimeError, match="scores of a SupermaskLinear is parametrized or pruned"):
        masked.reset_parameters()
    assert torch.equal(layer.frozen, frozen[0])
    assert torch.equal(masked.frozen, frozen[1])
