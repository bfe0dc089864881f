"""The modules of a case: those of the package, and plain PyTorch modules with the same values."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import maskedconv
from bench.plain_networks import plain_densenet, plain_wrn
from maskedconv import models
from tests.fuzz.cases import Case
from tests.fuzz.tensors import dtype_of, with_special


def start(case: Case) -> tuple[nn.Module, Tensor]:
    """The module and the values of its input."""
    torch.manual_seed(case.seed)
    module = _module(case)
    values = with_special(torch.randn(_input_shape(case)).mul(2).add(0.3), case, "input")
    if case.special == "nan weight" and (parameter := next(module.parameters(), None)) is not None:
        with torch.no_grad():
            parameter[(0,) * parameter.dim()] = float("nan")
    return module, values


def _input_shape(case: Case) -> tuple[int, ...]:
    return (case.batch, case.channels, *case.size)


def _module(case: Case) -> nn.Module:
    """The computation of the package."""
    if case.kind == "network":
        network = models.create(
            case.network, learned=case.learned, slice_dim=case.slice_dim, frozen=case.frozen,
            seed=case.seed, in_channels=case.channels, image_size=case.size[0],
        )  # fmt: skip
        return network.to(dtype_of(case)).train(case.training)
    conv = maskedconv.MaskedConv2d(
        case.channels, case.filters, case.kernel, case.stride, case.padding, case.dilation,
        case.groups, case.bias, case.padding_mode, learned=learned_of(case),
        slice_dim=case.slice_dim, frozen=case.frozen, which=which_of(case), backend=case.backend,
    )  # fmt: skip
    module: nn.Module = conv
    if case.kind == "fused":
        module = maskedconv.BNReLUConv2d(_norm(case), conv)
        module.bn.requires_grad_(case.needs[2])
    conv.requires_grad_(case.needs[1])
    if case.seed % 2:
        module = module.to(memory_format=torch.channels_last)
    return module.to(dtype_of(case)).train(case.training)


def learned_of(case: Case) -> float | int:
    """A valid number of filters."""
    count = isinstance(case.learned, int)
    return min(case.learned, case.filters) if count else case.learned


def which_of(case: Case) -> list[int] | None:
    """The learned indices; None for the first ones."""
    shape = (case.filters, case.channels // case.groups, *case.kernel)
    size = shape[case.slice_dim]
    count = maskedconv.slices.num_learned(learned_of(case), size, case.slice_dim)
    return random.Random(case.seed).sample(range(size), count) if case.chosen else None


def _norm(case: Case) -> nn.BatchNorm2d:
    bn = nn.BatchNorm2d(
        case.channels, affine=case.affine, momentum=case.momentum,
        track_running_stats=case.track_running_stats,
    )  # fmt: skip
    with torch.no_grad():
        for parameter in bn.parameters():
            parameter.copy_(torch.randn(case.channels))
        if bn.running_mean is not None:
            bn.running_mean.copy_(torch.randn(case.channels))
            bn.running_var.copy_(torch.rand(case.channels) + 0.5)
    return bn


class Plain(nn.Module):
    """The same values in modules of PyTorch alone."""

    def __init__(self, module: nn.Module, forward: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self._run = module, forward

    def forward(self, x: Tensor) -> Tensor:
        return self._run(self.inner, x)


def plain_of(case: Case, module: nn.Module) -> nn.Module:
    """Plain modules with the values of ``module``."""
    if isinstance(module, maskedconv.MaskedConv2d):
        return Plain(_needs_as(module.to_conv2d(), case), lambda conv, x: conv(x))
    merged = maskedconv.merge_(copy.deepcopy(module))
    if case.kind == "fused":
        merged.bn.requires_grad_(case.needs[2])
        _needs_as(merged.conv, case)
        return Plain(merged, lambda m, x: m.conv(F.relu(m.bn(x))))
    for inner in merged.modules():
        if isinstance(inner, nn.BatchNorm2d):
            # A norm with hooks is computed separately.
            inner.register_forward_hook(lambda *_: None)
    family = case.network.split("_")[0]
    forwards = {"wrn": plain_wrn, "densenet": plain_densenet}
    return Plain(merged, forwards.get(family, lambda network, x: network(x)))


def _needs_as(conv: nn.Conv2d, case: Case) -> nn.Conv2d:
    return conv.requires_grad_(case.needs[1])
