"""MaskedConv2d against nn.Conv2d with the same filters: outputs and gradients in every mode."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from precision import assert_as_exact
from torch import nn
from torch.nn import functional as F

from maskedconv import explain
from maskedconv.nn import MaskedConv2d

GEOMETRIES = {
    "3x3": {"kernel_size": 3, "padding": 1},
    "1x1": {"kernel_size": 1},
    "stride2": {"kernel_size": 3, "stride": 2, "padding": 1},
    "stride4_k11": {"kernel_size": 11, "stride": 4, "padding": 5},
    "k5": {"kernel_size": 5, "padding": 2},
    "rect": {"kernel_size": (3, 5), "padding": (0, 2), "stride": (2, 1)},
    "dilated": {"kernel_size": 3, "padding": 2, "dilation": 2},
    "same": {"kernel_size": 3, "padding": "same"},
    "same_even": {"kernel_size": (4, 2), "padding": "same"},
    "valid": {"kernel_size": 3, "padding": "valid"},
    "groups": {"kernel_size": 3, "padding": 1, "groups": 2},
    "depthwise": {"kernel_size": 3, "padding": 1, "groups": 6},
    "reflect": {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
    "replicate": {"kernel_size": 3, "padding": 2, "padding_mode": "replicate"},
    "circular": {"kernel_size": 3, "padding": 1, "padding_mode": "circular"},
    "no_bias": {"kernel_size": 3, "padding": 1, "bias": False},
}


def layer_of(learned=0.4, slice_dim=0, frozen="random", dtype=torch.float64, **geometry):
    return MaskedConv2d(
        6, 12, **geometry, learned=learned, slice_dim=slice_dim, frozen=frozen, dtype=dtype
    )


def slice_of(layer, weight_gradient):
    return weight_gradient.narrow(layer.slice_dim, 0, layer.num_learned)


def compare(layer, x, rtol=1e-10, atol=1e-10):
    """Output and gradients of ``layer`` against the plain convolution with the same filters."""
    layer.zero_grad()
    plain = layer.to_conv2d()
    x, plain_x = x.detach().requires_grad_(), x.detach().requires_grad_()
    out, expected = layer(x), plain(plain_x)
    torch.testing.assert_close(out, expected, rtol=rtol, atol=atol)
    grad = torch.randn(expected.shape, dtype=expected.dtype)
    out.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(x.grad, plain_x.grad, rtol=rtol, atol=atol)
    if layer.num_learned:
        assert layer.learned.grad.shape == layer.learned.shape
        expected_grad = slice_of(layer, plain.weight.grad)
        torch.testing.assert_close(
            layer.learned.grad, expected_grad, rtol=rtol, atol=atol, check_stride=False
        )
    if layer.bias_learned is not None:
        count = layer.bias_learned.numel()
        torch.testing.assert_close(
            layer.bias_learned.grad, plain.bias.grad[:count], rtol=rtol, atol=atol
        )


@pytest.mark.parametrize("frozen", ["random", "zero"])
@pytest.mark.parametrize("slice_dim", [0, 1, 2, 3])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_equals_plain_convolution(geometry, slice_dim, frozen):
    layer = layer_of(slice_dim=slice_dim, frozen=frozen, **GEOMETRIES[geometry])
    compare(layer, torch.randn(2, 6, 9, 13, dtype=torch.float64))


@pytest.mark.parametrize("learned", [0, 1, 5, 0.0, 1.0])
@pytest.mark.parametrize("frozen", ["random", "zero"])
@pytest.mark.parametrize("slice_dim", [0, 1, 2, 3])
@pytest.mark.parametrize("groups", [1, 3])
def test_from_nothing_to_all_learned(learned, slice_dim, frozen, groups):
    layer = layer_of(learned, slice_dim, frozen, kernel_size=3, padding=1, groups=groups)
    compare(layer, torch.randn(3, 6, 5, 7, dtype=torch.float64))


@pytest.mark.parametrize("frozen", ["random", "zero"])
@pytest.mark.parametrize("slice_dim", [0, 1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2])
def test_channels_last(slice_dim, frozen, groups):
    layer = layer_of(slice_dim=slice_dim, frozen=frozen, kernel_size=3, padding=1, groups=groups)
    layer.to(memory_format=torch.channels_last)
    x = torch.randn(2, 6, 9, 8, dtype=torch.float64).to(memory_format=torch.channels_last)
    compare(layer, x)
    assert layer(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("frozen", ["random", "zero"])
@pytest.mark.parametrize("slice_dim", [0, 1, 2, 3])
def test_views_as_input_and_gradient(slice_dim, frozen):
    layer = layer_of(slice_dim=slice_dim, frozen=frozen, kernel_size=3, padding=1)
    wide = torch.randn(2, 10, 9, 16, dtype=torch.float64).to(memory_format=torch.channels_last)
    compare(layer, wide[:, 2:8])
    compare(layer, wide[:, 2:8, ::2, 1::3])
    compare(layer, wide.transpose(2, 3)[:, :6])
    x = torch.randn(2, 6, 5, 5, dtype=torch.float64, requires_grad=True)
    layer(x).sum().backward()  # an expanded gradient, of stride 0
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("frozen", ["random", "zero"])
@pytest.mark.parametrize("slice_dim", [0, 1, 2, 3])
@pytest.mark.parametrize("learned", [0, 2, 1.0])
def test_empty_batch_and_single_image(slice_dim, frozen, learned):
    layer = layer_of(learned, slice_dim, frozen, kernel_size=3, padding=1)
    compare(layer, torch.randn(0, 6, 5, 5, dtype=torch.float64))
    compare(layer, torch.randn(6, 5, 5, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("slice_dim", [0, 1, 2, 3])
@pytest.mark.parametrize("frozen", ["random", "zero"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_other_types(dtype, slice_dim, frozen, memory_format):
    """The errors are those of the plain convolution in the same dtype."""
    runs = []
    for seed in range(3):
        torch.manual_seed(seed)
        layer = layer_of(slice_dim=slice_dim, frozen=frozen, kernel_size=3, padding=1, dtype=dtype)
        x = torch.randn(2, 6, 6, 6, dtype=dtype).to(memory_format=memory_format)
        plain = layer.to_conv2d()
        grad = torch.randn(plain(x).shape, dtype=dtype)
        ours = results_of(layer, x, grad)
        assert all(value.dtype == dtype for value in ours.values())
        exact = copy.deepcopy(plain).double()
        runs.append((ours, *(results_of(m, x, grad, layer) for m in (plain, exact))))
    for name in runs[0][0]:
        assert_as_exact(*([run[i][name] for run in runs] for i in range(3)), name)


def results_of(module, x, grad, sliced_as=None):
    """Output and gradients; a plain convolution's gradient is cut to the slice of ``sliced_as``."""
    dtype = module.weight.dtype
    x = x.detach().to(dtype).requires_grad_()
    out = module(x)
    out.backward(grad.to(dtype))
    if sliced_as is None:
        weight, bias = module.learned.grad, module.bias_learned.grad
    else:
        weight = slice_of(sliced_as, module.weight.grad)
        bias = module.bias.grad[: sliced_as.bias_learned.numel()]
    return {"output": out, "input": x.grad, "learned": weight, "bias": bias}


@pytest.mark.parametrize(
    ("slice_dim", "frozen", "groups"),
    list(itertools.product(range(4), ["random", "zero"], [1, 2])),
)
def test_gradcheck(slice_dim, frozen, groups):
    layer = MaskedConv2d(
        4, 6, 3, stride=2, padding=1, groups=groups, learned=2, slice_dim=slice_dim, frozen=frozen,
        dtype=torch.float64,
    )  # fmt: skip
    x = torch.randn(2, 4, 5, 4, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda x, *_: layer(x), (x, layer.learned, layer.bias_learned))


@settings(max_examples=60)
@given(data=st.data())
def test_any_shape(data):
    draw = data.draw
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    channels = groups * draw(st.integers(1, 4))
    filters = groups * draw(st.integers(1, 4))
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    size = [(k - 1) * d + draw(st.integers(1, 6)) for k, d in zip(kernel, dilation, strict=True)]
    slice_dim = draw(st.integers(0, 3))
    bank = (filters, channels // groups, *kernel)
    layer = MaskedConv2d(
        channels, filters, kernel, draw(st.integers(1, 3)), draw(st.integers(0, 2)), dilation,
        groups, draw(st.booleans()), learned=draw(st.integers(0, bank[slice_dim])),
        slice_dim=slice_dim, frozen=draw(st.sampled_from(["random", "zero"])), dtype=torch.float64,
    )  # fmt: skip
    x = torch.randn(draw(st.integers(0, 3)), channels, *size, dtype=torch.float64)
    if draw(st.booleans()):
        x = x.to(memory_format=torch.channels_last)
    compare(layer, x)


def test_functional_takes_parts():
    from maskedconv import masked_conv2d

    x, learned, frozen = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 3, 3), torch.randn(5, 3, 3, 3)
    expected = F.conv2d(x, torch.cat([learned, frozen]), padding=1)
    torch.testing.assert_close(masked_conv2d(x, learned, frozen, padding=1), expected)
    expected = F.conv2d(x, torch.cat([learned, torch.zeros(4, 3, 3, 3)]), stride=2)
    torch.testing.assert_close(masked_conv2d(x, learned, stride=2, zeros=4), expected)


def test_a_layer_made_of_another_keeps_its_backend():
    layer = MaskedConv2d(4, 6, 3, learned=2, backend="reference")
    others = [layer.to_frozen(), layer.drawn_from(1), MaskedConv2d.from_conv2d(layer, learned=3)]
    assert {other.backend for other in others} == {"reference"}
    assert MaskedConv2d.from_conv2d(nn.Conv2d(4, 6, 3), learned=3).backend is None
    assert torch.equal(others[0].weight, layer.weight)
    assert not list(others[0].parameters())


def test_isinstance_of_conv2d():
    layer = layer_of(kernel_size=3)
    assert isinstance(layer, nn.Conv2d)
    assert layer.weight.shape == (12, 6, 3, 3)


@pytest.mark.parametrize(
    ("dtype", "channels", "kernel", "learned"),
    [(torch.float32, 20, 1, 5), (torch.bfloat16, 20, 1, 5), (torch.bfloat16, 40, 1, 5),
     (torch.bfloat16, 16, 1, 3), (torch.bfloat16, 3, 3, 5)],
    ids=str,
)  # fmt: skip
def test_narrow_layers_get_all_gradients_from_one_call(dtype, channels, kernel, learned):
    """If little would be saved, PyTorch computes the gradients of input and filters jointly."""
    conv = nn.Conv2d(channels, 8, kernel, dtype=dtype)
    layer = MaskedConv2d.from_conv2d(conv, learned=learned)
    x = torch.randn(2, channels, 5, 5, dtype=dtype).to(memory_format=torch.channels_last)
    (choice,) = explain(layer, x)
    assert "all filters along with the input's gradient" in str(choice)
    ours, plain = x.clone().requires_grad_(), x.clone().requires_grad_()
    grad = torch.randn_like(conv(x))
    layer(ours).backward(grad)
    conv(plain).backward(grad)
    torch.testing.assert_close(ours.grad, plain.grad)
    torch.testing.assert_close(layer.learned.grad, conv.weight.grad[:learned])
    torch.testing.assert_close(layer.bias_learned.grad, conv.bias.grad[:learned])


@pytest.mark.parametrize(
    ("dtype", "channels", "learned"), [(torch.float32, 40, 5), (torch.bfloat16, 40, 4)], ids=str
)
def test_other_1x1_layers_get_the_gradient_of_the_learned_filters(dtype, channels, learned):
    layer = MaskedConv2d(channels, 8, 1, learned=learned, dtype=dtype)
    x = torch.randn(2, channels, 5, 5, dtype=dtype).to(memory_format=torch.channels_last)
    assert "all filters" not in "".join(map(str, explain(layer, x)))
