"""Layers that learn single values at given positions of the weight; all others are frozen."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import maskedconv.nn.distributed  # noqa: F401 (a hook on DistributedDataParallel)
from maskedconv.nn.assembled_weight import AssembledWeight
from maskedconv.nn.convertible import check_exact, plain_like, take_attributes
from maskedconv.nn.origin import NetworkOrigin, origin_of
from maskedconv.nn.partly_learned import FrozenPart, LearnedPart
from maskedconv.nn.plain_state import after_pre_hooks
from maskedconv.nn.remembered import (
    forget_frozen,
    has_recorded_values,
    record_values,
    with_records,
)
from maskedconv.ops.devices import HALF_PRECISION
from maskedconv.ops.geometry import is_channels_last_weight
from maskedconv.tracing import is_traced


class AtPositions(AssembledWeight):
    """A layer that learns the values at ``positions`` of its weight. Its bias is frozen.

    Gradient, optimizer state and checkpoint hold those values alone. PyTorch computes the full
    gradient of the weight, and the positions are gathered from it, so this saves no time. The layer
    starts without positions; see :meth:`learn_`.

    Attributes:
        values: Parameter ``[num_learned]``, or None if nothing is learned.
        positions: buffer ``[num_learned]``, ascending indices of the flattened weight, int64; None
            if nothing is learned. Only :meth:`learn_` and state dicts change them: after another
            change in place, as by an average that includes buffers, reading the weight raises
            RuntimeError.
        frozen: buffer of the weight's shape; at ``positions``, it has the values from before
            :meth:`learn_`.
        bias: buffer, or None.
    """

    method = "random_positions"
    values: nn.Parameter | None
    positions: Tensor | None
    frozen: Tensor
    has_bias: bool
    _requires_grad: bool

    def _take(self, plain: nn.Module) -> None:
        """Takes over attributes and values of a plain layer that no one else uses."""
        nn.Module.__init__(self)
        take_attributes(self, plain)
        weight, bias = (vars(plain)["_parameters"][name] for name in ("weight", "bias"))
        self.weight_shape = tuple(weight.shape)
        self.num_learned, self.seed = 0, None
        self.has_bias = bias is not None
        self._requires_grad = weight.requires_grad
        self.register_buffer("frozen", weight.detach())
        self.register_buffer("bias", None if bias is None else bias.detach())
        self.register_buffer("positions", None)
        self.register_parameter("values", None)

    def learn_(self, positions: Tensor) -> None:
        """Learns the values at ``positions`` from now on, and freezes all others.

        Args:
            positions: ``[n]``, ascending indices of the flattened weight, int64.
        """
        weight = self._full_weight().detach()
        self.frozen, self.num_learned = weight, positions.numel()
        self.positions = self.values = None
        if self.num_learned:
            self.positions = positions.to(weight.device, copy=True)
            record_values(self.positions)
            values = weight.flatten()[self.positions]
            self.values = nn.Parameter(values, self._requires_grad)

    def _full_weight(self) -> Tensor:
        if self.positions is None or self.values is None:
            return self.frozen
        self.check_indices()
        frozen = self.frozen
        if not is_traced(self.values):  # A Proxy of torch.fx has no type.
            frozen = frozen.to(self.values.dtype)
        if frozen.dim() == 4 and is_channels_last_weight(frozen):
            places = torch.unravel_index(self.positions, self.weight_shape)
            return frozen.index_put(places, self.values)
        flat = frozen.flatten().index_copy(0, self.positions, self.values)
        return flat.view(self.weight_shape)

    def _parts_for(self, input: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weight and bias in the type of the learned values, which FSDP2's mixed precision sets.

        Frozen values alone follow an input in half precision, as FSDP2 converts no buffers.
        """
        weight, bias = self._full_weight(), cast(Tensor | None, self.bias)
        if is_traced(input):
            return weight, bias
        if self.values is None and input.dtype in HALF_PRECISION:
            weight = weight.to(input.dtype)
        return weight, None if bias is None else bias.to(weight.dtype)

    def check_indices(self) -> None:
        if self.positions is None or torch.compiler.is_compiling() or is_traced(None):
            return
        if not has_recorded_values(self.positions):
            raise RuntimeError(
                f"the positions of a {type(self).__name__} have changed, as by an average of "
                "models that includes buffers; expected an average of the parameters alone "
                "(use_buffers=False), or load_state_dict for other values"
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        return super()._apply(with_records(fn), recurse)

    @torch.no_grad()
    def _write_weight(self, weight: Tensor) -> None:
        self.check_stored("values", "weight")
        self.frozen.copy_(weight)
        if self.positions is not None and self.values is not None:
            self.values.copy_(weight.flatten()[self.positions])

    def _load_from_state_dict(self, *arguments: Any) -> None:
        """Also takes the ``weight`` and ``bias`` of a plain layer's state dict."""
        with after_pre_hooks(self, *arguments):
            self._take_plain(*arguments[:2])
            super()._load_from_state_dict(*arguments)
        if self.positions is not None:
            record_values(self.positions)

    def _take_plain(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Replaces a plain layer's ``weight`` by the parts; without the graph of a Parameter."""
        if (bias := state_dict.get(f"{prefix}bias")) is not None:
            state_dict[f"{prefix}bias"] = bias.detach()
        weight = state_dict.get(f"{prefix}weight")
        if weight is not None and tuple(weight.shape) == self.weight_shape:
            forget_frozen(self)
            del state_dict[f"{prefix}weight"]
            state_dict[f"{prefix}frozen"] = weight = weight.detach()
            if self.positions is not None:
                state_dict[f"{prefix}positions"] = self.positions
                values = weight.flatten()[self.positions.to(weight.device)]
                state_dict[f"{prefix}values"] = values

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, learned={self.num_learned}/{self.frozen.numel()}"

    @property
    def dtype(self) -> torch.dtype:
        return self.frozen.dtype

    def frozen_parts(self) -> tuple[FrozenPart, ...]:
        bias = self._buffers["bias"]
        return (
            FrozenPart(self.frozen, self.frozen.numel() - self.num_learned),
            FrozenPart(bias, 0 if bias is None else bias.numel()),
        )

    def frozen_buffers(self) -> tuple[str, ...]:
        # Positions that no network draws again count as learned.
        drawn = isinstance(origin_of(self), NetworkOrigin)
        return ("frozen", "positions", "bias") if drawn else ("frozen", "bias")

    def learned_parts(self) -> tuple[LearnedPart, ...]:
        return ()

    def weight_values(self) -> tuple[Tensor, Tensor]:
        weight = self._full_weight().detach().flatten()
        learned = torch.zeros_like(weight, dtype=torch.bool)
        if self.values is not None and self.values.requires_grad:
            learned[self.positions] = True
        return weight[learned], weight[~learned]

    def learned_filters(self) -> int:
        return 0

    def configuration(self) -> dict[str, Any]:
        return {
            "num_learned": self.num_learned,
            "weight_shape": list(self.weight_shape),
            "has_bias": self.has_bias,
        }

    def drawn_from(self, seed: int) -> Self:
        """Always raises ValueError: the positions are drawn for a whole network."""
        raise ValueError(f"seed is {seed}; expected None, as no layer draws its own positions")

    @classmethod
    def from_plain(cls, plain: nn.Module) -> Self:
        """A layer with the values of ``plain`` (a copy), none of which is learned yet."""
        layer = cls.__new__(cls)
        layer._take(cls._copy(plain))
        return layer.train(plain.training)

    def to_frozen(self) -> Self:
        return self.from_plain(self.to_plain())

    def to_plain(self) -> nn.Module:
        check_exact(self, type(self), "the layer")
        plain = self._copy(self)
        learns = self._requires_grad if self.values is None else self.values.requires_grad
        return plain.requires_grad_(learns).train(self.training)

    @classmethod
    def _copy(cls, layer: Any) -> nn.Module:
        """A plain layer with the values of a plain layer or of one of this class."""
        plain = cls._without_memory(layer)
        for name, values in (("weight", layer.weight), ("bias", layer.bias)):
            if values is not None:
                copied = values.detach().as_subclass(Tensor).clone()
                setattr(plain, name, nn.Parameter(copied, values.requires_grad))
        return plain

    @classmethod
    @abstractmethod
    def _without_memory(cls, layer: Any) -> nn.Module:
        """A plain layer like ``layer`` on the meta device."""


class PositionsConv2d(AtPositions, nn.Conv2d):
    """A convolution of :class:`AtPositions`; takes the arguments of ``nn.Conv2d``."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self._take(nn.Conv2d(*arguments, **keywords))

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, *self._parts_for(input))

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(2, 2, 1, device="meta"),)

    @classmethod
    def _without_memory(cls, layer: nn.Conv2d) -> nn.Conv2d:
        return plain_like(layer, layer.weight.dtype)


class PositionsLinear(AtPositions, nn.Linear):
    """A fully connected layer of :class:`AtPositions`; takes the arguments of ``nn.Linear``."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self._take(nn.Linear(*arguments, **keywords))

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, *self._parts_for(input))

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(2, 2, device="meta"),)

    @classmethod
    def _without_memory(cls, layer: nn.Linear) -> nn.Linear:
        sizes = layer.in_features, layer.out_features
        return nn.Linear(*sizes, layer.bias is not None, device="meta", dtype=layer.weight.dtype)
