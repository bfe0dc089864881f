"""thin(): a plain network without the channels that no output depends on."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from maskedconv.conversion.convert import merge_
from maskedconv.thinning.analysis import Analysis, Tracer
from maskedconv.thinning.channels import is_norm
from maskedconv.thinning.removing import remove_

# Times the largest magnitude; in float64 only the order of sums differs.
_TOLERANCE = 1e-10


class ThinReport(NamedTuple):
    """The channels and parameters that :func:`thin` has removed.

    Attributes:
        channels: output channels before and after, by the name of the layer.
        kept: constant channels of convolutions and linear layers that stay, as a count by the name
            of the layer that needs them; of a function, by that of the module that calls it.
        parameters: numbers of parameters before and after.
    """

    channels: dict[str, tuple[int, int]]
    kept: dict[str, int]
    parameters: tuple[int, int]


@torch.inference_mode(False)
@torch.no_grad()
def thin(model: nn.Module, *inputs: Any) -> tuple[nn.Module, ThinReport]:
    """Removes the channels that are constant or that no layer reads, for evaluation.

    Zero filters give channels that are the same constant for every image. Norms, activations,
    pooling, concatenations, and sums and products of two such channels keep them constant. The
    constant that they add to the next layer's output moves to its bias. If the next layer is a
    convolution that pads with zeros, one constant channel stays and its weight represents all of
    them. Grouped convolutions lose whole groups.

    A channel stays if a sum adds it to one that is read and not constant, if a grouped convolution
    pads it with zeros beside a constant other than zero, if an unknown function reads it, or as
    the last of its layer; ``report.kept`` counts these. ``model`` itself does not change.

    Args:
        inputs: arguments of the model, such as ``[N, C, H, W]``; outputs are compared.

    Returns:
        A plain network of the same class in evaluation mode, and a report of the removed channels.

    Raises:
        ValueError: ``inputs`` are missing, torch.fx cannot trace the model, its output is not one
            tensor, or outputs differ.
    """
    if not inputs:
        raise ValueError("inputs are missing; expected what the model is called with")
    thinned = merge_(copy.deepcopy(model)).eval()
    types = {name: one.dtype for name, one in _tensors(thinned).items()}
    before = sum(p.numel() for p in thinned.parameters())
    thinned = thinned.double()
    report = _thin_(thinned, [_doubled(one) for one in inputs])
    for name, one in _tensors(thinned).items():
        # A bias that the layer did not have gets the type of its weight.
        one.data = one.data.to(types.get(name) or types[f"{name.rpartition('.')[0]}.weight"])
    after = sum(p.numel() for p in thinned.parameters())
    return thinned, report._replace(parameters=(before, after))


def _thin_(model: nn.Module, inputs: list[Any]) -> ThinReport:
    """Thins a network in float64 in place, until nothing more can be removed."""
    try:
        traced = fx.GraphModule(model, Tracer().trace(model))
    # Whatever the model's own code raises for a proxy, as an assertion about its type does.
    except Exception as error:
        why = str(error) or type(error).__name__
        raise ValueError(f"model cannot be traced by torch.fx: {why}") from error
    expected = model(*inputs)
    analysis = Analysis(traced)
    _check(analysis.run(*inputs), expected, "as torch.fx traces the model")
    channels = {read.name: len(read.result.ids) for read in analysis.reads}
    # A channel that only removed channels read is found by the next round.
    while remove_(analysis):
        analysis = Analysis(traced)
        analysis.run(*inputs)
    _check(model(*inputs), expected, "of the thinned network")
    left = {read.name: len(read.result.ids) for read in analysis.reads}
    kept: Counter[str] = Counter()
    for read in analysis.reads:
        if not is_norm(read.layer):
            reasons = analysis.groups.reasons(read.result.ids[~read.result.varying])
            kept.update(reason for reason in reasons if reason)
    return ThinReport({name: (channels[name], left[name]) for name in left}, dict(kept), (0, 0))


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers; one that layers share, which then may differ, by all its names."""
    named = (model.named_parameters, model.named_buffers)
    return {name: one for each in named for name, one in each(remove_duplicate=False)}


def _check(found: Any, expected: Any, where: str) -> None:
    if not isinstance(expected, Tensor):
        raise ValueError(f"the model returns a {type(expected).__name__}; expected a tensor")
    # Written so that NaN is an error.
    if not ((found - expected).abs() <= _TOLERANCE * expected.abs().amax()).all():
        raise ValueError(f"the outputs {where} differ from the model's")


def _doubled(one: Any) -> Any:
    """A copy in float64, so that changes in place and inference tensors do no harm."""
    if not isinstance(one, Tensor):
        return one
    return one.to(torch.float64 if one.is_floating_point() else one.dtype, copy=True)
