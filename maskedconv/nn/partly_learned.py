"""The protocol of layers that learn only part of their values."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn


class FrozenPart(NamedTuple):
    """Values of a layer that are not learned.

    Attributes:
        tensor: the buffer that holds them; None if they are zero and not stored.
        size: how many scalars they are.
    """

    tensor: Tensor | None
    size: int


class LearnedPart(NamedTuple):
    """A parameter that is a slice of a plain layer's parameter.

    Attributes:
        plain: name of the plain layer's parameter, such as ``weight``.
        tensor: its learned indices along ``dim``; None if there are none.
        indices: those indices, ``[n]``; None for the first ones.
    """

    plain: str
    tensor: Tensor | None
    dim: int
    indices: Tensor | None = None


class PartlyLearned(nn.Module):
    """A layer that learns only part of its values.

    The tools for whole models (conversion, counting, checkpoints, data parallel training, the
    report) use these names and do not know the layer's class. The buffers of such a layer are
    frozen: training does not change them.

    Attributes:
        method: name of its method in :data:`maskedconv.methods.METHODS`.
        weight_shape: shape of the full weight, ``[O, I / groups, kH, kW]`` for a convolution.
        num_learned: how many filters, channels, or other units of the weight are learned.
        seed: draws the initial values; None if they do not come from a seed of this layer.
        dtype: of its values.
    """

    method: ClassVar[str]
    weight_shape: tuple[int, ...]
    num_learned: int
    seed: int | None

    @classmethod
    @abstractmethod
    def examples(cls) -> tuple[Self, ...]:
        """Small layers without memory that have, together, every attribute a layer can have."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype: ...

    @property
    @abstractmethod
    def weight(self) -> Tensor:
        """The full weight, of ``weight_shape``."""

    @abstractmethod
    def frozen_parts(self) -> tuple[FrozenPart, ...]:
        """Its frozen values: with its parameters, they are the parameters of the plain layer."""

    @abstractmethod
    def frozen_buffers(self) -> tuple[str, ...]:
        """Names of the buffers that a checkpoint may leave out, because they can be drawn again."""

    def masks(self) -> dict[str, Tensor]:
        """Small whole numbers that may replace parts of its state without changing its output.

        Zeros and ones, or numbers of coats up to 255. By their names in its state dict, in its own
        dtype. Empty if there are none.
        """
        return {}

    def values_replaced(self) -> None:
        """Called after other tensors took the place of its learned ones, such as another task's.

        Values that were derived from them are dropped here.
        """

    def check_indices(self) -> None:
        """RuntimeError if something has changed in place which values of the weight are learned."""

    def check_stored(self, part: str, of: str) -> None:
        """RuntimeError if ``part`` is computed, so that values that are written to it are lost.

        Args:
            of: what is to be written.
        """
        if part not in self._parameters and part not in self._buffers:
            raise RuntimeError(
                f"{part} of a {type(self).__name__} is parametrized or pruned, so that values of "
                f"{of} that are written there would be lost; expected a Parameter: remove the "
                "parametrization or the pruning before, and apply it again after"
            )

    def frozen_output(self, input: Tensor) -> Tensor | None:
        """The output channels for ``input`` of frozen values alone; None if there are none.

        Layers that differ in learned values alone compute them once for the inputs of all.
        """

    def learned_output(self, input: Tensor) -> Tensor:
        """The other output channels."""
        raise NotImplementedError(f"{type(self).__name__} has no frozen_output")

    def joined_output(self, learned: Tensor, frozen: Tensor) -> Tensor:
        """The output, of :meth:`learned_output` and :meth:`frozen_output`."""
        raise NotImplementedError(f"{type(self).__name__} has no frozen_output")

    @abstractmethod
    def learned_parts(self) -> tuple[LearnedPart, ...]:
        """The parameters that are parts of a plain layer's, for gradients and attributes."""

    def inference_bits(self) -> int:
        """Bits that inference needs of the parameters, learned or not, besides the frozen parts."""
        return sum(8 * one.numel() * one.itemsize for one in self.parameters(recurse=False))

    @abstractmethod
    def weight_values(self) -> tuple[Tensor, Tensor]:
        """Learned and frozen values of the weight, flat; without zeros that are not stored."""

    @abstractmethod
    def learned_filters(self) -> int:
        """How many output filters, counted from the first, are learned entirely."""

    @abstractmethod
    def configuration(self) -> dict[str, Any]:
        """JSON values that distinguish this layer from others of its method."""

    @abstractmethod
    def drawn_from(self, seed: int) -> Self:
        """A new layer like this one, on the CPU, with the initial values that ``seed`` gives."""

    @abstractmethod
    def to_frozen(self) -> Self:
        """A new layer with the same values, none of which is learned."""

    @abstractmethod
    def to_plain(self) -> nn.Module:
        """A plain layer with the same values, all of them learned."""
