"""Which channels of a traced network can be removed without another output."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from maskedconv.thinning.channels import (
    ELEMENTWISE,
    ELEMENTWISE_FUNCTIONS,
    PRODUCTS,
    SAME,
    SAME_FUNCTIONS,
    SUMS,
    WEIGHTED,
    Channels,
    argument,
    averages_windows,
    constants,
    is_norm,
    is_read,
    keeps_averages,
    name_of,
    shows_border,
)
from maskedconv.thinning.groups import Groups


class Tracer(fx.Tracer):
    """Keeps norms of classes derived from PyTorch's as calls."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return is_norm(m) or super().is_leaf_module(m, module_qualified_name)


class Read(NamedTuple):
    """A layer with the channels that it reads, if they are known, and those of its result."""

    name: str
    layer: Any
    source: Channels | None
    result: Channels

    @property
    def carrier(self) -> int:
        """The constant of the largest magnitude among the channels that are read."""
        assert self.source is not None
        return int(self.source.values.nan_to_num(0).abs().argmax())


class Analysis(fx.Interpreter):
    """Runs a traced network in evaluation and follows its channels.

    Attributes:
        groups: of all channels; those that have a reason stay.
        reads: convolutions, linear layers and norms that were followed, in their order.
    """

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced)
        self.groups = Groups()
        self.reads: list[Read] = []
        self._found: dict[fx.Node, Channels] = {}
        self._calls = [n.target for n in traced.graph.nodes if n.op == "call_module"]

    def run(self, *arguments: Any) -> Any:  # type: ignore[override]
        result = super().run(*arguments)
        self._keep_one_of_each()
        self._keep_carriers()
        return result

    def run_node(self, n: fx.Node) -> Any:
        versions = {one: _version(value) for one, value in self.env.items()}
        result = super().run_node(n)
        changed = [one for one in versions if _version(self.env[one]) != versions[one]]
        channels = self._follow(n, result)
        if channels is None and not changed and n.op != "output":
            # Functions that return their argument, such as those that do nothing in evaluation.
            same = [source for source in n.all_input_nodes if self.env[source] is result]
            channels = self._found.get(same[0]) if same else None
        if channels is not None and _holds(result, channels):
            self._found[n] = channels
        elif not _asks_for_others(n):
            for source in self._found.keys() & n.all_input_nodes:
                self.groups.keep(self._found[source].ids, name_of(n))
        for one in self._found.keys() & changed:
            if n in self._found and self.env[one] is result:
                self._found[one] = self._found[n]
            else:
                self.groups.keep(self._found[one].ids, name_of(n))
                self._found[one] = _varying(self._found[one].ids)
        return result

    def _follow(self, n: fx.Node, result: Any) -> Channels | None:
        if n.op == "call_module":
            return self._module(n, self.fetch_attr(str(n.target)))
        if n.op not in ("call_function", "call_method"):
            return None
        if n.target in SUMS or n.target in PRODUCTS:
            return self._combined(n)
        if n.target in (torch.cat, torch.concat):
            return self._joined(n, result)
        first = self._first(n)
        if first is None:
            return None
        if n.target in ELEMENTWISE_FUNCTIONS:
            return self._elementwise(n, first)
        if n.target in SAME_FUNCTIONS or averages_windows(n) or self._averages_pixels(n):
            return first
        return _repeated(first, result) if self._flattens(n, result) else None

    def _first(self, n: fx.Node) -> Channels | None:
        return self._found.get(n.args[0]) if n.args and isinstance(n.args[0], fx.Node) else None

    def _elementwise(self, n: fx.Node, first: Channels) -> Channels | None:
        if len(n.all_input_nodes) > 1:
            return None
        function = getattr(Tensor, n.target) if isinstance(n.target, str) else n.target
        values = function(first.values.clone(), *n.args[1:], **n.kwargs)
        return Channels(first.ids, torch.where(first.varying, torch.nan, values))

    def _averages_pixels(self, n: fx.Node) -> bool:
        given = argument(n, 1, "dim")
        if n.target not in (torch.mean, "mean") or given is None:
            return False
        count = self.env[n.all_input_nodes[0]].dim()
        dimensions = given if isinstance(given, (list, tuple)) else [given]
        return all(isinstance(one, int) and one % count > 1 for one in dimensions)

    def _flattens(self, n: fx.Node, result: Any) -> bool:
        if n.target in (torch.flatten, "flatten"):
            return argument(n, 1, "start_dim") == 1 and result.dim() == 2
        if n.target not in ("view", "reshape") or n.args[-1] != -1:
            return False
        return bool(result.dim() == 2 and len(result) == len(self.env[n.all_input_nodes[0]]))

    def _combined(self, n: fx.Node) -> Channels | None:
        """The channels of a sum or product."""
        if len(n.args) != 2 or n.kwargs:
            return None
        one, other = (self._found.get(a) if isinstance(a, fx.Node) else a for a in n.args)
        combine = torch.mul if n.target in PRODUCTS else torch.add
        if isinstance(one, Channels) and isinstance(other, (int, float)):
            return Channels(one.ids, combine(one.values, other))
        if not isinstance(one, Channels) or not isinstance(other, Channels):
            return None
        dimensions = {self.env[source].dim() for source in n.all_input_nodes}
        if len(one.ids) != len(other.ids) or len(dimensions) > 1:
            return None
        self.groups.join(one.ids, other.ids)
        values = combine(one.values, other.values)
        if n.target in PRODUCTS:
            values = torch.where((one.values == 0) | (other.values == 0), 0, values)
        return Channels(one.ids, values)

    def _joined(self, n: fx.Node, result: Tensor) -> Channels | None:
        """The channels of a concatenation."""
        dimension, sources = argument(n, 1, "dim"), argument(n, 0, "tensors")
        # Either may be a result of the forward pass, such as a part of the result of chunk().
        if not isinstance(dimension, int) or not isinstance(sources, (list, tuple)):
            return None
        if dimension % result.dim() != 1:
            return None
        parts = []
        for source in sources:
            if source not in self._found:
                ids = self.groups.new(self.env[source].size(1))
                self.groups.keep(ids, name_of(n))
            parts.append(self._found.get(source) or _varying(ids))
        return Channels(*(torch.cat(one) for one in zip(*parts, strict=True)))

    def _module(self, n: fx.Node, layer: Any) -> Channels | None:
        first = self._first(n)
        if layer._forward_hooks or layer._forward_pre_hooks or len(n.args) != 1 or n.kwargs:
            return None
        if type(layer) in WEIGHTED:
            return self._weighted(n, layer, first)
        if first is None:
            return None
        if type(layer) in SAME or keeps_averages(layer):
            return first
        if type(layer) in ELEMENTWISE:
            values = layer(first.values.clone())
            return Channels(first.ids, torch.where(first.varying, torch.nan, values))
        if type(layer) is nn.Flatten and (layer.start_dim, layer.end_dim) == (1, -1):
            return _repeated(first, self.env[n.all_input_nodes[0]].flatten(1))
        return self._norm(n, layer, first) if is_norm(layer) else None

    def _norm(self, n: fx.Node, layer: Any, first: Channels) -> Channels | None:
        if self._calls.count(n.target) > 1 or layer.running_mean is None:
            return None
        pixel = [1] * (self.env[n.all_input_nodes[0]].dim() - 2)
        values = layer(first.values.to(layer.running_mean).reshape(1, -1, *pixel)).flatten().cpu()
        result = Channels(first.ids, torch.where(first.varying, torch.nan, values))
        self.reads.append(Read(name_of(n), layer, first, result))
        return result

    def _weighted(self, n: fx.Node, layer: Any, first: Channels | None) -> Channels | None:
        dimensions = self.env[n.all_input_nodes[0]].dim()
        if self._calls.count(n.target) > 1 or dimensions != layer.weight.dim():
            return None
        groups = getattr(layer, "groups", 1)
        ids = self.groups.new(layer.weight.size(0))
        if first is None and groups > 1:
            self.groups.keep(ids, name_of(n))
        elif first is not None and groups > 1:
            self._join_groups(first.ids, ids, groups)
        elif first is not None:
            self.groups.keep(first.ids[first.varying & is_read(layer)], name_of(n))
        unknown = torch.full([layer.weight.size(1) * groups], torch.nan, dtype=torch.float64)
        result = Channels(ids, constants(layer, unknown if first is None else first.values))
        self.reads.append(Read(name_of(n), layer, first, result))
        return result

    def _join_groups(self, read: Tensor, ids: Tensor, groups: int) -> None:
        """A group of a convolution goes with all that it reads and returns, or stays."""
        own = torch.cat([read.reshape(groups, -1), ids.reshape(groups, -1)], 1)
        self.groups.join(own[:, 1:].flatten(), own[:, :1].expand_as(own[:, 1:]).flatten())

    def _keep_one_of_each(self) -> None:
        for read in self.reads:
            if self.groups.removable(read.result.ids).all():
                self.groups.keep(read.result.ids[:1], read.name)

    def _keep_carriers(self) -> None:
        """Keeps one constant channel for all before a padded convolution."""
        for read in self.reads:
            if read.source is None or not shows_border(read.layer) or read.layer.groups > 1:
                continue
            moved = self.groups.removable(read.source.ids) & ~read.source.varying
            if (moved & is_read(read.layer) & (read.source.values != 0)).any():
                self.groups.keep(read.source.ids[read.carrier].reshape(1), read.name)


def _version(value: Any) -> int:
    return value._version if isinstance(value, Tensor) else 0


def _varying(ids: Tensor) -> Channels:
    return Channels(ids, torch.full([len(ids)], torch.nan, dtype=torch.float64))


def _repeated(first: Channels, result: Tensor) -> Channels:
    """The channels of a flattened tensor."""
    times = result.size(1) // len(first.ids)
    return Channels(*(one.repeat_interleave(times) for one in first))


def _holds(result: Any, channels: Channels) -> bool:
    """Whether dimension 1 of a result holds these channels."""
    return isinstance(result, Tensor) and result.dim() > 1 and result.size(1) == len(channels.ids)


def _asks_for_others(n: fx.Node) -> bool:
    """Whether a call returns properties that do not depend on the channels."""
    if n.target == "size":
        return argument(n, 1, "dim") in (0, 2, 3)
    if n.target is not getattr:
        return n.target == "dim"
    if n.args[1] != "shape":
        return n.args[1] in ("ndim", "dtype", "device")
    return all(u.target is operator.getitem and u.args[1] in (0, 2, 3) for u in n.users)
