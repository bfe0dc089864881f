"""Runs one case: the package against plain PyTorch modules, in its precision and in float64."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import maskedconv
from bench.plain_networks import plain_densenet, plain_wrn
from maskedconv import models
from tests.fuzz.cases import Case
from tests.fuzz.tensors import laid_out
from tests.support.precision import largest_error, rms_error

# A fault is an error far beyond that of plain modules; rounding errors are smaller.
FACTOR, ROUNDINGS = 8, 64
# In a network, rounding may open a ReLU with an input near zero in one implementation only.
FLIPS, PERTURBATIONS = 100, 16
CANCELLED = 1e-5
Forward = Callable[[Tensor], Tensor]
Results = dict[str, Tensor | None]


def check(case: Case) -> str:
    """The fault, or empty if the package agrees with plain modules and repeats bit for bit."""
    module, values = _start(case)
    plain = _plain(case, module).to(memory_format=torch.contiguous_format)
    exact = copy.deepcopy(plain).double()
    expected = _attempt(case, exact, values.double(), "contiguous")
    theirs = _attempt(case, plain, values, "contiguous")
    ours, again = _twice(case, module, values, case.layout)
    if isinstance(theirs, Exception) or isinstance(ours, Exception):
        return _compare_errors(ours, theirs)
    assert not isinstance(expected, Exception)
    assert not isinstance(again, Exception)
    problems = dict(_differences(case, ours, again, theirs, expected))
    if problems:
        for name in _wrong_in_plain_modules(case, module, values, theirs, expected):
            problems.pop(name, None)
    return next((f"{name}: {problem}" for name, problem in problems.items()), "")


def _twice(case: Case, module: nn.Module, values: Tensor, layout: str) -> list[Results | Exception]:
    with _poisoned(case.poisoned):
        return [_attempt(case, copy.deepcopy(module), values, layout) for _ in range(2)]


def _wrong_in_plain_modules(
    case: Case, module: nn.Module, values: Tensor, theirs: Results, expected: Results
) -> set[str]:
    """The tensors that plain modules get as wrong, in another memory format or one rounding off.

    PyTorch's convolutions have faults of their own in channels_last, which a layer shares with
    nn.Conv2d. In a network, a rounding of the input may open a ReLU.
    """
    others = _plain_in_channels_last(case, module, values)
    if case.kind == "network":
        others = itertools.chain(others, _plain_one_rounding_off(case, module, values))
    wrong: set[str] = set()
    for once, again in others:
        if not isinstance(once, Exception) and not isinstance(again, Exception):
            wrong |= {name for name, _ in _differences(case, once, again, theirs, expected)}
    return wrong


def _plain_one_rounding_off(
    case: Case, module: nn.Module, values: Tensor
) -> Iterator[list[Results | Exception]]:
    for _ in range(PERTURBATIONS):
        step = torch.randn_like(values) * torch.finfo(_dtype(case)).eps
        yield _twice(case, _plain(case, module), values * (1 + step), "contiguous")


def _plain_in_channels_last(
    case: Case, module: nn.Module, values: Tensor
) -> Iterator[list[Results | Exception]]:
    if case.kernel == (1, 1) and case.stride != (1, 1):
        # oneDNN's weight gradient writes out of bounds for these.
        case = replace(case, needs=(case.needs[0], False, case.needs[2]))
    for filters in (torch.contiguous_format, torch.channels_last):
        for layout in ("contiguous", "channels_last", case.layout):
            plain = _plain(case, module).to(memory_format=filters)
            _fill_free_memory()
            yield _twice(case, plain, values, layout)


def _fill_free_memory() -> None:
    """Fills free memory with NaN, so that reads of uninitialised memory are detected."""
    blocks = [torch.full((2**size,), float("nan")) for size in range(4, 16) for _ in range(8)]
    del blocks


def run_plain_in_channels_last(case: Case) -> None:
    """Runs only plain modules, to see whether they end the process as well."""
    module, values = _start(case)
    for _ in _plain_in_channels_last(case, module, values):
        pass


def _start(case: Case) -> tuple[nn.Module, Tensor]:
    """The module and the values of its input."""
    torch.manual_seed(case.seed)
    module = _module(case)
    values = _special(torch.randn(_input_shape(case)).mul(2).add(0.3), case, "input")
    if case.special == "nan weight" and (parameter := next(module.parameters(), None)) is not None:
        with torch.no_grad():
            parameter[(0,) * parameter.dim()] = float("nan")
    return module, values


def _input_shape(case: Case) -> tuple[int, ...]:
    return (case.batch, case.channels, *case.size)


def _dtype(case: Case) -> torch.dtype:
    return getattr(torch, case.dtype)


def _module(case: Case) -> nn.Module:
    """The computation of the package."""
    if case.kind == "network":
        network = models.create(
            case.network, learned=case.learned, slice_dim=case.slice_dim, frozen=case.frozen,
            seed=case.seed, in_channels=case.channels, image_size=case.size[0],
        )  # fmt: skip
        return network.to(_dtype(case)).train(case.training)
    conv = maskedconv.MaskedConv2d(
        case.channels, case.filters, case.kernel, case.stride, case.padding, case.dilation,
        case.groups, case.bias, case.padding_mode, learned=_learned(case),
        slice_dim=case.slice_dim, frozen=case.frozen, backend=case.backend,
    )  # fmt: skip
    module: nn.Module = conv
    if case.kind == "fused":
        module = maskedconv.BNReLUConv2d(_norm(case), conv)
        module.bn.requires_grad_(case.needs[2])
    conv.requires_grad_(case.needs[1])
    if case.seed % 2:
        module = module.to(memory_format=torch.channels_last)
    return module.to(_dtype(case)).train(case.training)


def _learned(case: Case) -> float | int:
    """A valid number of filters."""
    count = isinstance(case.learned, int)
    return min(case.learned, case.filters) if count else case.learned


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


class _Plain(nn.Module):
    """The same values in modules of PyTorch alone."""

    def __init__(self, module: nn.Module, forward: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self._run = module, forward

    def forward(self, x: Tensor) -> Tensor:
        return self._run(self.inner, x)


def _plain(case: Case, module: nn.Module) -> nn.Module:
    if isinstance(module, maskedconv.MaskedConv2d):
        return _Plain(_needs_as(module.to_conv2d(), case), lambda conv, x: conv(x))
    merged = maskedconv.merge_(copy.deepcopy(module))
    if case.kind == "fused":
        merged.bn.requires_grad_(case.needs[2])
        _needs_as(merged.conv, case)
        return _Plain(merged, lambda m, x: m.conv(F.relu(m.bn(x))))
    for inner in merged.modules():
        if isinstance(inner, nn.BatchNorm2d):
            # A norm with hooks is computed separately.
            inner.register_forward_hook(lambda *_: None)
    family = case.network.split("_")[0]
    forwards = {"wrn": plain_wrn, "densenet": plain_densenet}
    return _Plain(merged, forwards.get(family, lambda network, x: network(x)))


def _needs_as(conv: nn.Conv2d, case: Case) -> nn.Conv2d:
    return conv.requires_grad_(case.needs[1])


@contextmanager
def _poisoned(enabled: bool) -> Iterator[None]:
    """PyTorch fills new memory with NaN."""
    torch.use_deterministic_algorithms(enabled)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def _special(values: Tensor, case: Case, place: str) -> Tensor:
    name, _, where = case.special.partition(" ")
    if where == place and values.numel():
        values.view(-1)[case.seed % values.numel()] = float(name)
    return values


def _attempt(case: Case, module: nn.Module, values: Tensor, layout: str) -> Results | Exception:
    """Output, gradients and buffers by name, or the error that the module raised."""
    dtype = torch.float64 if values.dtype == torch.float64 else _dtype(case)
    if case.layout == "expanded":
        values = values[:1].expand_as(values)
    # The same values in every precision: they are exact in the narrow dtype.
    x = laid_out(values.to(_dtype(case)).to(dtype), layout).detach()
    x.requires_grad_(case.needs[0])
    before = x.detach().clone()
    try:
        with torch.autocast("cpu", torch.bfloat16, case.autocast and dtype != torch.float64):
            output = module(x)
        if output.requires_grad:
            output.backward(_gradient(case, output, layout))
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        return error
    if not _same_bits(x.detach(), before):
        return AssertionError("the input was overwritten")
    return {"output": output, "gradient of the input": x.grad, **_state(module, case)}


def _gradient(case: Case, output: Tensor, layout: str) -> Tensor:
    generator = torch.Generator().manual_seed(case.seed)
    values = torch.randn(output.shape, generator=generator)
    values = _special(values, case, "gradient").to(_dtype(case)).to(output.dtype)
    if output.dim() != 4:
        return values
    if case.grad_layout == "zero":
        values = torch.zeros_like(values)
    if case.grad_layout == "expanded":
        values = values[:1].expand_as(values)
    ours = layout == case.layout and layout != "contiguous"
    return laid_out(values, case.grad_layout if ours else "contiguous")


def _same_bits(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.nan_to_num(), other.nan_to_num()) and torch.equal(
        one.isnan(), other.isnan()
    )


def _state(module: nn.Module, case: Case) -> Results:
    """Gradients and running statistics; a plain weight's gradient cut to the learned slice."""
    inner = module.inner if isinstance(module, _Plain) else module
    results: Results = {}
    for name, layer in inner.named_modules():
        if isinstance(layer, maskedconv.MaskedConv2d):
            bias = layer.bias_learned
            results[f"{name}.weight"] = layer.learned.grad if layer.num_learned else None
            results[f"{name}.bias"] = None if bias is None else bias.grad
        elif isinstance(layer, nn.Conv2d):
            results[f"{name}.weight"] = _learned_slice(layer.weight.grad, case)
            results[f"{name}.bias"] = None
            if layer.bias is not None:
                split = case.slice_dim == 0
                grad = layer.bias.grad
                results[f"{name}.bias"] = _learned_slice(grad, case) if split else grad
        else:
            for key, parameter in layer.named_parameters(recurse=False):
                results[f"{name}.{key}"] = parameter.grad
            for key, buffer in layer.named_buffers(recurse=False):
                results[f"{name}.{key}"] = buffer
    return results


def _learned_slice(grad: Tensor | None, case: Case) -> Tensor | None:
    if grad is None:
        return None
    dim = case.slice_dim
    learned = case.learned if case.kind == "network" else _learned(case)
    size = grad.size(dim)
    if isinstance(learned, int) and dim == 0:
        learned = min(learned, size)
    count = maskedconv.slices.num_learned(learned, size, dim)
    return grad.narrow(dim, 0, count) if count else None


def _compare_errors(ours: object, theirs: object) -> str:
    if not isinstance(ours, Exception):
        return f"plain modules raise {type(theirs).__name__}: {theirs}; the package does not"
    if "cannot run" in str(ours):
        return ""  # the backend that the case asks for does not take it, and says so
    if not isinstance(theirs, Exception):
        return f"the package raises {type(ours).__name__}: {ours}; plain modules do not"
    return ""


def _differences(
    case: Case, ours: Results, again: Results, theirs: Results, exact: Results
) -> Iterator[tuple[str, str]]:
    """The wrong tensors and their errors."""
    measure = rms_error if case.kind == "network" else largest_error
    eps = torch.finfo(torch.bfloat16 if case.autocast else _dtype(case)).eps
    slack = FLIPS * eps**0.5 if case.kind == "network" else ROUNDINGS * eps
    for name, expected in exact.items():
        value, plain = ours[name], theirs[name]
        if expected is None or value is None or plain is None:
            if (value is None) != (plain is None):
                yield name, f"ours is {_kind(value)}, plain is {_kind(plain)}"
            continue
        if value.shape != expected.shape:
            yield name, f"shape {tuple(value.shape)}, expected {tuple(expected.shape)}"
            continue
        second = again[name]
        if second is None or not _same_bits(value.detach(), second.detach()):
            yield name, "two runs differ"
        finite, problem = _finite(name, value, plain, expected, case)
        if problem:
            yield name, problem
            continue
        if case.kind == "network" and _cancelled(expected, exact):
            continue
        parts = [t.detach().double()[finite] for t in (value, plain, expected)]
        error, allowed = (measure(part, parts[2]) for part in parts[:2])
        if not error <= FACTOR * allowed + slack:
            yield name, f"error {error:.3g}, plain modules {allowed:.3g}"


def _cancelled(expected: Tensor, exact: Results) -> bool:
    """Whether a gradient is a sum of terms that cancel, as of filters that a norm scales again.

    Its rounding is that of the terms, which are as large as other gradients of the network.
    """
    largest = max(
        float(t.detach().abs().max()) for t in exact.values() if t is not None and t.numel()
    )
    return bool(expected.detach().abs().max() < CANCELLED * largest)


def _kind(value: Tensor | None) -> str:
    return "None" if value is None else "a tensor"


def _finite(
    name: str, value: Tensor, plain: Tensor, exact: Tensor, case: Case
) -> tuple[Tensor, str]:
    """The elements to compare; a problem if others are finite than in plain modules.

    Plain modules in two precisions may differ: their algorithms multiply the padding or do not.
    Zeroed filters are not computed; plain modules multiply their zeros with what is not finite.
    A slice of kernel rows or columns is a shorter kernel, whose larger output is filled with zeros.
    Beside zeroed filters, the learned ones are a smaller convolution, with another algorithm.
    A gradient that is not finite may meet padding, which the kernels leave out of the weight's.
    """
    ours, low, high = (t.detach().isfinite() for t in (value, plain, exact))
    padded = name.endswith("weight") and case.special.endswith("gradient")
    if case.frozen != "zero" and not padded and bool((ours & ~low & ~high).any()):
        return ours, "finite where plain modules are not"
    smaller = case.slice_dim >= 2 or case.frozen == "zero"
    if not smaller and bool((~ours & low & high).any()):
        return ours, "not finite where plain modules are"
    return ours & low & high, ""
