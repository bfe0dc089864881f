"""bn_relu_conv in single and half precision and under autocast, against the three modules."""

from __future__ import annotations

import copy

import pytest
import torch
from bn_relu_layers import FORMATS, MODES, NORMS, compare, images, layer_of, three_modules
from precision import assert_as_exact, rms_error


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("params", ["same", "float32"])
def test_other_types(dtype, memory_format, training, params):
    """The errors are those of the three modules; autocast computes in ``dtype``."""
    autocast = params != "same" and dtype.itemsize == 2
    runs = []
    for seed in range(3):
        torch.manual_seed(seed)
        layer = layer_of(dtype=dtype if params == "same" else torch.float32)
        layer = layer.to(memory_format=memory_format).train(training)
        plain, exact = copy.deepcopy(layer), copy.deepcopy(layer).double()
        x = images(4, 6, 8, 8, dtype=dtype, memory_format=memory_format)
        grad = torch.randn(plain.conv(x.to(plain.conv.weight.dtype)).shape).to(dtype)
        with torch.autocast("cpu", dtype=dtype, enabled=autocast):
            ours, theirs = (
                results_of(layer, layer, x, grad),
                results_of(lambda x, plain=plain: three_modules(plain, x), plain, x, grad),
            )
        assert ours["output"].dtype == ours["input"].dtype == dtype
        for parameter in layer.parameters():
            assert parameter.grad.dtype == parameter.dtype
        double = results_of(
            lambda x, exact=exact: three_modules(exact, x), exact, x.double(), grad.double()
        )
        runs.append((ours, theirs, double))
    for name in runs[0][0]:
        results = ([run[i][name] for run in runs] for i in range(3))
        assert_as_exact(*results, name, measure=rms_error, dtype=dtype)


def results_of(forward, module, x, grad):
    """Output and gradients by name."""
    x = x.detach().requires_grad_()
    out = forward(x)
    out.backward(grad)
    grads = {name: parameter.grad for name, parameter in module.named_parameters()}
    return {"output": out, "input": x.grad, **grads}


@pytest.mark.parametrize("surplus", [0, 5], ids=["dense", "view"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("slice_dim", "frozen"), MODES)
def test_in_single_precision_and_channels_last(slice_dim, frozen, norm, training, surplus):
    """Problems for which the compiled passes run."""
    layer = layer_of(
        slice_dim=slice_dim, frozen=frozen, dtype=torch.float32, norm=NORMS[norm]
    ).train(training)
    wide = images(4, 6 + surplus, 9, 8, dtype=torch.float32, memory_format=torch.channels_last)
    compare(layer, wide[:, :6], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_autocast_equals_the_three_modules_under_autocast(dtype):
    layer = layer_of(dtype=torch.float32)
    plain, x = copy.deepcopy(layer), images(4, 6, 8, 8, dtype=dtype)
    results = []
    for module, call in ((layer, layer), (plain, lambda x: three_modules(plain, x))):
        own = x.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = call(own)
        out.float().square().sum().backward()
        results.append([out, own.grad, *(p.grad for p in module.parameters())])
    for ours, theirs in zip(*results, strict=True):
        assert ours.dtype == theirs.dtype
        assert (ours - theirs).norm() / theirs.norm() < 2e-2
