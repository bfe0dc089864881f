"""State that conversion and merging keep: requires_grad, gradients, hooks, attributes, sharing."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from maskedconv import (
    MaskedConv2d,
    conversion_report,
    convert_,
    count_parameters,
    merge_,
    models,
    select_learned_,
)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1)
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        return self.fc(self.conv2(self.conv1(x).relu()).mean((2, 3)))


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


def called(log):
    """One hook of each kind, which logs its kind and the module's type."""

    def note(kind, result=None):
        def hook(module, *args):
            log.append((kind, type(module)))

        return hook

    return {
        "register_forward_pre_hook": note("forward_pre"),
        "register_forward_hook": note("forward"),
        "register_full_backward_pre_hook": note("backward_pre"),
        "register_full_backward_hook": note("backward"),
    }


def test_hooks_move_and_their_handles_remove_them():
    net, log = Net(), []
    handles = [getattr(net.conv1, name)(hook) for name, hook in called(log).items()]
    kinds = ["forward_pre", "forward", "backward_pre", "backward"]
    for change, expected in (
        (lambda: convert_(net, learned=0.5), MaskedConv2d),
        (lambda: merge_(net), nn.Conv2d),
        (lambda: convert_(net, learned=0.5), MaskedConv2d),
    ):
        change()
        net(torch.randn(2, 3, 6, 6, requires_grad=True)).sum().backward()
        assert log == [(kind, expected) for kind in kinds]
        log.clear()
    for handle in handles:
        handle.remove()
    net(torch.randn(2, 3, 6, 6, requires_grad=True)).sum().backward()
    assert not log


def test_options_of_hooks_move():
    net = Net()
    net.conv1.register_forward_hook(
        lambda module, args, kwargs, output: output * 2, with_kwargs=True, always_call=True
    )
    x = torch.randn(2, 3, 6, 6)
    expected = net(x)
    assert torch.equal(convert_(net, learned=0.5)(x), expected)
    assert torch.equal(merge_(net)(x), expected)


def test_a_hook_that_changes_the_weight_changes_the_new_one():
    net, x = Net(), torch.randn(2, 3, 6, 6)
    net.conv1.register_forward_pre_hook(lambda module, args: module.weight.data.clamp_(-0.1, 0.1))
    expected = copy.deepcopy(net)(x)
    convert_(net, learned=0.5)
    assert torch.equal(net(x), expected)
    assert net.conv1.frozen.abs().max() <= 0.1


def test_attributes_move():
    net = Net()
    net.conv1.name, net.conv1.tags = "stem", ["first"]
    net.conv1.weight.no_weight_decay = True
    net.conv1.bias.lr_scale = 2.0
    tags = net.conv1.tags
    convert_(net, learned=0.5)
    assert (net.conv1.name, net.conv1.tags) == ("stem", ["first"])
    assert net.conv1.tags is tags
    assert net.conv1.learned.no_weight_decay
    assert net.conv1.bias_learned.lr_scale == 2.0
    merge_(net)
    assert net.conv1.tags is tags
    assert net.conv1.weight.no_weight_decay
    assert not hasattr(net.conv2.weight, "no_weight_decay")


def test_a_converted_model_with_attributes_is_copied_and_pickled():
    net = Net()
    net.conv1.tags = ["first"]
    convert_(net, learned=0.5)
    for copied in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert copied.conv1.tags == ["first"]
        assert torch.equal(copied.conv1.weight, net.conv1.weight)


class Tied(nn.Module):
    """Two layers with one Parameter for their weights, and a third convolution."""

    def __init__(self, other=None, part="weight"):
        super().__init__()
        self.a = nn.Conv2d(8, 8, 2, bias=True)
        self.b = nn.Conv2d(8, 8, 2, bias=True) if other is None else other
        setattr(self.b, part, getattr(self.a, part))
        self.c = nn.Conv2d(8, 4, 1, bias=False)


OTHERS = {
    "Conv2d": lambda: nn.Conv2d(8, 8, 2),
    "ConvTranspose2d": lambda: nn.ConvTranspose2d(8, 8, 2),
    "Linear": lambda: nn.Linear(2, 8),
    "Conv2d subclass": lambda: type("Own", (nn.Conv2d,), {})(8, 8, 2),
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("part", ["weight", "bias"])
def test_a_shared_parameter_stays_shared(other, part):
    net = Tied(OTHERS[other](), part)
    total = count_parameters(net).total
    with pytest.warns(UserWarning, match=rf"a: its {part} is shared with b\.{part}"):
        convert_(net, learned=0.5)
    assert getattr(net.a, part) is getattr(net.b, part)
    assert type(net.c) is MaskedConv2d
    assert count_parameters(net).total == total
    assert count_parameters(net).learned == total - 16
    assert "a" in conversion_report(net).left_alone
    with pytest.raises(ValueError, match=rf"include has 'a', but .* shared with b\.{part}"):
        convert_(net, learned=0.5, include="a")


def test_two_tied_convolutions_alone():
    net = nn.Sequential(nn.Conv2d(8, 8, 2), nn.Conv2d(8, 8, 2))
    net[1].weight = net[0].weight
    before = list(net)
    with pytest.raises(ValueError, match=r"no nn.Conv2d to convert: 0: .* shared with 1\.weight"):
        convert_(net, learned=0.5)
    assert list(net) == before
    assert count_parameters(net).total == 8 * 32 + 16


def test_shared_memory_counts_as_shared():
    net = nn.Sequential(nn.Conv2d(8, 8, 2), nn.Conv2d(8, 8, 2), nn.Conv2d(8, 8, 2))
    net[1].weight.data = net[0].weight.data
    with pytest.warns(UserWarning, match="left 2 of 3"):
        convert_(net, learned=0.5)
    assert type(net[2]) is MaskedConv2d


def test_a_buffer_counts_as_a_place():
    net = nn.Sequential(nn.Conv2d(8, 8, 2), nn.Conv2d(8, 8, 2), nn.Module())
    net[2].register_buffer("target", net[0].weight.detach())
    with pytest.warns(UserWarning, match=r"0: its weight is shared with 2\.target"):
        convert_(net, learned=0.5)


def test_merge_leaves_shared_parameters_alone():
    net = nn.Sequential(*(MaskedConv2d(8, 8, 2, learned=4) for _ in range(3)))
    net[1].learned = net[0].learned
    with pytest.warns(UserWarning, match=r"0: its learned is shared with 1\.learned; 1: its"):
        merge_(net)
    assert net[0].learned is net[1].learned
    assert type(net[2]) is nn.Conv2d


@pytest.mark.parametrize("learned", [0, 1, 4, 8])
@pytest.mark.parametrize("slice_dim", [0, 1])
def test_merge_restores_keys_and_values(learned, slice_dim):
    net = Net()
    state = {key: value.clone() for key, value in net.state_dict().items()}
    merged = merge_(convert_(net, learned=learned, slice_dim=slice_dim)).state_dict()
    assert list(merged) == list(state)
    assert all(torch.equal(merged[key], value) for key, value in state.items())
    assert all(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize("call", [lambda net: convert_(net, learned=0.5), merge_])
def test_an_optimizer_of_the_old_parameters_is_named(call):
    net = Net()
    if call is merge_:
        convert_(net, learned=1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.warns(UserWarning, match=r"parameters that an optimizer holds \(SGD\)"):
        call(net)
    del optimizer


def test_an_optimizer_of_other_parameters_is_not(recwarn):
    net = Net()
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in (net.fc, Net())]
    convert_(net, learned=0.5)
    assert not recwarn.list
    del optimizers


def test_a_fraction_that_learns_nothing_is_said_once():
    with pytest.warns(UserWarning, match="learns no filter") as caught:
        convert_(Net(), learned=0.1)
    (warning,) = caught
    assert str(warning.message) == (
        "learned=0.1 learns no filter of these convolutions, which have too few "
        "(the number of filters in parentheses): conv1 (8), conv2 (8)"
    )
    assert warning.filename == __file__


def test_layers_that_were_all_frozen_are_said_once():
    net = Net().requires_grad_(False)
    with pytest.warns(UserWarning, match="no converted layer learns anything") as caught:
        convert_(net, learned=0.5)
    assert len(caught) == 1
    assert count_parameters(net).learned == 0


def test_a_network_that_learns_nothing_somewhere_says_so_once():
    with pytest.warns(UserWarning, match="learns no filter") as caught:
        model = models.create("wrn_10_1", learned=0.05)
    (warning,) = caught
    none = [n for n, layer in model.named_modules() if getattr(layer, "num_learned", 1) == 0]
    assert len(none) == 3
    assert str(warning.message).endswith(": " + ", ".join(f"{name} (16)" for name in none))
    assert warning.filename == __file__


def test_nothing_is_said_of_what_was_asked_for(recwarn):
    models.create("wrn_10_1", learned=0)
    models.create("wrn_10_1", learned=1)
    for learned, slice_dim in ((0, 0), (0.0, 0), (0.125, 0), (0.1, 1), (0.1, 3)):
        convert_(Net(), learned=learned, slice_dim=slice_dim)
    assert not recwarn.list


def test_counts_of_shared_parts():
    first, second = (MaskedConv2d(8, 8, 2, learned=4) for _ in range(2))
    net = nn.Sequential(first, second, first)
    assert count_parameters(net).total == 2 * 264
    second.learned = first.learned
    assert count_parameters(net).total == 2 * 264 - 128
    second.frozen = first.frozen
    second.bias_frozen, second.bias_learned = first.bias_frozen, first.bias_learned
    assert (count_parameters(net).learned, count_parameters(net).total) == (132, 264)


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


def test_selecting_a_part_with_shared_parameters():
    net = Net()
    net.block1 = nn.Sequential(net.conv2, nn.BatchNorm2d(8))
    net.fc2 = nn.Linear(8, 2)
    net.fc2.weight = net.fc.weight
    convert_(net, learned=0.5)
    assert count_parameters(select_learned_(net, "block1")).learned == 4 * 9 + 16
    assert count_parameters(select_learned_(net, "fc")).learned == 18 + 16
    net.conv1 = None
    with pytest.raises(ValueError, match="part is 'conv1'; expected one of all, bn, block1, fc"):
        select_learned_(net, "conv1")
