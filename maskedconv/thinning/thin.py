"""thin(): a plain network without the channels that zero filters make constant."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from maskedconv.conversion.convert import merge_
from maskedconv.thinning.channels import CONVOLUTIONS, NORMS, Analysis, Channels

# Times the largest magnitude; in float64 only the order of sums differs.
_TOLERANCE = 1e-10


class ThinReport(NamedTuple):
    """What :func:`thin` has removed.

    Attributes:
        channels: output channels before and after, by the name of the layer.
        kept: constant channels that stay, as a count by the function that needs them.
        parameters: numbers of parameters before and after.
    """

    channels: dict[str, tuple[int, int]]
    kept: dict[str, int]
    parameters: tuple[int, int]


@torch.no_grad()
def thin(model: nn.Module, *inputs: Any) -> tuple[nn.Module, ThinReport]:
    """Removes the channels that are the same constant for every image, for evaluation.

    Zero filters give such channels. Norms, activations, pooling and sums of two such channels keep
    them constant. Their share of the next layer's result moves to its bias. A channel stays if a
    convolution pads it with zeros beside a constant other than zero, if a sum adds it to one that
    is not constant, or if an unknown function reads it; ``report.kept`` counts these. ``model``
    itself does not change.

    Args:
        inputs: what the model is called with, such as ``[N, C, H, W]``; outputs are compared.

    Returns:
        A plain network of the same class in evaluation mode, and what was removed.

    Raises:
        ValueError: ``inputs`` are missing, torch.fx cannot trace the model, or outputs differ.
    """
    if not inputs:
        raise ValueError("inputs are missing; expected what the model is called with")
    merged = merge_(copy.deepcopy(model)).eval()
    types = {name: one.dtype for name, one in merged.state_dict().items()}
    thinned = copy.deepcopy(merged).double()
    doubled = tuple(one.double() if _is_float(one) else one for one in inputs)
    try:
        traced = fx.symbolic_trace(thinned)
    except (fx.proxy.TraceError, TypeError) as error:
        raise ValueError(f"model cannot be traced by torch.fx: {error}") from error
    before = sum(p.numel() for p in thinned.parameters())
    analysis = Analysis(traced)
    expected = analysis.run(*doubled)
    report = _removed(thinned, traced, analysis)
    _check(thinned(*doubled), expected)
    for name, one in (*thinned.named_parameters(), *thinned.named_buffers()):
        layer = name.rpartition(".")[0]
        one.data = one.data.to(types.get(name) or types[f"{layer}.weight"])
    after = sum(p.numel() for p in thinned.parameters())
    return thinned, report._replace(parameters=(before, after))


def _removed(model: nn.Module, traced: fx.GraphModule, analysis: Analysis) -> ThinReport:
    channels: dict[str, tuple[int, int]] = {}
    kept: dict[str, int] = {}
    gone = {node: analysis.removable(node) for node in analysis.found}
    for node in traced.graph.nodes:
        layer = model.get_submodule(node.target) if node.op == "call_module" else None
        if node not in gone or type(layer) not in (*CONVOLUTIONS, *NORMS, nn.Linear):
            continue
        source = node.all_input_nodes[0]
        if type(layer) in NORMS:
            _narrow(layer, ~gone[node])
        else:
            _reduce(layer, gone.get(source), analysis.found.get(source), ~gone[node])
        channels[node.target] = (len(gone[node]), int((~gone[node]).sum()))
        for one in analysis.found[node].ids[~gone[node] & ~analysis.found[node].values.isnan()]:
            why = analysis.blocked.get(int(one), node.name)
            kept[why] = kept.get(why, 0) + 1
    return ThinReport(channels, kept, (0, 0))


def _narrow(norm: Any, stay: Tensor) -> None:
    norm.num_features = int(stay.sum())
    for key in ("weight", "bias"):
        if (own := getattr(norm, key)) is not None:
            setattr(norm, key, nn.Parameter(own[stay], own.requires_grad))
    norm.running_mean, norm.running_var = norm.running_mean[stay], norm.running_var[stay]


def _reduce(layer: Any, gone: Tensor | None, source: Channels | None, stay: Tensor) -> None:
    weight, learns = layer.weight, layer.weight.requires_grad
    bias = layer.bias
    if gone is not None and source is not None and gone.any():
        moved = weight[:, gone].flatten(2) if weight.dim() > 2 else weight[:, gone].unsqueeze(2)
        share = moved.sum(2) @ source.values[gone]
        if bias is not None or share.any():
            bias = share if bias is None else bias + share
        weight = weight[:, ~gone]
    layer.weight = nn.Parameter(weight[stay], learns)
    layer.bias = None if bias is None else nn.Parameter(bias[stay], learns)
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    else:
        layer.out_channels, layer.in_channels = layer.weight.shape[:2]


def _check(found: Any, expected: Any) -> None:
    if not isinstance(expected, Tensor):
        raise ValueError(f"the model returns a {type(expected).__name__}; expected a tensor")
    # Written so that NaN is an error.
    if not ((found - expected).abs() <= _TOLERANCE * expected.abs().amax()).all():
        raise ValueError("the outputs of the thinned network differ from the model's")


def _is_float(one: Any) -> bool:
    return isinstance(one, Tensor) and one.is_floating_point()
