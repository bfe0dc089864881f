"""BatchNorm's operators: their numbers against float64, and their times."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.gpu_check import shapes
from bench.gpu_check.device import Device
from bench.gpu_check.problems import errors, verdict
from bench.gpu_check.record import NotHere
from bench.gpu_check.shapes import Norm
from bench.timing import quantiles
from maskedconv.ops.agreement import NOISE, Outputs, Unwritten, fault_of, outputs_of
from maskedconv.ops.bn_relu import BACKWARD, FORWARD, Normalisation, NormProblem
from maskedconv.ops.bn_statistics import OF_SUM, OPERATOR, RunningStatistics, StatisticsProblem
from maskedconv.ops.dispatch import Operator

OPERATORS = {operator.name: operator for operator in (OPERATOR, OF_SUM, FORWARD, BACKWARD)}
REPETITIONS = {"cuda": 30, "cpu": 3}
# How often each pixel is read or written, at least.
PASSES = {"bn_statistics": 1, "bn_statistics_of_sum": 3, "bn_relu": 2, "bn_relu_backward": 5}
# Allowance for the mean deviation: one rounding of the type; sums are in float32.
EPS = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11, torch.float32: NOISE, torch.int64: 0.0}
MOMENTUM, SEEN = 0.1, 3  # batches before
NORM_EPS = 1e-3
Problem = StatisticsProblem | NormProblem


def problem_of(name: str, shape: Norm, device_name: str) -> Problem:
    """The operator's problem, always with the same values."""
    device, dtype = torch.device(device_name), getattr(torch, shape.dtype)
    generator = torch.Generator(device).manual_seed(0)

    def images(pitch: int, mean: float) -> Tensor:
        size = (shape.batch, shape.size, shape.size, pitch)
        values = torch.randn(size, generator=generator, device=device) + mean
        return values.to(dtype).permute(0, 3, 1, 2)[:, : shape.channels]

    input, other = images(shape.pitch or shape.channels, 1.0), images(shape.channels, 0.0)
    weight, bias = torch.rand(2, shape.channels, generator=generator, device=device) + 0.5
    if name in (OPERATOR.name, OF_SUM.name):
        summand = other if name == OF_SUM.name else None
        return StatisticsProblem(input, weight, bias, NORM_EPS, summand=summand)
    var, mean = torch.var_mean(input.double(), (0, 2, 3), correction=0)
    norm = Normalisation.of_moments(weight, bias, (mean.float(), var.float()), NORM_EPS, True)
    return NormProblem(input, norm, grad=other if name == BACKWARD.name else None)


def exact(problem: Problem) -> tuple[Tensor, ...]:
    """The operator's outputs in float64, by the formulae of BatchNorm."""
    if isinstance(problem, StatisticsProblem):
        if problem.summand is None:
            return (_exact_statistics(problem, problem.input),)
        total = problem.input + problem.summand
        return _exact_statistics(problem, total), total
    x = problem.input.double()
    mean, _, inverse, scale, shift = problem.norm.statistics.double().view(5, -1, 1, 1)
    result = x * scale + shift
    if problem.grad is None:
        return (result.relu(),)
    grad = torch.where(result > 0, problem.grad.double(), 0.0)
    normalised = (x - mean) * inverse
    grad_weight, grad_bias = ((grad * normalised).sum((0, 2, 3)), grad.sum((0, 2, 3)))
    moved = (grad_bias.view(-1, 1, 1) + normalised * grad_weight.view(-1, 1, 1)) * grad_bias.numel()
    return scale * (grad - moved / x.numel()), grad_weight, grad_bias


def _exact_statistics(problem: StatisticsProblem, total: Tensor) -> Tensor:
    assert problem.weight is not None
    assert problem.bias is not None
    x = total.double()
    mean = x.mean((0, 2, 3))
    var = (x - mean.view(-1, 1, 1)).square().mean((0, 2, 3))
    inverse = (var + NORM_EPS).rsqrt()
    scale = problem.weight.double() * inverse
    return torch.stack((mean, var, inverse, scale, problem.bias.double() - mean * scale))


def _running_of(problem: Problem, statistics: Tensor) -> tuple[Tensor, ...]:
    """The running statistics after a batch of these moments, and the number of batches."""
    count = problem.input.numel() // problem.input.size(1)
    var = statistics[1] * (count / (count - 1))
    batches = torch.tensor(SEEN + 1, device=statistics.device)
    return MOMENTUM * statistics[0], 1 - MOMENTUM + MOMENTUM * var, batches


def _run(operator: Operator, kernel: Any, problem: Problem) -> tuple[Outputs, Outputs]:
    """The outputs, and the running statistics that the kernel has moved."""
    if not isinstance(problem, StatisticsProblem):
        return outputs_of(operator.run(kernel, problem)), ()
    mean = torch.zeros(problem.input.size(1), device=problem.input.device)
    running = mean, torch.ones_like(mean), torch.tensor(SEEN, device=mean.device)
    moving = problem._replace(running=RunningStatistics(*running, MOMENTUM))
    return outputs_of(operator.run(kernel, moving)), running


def check(name: str, backend: str, device: Device) -> dict[str, Any]:
    """Compares a kernel with float64 in all shapes.

    Each value must agree as when a kernel is chosen, and the mean error of an output may be at most
    twice that of PyTorch's operators, plus a rounding.
    """
    operator = OPERATORS[name]
    kernel = operator.backends[backend]
    faults, repeats = {}, True
    checked = shapes.checked_norms(device.rehearsal)
    for shape in checked:
        problem = problem_of(name, shape, device.name)
        if reason := kernel.cannot_run(problem):
            raise NotHere(reason)
        with Unwritten():
            found, again = (_run(operator, kernel, problem) for _ in range(2))
        if fault := _fault(name, problem, *found):
            faults[str(shape)] = fault
        pairs = zip((*found[0], *found[1]), (*again[0], *again[1]), strict=True)
        repeats &= all(torch.equal(a, b) for a, b in pairs)
    about = {"backend": backend, "shape": [shape._asdict() for shape in checked]}
    about |= {"dtype": "bfloat16", "n": len(checked), "faults": faults}
    return about | verdict(kernel, not faults, repeats)


def _fault(name: str, problem: Problem, results: Outputs, running: Outputs) -> str:
    operator, expected = OPERATORS[name], exact(problem)
    if fault := fault_of(operator.compare, problem, results, expected):
        return fault
    plain = _run(operator, operator.backends["reference"], problem)
    if running:
        expected += _running_of(problem, expected[0])
    outputs = ((*results, *running), (*plain[0], *plain[1]), expected)
    rows = zip(*(_rows(each) for each in outputs), strict=True)
    for number, (value, like, right) in enumerate(rows, 1):
        error, limit = (errors(part, right)["mean"] for part in (value, like))
        limit = 2 * limit + EPS[value.dtype]
        if not error <= limit:  # a NaN is wrong
            return f"has a mean error of {error:.2e} in output {number}, above {limit:.2e}"
    return ""


def _rows(outputs: Outputs) -> list[Tensor]:
    """The outputs; statistics ``[5, C]`` by rows, as their magnitudes differ."""
    return [row for out in outputs for row in (out.unbind() if out.dim() == 2 else (out,))]


def timed(name: str, candidate: str, device: Device) -> dict[str, Any]:
    """The time of one operator for one shape."""
    operator_name, _, text = name.partition(" ")
    shape = next(one for one in shapes.norms(device.rehearsal) if str(one) == text)
    problem = problem_of(operator_name, shape, device.name)
    backend = "native" if device.rehearsal and candidate == "cuda" else candidate
    operator = OPERATORS[operator_name]
    kernel = operator.backends[backend]
    if reason := kernel.cannot_run(problem):
        raise NotHere(reason)
    captured = device.capture(lambda: operator.run(kernel, problem))
    times = device.times(captured, REPETITIONS[device.name])
    return {
        "candidate": candidate,
        "shape": shape._asdict(),
        "dtype": shape.dtype,
        "n": shape.channels,
        "ms": quantiles(times.milliseconds),
        "held": times.held,
        "least_bytes": PASSES[operator_name] * problem.input.numel() * problem.input.element_size(),
    }
