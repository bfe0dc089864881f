"""BNReLUConv2d as a module: compiled, with hooks, copied, and with input that it refuses."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from bn_relu_layers import MODES, NORMS, compare, images, layer_of, norm_of
from torch import nn

from maskedconv.functional.filter_bank import FilterBank
from maskedconv.nn import BNReLUConv2d, MaskedConv2d, bn_relu, bn_relu_conv


@pytest.mark.parametrize("norm", ["usual", "cumulative"])
@pytest.mark.parametrize(("slice_dim", "frozen"), MODES)
def test_compiled_training_step_is_the_same(slice_dim, frozen, norm):
    layer = layer_of(slice_dim=slice_dim, frozen=frozen, norm=NORMS[norm])
    other, x = copy.deepcopy(layer), images(2, 6, 6, 6)
    torch.compiler.reset()  # else the cases count as recompilations of one function
    compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
    results = []
    for call, module in ((layer, layer), (compiled, other)):
        own = x.clone().requires_grad_()
        out = call(own)
        out.square().sum().backward()
        results.append(
            [out.detach(), own.grad, *(p.grad for p in module.parameters()), *module.buffers()]
        )
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12, check_stride=False)


def test_hooks_and_other_modules_still_run():
    layer, x = layer_of(), images(2, 6, 5, 5)
    expected, seen = layer(x), []
    for module in (layer.bn, layer.conv):
        handle = module.register_forward_hook(lambda module, *_: seen.append(type(module)))
        torch.testing.assert_close(layer(x), expected)
        handle.remove()
    assert seen == [nn.BatchNorm2d, MaskedConv2d]

    class Doubled(nn.BatchNorm2d):
        def forward(self, input):
            return 2 * super().forward(input)

    doubled = Doubled(6).double()
    doubled.load_state_dict(layer.bn.state_dict())
    torch.testing.assert_close(bn_relu(x, doubled), 2 * bn_relu(x, layer.bn))


def test_checkpointed_deep_copied_and_pickled():
    layer, x = layer_of(), images(2, 6, 5, 5)
    expected = layer.eval()(x)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x), expected)
    assert set(layer.state_dict()) == {
        "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var", "bn.num_batches_tracked",
        "conv.learned", "conv.frozen", "conv.bias_learned", "conv.bias_frozen",
    }  # fmt: skip


def test_changed_filters_before_backward_are_noticed():
    layer, x = layer_of(), images(2, 6, 5, 5)
    out = layer(x)
    with torch.no_grad():
        layer.conv.learned.add_(1)
    with pytest.raises(RuntimeError, match="inplace operation"):
        out.sum().backward()


CHANGES = {
    "dilated": {"dilation": (2, 2), "padding": (2, 2)},
    "int": {"padding": 2},
    "one_side": {"padding": (0, 2), "stride": (2, 1)},
    "same": {"padding": "same"},
    "same_dilated": {"padding": "same", "dilation": (2, 2)},
    "valid": {"padding": "valid"},
}


@pytest.mark.parametrize("kind", ["masked", "plain"])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("start", ["1", "same_even"])
def test_a_geometry_set_after_construction(start, change, kind):
    """Segmentation networks do this; PyTorch reads these attributes and none derived from them."""
    geometry = {"kernel_size": (3, 4), "padding": "same"} if start == "same_even" else {}
    layer = layer_of(**(geometry or {"kernel_size": 3, "padding": 1}))
    if kind == "plain":
        layer.conv = layer.conv.to_conv2d()
    for name, value in CHANGES[change].items():
        setattr(layer.conv, name, value)
    compare(layer, images(2, 6, 9, 9))


@pytest.mark.parametrize("padding", [1, (1, 0)], ids=["int", "pair"])
def test_padding_in_pixels_needs_no_shape(padding, monkeypatch):
    """The shape of the filters takes longer than the rest of the plan, and each step asks."""
    layer = layer_of(kernel_size=3)
    layer.conv.padding = padding
    monkeypatch.setattr(FilterBank, "shape", None)
    compare(layer, images(2, 6, 5, 5))


def test_a_replaced_conv_forward_runs():
    x = images(2, 6, 5, 5)
    for conv in (layer_of().conv, layer_of().conv.to_conv2d()):
        layer = BNReLUConv2d(norm_of(), conv).eval()
        expected, conv_forward = layer(x), conv._conv_forward
        conv._conv_forward = lambda *args, call=conv_forward: 2 * call(*args)
        torch.testing.assert_close(layer(x), 2 * expected)
        torch.testing.assert_close(conv(x), 2 * conv_forward(x, conv.weight, conv.bias))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("batch", [0, 1])
def test_batches_too_small_for_statistics(training, batch):
    layer = layer_of(kernel_size=1).train(training)
    x = images(batch, 6, 1, 1).requires_grad_()
    if training and batch:
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            layer(x)
    elif training:
        compare(layer, x)
    else:
        layer(x).sum().backward()
        assert x.grad.shape == x.shape


def test_bad_input_is_refused():
    layer = layer_of()
    with pytest.raises(ValueError, match="bn has 5 channels; expected the 6"):
        BNReLUConv2d(nn.BatchNorm2d(5), layer.conv)
    with pytest.raises(ValueError, match="4D"):
        layer(images(6, 5, 5))
    with pytest.raises(RuntimeError, match="6"):
        layer(images(2, 5, 5, 5))
    with pytest.raises((TypeError, RuntimeError)):
        layer(images(2, 6, 5, 5, dtype=torch.float32))
    with pytest.raises(ValueError, match="input has 5 channels; expected 6"):
        bn_relu_conv(images(2, 5, 9, 9), norm_of(5), layer.conv)
