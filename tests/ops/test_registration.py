"""The registered operators: schema, fake and autograd checks, and compiled training steps."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional as F

from maskedconv import models
from maskedconv.functional import block_operators, step_operator  # noqa: F401  registers them
from maskedconv.ops.masked_weight import find_threshold, masked_weight, score_grad


def packed(slice_dim, dtype, channels_last):
    whole = torch.randn(6, 5, 3, 3)
    parts = whole.narrow(slice_dim, 0, 1), whole.narrow(slice_dim, 1, whole.size(slice_dim) - 1)
    return (*parts, slice_dim, dtype, channels_last, "")


@pytest.mark.parametrize("slice_dim", range(4))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
def test_opcheck_pack_filters(slice_dim, dtype, channels_last):
    arguments = packed(slice_dim, dtype, channels_last)
    torch.library.opcheck(torch.ops.maskedconv.pack_filters.default, arguments)


@pytest.mark.parametrize("slice_dim", range(4))
@pytest.mark.parametrize("prologue", [False, True])
@pytest.mark.parametrize("kernel", [1, 3])
def test_opcheck_weight_grad(slice_dim, prologue, kernel):
    x = torch.randn(2, 5, 8, 8).to(memory_format=torch.channels_last)
    grad = torch.randn(2, 6, 8, 8).to(memory_format=torch.channels_last)
    shape = [6, 5, kernel, kernel]
    shape[slice_dim] = min(2, shape[slice_dim])
    if slice_dim == 1:
        x = x[:, :2].contiguous(memory_format=torch.channels_last)
    affine = (torch.rand(x.size(1)), torch.rand(x.size(1))) if prologue else (None, None)
    padding = [kernel // 2] * 2
    arguments = (x, grad, shape, slice_dim, [1, 1], padding, [1, 1], 1, *affine, "", torch.float32)
    torch.library.opcheck(torch.ops.maskedconv.weight_grad.default, arguments)


@pytest.mark.parametrize("zeros", [0, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_opcheck_bn_relu_convs_backward(zeros, layout):
    x, grad = (torch.randn(2, c, 6, 6).to(memory_format=layout) for c in (5, 7))
    frozen = None if zeros else torch.randn(3, 5, 3, 3)
    norm = torch.rand(5), torch.rand(5), torch.rand(5, 5) + 0.1
    filters = [torch.randn(4, 5, 3, 3), frozen, None, None]
    numbers, needs = [1, 1, 1, 1, 1, 1, 1, 0, zeros], [True] * 4 + [False]
    rest = (1e-5, True, numbers, "", torch.float32, [grad], needs)
    operator = torch.ops.maskedconv.bn_relu_convs_backward.default
    torch.library.opcheck(operator, (x, *norm, filters, *rest))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_opcheck_dense_block(training, layout):
    x = torch.randn(2, 4, 5, 6).to(memory_format=layout)
    sizes = [(4, 6, 1), (6, 3, 3), (7, 6, 1), (6, 3, 3)]  # channels, filters, kernel of each unit
    tensors, numbers = [], []
    for channels, filters, kernel in sizes:
        fixed = None if training else torch.rand(5, channels) + 0.1
        bank = torch.randn(2, channels, kernel, kernel)
        frozen = torch.randn(filters - 2, channels, kernel, kernel)
        tensors += [torch.rand(channels), torch.rand(channels), fixed, bank, frozen, None, None]
        numbers += [1, 1, kernel // 2, kernel // 2, 1, 1, 1, 0, 0]
    plan = ([2, 2], [1e-5] * 4, [training] * 4, numbers, [""] * 4)
    operators = torch.ops.maskedconv
    torch.library.opcheck(operators.dense_block.default, (x, tensors, *plan))
    features, *kept = operators.dense_block(x, tensors, *plan)
    statistics, values = (kept[:4], kept[4:]) if training else ([], kept)
    needs = [True] + [True, True, True, False] * 4
    arguments = (features, statistics, values, tensors, *plan, torch.randn_like(features), needs)
    torch.library.opcheck(operators.dense_block_backward.default, arguments)


def supermask(layout):
    weight, score = (torch.randn(6, 5, 3, 3).to(memory_format=layout) for _ in range(2))
    return weight, score, torch.tensor(0.5), torch.tensor(7)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_opcheck_masked_weight(layout, dtype):
    operators, tensors = torch.ops.maskedconv, supermask(layout)
    torch.library.opcheck(operators.find_threshold.default, (tensors[1], 100))
    for binary in (False, True):
        rest = (binary, 0.7, dtype)
        torch.library.opcheck(operators.masked_weight.default, (*tensors, *rest))
        rest = (binary, 0.7, torch.float32)
        gradient = tensors[0].to(dtype), *tensors[:2]
        torch.library.opcheck(operators.score_grad.default, (*gradient, *rest))


class _Supermask(torch.autograd.Function):
    """The weight of a layer that learns scores."""

    @staticmethod
    def forward(ctx, weight, score, num_kept):
        ctx.save_for_backward(weight, score)
        return masked_weight(weight, score, find_threshold(score, num_kept), dtype=torch.bfloat16)

    @staticmethod
    def backward(ctx, grad):
        return None, score_grad(grad, *ctx.saved_tensors), None


@pytest.mark.parametrize("backend", ["inductor", "aot_eager"])
def test_a_compiled_supermask_is_the_same(backend):
    weight, score, *_ = supermask(torch.channels_last)
    scores = [score.clone().requires_grad_() for _ in range(2)]

    def loss(score):
        return _Supermask.apply(weight, score, 100).float().square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    for function, own in zip((loss, compiled), scores, strict=True):
        function(own).backward()
    torch.testing.assert_close(compiled(scores[1]), loss(scores[0]))
    torch.testing.assert_close(scores[1].grad, scores[0].grad)


def step(model, x, labels):
    loss = F.cross_entropy(model(x), labels)
    loss.backward()
    return loss


@pytest.mark.parametrize(("frozen", "backend"), [("random", "inductor"), ("zero", "aot_eager")])
def test_a_compiled_training_step_is_the_same(frozen, backend):
    model = models.create("wrn_10_1", learned=0.25, frozen=frozen, seed=0, image_size=8)
    model.to(memory_format=torch.channels_last)
    other = copy.deepcopy(model)
    x = torch.randn(4, 3, 8, 8).to(memory_format=torch.channels_last)
    labels = torch.tensor([0, 1, 2, 3])
    loss = step(model, x, labels)
    compiled = step(torch.compile(other, fullgraph=True, backend=backend), x, labels)
    torch.testing.assert_close(compiled, loss)
    expected = dict(model.named_parameters())
    for name, parameter in other.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-4, atol=1e-5)
