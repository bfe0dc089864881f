"""A merged network of every method can be exported and quantised by PyTorch's tools."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from test_summary import METHODS, network

from maskedconv import convert_, merge_

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(params=METHODS)
def exported(request):
    """A merged network in evaluation, an input, and the output before merging."""
    model = convert_(network(), method=METHODS[request.param], seed=0)
    x = torch.randn(2, 3, 6, 6)
    model(x)  # BatchNorm has statistics
    with torch.no_grad():
        expected = model.eval()(x)
    return merge_(model), x, expected


@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
def test_onnx(exported, dynamo):
    onnxruntime = pytest.importorskip("onnxruntime")
    if dynamo:
        pytest.importorskip("onnxscript")
    else:
        pytest.importorskip("onnx")
    model, x, expected = exported
    file = io.BytesIO()
    if dynamo:
        torch.onnx.export(model, (x,), dynamo=True, verbose=False).save(file)
    else:
        torch.onnx.export(model, (x,), file, dynamo=False)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), expected)


def test_torch_export(exported):
    model, x, expected = exported
    file = io.BytesIO()
    torch.export.save(torch.export.export(model, (x,)), file)
    file.seek(0)
    torch.testing.assert_close(torch.export.load(file).module()(x), expected)


def test_torchscript(exported):
    model, x, expected = exported
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(model), file)
    file.seek(0)
    torch.testing.assert_close(torch.jit.load(file)(x), expected)


def test_torchao_quantises_linear_layers_to_8_bits(exported):
    quantization = pytest.importorskip("torchao.quantization")
    model, x, expected = exported
    quantised = copy.deepcopy(model)
    quantization.quantize_(quantised, quantization.Int8WeightOnlyConfig())
    assert type(quantised[-1].weight) is not torch.nn.Parameter
    error = (quantised(x) - expected).abs().max()
    # Rounding moves a weight by at most half of a step of 1/127 of its row's largest value.
    with torch.no_grad():
        features = model[:-1](x)
        step = model[-1].weight.abs().amax(1) / 127
    assert 0 < error <= 0.51 * (features.abs().sum(1, keepdim=True) * step).max()


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_pt2e_quantises_convolutions_to_8_bits(exported):
    pt2e = pytest.importorskip("torchao.quantization.pt2e.quantize_pt2e")
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    model, x, expected = exported
    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = pt2e.prepare_pt2e(torch.export.export(model, (x,), strict=True).module(), quantizer)
    prepared(x)
    quantised = pt2e.convert_pt2e(prepared)
    convolutions = [n for n in quantised.graph.nodes if n.target is torch.ops.aten.conv2d.default]
    assert len(convolutions) == 2
    for node in convolutions:
        assert all("dequantize_per" in str(read.target) for read in node.args[:2])
    found = quantised(x)
    # Several roundings, each by at most half of a step of 1/127 or 1/255 of the largest value.
    assert 0 < (found - expected).abs().max() < 0.05 * expected.abs().max()
