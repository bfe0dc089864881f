"""A convolution whose weight and bias are assembled from a learned and a frozen part."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import nan, prod
from types import SimpleNamespace
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from maskedconv import slices
from maskedconv.functional.filter_bank import FilterBank
from maskedconv.functional.selected import Selected, places_of, selected_on
from maskedconv.nn.assembled_weight import AssembledWeight
from maskedconv.nn.nothing_learned import moving_nothing, nothing_like
from maskedconv.nn.partly_learned import FrozenPart, LearnedPart
from maskedconv.nn.plain_state import after_pre_hooks, has_indices, split_plain
from maskedconv.nn.written_through import Now, written_through
from maskedconv.ops.plain import is_plain


class AssembledConv2d(AssembledWeight, nn.Conv2d):
    """``weight`` and ``bias`` of :class:`maskedconv.MaskedConv2d`, and how they are written.

    They are no parameters: assembled anew at each access, changed in place through to the parts,
    and never replaced or deleted (AttributeError).
    """

    _assembled = ("weight", "bias")

    learned: Tensor
    frozen: Tensor | None
    bias_learned: nn.Parameter | None
    bias_frozen: Tensor | None
    slice_dim: int
    frozen_mode: slices.Frozen
    has_bias: bool
    which: tuple[int, ...] | None
    _selected: Selected | None
    # ``requires_grad`` of the plain layer's weight and bias, for those that are no parameter here.
    _requires_grad: dict[str, bool]

    @property
    def num_frozen(self) -> int:
        """How many indices of the slice dimension are not learned."""
        return self.weight_shape[self.slice_dim] - self.num_learned

    @property
    def num_zeros(self) -> int:
        """How many indices of the slice dimension are zero."""
        return self.num_frozen if self.frozen_mode == "zero" else 0

    @property
    def bias(self) -> Tensor | None:
        """The full bias ``[O]``, or None; differentiable towards ``bias_learned``."""
        if not self.has_bias:
            return None
        return written_through(self, self._own_bias, self._bias_now, self._write_bias)

    @bias.setter
    def bias(self, value: Tensor | None) -> None:
        if value is not None or self.has_bias:
            self._refuse_unless_own("bias", value, self._write_bias)

    @bias.deleter
    def bias(self) -> None:
        self._refuse("bias")

    def _take_requires_grad(self, learns: list[bool]) -> None:
        """Gives the learned parts ``requires_grad`` as of :meth:`learns`, or remembers it."""
        parts = ("weight", self.learned), ("bias", self.bias_learned)
        for (name, part), learned in zip(parts, learns, strict=True):
            if isinstance(part, nn.Parameter):
                part.requires_grad_(learned)
            else:
                self._requires_grad[name] = learned

    def _load_from_state_dict(self, *arguments: Any) -> None:
        """Also takes the ``weight`` and ``bias`` of a plain convolution's state dict."""
        state_dict, prefix, local_metadata, *_, error_msgs = arguments
        with after_pre_hooks(self, *arguments):
            if has_indices(self, state_dict, prefix, error_msgs):
                split_plain(self, state_dict, prefix, local_metadata, error_msgs)
                super()._load_from_state_dict(*arguments)
        values = self.bias_learned if self.frozen is None else self.frozen
        if not self.num_learned and values is not None:
            # Assigned values may be of another device and type.
            self.learned = nothing_like(self.learned, values)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        return super()._apply(moving_nothing(fn), recurse)

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        """Adds the indices, which are no buffer: nothing that averages buffers may change them."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.which is not None:
            destination[f"{prefix}which"] = torch.tensor(self.which, device="cpu")

    @property
    def selected(self) -> Selected | None:
        """The learned indices, on the device of the filters; None for the first ones."""
        if self.which is None:
            return None
        # Not by the attribute, which torch.fx replaces while it traces. Pruned or parametrized, it
        # is no parameter; pruning has another one.
        own = next((one for one in self._parameters.values() if one is not None), None)
        return self._selected_on((self.learned if own is None else own).device)

    def _selected_on(self, device: torch.device) -> Selected:
        assert self.which is not None
        found = self._selected
        if found is None or found.indices.device != device:
            found = selected_on(device, self.which, self.weight_shape[self.slice_dim])
            if not torch.compiler.is_compiling() and is_plain(found.indices):
                self._selected = found
        return found

    @property
    def filter_bank(self) -> FilterBank:
        """The parts of weight and bias."""
        # nn.Module's own lookup of a parameter takes as long as the rest of this property.
        learned: Tensor | None = self._parameters.get("learned")
        frozen = self._buffers.get("frozen")
        if learned is None or frozen is None:
            learned, frozen = self.learned, self.frozen
        zeros = self.num_zeros if self.frozen_mode == "zero" else 0
        selected = None if self.which is None else self.selected
        if not self.has_bias:
            return FilterBank(learned, frozen, None, None, self.slice_dim, zeros, selected)
        biases = self.bias_learned, self.bias_frozen
        return FilterBank(learned, frozen, *biases, self.slice_dim, zeros, selected)

    def _full_weight(self) -> Tensor:
        """The parts of the weight as one tensor; ``frozen`` itself if nothing is learned."""
        learned, frozen = _with_values(self.learned, self.frozen)
        if frozen is not None and not self.num_learned:
            return frozen
        return self.filter_bank._replace(learned=learned, frozen=frozen).full_weight()

    def _full_bias(self) -> Tensor | None:
        """The full bias as one new tensor; None if there is none."""
        if not self.has_bias:
            return None
        bias, frozen = _with_values(self.bias_learned, self.bias_frozen)
        if bias is None and frozen is None:
            return self.learned.new_zeros(self.num_zeros if self.slice_dim == 0 else 0)
        return self.filter_bank._replace(bias=bias, frozen_bias=frozen).full_bias()

    def _own_bias(self) -> Tensor:
        bias = self._full_bias()
        assert bias is not None
        return bias

    def _weight_now(self, weight: Tensor) -> Iterable[Now]:
        if self.which is not None:
            return super()._weight_now(weight)
        learned, frozen = _with_values(self.learned, self.frozen)
        own, rest = weight.split((self.num_learned, self.num_frozen), self.slice_dim)
        return (own, learned), (rest, rest.new_zeros(()) if frozen is None else frozen)

    def _bias_now(self, bias: Tensor) -> Iterable[Now]:
        return ((bias, self._own_bias()),)

    def extra_repr(self) -> str:
        # Not of the bias itself, which cannot be assembled of shards.
        attributes = SimpleNamespace(**(vars(self) | {"bias": self.has_bias or None}))
        plain = nn.Conv2d.extra_repr(cast(nn.Conv2d, attributes))
        size = self.weight_shape[self.slice_dim]
        own = f"learned={self.num_learned}/{size}, slice_dim={self.slice_dim}"
        return f"{plain}, {own}, frozen={self.frozen_mode!r}{self._which_repr()}"

    def _which_repr(self) -> str:
        if self.which is None:
            return ""
        listed = ", ".join(map(str, self.which[:4])) + ", ..." * (len(self.which) > 4)
        return f", which=[{listed}]"

    @property
    def dtype(self) -> torch.dtype:
        return self.learned.dtype

    def frozen_parts(self) -> tuple[FrozenPart, ...]:
        size = self.weight_shape[self.slice_dim]
        weights = prod(self.weight_shape) // size * self.num_frozen
        biases = self.num_frozen if self.has_bias and self.slice_dim == 0 else 0
        return FrozenPart(self.frozen, weights), FrozenPart(self.bias_frozen, biases)

    def frozen_buffers(self) -> tuple[str, ...]:
        return "frozen", "bias_frozen"

    def frozen_output(self, input: Tensor) -> Tensor | None:
        if self.slice_dim != 0 or self.groups != 1 or self.frozen is None:
            return None
        return self._conv_forward(input, self.frozen, self.bias_frozen)

    def learned_output(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.learned, self.bias_learned)

    def joined_output(self, learned: Tensor, frozen: Tensor) -> Tensor:
        output = torch.cat((learned, frozen), 1)
        return (
            output if self.which is None else self._selected_on(output.device).in_order(output, 1)
        )

    def learned_parts(self) -> tuple[LearnedPart, ...]:
        indices = None if self.selected is None else self.selected.indices
        return (
            LearnedPart("weight", self.learned, self.slice_dim, indices),
            LearnedPart("bias", self.bias_learned, 0, indices if self.slice_dim == 0 else None),
        )

    def weight_values(self) -> tuple[Tensor, Tensor]:
        learned = self.learned.detach().flatten()
        frozen = learned[:0] if self.frozen is None else self.frozen.flatten()
        if self.learned.requires_grad:
            return learned, frozen
        return learned[:0], torch.cat([learned, frozen])

    def learned_filters(self) -> int:
        if self.slice_dim != 0 or not self.learned.requires_grad:
            return 0
        if self.which is None:
            return self.num_learned
        return sum(place == index for place, index in enumerate(self.which))

    def configuration(self) -> dict[str, Any]:
        which = {} if self.which is None else {"which": list(self.which)}
        return which | {
            "num_learned": self.num_learned,
            "slice_dim": self.slice_dim,
            "frozen_mode": self.frozen_mode,
            "weight_shape": list(self.weight_shape),
        }

    def learns(self) -> list[bool]:
        """Whether a layer that is made of this one's weight, and of its bias, learns them.

        The assembled tensors cannot tell: they require no gradient under ``no_grad``, or if nothing
        of them is learned here. Without a parameter, the answer is that of the plain layer that
        this one was made of; True if there was none.
        """
        return [
            part.requires_grad
            if isinstance(part, nn.Parameter)
            else self._requires_grad.get(name, True)
            for name, part in (("weight", self.learned), ("bias", self.bias_learned))
        ]

    def learned_first(self, tensor: Tensor, dim: int) -> Tensor:
        """A tensor in the order of the weight, with the learned indices of ``dim`` first."""
        if self.which is None:
            return tensor
        return tensor.index_select(dim, places_of(self.which, tensor.size(dim)).to(tensor.device))

    @torch.no_grad()
    def _write_weight(self, weight: Tensor, frozen: bool = True) -> None:
        self.check_stored("learned", "weight")
        weight = self.learned_first(weight, self.slice_dim)
        self.learned.copy_(weight.narrow(self.slice_dim, 0, self.num_learned))
        if frozen and self.frozen is not None:
            self.frozen.copy_(weight.narrow(self.slice_dim, self.num_learned, self.num_frozen))

    @torch.no_grad()
    def _write_bias(self, bias: Tensor, frozen: bool = True) -> None:
        self.check_stored("bias_learned", "bias")
        count = 0
        if self.slice_dim == 0:
            bias = self.learned_first(bias, 0)
        if self.bias_learned is not None:
            count = self.bias_learned.numel()
            self.bias_learned.copy_(bias[:count])
        if frozen and self.bias_frozen is not None:
            self.bias_frozen.copy_(bias[count:])


def _with_values(*parts: Tensor | None) -> tuple[Any, ...]:
    """The parts; NaN for those on the meta device where another has values."""
    known = [part for part in parts if isinstance(part, Tensor)]
    real = [part for part in known if not part.is_meta]
    if len(real) in (0, len(known)):
        return parts
    like = real[0]
    return tuple(p if p is None or not p.is_meta else like.new_full(p.shape, nan) for p in parts)
