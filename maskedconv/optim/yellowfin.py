"""YellowFin: SGD that tunes its learning rate and momentum (Zhang & Mitliagkas 2017).

Source: *YellowFin and the Art of Momentum Tuning*, arXiv 1706.03471, algorithms 1-4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

# Keeps curvatures and variances off zero, as in the published implementation. A curvature is a
# squared gradient norm here, so that the tuned rate cannot exceed the inverse of this.
_EPS = 1e-6
# Gradients beyond this many times √h_max enter the statistics shortened to it.
_OUTLIER = 10.0
# The tuned rate grows to its full value over this many windows.
_SLOW_START_WINDOWS = 10
# Beyond these the root of the cubic is 1 or 0 to machine precision.
_SMALLEST_P, _LARGEST_P = 1e-30, 1e30
_TUNER = "tuner"
# Settings of the measurement, which all groups share.
_SHARED_SETTINGS = ("beta", "window", "clip")


class YellowFin(Optimizer):
    """SGD with learning rate and momentum from measured curvature, variance and distance.

    Every step updates running averages (decay ``beta``, with bias correction), over all parameters
    with a gradient g jointly, of

    - the range of curvatures h = ||g||², from its extremes in the last ``window`` steps
      (algorithm 2; as in the published code the lower end is averaged as its logarithm);
    - the variance of the gradient (algorithm 3);
    - the distance to the optimum (algorithm 4);

    and computes learning rate and momentum from them by :func:`single_step`. The gradient is
    clipped to a norm of √h_max of the earlier steps. The rate grows linearly over the first
    ``10 * window`` steps. Weight decay is added last.

    As in the published code, ``lr`` is the rate of the first step, before anything is tuned. Later
    steps use the tuned rate times the factor by which a scheduler has changed ``lr`` since the
    start (``lr_factor`` there). An ``lr`` of 0.1 therefore does not scale the tuned rate.

    The host does not wait for the device. ``state_dict`` holds the complete state and all settings.
    State of parameters in float16 or bfloat16 is float32: there, an average times ``beta`` would
    often round to itself.

    Norms are computed in float64, in which no finite float32 gradient overflows. A gradient with a
    NaN or an infinity (or a norm beyond float64) makes every parameter NaN in that step: the
    training has diverged, and checks of its loss or parameters detect it at once.

    Args:
        params: parameters or parameter groups; all groups share the tuned values.
        lr, momentum: values of the first step.
        weight_decay: L2 penalty.
        beta: decay of the running averages.
        window: number of steps over which the extreme curvatures are taken.
        clip: norm to which the complete gradient is clipped before it is measured, or None.

    Raises:
        ValueError: an argument is out of range; the message names it.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.1,
        momentum: float = 0.0,
        *,
        weight_decay: float = 0.0,
        beta: float = 0.999,
        window: int = 20,
        clip: float | None = None,
    ) -> None:
        for name, value, valid, expected in (
            ("lr", lr, lr > 0, "above 0"),
            ("momentum", momentum, 0 <= momentum < 1, "in [0, 1)"),
            ("weight_decay", weight_decay, weight_decay >= 0, "at least 0"),
            ("beta", beta, 0 <= beta < 1, "in [0, 1)"),
            ("window", window, window >= 1, "at least 1"),
            ("clip", clip, clip is None or clip > 0, "above 0, or None"),
        ):
            if not valid:
                raise ValueError(f"{name} is {value}; expected it {expected}")
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "beta": beta, "window": window, "clip": clip})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in ``torch.optim.Optimizer``; later schedules are relative to its ``lr``.

        Raises:
            ValueError: it has another ``beta``, ``window`` or ``clip`` than the groups before it.
        """
        for name in _SHARED_SETTINGS if self.param_groups else ():
            shared = self.param_groups[0][name]
            if param_group.setdefault(name, shared) != shared:
                raise ValueError(
                    f"{name} of a parameter group is {param_group[name]}; expected {shared}, as in "
                    "the other groups"
                )
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        group.setdefault("start_lr", group["lr"])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in ``torch.optim.Optimizer``; also moves the tuned values to the device.

        States of earlier versions have no ``beta``, ``window`` and ``clip``, which then stay.
        """
        own = {name: self.param_groups[0][name] for name in _SHARED_SETTINGS}
        super().load_state_dict(state_dict)
        for group, saved in zip(self.param_groups, state_dict["param_groups"], strict=True):
            for name, value in own.items():
                group.setdefault(name, value)
            # PyTorch rounds state to the parameters' dtype.
            for parameter, index in zip(group["params"], saved["params"], strict=True):
                for name, value in state_dict["state"].get(index, {}).items():
                    dtype = _dtype_of_state(parameter)
                    self.state[parameter][name] = value.to(parameter.device, dtype)
        device = self.param_groups[0]["params"][0].device
        self._shared_state[_TUNER] = {
            name: value.to(device) if isinstance(value, Tensor) else value
            for name, value in self._shared_state.get(_TUNER, {}).items()
        }

    @property
    def tuned(self) -> tuple[float, float] | None:
        """Learning rate (before schedules) and momentum of the last step; None before tuning.

        Reading it waits for the device.
        """
        tuner = self._shared_state.get(_TUNER, {})
        return (tuner["rate"].item(), tuner["momentum"].item()) if "rate" in tuner else None

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; ``closure``, if given, computes the loss (returned) and the gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        parameters = [
            p for group in self.param_groups for p in group["params"] if p.grad is not None
        ]
        if parameters:
            tuner, scale = self._measure(parameters)
            self._shared_state[_TUNER] = self._tune(tuner, parameters)
            for group in self.param_groups:
                self._move(group, scale)
        return loss

    def _measure(self, parameters: list[Tensor]) -> tuple[dict[str, Any], Tensor]:
        """Updated running averages, and the factor that clips this step's gradient."""
        old = self._shared_state.get(_TUNER) or _empty_tuner(parameters[0].device)
        beta, clip = self._setting("beta"), self._setting("clip")
        gradients = _gradients(parameters)
        length = _norm(gradients)
        followed = measured = torch.ones_like(length)
        if clip is not None:
            followed = measured = (clip / length).clamp(max=1)
        if old["step"]:
            limit = (old["h_max"] / self._debias(old)).sqrt() / length
            measured = torch.minimum(measured, _OUTLIER * limit)
            followed = torch.minimum(measured, limit)
        # Adds nothing to a finite step and makes one that is not finite NaN throughout.
        followed = followed + 0 * length
        norm = measured * length
        curvature = norm.square() + _EPS
        window = torch.cat([old["window"], curvature[None]])[-self._setting("window") :]

        def averaged(name: str, value: Tensor) -> Tensor:
            return beta * old[name] + (1 - beta) * value

        new = {
            "step": old["step"] + 1,
            "window": window,
            "h_max": averaged("h_max", window.max()),
            "log_h_min": averaged("log_h_min", window.min().log()),
            "norm": averaged("norm", norm),
            "h": averaged("h", curvature),
        }
        # The bias corrections of these two cancel.
        new["distance"] = averaged("distance", new["norm"] / new["h"])
        averages = [self._state_of(p, "gradient_average") for p in parameters]
        torch._foreach_mul_(averages, beta)
        # Two factors, as their product may be too small for float32.
        torch._foreach_add_(averages, torch._foreach_mul(gradients, measured), alpha=1 - beta)
        return new, followed

    def _tune(self, tuner: dict[str, Any], parameters: list[Tensor]) -> dict[str, Any]:
        """``tuner`` with the learning rate and momentum of its averages, from the second step."""
        if tuner["step"] == 1:
            return tuner
        debias = self._debias(tuner)
        averages = [self._state_of(p, "gradient_average") for p in parameters]
        mean = _norm(averages) / debias
        momentum, rate = single_step(
            variance=(tuner["h"] / debias - mean.square()).clamp(min=_EPS),
            distance=tuner["distance"] / debias,
            h_min=(tuner["log_h_min"] / debias).exp(),
            h_max=tuner["h_max"] / debias,
        )
        started = min(1.0, tuner["step"] / (_SLOW_START_WINDOWS * self._setting("window")))
        return tuner | {"momentum": momentum, "rate": started * rate}

    def _move(self, group: dict[str, Any], scale: Tensor) -> None:
        """A step of SGD with momentum for one group, along its gradients times ``scale``."""
        parameters = [p for p in group["params"] if p.grad is not None]
        if not parameters:
            return
        tuner = self._shared_state[_TUNER]
        momentum, rate = group["momentum"], group["lr"]
        if "rate" in tuner:
            momentum, rate = tuner["momentum"], tuner["rate"] * (group["lr"] / group["start_lr"])
        steps = torch._foreach_mul(_gradients(parameters), scale)
        if group["weight_decay"]:
            torch._foreach_add_(steps, parameters, alpha=group["weight_decay"])
        buffers = [self._state_of(p, "momentum_buffer") for p in parameters]
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, steps)
        torch._foreach_sub_(parameters, torch._foreach_mul(buffers, rate))

    @property
    def _shared_state(self) -> dict[Any, Any]:
        """``state``; keys that are not tensors are stored and loaded unchanged."""
        return cast("dict[Any, Any]", self.state)

    def _debias(self, tuner: dict[str, Any]) -> float:
        return 1 - cast(float, self._setting("beta") ** tuner["step"])

    def _setting(self, name: str) -> Any:
        """One of ``_SHARED_SETTINGS``."""
        return self.param_groups[0][name]

    def _state_of(self, parameter: Tensor, name: str) -> Tensor:
        state = self.state[parameter]
        if name not in state:
            state[name] = torch.zeros_like(parameter, dtype=_dtype_of_state(parameter))
        return state[name]


def single_step(
    *, variance: Tensor, distance: Tensor, h_min: Tensor, h_max: Tensor
) -> tuple[Tensor, Tensor]:
    """Momentum μ and learning rate α that minimise the expected squared distance after one step.

    They minimise μ D² + α² C for variance C and distance D, under α = (1 - √μ)² / h_min and
    √μ ≥ (√(h_max / h_min) - 1) / (√(h_max / h_min) + 1) (the paper's SingleStep). With x = √μ the
    free minimum is the root of p x = (1 - x)³, p = D² h_min² / 2C, in closed form.

    Args:
        variance, distance, h_min, h_max: float64 [], positive.

    Returns:
        μ and α, float64 [].
    """
    p = (distance * h_min).square() / (2 * variance)
    p = p.clamp(_SMALLEST_P, _LARGEST_P)
    # The one real root of y³ + p y + p, x = 1 + y; this form loses no digits for large p.
    free = 1 - 2 * (p / 3).sqrt() * torch.sinh(torch.asinh(1.5 * (3 / p).sqrt()) / 3)
    ratio = (h_max / h_min).sqrt()
    root = torch.maximum(free, (ratio - 1) / (ratio + 1))
    return root.square(), (1 - root).square() / h_min


def _dtype_of_state(parameter: Tensor) -> torch.dtype:
    """The type of the parameter, at least float32."""
    return torch.promote_types(parameter.dtype, torch.float32)


def _gradients(parameters: list[Tensor]) -> list[Tensor]:
    """The gradients of ``parameters``, in float32 at least."""
    return [p.grad.to(_dtype_of_state(p)) for p in parameters if p.grad is not None]


def _norm(tensors: list[Tensor]) -> Tensor:
    """Joint norm of all tensors, float64 [] on the device of the first."""
    norms = torch._foreach_norm(tensors, 2, dtype=torch.float64)
    return torch.stack([norm.to(norms[0].device) for norm in norms]).norm()


def _empty_tuner(device: torch.device) -> dict[str, Any]:
    zero = torch.zeros((), dtype=torch.float64, device=device)
    averages = dict.fromkeys(("h_max", "log_h_min", "norm", "h", "distance"), zero)
    return {"step": 0, "window": zero.new_empty(0), **averages}
