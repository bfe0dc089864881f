"""Which channels of a traced network hold one constant for every image and pixel."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
# The dimensions of the image.
NORMS = {nn.BatchNorm1d: 1, nn.BatchNorm2d: 2, nn.BatchNorm3d: 3}
_SAME = (nn.ReLU, nn.ReLU6, nn.Identity, nn.Dropout, nn.MaxPool2d, nn.AdaptiveAvgPool2d)
_SAME_FUNCTIONS = (F.relu, torch.relu, F.relu6, F.max_pool2d, F.adaptive_avg_pool2d)
_CLAMPED = (nn.ReLU, nn.ReLU6, F.relu, torch.relu, F.relu6)


class Channels(NamedTuple):
    """Identities ``[C]`` of a tensor's channels, and their values ``[C]``; NaN is not constant."""

    ids: Tensor
    values: Tensor


class Analysis(fx.Interpreter):
    """Runs a traced network in evaluation and follows its channels.

    Attributes:
        found: the channels of each node's result, as far as they are known.
        blocked: for each identity that must stay, the node that needs it.
    """

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced)
        self.found: dict[fx.Node, Channels] = {}
        self.parents: list[int] = []
        self.blocked: dict[int, str] = {}
        self._calls = [n.target for n in traced.graph.nodes if n.op == "call_module"]

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        channels = self._follow(n, result)
        if channels is not None and not _fits(channels, result, self._layer(n)):
            channels = None
        if channels is None:
            for source in n.all_input_nodes:
                if source in self.found:
                    self._block(self.found[source].ids, n.name)
        else:
            self.found[n] = channels
        return result

    def _layer(self, n: fx.Node) -> Any:
        return self.fetch_attr(str(n.target)) if n.op == "call_module" else None

    def root(self, one: int) -> int:
        while self.parents[one] != one:
            one = self.parents[one]
        return one

    def removable(self, node: fx.Node) -> Tensor:
        """Whether each channel ``[C]`` of a node's result can be removed."""
        blocked = {self.root(one) for one in self.blocked}
        ids = self.found[node].ids.tolist()
        return torch.tensor([self.root(one) not in blocked for one in ids])

    def _block(self, ids: Tensor, why: str) -> None:
        for one in ids.tolist():
            self.blocked.setdefault(one, why)

    def _follow(self, n: fx.Node, result: Any) -> Channels | None:
        inputs = [self.found.get(source) for source in n.all_input_nodes]
        first = inputs[0] if inputs else None
        if n.op == "call_module":
            return self._module(n, self._layer(n), first)
        if n.target in (operator.add, operator.iadd, torch.add) and len(inputs) == 2:
            return self._sum(n, inputs[0], inputs[1])
        if first is None:
            return None
        if n.target in _SAME_FUNCTIONS:
            return self._same(n.target, first)
        if n.target == "mean" and n.args[1] in ((2, 3), [2, 3], (-2, -1), [-2, -1]):
            return first
        if n.target in (torch.flatten, "flatten") and n.args[1:] == (1,):
            times = result.size(1) // len(first.ids)
            return Channels(*(one.repeat_interleave(times) for one in first))
        return None

    def _same(self, kind: Any, first: Channels) -> Channels:
        if kind not in _CLAMPED:
            return first
        function = F.relu6 if kind in (nn.ReLU6, F.relu6) else torch.relu
        values = first.values
        return Channels(first.ids, torch.where(values.isnan(), values, function(values)))

    def _module(self, n: fx.Node, module: Any, first: Channels | None) -> Channels | None:
        if type(module) in _SAME and first is not None:
            return self._same(type(module), first)
        if self._calls.count(n.target) > 1 or module._forward_hooks or module._forward_pre_hooks:
            return None
        if type(module) in NORMS and first is not None and module.running_mean is not None:
            image = first.values.reshape(1, -1, *([1] * NORMS[type(module)]))
            values = module(image).flatten()
            return Channels(first.ids, torch.where(first.values.isnan(), first.values, values))
        is_convolution = type(module) in CONVOLUTIONS and module.groups == 1
        if is_convolution or type(module) is nn.Linear:
            return self._weighted(n, module, first)
        return None

    def _weighted(self, n: fx.Node, module: Any, first: Channels | None) -> Channels:
        weight = module.weight.flatten(2) if module.weight.dim() > 2 else module.weight.unsqueeze(2)
        read = (weight != 0).any(2)
        unknown = torch.ones(weight.size(1), dtype=torch.bool)
        if first is not None:
            unknown = first.values.isnan()
            if shows_border(module):
                unknown = unknown | (first.values != 0)
            self._block(first.ids[unknown], n.name)
        values = module.bias if module.bias is not None else weight.new_zeros(weight.size(0))
        if first is not None:
            known = torch.where(unknown, 0, first.values)
            values = values + weight.sum(2) @ known
        values = torch.where((read & unknown).any(1), torch.nan, values)
        start = len(self.parents)
        self.parents += range(start, start + len(values))
        ids = torch.arange(start, start + len(values))
        self._block(ids[values.isnan()], n.name)
        if not values.isnan().any():
            self._block(ids[:1], n.name)
        return Channels(ids, values)

    def _sum(self, n: fx.Node, one: Channels | None, other: Channels | None) -> Channels | None:
        if one is None or other is None or len(one.ids) != len(other.ids):
            return None
        for a, b in zip(one.ids.tolist(), other.ids.tolist(), strict=True):
            self.parents[self.root(a)] = self.root(b)
        values = one.values + other.values
        self._block(one.ids[values.isnan()], n.name)
        return Channels(one.ids, values)


def shows_border(module: nn.Module) -> bool:
    """Whether a layer pads its input with zeros, beside which a constant is no longer constant."""
    if not isinstance(module, CONVOLUTIONS) or module.padding_mode != "zeros":
        return False
    return any(module._reversed_padding_repeated_twice)


def _fits(channels: Channels, result: Any, layer: Any) -> bool:
    """Whether dimension 1 of a result holds these channels."""
    if not isinstance(result, Tensor) or result.dim() < 2 or result.size(1) != len(channels.ids):
        return False
    weighted = isinstance(layer, (*CONVOLUTIONS, nn.Linear))
    return not weighted or result.dim() == layer.weight.dim()
