"""The comparison of a kernel's outputs before it is chosen: right ones pass, wrong ones do not."""

from __future__ import annotations

import sys

import emulation
import pytest
import test_bn_relu
import test_weight_grad
import torch

from maskedconv.ops import agreement, native
from maskedconv.ops.agreement import TOLERANCE, fault_of, outputs_of
from maskedconv.ops.bn_relu import BACKWARD, FORWARD, NormProblem
from maskedconv.ops.bn_statistics import OF_SUM, OPERATOR, StatisticsProblem
from maskedconv.ops.masked_weight import (
    APPLY,
    FIND,
    GRAD,
    MaskProblem,
    ScoreGradProblem,
    Threshold,
    ThresholdProblem,
)
from maskedconv.ops.pack_filters import OPERATOR as PACK
from maskedconv.ops.pack_filters import PackProblem

WEIGHT_GRAD = sys.modules["maskedconv.ops.weight_grad"].OPERATOR
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
DEAD = 3  # a channel without spread: its 1 / deviation is 316


def images(dtype):
    x = torch.randn(8, 16, 12, 12) + torch.randn(16, 1, 1)
    x[:, DEAD] = 0.5
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


def norm_problem(dtype):
    input = images(dtype)
    var, mean = torch.var_mean(input.float(), (0, 2, 3), correction=0)
    affine = torch.rand(16) + 0.5, torch.randn(16)
    norm = test_bn_relu.Normalisation.of_moments(*affine, (mean, var), 1e-5, True)
    return NormProblem(input, norm, grad=torch.randn_like(input))


def statistics_problem(dtype):
    input = images(dtype)
    affine = torch.rand(16) + 0.5, torch.randn(16)
    return StatisticsProblem(input, *affine, 1e-5)


def sum_problem(dtype):
    problem = statistics_problem(dtype)
    return problem._replace(summand=images(dtype), total=torch.empty_like(problem.input))


def weight_problem(dtype):
    return test_weight_grad.make_problem(
        test_weight_grad.SHAPES["3x3"], 16, 8, (12, 12), 4, dtype, prologue=True
    )


def mask_problem(dtype):
    threshold = Threshold(torch.tensor(0.7), torch.tensor(0))
    return MaskProblem(*torch.randn(2, 16, 8, 3, 3), threshold, False, 1.5, dtype)


PROBLEMS = {
    "bn_relu": (FORWARD, norm_problem),
    "bn_relu_backward": (BACKWARD, norm_problem),
    "bn_statistics": (OPERATOR, statistics_problem),
    "bn_statistics_of_sum": (OF_SUM, sum_problem),
    "weight_grad": (WEIGHT_GRAD, weight_problem),
    "pack_filters": (
        PACK,
        lambda dtype: PackProblem(
            *torch.randn(2, 8, 8, 3, 3), 0, dtype, torch.channels_last
        ),
    ),
    "masked_weight": (APPLY, mask_problem),
    "find_threshold": (FIND, lambda dtype: ThresholdProblem(torch.randn(16, 8, 3, 3), 300)),
    "score_grad": (
        GRAD,
        lambda dtype: ScoreGradProblem(*torch.randn(3, 16, 8, 3, 3), False, 1.0, dtype),
    ),
}  # fmt: skip
ON_CPU = [name for name, (operator, _) in PROBLEMS.items() if "native" in operator.backends]
COMPILED = pytest.mark.skipif(native.module() is None, reason=native.REASON)


def outputs_by(operator, problem, backend="reference"):
    return outputs_of(operator.run(operator.backends[backend], problem))


def fault(operator, problem, spoil=lambda outputs: outputs, backend="reference"):
    """Fault of the outputs of ``backend``, which ``spoil`` changes in place."""
    expected = outputs_by(operator, problem)
    found = tuple(part.clone() for part in outputs_by(operator, problem, backend))
    spoil(found)
    return fault_of(operator.compare, problem, found, expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ON_CPU)
def test_a_right_kernel_passes(name, dtype):
    operator, make = PROBLEMS[name]
    problem = make(dtype)
    if reason := operator.backends["native"].cannot_run(problem):
        pytest.skip(reason)
    assert fault(operator, problem, backend="native") == ""


ON_GPU = (
    "bn_relu", "bn_relu_backward", "bn_statistics", "bn_statistics_of_sum", "pack_filters",
    "weight_grad",
)  # fmt: skip


@pytest.mark.skipif(emulation.compiler() is None, reason="there is no C++ compiler")
@pytest.mark.usefixtures("pretended_gpu")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ON_GPU)
def test_an_emulated_kernel_of_the_gpu_passes(name, dtype):
    """In float32, the weight gradient's products are in TF32."""
    operator, make = PROBLEMS[name]
    assert fault(operator, make(dtype), backend="cuda") == ""


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", PROBLEMS)
def test_every_output_and_channel_counts(name, dtype):
    """No output hides another one, and no channel the others."""
    operator, make = PROBLEMS[name]
    problem = make(dtype)
    outputs = outputs_by(operator, problem)
    for place, output in enumerate(outputs):
        by_channel = output.dim() - 1 if output.dim() <= 2 else 1
        for channel in range(output.size(by_channel)):
            part = output.select(by_channel, channel).double().abs()
            for value in (0.0, torch.nan):
                if value == 0.0 and not part.any():
                    continue  # of a dead channel

                def spoil(found, place=place, dim=by_channel, channel=channel, value=value):
                    found[place].select(dim, channel).fill_(value)

                assert fault(operator, problem, spoil), (place, channel, value)


@pytest.mark.parametrize("row", range(5))
def test_a_dead_channel_does_not_hide_the_others_statistics(row):
    problem = statistics_problem(torch.bfloat16)
    others = torch.arange(16) != DEAD

    def spoil(found):
        found[0][row, others] = 0.0

    assert fault(OPERATOR, problem, spoil)


def test_large_sums_do_not_hide_the_inputs_gradient():
    problem = test_bn_relu.make_problem((8, 16, 64, 64))
    problem = problem._replace(grad=torch.randn_like(problem.input) + 1)
    expected = outputs_by(BACKWARD, problem)
    assert expected[1].abs().max() > 100 * expected[0].abs().max()
    message = fault(BACKWARD, problem, lambda found: found[0].zero_())
    assert message.startswith("is off by ")
    assert " in grad_input where values reach " in message
    assert "in grad_bias" in fault(BACKWARD, problem, lambda found: found[2].zero_())


@COMPILED
@pytest.mark.parametrize("affine", [(True, False), (False, True), (False, False)])
def test_gradients_are_named_where_one_is_missing(affine):
    problem = norm_problem(torch.float32)
    norm = problem.norm
    weight, bias = (part if given else None for part, given in zip(norm[:2], affine, strict=True))
    norm = norm.of_moments(weight, bias, norm.moments(), norm.eps, True)
    problem = problem._replace(norm=norm)
    assert fault(BACKWARD, problem, backend="native") == ""
    names = ("grad_weight", "grad_bias")
    given = [name for name, has in zip(names, affine, strict=True) if has]
    for place, name in enumerate(given):
        assert f"in {name}" in fault(BACKWARD, problem, lambda f, p=place + 1: f[p].zero_())


@COMPILED
def test_where_rounding_decides_the_relu_nothing_is_compared():
    """Otherwise a kernel would be called faulty for the last bit of a large gradient's argument."""
    problem = norm_problem(torch.float32)
    weight, _, statistics, *_ = problem.norm
    mean = statistics[0].view(-1, 1, 1)
    # Arguments are 0 except for rounding, of either sign.
    problem.input[:4] = torch.nextafter(mean, mean + torch.randn(4, 16, 12, 12))
    var, mean = torch.var_mean(problem.input, (0, 2, 3), correction=0)
    problem.input[:4] = mean.view(-1, 1, 1)
    norm = problem.norm.of_moments(weight, None, (mean, var), 1e-5, True)
    problem = problem._replace(norm=norm)
    expected = outputs_by(BACKWARD, problem)
    shifted = norm._replace(statistics=norm.statistics.clone())
    shifted.statistics[4] += 1e-6
    found = outputs_by(BACKWARD, problem._replace(norm=shifted), "native")
    assert (found[0] - expected[0]).abs().max() > TOLERANCE * expected[0].abs().max()
    assert fault_of(BACKWARD.compare, problem, found, expected) == ""


@pytest.mark.parametrize("missing", [(slice(1), 0), (slice(None), slice(11, None))])
def test_a_missing_row_of_pixels_is_noticed(missing):
    """A weight gradient without the products of some pixels."""
    problem = weight_problem(torch.bfloat16)
    grad = problem.grad_output.clone()
    grad[missing[0], :, missing[1]] = 0.0
    partial = WEIGHT_GRAD.backends["reference"].run(problem._replace(grad_output=grad))
    assert fault(WEIGHT_GRAD, problem, lambda found: found[0].copy_(partial))


@COMPILED
def test_one_filter_may_be_small_beside_another():
    problem = weight_problem(torch.float32)
    problem.grad_output[:, 0] *= 1e4
    assert fault(WEIGHT_GRAD, problem, backend="native") == ""
    assert fault(WEIGHT_GRAD, problem, lambda found: found[0][1].zero_())


def test_a_sum_that_cancels_is_no_fault():
    """In the gradient of a filter of one weight, chance decides how small it is."""
    problem = test_weight_grad.make_problem(
        test_weight_grad.SHAPES["1x1"], 1, 8, (12, 12), 4, torch.bfloat16
    )
    right = test_weight_grad.expected_of(problem)[0]
    grad = problem.grad_output
    grad[:, 0] -= (right / (problem.input.double() ** 2).sum() * problem.input).to(grad.dtype)[:, 0]

    def spoil(found):
        found[0].copy_(test_weight_grad.expected_of(problem, torch.float32).to(torch.bfloat16))

    assert fault(WEIGHT_GRAD, problem, spoil) == ""


def test_pieces_are_the_whole(monkeypatch):
    monkeypatch.setattr(agreement, "_PIECE", 50)
    tensor = torch.arange(2 * 3 * 7 * 11).view(2, 3, 7, 11)
    parts = [piece for piece, _ in agreement.pieces(tensor, tensor)]
    assert all(piece.numel() <= 50 for piece in parts)
    assert all(piece.size(1) == 3 for piece in parts)
    assert sorted(torch.cat([piece.flatten() for piece in parts]).tolist()) == list(range(462))
    assert [len(piece) for (piece,) in agreement.pieces(torch.zeros(1, 60))] == [1]
    assert list(agreement.pieces(torch.zeros(0))) == []


def test_the_last_piece_counts(monkeypatch):
    monkeypatch.setattr(agreement, "_PIECE", 50)

    def spoil(found):
        found[0][-1, -1, -1, -1] += 1.0

    for operator, make in (PROBLEMS["bn_relu"], PROBLEMS["bn_relu_backward"]):
        problem = make(torch.float32)
        assert fault(operator, problem) == ""
        assert fault(operator, problem, spoil)


def test_new_memory_is_not_what_another_kernel_left():
    with agreement.Unwritten():
        made = [
            torch.empty(3), torch.empty(2, 3).new_empty(4), torch.empty_like(torch.ones(2, 2)),
            torch.empty_strided((2, 2), (1, 2)), torch.ones(2).new_empty_strided((2,), (1,)),
        ]  # fmt: skip
        counts = torch.empty(3, dtype=torch.int32).zero_()
    assert all(bool(tensor.isnan().all()) for tensor in made)
    assert not counts.any()
