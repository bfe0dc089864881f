"""bn_relu_conv keeps its input for backward, and no activation."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from bn_relu_layers import FORMATS, MODES, compare, images, layer_of, norm_of

from bench.saved_bytes import saved_bytes
from maskedconv.nn import MaskedConv2d, bn_relu_convs


def test_a_kernel_that_can_recomputes_the_activation_itself(monkeypatch, request):
    from maskedconv.ops import native as compiled
    from maskedconv.ops.dispatch import forget_decisions
    from maskedconv.ops.weight_grad import BACKENDS, reference

    problems = []

    def run(problem):
        problems.append(problem)
        return reference.run(problem)

    kernel = SimpleNamespace(run=run, cannot_run=lambda problem: "", DEVICES=("cpu",))
    monkeypatch.setitem(BACKENDS, "native", kernel)
    request.addfinalizer(forget_decisions)
    forget_decisions()
    layer, x = layer_of(), images(2, 6, 9, 8)
    compare(layer, x, steps=1)
    fused, plain = problems
    assert fused.scale.shape == fused.shift.shape == (6,)
    assert torch.equal(fused.input, x)
    assert plain.scale is None
    # For a view, PyTorch's passes compute the values for ReLU's mask anyway. Without a mask, and in
    # the compiled passes, the values are not available.
    problems.clear()
    wide = images(2, 10, 9, 8)
    compare(layer, wide[:, :6], steps=1)
    assert all(problem.scale is None for problem in problems)
    problems.clear()
    layer.bn.requires_grad_(False)
    layer(wide[:, :6]).sum().backward()
    assert problems[0].scale is not None
    problems.clear()
    if compiled.module() is not None:
        wide = images(2, 10, 9, 8, dtype=torch.float32, memory_format=torch.channels_last)
        layer_of(dtype=torch.float32)(wide[:, :6].detach().requires_grad_()).sum().backward()
        assert problems[0].scale is not None


# Bytes of the five numbers that are kept for each of 6 channels.
STATISTICS = 5 * 6 * 8


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize(("slice_dim", "frozen"), MODES)
def test_only_the_input_and_small_tensors_are_kept(slice_dim, frozen, memory_format):
    layer = layer_of(slice_dim=slice_dim, frozen=frozen).to(memory_format=memory_format)
    x = images(4, 6, 16, 16, memory_format=memory_format).requires_grad_()
    own = [*layer.parameters(), *layer.buffers()]
    kept, beside_input = (saved_bytes(lambda: layer(x), known) for known in (own, [*own, x]))
    if (slice_dim, frozen) == (1, "zero"):
        # Less than the input: 2 of 6 channels, copied.
        assert kept == beside_input <= x.nbytes * 2 / 6 + STATISTICS
    else:
        assert kept == x.nbytes + beside_input
        assert beside_input <= STATISTICS


def test_two_convolutions_keep_the_input_once():
    bn, x = norm_of(), images(4, 6, 16, 16).requires_grad_()
    convs = [MaskedConv2d(6, 8, k, learned=3, dtype=torch.float64) for k in (1, 3)]
    own = [tensor for m in (bn, *convs) for tensor in (*m.parameters(), *m.buffers())]
    assert saved_bytes(lambda: bn_relu_convs(x, bn, convs), own) <= x.nbytes + STATISTICS


def test_the_activation_is_not_even_alive_behind_the_forward_pass():
    """No tensor of the activation's size remains besides the saved tensors."""
    import gc

    layer, x = layer_of(), images(4, 6, 16, 16).requires_grad_()
    before = {id(o) for o in gc.get_objects() if issubclass(type(o), torch.Tensor)}
    out = layer(x)
    after = [o for o in gc.get_objects() if issubclass(type(o), torch.Tensor)]
    new = [o for o in after if id(o) not in before]
    assert [o.shape for o in new if o.numel() >= x.numel()] == [out.shape]
