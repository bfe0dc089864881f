"""State that conversion and merging keep: requires_grad, gradients, modes, types and counts."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from two_convolutions import Net

from bench.conversions import METHODS
from maskedconv import MaskedConv2d, convert_, count_parameters, merge_


def test_a_frozen_layer_stays_frozen():
    net = Net()
    net.conv1.requires_grad_(False)
    net.conv2.bias.requires_grad_(False)
    convert_(net, learned=0.5)
    learned = {name for name, p in net.named_parameters() if p.requires_grad}
    assert learned == {"conv2.learned", "fc.weight", "fc.bias"}
    assert count_parameters(net).learned == 4 * 8 + 18
    merge_(net)
    learned = {name for name, p in net.named_parameters() if p.requires_grad}
    assert learned == {"conv2.weight", "fc.weight", "fc.bias"}


@pytest.mark.parametrize("requires_grad", [True, False])
def test_one_layer_keeps_requires_grad(requires_grad):
    conv = nn.Conv2d(3, 8, 3).requires_grad_(requires_grad)
    layer = MaskedConv2d.from_conv2d(conv, learned=2)
    assert [p.requires_grad for p in layer.parameters()] == [requires_grad] * 2
    assert [p.requires_grad for p in layer.to_conv2d().parameters()] == [requires_grad] * 2


@pytest.mark.parametrize("slice_dim", [0, 1])
@pytest.mark.parametrize("frozen", ["keep", "zero"])
@pytest.mark.parametrize("requires_grad", [(False, False), (False, True), (True, False)])
def test_a_layer_that_learns_nothing_keeps_requires_grad(requires_grad, frozen, slice_dim):
    conv = nn.Conv2d(3, 8, 3)
    conv.weight.requires_grad_(requires_grad[0])
    conv.bias.requires_grad_(requires_grad[1])
    net = convert_(nn.Sequential(conv), learned=0.0, slice_dim=slice_dim, frozen=frozen)
    copied = copy.deepcopy(net)
    copied[0] = net[0].to_frozen()
    for one in (net, copied):
        assert tuple(p.requires_grad for p in merge_(one)[0].parameters()) == requires_grad


@pytest.mark.parametrize("slice_dim", range(4))
def test_gradients_stay_where_they_are_known(slice_dim):
    part, whole, grads = Net(), Net(), (torch.randn(8, 3, 3, 3), torch.randn(8))
    for net, learned in ((part, 1), (whole, 1.0)):
        net.conv1.weight.grad, net.conv1.bias.grad = grads
        convert_(net, learned=learned, slice_dim=slice_dim)
    assert torch.equal(part.conv1.learned.grad, grads[0].narrow(slice_dim, 0, 1))
    assert torch.equal(part.conv1.bias_learned.grad, grads[1][: 1 if slice_dim == 0 else None])
    merge_(part), merge_(whole)
    assert part.conv1.weight.grad is None
    assert torch.equal(whole.conv1.weight.grad, grads[0])
    assert torch.equal(whole.conv1.bias.grad, grads[1])


def test_mode_type_and_memory_format_stay():
    net = Net().double().to(memory_format=torch.channels_last)
    net.conv2.eval()
    convert_(net, learned=3)
    assert [net.conv1.training, net.conv2.training] == [True, False]
    for layer in (net.conv1, *merge_(copy.deepcopy(net)).children()):
        assert all(p.dtype == torch.float64 for p in layer.parameters())
    for weight in (net.conv1.learned, net.conv1.frozen, merge_(net).conv1.weight):
        assert weight.is_contiguous(memory_format=torch.channels_last)
    assert [net.conv1.training, net.conv2.training] == [True, False]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_strides_of_dimensions_of_size_1_stay(method, memory_format):
    """They give the output its memory format: all filters here are contiguous in either format."""
    pointwise, depthwise = (
        nn.Conv2d(4, 20, 1, bias=False),
        nn.Conv2d(20, 20, 3, groups=20, bias=False),
    )
    net = nn.Sequential(pointwise, depthwise).to(memory_format=memory_format)
    x = torch.randn(2, 4, 6, 6)
    strides = [one.weight.stride() for one in net], net[0](x).stride(), net(x).stride()
    convert_(net, method=METHODS[method])
    assert (net[0](x).stride(), net(x).stride()) == strides[1:]
    merge_(net)
    assert ([one.weight.stride() for one in net], net[0](x).stride(), net(x).stride()) == strides


@pytest.mark.parametrize("frozen", ["keep", "random", "zero"])
def test_a_model_without_memory_stays_so(frozen):
    with torch.device("meta"):
        net = Net()
    keys = {name: p.shape for name, p in net.state_dict().items()}
    convert_(net, learned=0.5, frozen=frozen)
    assert all(tensor.is_meta for tensor in net.state_dict().values())
    assert {name: p.shape for name, p in merge_(net).state_dict().items()} == keys


def test_a_compiled_model_runs_the_new_layers():
    net, x = Net(), torch.randn(2, 3, 6, 6)
    compiled = torch.compile(net, backend="eager")
    before = compiled(x)
    convert_(compiled, learned=0.5, frozen="zero")
    output = compiled(x)
    assert not torch.equal(output, before)
    torch.testing.assert_close(output, net(x))
    output.sum().backward()
    assert net.conv1.learned.grad is not None


def test_layers_made_in_inference_mode_become_ordinary_ones():
    with torch.inference_mode():
        net = nn.Sequential(nn.Conv2d(3, 4, 3))
    convert_(net, learned=2)(torch.randn(2, 3, 6, 6)).sum().backward()
    assert net[0].learned.grad is not None


@pytest.mark.parametrize("learned", [0, 1, 4, 8])
@pytest.mark.parametrize("slice_dim", [0, 1])
def test_merge_restores_keys_and_values(learned, slice_dim):
    net = Net()
    state = {key: value.clone() for key, value in net.state_dict().items()}
    merged = merge_(convert_(net, learned=learned, slice_dim=slice_dim)).state_dict()
    assert list(merged) == list(state)
    assert all(torch.equal(merged[key], value) for key, value in state.items())
    assert all(p.requires_grad for p in net.parameters())


class Gained(MaskedConv2d):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.gain = nn.Parameter(torch.ones(8))


def test_counts_of_a_subclass_with_a_parameter():
    count = count_parameters(Gained(8, 8, 2, learned=4, frozen="zero"))
    assert (count.learned, count.total) == (4 * 32 + 4 + 8, 264 + 8)


def test_counts_of_frozen_and_converted_models():
    net = Net()
    total = count_parameters(net).total
    net.fc.requires_grad_(False)
    assert count_parameters(convert_(net, learned=0.5)).total == total
    assert count_parameters(net).learned == 4 * 28 + 4 * 9
    assert count_parameters(merge_(net)).total == total
