"""Exported graphs contain only PyTorch's own operators and compute the same as the layer."""

from __future__ import annotations

import operator
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.ao.quantization import get_default_qconfig_mapping
from torch.ao.quantization.quantize_fx import prepare_fx
from torchvision.models import resnet18
from torchvision.models.feature_extraction import create_feature_extractor

from maskedconv import BNReLUConv2d, MaskedConv2d, convert_, masked_conv2d, models
from maskedconv.nn import SupermaskConv2d, SupermaskEmbedding, SupermaskLinear

OPTIONS = {
    "random": {"learned": 2},
    "rows": {"learned": 2, "slice_dim": 2},
    "zero": {"learned": 2, "frozen": "zero"},
    "zero-channels": {"learned": 2, "slice_dim": 1, "frozen": "zero"},
    "nothing": {"learned": 0},
    "nothing-zero": {"learned": 0, "frozen": "zero"},
    "everything": {"learned": 1.0},
    "no-bias": {"learned": 2, "bias": False},
    "groups": {"learned": 2, "groups": 2},
    "same": {"learned": 2, "padding": "same"},
    "reflect": {"learned": 2, "padding": 1, "padding_mode": "reflect"},
}


class Parts(nn.Module):
    """Uses the function instead of the layer."""

    def __init__(self):
        super().__init__()
        self.learned = nn.Parameter(torch.randn(2, 4, 3, 3))
        self.register_buffer("frozen", torch.randn(3, 4, 3, 3))

    def forward(self, x):
        return masked_conv2d(x, self.learned, self.frozen, padding=1)


def fused():
    return BNReLUConv2d(nn.BatchNorm2d(4), MaskedConv2d(4, 6, 3, learned=2)).eval()


MODELS = {
    **{name: (lambda o=o: MaskedConv2d(4, 6, 3, **o), 4) for name, o in OPTIONS.items()},
    "function": (Parts, 4),
    "BNReLUConv2d": (fused, 4),
    "wrn": (lambda: models.create("wrn_10_1", learned=0.25, seed=0).eval(), 3),
    "densenet": (lambda: models.create("densenet_bc_10_4", learned=0.25, seed=0).eval(), 3),
    "resnet": (lambda: models.create("resnet_8", learned=0.25, seed=0).eval(), 3),
}


def example(name):
    make, channels = MODELS[name]
    torch.manual_seed(0)
    return make(), torch.randn(2, channels, 8, 8)


def trained(module, x):
    """Output, and the gradients of all parameters."""
    names, parameters = zip(*module.named_parameters(), strict=True)
    out = module(x)
    grads = torch.autograd.grad(out.square().sum(), parameters)
    return out, dict(zip(names, grads, strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_symbolic_trace(name):
    model, x = example(name)
    traced = torch.fx.symbolic_trace(model)
    torch.testing.assert_close(traced(x), model(x))
    if list(model.parameters()):
        torch.testing.assert_close(trained(traced, x), trained(model, x))
    buffers = {key for key in model.state_dict() if key.endswith(".frozen") or key == "frozen"}
    assert buffers <= traced.state_dict().keys()


@pytest.mark.parametrize("name", ["BNReLUConv2d", "wrn", "densenet"])
def test_symbolic_trace_in_training(name):
    model, x = example(name)
    model.train()
    traced = torch.fx.symbolic_trace(model)
    expected = trained(model, x)
    torch.testing.assert_close(trained(traced, x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_jit_trace(name, tmp_path):
    model, x = example(name)
    torch.jit.save(torch.jit.trace(model, x), tmp_path / "model.pt")
    loaded = torch.jit.load(tmp_path / "model.pt")
    torch.testing.assert_close(loaded(x), model(x))


def check_exported(name, strict=False):
    model, x = example(name)
    batch = {0: torch.export.Dim("batch", min=2)}
    program = torch.export.export(model, (x,), strict=strict, dynamic_shapes=(batch,))
    calls = {str(n.target) for n in program.graph.nodes if n.op == "call_function"}
    calls -= {str(operator.getitem)}
    assert all(call.startswith("aten.") for call in calls), calls
    more = torch.cat([x, x])
    torch.testing.assert_close(program.module()(more), model(more))


@pytest.mark.parametrize("name", MODELS)
def test_export(name):
    check_exported(name)


@pytest.mark.parametrize("name", ["random", "zero", "wrn"])
def test_export_without_gradients(name):
    with torch.no_grad():
        check_exported(name)


@pytest.mark.parametrize("name", ["random", "function", "BNReLUConv2d", "densenet"])
def test_strict_export(name):
    check_exported(name, strict=True)


LOAD = """
import sys
sys.modules["maskedconv"] = None  # an import of it fails
import torch
x, expected = torch.load(sys.argv[2])
torch.testing.assert_close(torch.export.load(sys.argv[1]).module()(x), expected)
assert not any(name.startswith("maskedconv.") for name in sys.modules)
"""


def test_an_exported_file_loads_without_this_package(tmp_path):
    model, x = example("wrn")
    torch.export.save(torch.export.export(model, (x,)), tmp_path / "model.pt2")
    torch.save((x, model(x).detach()), tmp_path / "values.pt")
    files = [str(tmp_path / name) for name in ("model.pt2", "values.pt")]
    subprocess.run([sys.executable, "-c", LOAD, *files], check=True, cwd=tmp_path)


def test_torchvision_feature_extractor():
    model = convert_(resnet18().eval(), learned=0.1)
    x = torch.randn(1, 3, 64, 64)
    features = create_feature_extractor(model, ["conv1", "layer2", "fc"])(x)
    torch.testing.assert_close(features["conv1"], model.conv1(x))
    torch.testing.assert_close(features["fc"], model(x))
    assert features["layer2"].shape == (1, 128, 8, 8)


def test_prepare_fx():
    model, x = example("resnet")
    prepared = prepare_fx(model, get_default_qconfig_mapping("x86"), (x,))
    torch.testing.assert_close(prepared(x), model(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", OPTIONS)
def test_without_gradients_it_is_one_convolution(name, dtype):
    layer, x = example(name)
    plain = layer.to_conv2d()
    with torch.no_grad():
        for _ in range(2):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype != x.dtype):
                out, expected = layer(x), plain(x)
            torch.testing.assert_close(out, expected)
            layer.weight.mul_(0.5)
            plain.weight.mul_(0.5)


def test_compiled_for_this_process_it_is_the_operator():
    """torch.compile is no export: backward computes only the learned slice."""
    layer, x = example("random")
    targets = []

    def backend(graph, _):
        targets.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    torch.compile(layer, fullgraph=True, backend=backend)(x)
    assert any("autograd_function_apply" in target for target in targets), targets


@pytest.mark.parametrize("kind", [SupermaskConv2d, SupermaskLinear, SupermaskEmbedding])
def test_fx_refuses_supermasks_unless_they_are_leaves(kind):
    model = nn.Sequential(nn.Identity(), *kind.examples()).to_empty(device="cpu")
    model[1].reset_parameters()
    with pytest.raises(TypeError, match=f"the inside of a {kind.__name__}; .*leaf_modules"):
        torch.fx.symbolic_trace(model)
    traced = create_feature_extractor(model, {"1": "out"}, tracer_kwargs={"leaf_modules": [kind]})
    x = torch.zeros(1, 2, dtype=torch.long) if kind is SupermaskEmbedding else torch.ones(1, 2)
    x = x[..., None, None] if kind is SupermaskConv2d else x
    assert torch.equal(traced(x)["out"], model(x))
