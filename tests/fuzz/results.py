"""Results of a module for a case: output, gradients and buffers by name."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import maskedconv
from tests.fuzz.cases import Case
from tests.fuzz.modules import Plain, learned_of, which_of
from tests.fuzz.tensors import dtype_of, laid_out, same_bits, with_special

Results = dict[str, Tensor | None]


def attempt(case: Case, module: nn.Module, values: Tensor, layout: str) -> Results | Exception:
    """Output, gradients and buffers by name, or the error that the module raised."""
    dtype = torch.float64 if values.dtype == torch.float64 else dtype_of(case)
    if case.layout == "expanded":
        values = values[:1].expand_as(values)
    # The same values in every precision: they are exact in the narrow dtype.
    x = laid_out(values.to(dtype_of(case)).to(dtype), layout).detach()
    x.requires_grad_(case.needs[0])
    before = x.detach().clone()
    try:
        with torch.autocast("cpu", torch.bfloat16, case.autocast and dtype != torch.float64):
            output = module(x)
        if output.requires_grad:
            output.backward(_gradient(case, output, layout))
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        return error
    if not same_bits(x.detach(), before):
        return AssertionError("the input was overwritten")
    return {"output": output, "gradient of the input": x.grad, **_state(module, case)}


def _gradient(case: Case, output: Tensor, layout: str) -> Tensor:
    generator = torch.Generator().manual_seed(case.seed)
    values = torch.randn(output.shape, generator=generator)
    values = with_special(values, case, "gradient").to(dtype_of(case)).to(output.dtype)
    if output.dim() != 4:
        return values
    if case.grad_layout == "zero":
        values = torch.zeros_like(values)
    if case.grad_layout == "expanded":
        values = values[:1].expand_as(values)
    ours = layout == case.layout and layout != "contiguous"
    return laid_out(values, case.grad_layout if ours else "contiguous")


def _state(module: nn.Module, case: Case) -> Results:
    """Gradients and running statistics; a plain weight's gradient cut to the learned slice."""
    inner = module.inner if isinstance(module, Plain) else module
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
    learned = case.learned if case.kind == "network" else learned_of(case)
    size = grad.size(dim)
    if isinstance(learned, int) and dim == 0:
        learned = min(learned, size)
    count = maskedconv.slices.num_learned(learned, size, dim)
    if case.chosen and count:
        return grad.index_select(dim, torch.tensor(sorted(which_of(case))))
    return grad.narrow(dim, 0, count) if count else None
