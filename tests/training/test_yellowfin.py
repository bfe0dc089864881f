"""YellowFin against the paper's formulae, problems with a known optimum, and extreme gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from host_reads import HostReads
from quadratics import noisy_quadratic
from torch import nn

from maskedconv import MaskedConv2d, YellowFin
from maskedconv.optim.yellowfin import single_step


def tuned(variance, distance, h_min, h_max):
    values = (variance, distance, h_min, h_max)
    names = ("variance", "distance", "h_min", "h_max")
    given = {n: torch.tensor(v, dtype=torch.float64) for n, v in zip(names, values, strict=True)}
    momentum, rate = single_step(**given)
    return momentum.item(), rate.item()


def root_of_cubic(p):
    """The real root in (0, 1) of (1 - x)³ = p x, from numpy's polynomial solver."""
    roots = np.roots([1, -3, 3 + p, -1])
    real = roots[np.abs(roots.imag) < 1e-9 * max(1, p)].real
    return float(real[(real > 0) & (real < 1)][0])


@pytest.mark.parametrize("p", [1e-6, 1e-3, 0.1, 1.0, 7.0, 1e3, 1e6])
def test_free_minimum_is_the_root_of_the_cubic(p):
    # With h_min = h_max the momentum has no lower bound.
    momentum, rate = tuned(variance=0.5, distance=math.sqrt(p), h_min=1.0, h_max=1.0)
    root = root_of_cubic(p)
    assert momentum == pytest.approx(root**2, rel=1e-6)
    assert rate == pytest.approx((1 - root) ** 2, rel=1e-6)


def test_no_momentum_does_better_in_one_step():
    variance, distance, h_min, h_max = 0.3, 2.0, 0.5, 3.0
    ratio = math.sqrt(h_max / h_min)
    grid = np.linspace((ratio - 1) / (ratio + 1), 1, 100_001)
    after = grid**2 * distance**2 + ((1 - grid) ** 2 / h_min) ** 2 * variance
    momentum, rate = tuned(variance, distance, h_min, h_max)
    assert math.sqrt(momentum) == pytest.approx(grid[after.argmin()], abs=2e-5)
    assert momentum * distance**2 + rate**2 * variance <= after.min()


@pytest.mark.parametrize(("h_min", "h_max"), [(1.0, 100.0), (0.01, 4.0)])
def test_without_noise_it_is_polyaks_optimum_for_a_quadratic(h_min, h_max):
    momentum, rate = tuned(variance=1e-12, distance=1.0, h_min=h_min, h_max=h_max)
    best_root = (math.sqrt(h_max) - math.sqrt(h_min)) / (math.sqrt(h_max) + math.sqrt(h_min))
    assert momentum == pytest.approx(best_root**2)
    assert rate == pytest.approx(4 / (math.sqrt(h_min) + math.sqrt(h_max)) ** 2)
    # With these, every curvature in the range converges as √μ per step.
    for curvature in (h_min, math.sqrt(h_min * h_max), h_max):
        operator = [[1 - rate * curvature + momentum, -momentum], [1, 0]]
        radius = np.abs(np.linalg.eigvals(operator)).max()
        assert radius == pytest.approx(best_root, rel=1e-6)


@pytest.mark.parametrize("extreme", [1e-200, 1e200])
def test_extreme_measurements_stay_finite(extreme):
    momentum, rate = tuned(variance=1.0, distance=extreme, h_min=1.0, h_max=2.0)
    assert 0 < momentum <= 1
    assert 0 <= rate < 1


def by_hand(gradients, start, lr, momentum, beta, window, clip, weight_decay, factors):
    """Algorithms 1-4, step by step in numpy; returns the positions."""
    eps = 1e-6
    position, velocity = start.copy(), np.zeros_like(start)
    means = {name: 0.0 for name in ("h_max", "log_h_min", "h", "norm", "distance")}
    mean_gradient, history, positions = np.zeros_like(start), [], []
    for t, (gradient, factor) in enumerate(zip(gradients, factors, strict=True), start=1):
        norm = np.linalg.norm(gradient)
        g = gradient * min(1, clip / norm)
        if t > 1:
            longest = math.sqrt(means["h_max"] / (1 - beta ** (t - 1)))
            g = g * min(1, 10 * longest / np.linalg.norm(g))
            direction = g * min(1, longest / np.linalg.norm(g))
        else:
            direction = g
        history = [*history, g @ g + eps][-window:]
        mean_gradient = beta * mean_gradient + (1 - beta) * g
        for name, value in (
            ("h_max", max(history)),
            ("log_h_min", math.log(min(history))),
            ("h", history[-1]),
            ("norm", np.linalg.norm(g)),
        ):
            means[name] = beta * means[name] + (1 - beta) * value
        ratio = means["norm"] / means["h"]
        means["distance"] = beta * means["distance"] + (1 - beta) * ratio
        debias = 1 - beta**t
        if t > 1:
            h_max, h_min = means["h_max"] / debias, math.exp(means["log_h_min"] / debias)
            variance = max(means["h"] / debias - (mean_gradient @ mean_gradient) / debias**2, eps)
            p = (means["distance"] / debias) ** 2 * h_min**2 / (2 * variance)
            kappa = math.sqrt(h_max / h_min)
            root = max(root_of_cubic(p), (kappa - 1) / (kappa + 1))
            momentum, lr = root**2, (1 - root) ** 2 / h_min * min(1, t / (10 * window))
        velocity = momentum * velocity + direction + weight_decay * position
        position = position - lr * (factor if t > 1 else 1) * velocity
        positions.append(position)
    return positions


def test_every_step_is_the_papers():
    random = np.random.default_rng(0)
    steps, beta, window = 60, 0.9, 5
    gradients = random.normal(size=(steps, 6)) * np.exp(random.normal(size=(steps, 1)))
    gradients[30] *= 1e4
    factors = [1.0] * 40 + [0.1] * 20
    start = random.normal(size=6)
    expected = by_hand(gradients, start, 0.05, 0.0, beta, window, 3.0, 0.01, factors)
    parts = [nn.Parameter(torch.tensor(part)) for part in (start[:2], start[2:])]
    optimizer = YellowFin(parts, 0.05, beta=beta, window=window, clip=3.0, weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [40], 0.1)
    for gradient, position in zip(gradients, expected, strict=True):
        parts[0].grad, parts[1].grad = torch.tensor(gradient).split([2, 4])
        optimizer.step()
        scheduler.step()
        np.testing.assert_allclose(torch.cat(parts).detach(), position, rtol=1e-7, atol=1e-9)


def test_solves_a_regression_without_being_told_a_rate():
    """Squared error is a likelihood, for which squared gradients do measure curvature."""
    inputs = torch.randn(512, 4) * torch.tensor([0.5, 1.0, 1.5, 2.0])
    targets = inputs @ torch.tensor([1.0, -2.0, 3.0, 0.5]) + 0.1 * torch.randn(512)
    best = torch.linalg.lstsq(inputs, targets[:, None]).solution[:, 0]
    weight = nn.Parameter(torch.zeros(4))
    optimizer = YellowFin([weight], lr=1e-4)
    assert optimizer.tuned is None
    for _ in range(2000):
        chosen = torch.randint(512, (64,))
        optimizer.zero_grad()
        (inputs[chosen] @ weight - targets[chosen]).square().mean().backward()
        optimizer.step()
    rate, momentum = optimizer.tuned
    assert (weight - best).norm() < 0.1
    assert rate > 1e-3
    assert 0 < momentum < 1


def test_what_is_frozen_does_not_move_and_does_not_count():
    torch.manual_seed(0)
    layer = MaskedConv2d(3, 8, 3, learned=0.5, bias=False)
    other = nn.Parameter(torch.ones(3))
    frozen = layer.frozen.clone()
    optimizer = YellowFin([*layer.parameters(), other], weight_decay=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        layer(torch.randn(2, 3, 6, 6)).square().mean().backward()
        optimizer.step()
    assert torch.equal(layer.frozen, frozen)
    assert torch.equal(other, torch.ones(3))
    assert set(optimizer.state) == {layer.learned, "tuner"}


def test_a_step_does_not_wait_for_the_device():
    point = nn.Parameter(torch.ones(4))
    optimizer = YellowFin([point], clip=1.0, weight_decay=0.1)
    with HostReads() as readings:
        for step in range(3):
            point.grad = noisy_quadratic(point, step)
            optimizer.step()
        assert readings.count == 0
        assert optimizer.tuned is not None
        assert readings.count == 2


def test_groups_have_their_own_schedule_and_closures_are_called():
    points = [nn.Parameter(torch.ones(1, dtype=torch.float64)) for _ in range(2)]
    optimizer = YellowFin([{"params": points[:1]}, {"params": points[1:], "lr": 0.2}])

    def loss():
        optimizer.zero_grad()
        (total := sum(point.sum() for point in points)).backward()
        return total

    assert optimizer.step(loss) == 2
    assert [point.item() for point in points] == pytest.approx([0.9, 0.8])
    optimizer.param_groups[1]["lr"] = 0.02
    before = torch.cat(points).detach()
    optimizer.step(loss)
    moved = before - torch.cat(points).detach()
    assert (moved[1] / moved[0]).item() == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lr": 0.0}, "lr is 0.0; expected it above 0"),
        ({"momentum": 1.0}, r"momentum is 1.0; expected it in \[0, 1\)"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"beta": 1.0}, "beta is 1.0"),
        ({"window": 0}, "window is 0"),
        ({"clip": 0.0}, "clip is 0.0; expected it above 0, or None"),
    ],
)
def test_bad_arguments_are_named(changes, words):
    with pytest.raises(ValueError, match=words):
        YellowFin([nn.Parameter(torch.ones(1))], **changes)


@pytest.mark.parametrize("size", [1e20, 3e38, 1e-30])
@pytest.mark.parametrize("clip", [None, 2.0])
def test_gradients_whose_squares_overflow_are_followed_as_in_float64(size, clip):
    """Steps in float32 equal those in float64, in which the squared norm is finite."""
    results = []
    for dtype in (torch.float32, torch.float64):
        parameter = nn.Parameter(torch.tensor([3.0, -2.0], dtype=dtype))
        optimizer = YellowFin([parameter], lr=1e-25, window=3, clip=clip)
        for step in range(6):
            parameter.grad = size * torch.tensor([1.0, 0.5 - 0.1 * step], dtype=dtype)
            optimizer.step()
        rate, momentum = optimizer.tuned
        results.append([*parameter.tolist(), rate, momentum])
    assert all(map(math.isfinite, results[0]))
    assert results[0] == pytest.approx(results[1], rel=1e-4)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("steps_before", [0, 3])
def test_a_gradient_that_is_not_finite_makes_every_parameter_nan_at_once(bad, steps_before):
    parameters = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))]
    optimizer = YellowFin(parameters, clip=2.0)
    for step in range(steps_before + 1):
        for parameter in parameters:
            assert parameter.isfinite().all()
            parameter.grad = torch.full_like(parameter, 0.1)
        if step == steps_before:
            parameters[1].grad[0] = bad
        optimizer.step()
    for parameter in parameters:
        assert parameter.isnan().all()
