"""Layers whose weight is frozen, and whose scores decide which of it is used."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NoReturn, Self

import torch
from torch import Tensor, nn

import maskedconv.nn.distributed  # noqa: F401 (a hook on DistributedDataParallel)
from maskedconv import slices
from maskedconv.functional.supermask import MaskPlan, coated_weight, supermask_weight
from maskedconv.nn.bits import pack_digits, threshold_of_ones, unpack_digits
from maskedconv.nn.mask_settings import MaskSettings
from maskedconv.nn.partly_learned import FrozenPart, LearnedPart
from maskedconv.nn.random_weights import draw_weights_, empty_weight, kept_gain, seeded
from maskedconv.nn.remembered import remember_draw
from maskedconv.nn.shared_weight import SharedWeight
from maskedconv.ops.devices import autocast_dtype
from maskedconv.ops.masked_weight import (
    Threshold,
    find_threshold,
    masked_weight,
    pack_mask,
    unpack_bits,
)
from maskedconv.tracing import check_not_proxy


class ScoredLayer(SharedWeight):
    """Uses the frozen weights with the largest scores; only the scores are learned.

    The learned parameters of such a layer are its scores, one for each weight. The number of
    weights that the mask keeps is ``num_kept``.

    Attributes:
        scores: Parameter of the shape of the weight.
        frozen: buffer, the random weight before the mask. Layers that were given the same tensor
            share it, also after ``.to()`` and ``.half()``.
        settings: of the mask.
        kept_ratio: its ``k``, as of :func:`maskedconv.slices.kept_ratio`.
        held_mask: buffer outside the state dict, the bits of a mask that is used instead of that of
            the scores; None to use the scores. See :mod:`maskedconv.supermasks`.
    """

    binary: ClassVar[bool] = False
    default_weights: ClassVar[str] = "signed_constant"
    bias: ClassVar[None] = None
    has_bias: ClassVar[bool] = False

    scores: nn.Parameter
    held_mask: Tensor | None
    settings: MaskSettings

    def _set_up(
        self,
        shape: Sequence[int],
        settings: MaskSettings,
        seed: int | None,
        frozen: Tensor | None,
        device: torch.device | str | int | None,
        dtype: torch.dtype | None,
    ) -> None:
        """Allocates and draws the parts.

        Args:
            shape: of the weight.
            frozen: a weight to use instead of a random one; the default of device and dtype.
        """
        self.settings = settings = settings.checked(binary=self.binary)
        # `seed` is that of the frozen weight: files have it.
        self.seed = seed if frozen is None else None
        self._scores_seed = seed
        # On the meta device there are no values to keep.
        self._is_given = frozen is not None and not frozen.is_meta
        like = empty_weight(frozen, shape, device, dtype)
        self.threshold_group, self._seen_threshold = None, None
        self.kept_ratio = slices.kept_ratio(self.settings.k)
        self.weight_shape = tuple(like.shape)
        self.num_learned = like.numel()
        self._num_kept, *inner = slices.nested_kept(settings.k, settings.coats, like.numel())
        self._inner = tuple(inner)
        self.scores = nn.Parameter(torch.empty_like(like))
        if isinstance(frozen, nn.Parameter) or (frozen is not None and frozen.requires_grad):
            frozen = frozen.detach()  # A Parameter would be registered as one later.
        self.register_buffer("frozen", torch.empty_like(like) if frozen is None else frozen)
        self.register_buffer("held_mask", None, persistent=False)
        self.reset_parameters()

    @property
    def num_kept(self) -> int:
        """How many weights the mask keeps; read from a mask that is not this layer's alone."""
        own = self.settings.threshold == "layer" and self.held_mask is None
        return self._num_kept if own else int(self.mask.sum())

    def _kept_repr(self) -> str:
        try:
            kept = str(self.num_kept)
        except RuntimeError:  # No values, or the threshold of the network is not known.
            kept = "?"
        return f"kept={kept}/{self.num_learned}"

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draws the frozen weight and the scores, each from its seed when there is one.

        A frozen weight that was given, or is another layer's, stays unless a seed gives it. Values
        are drawn on the CPU. Parts on the meta device have no values and are skipped.
        """
        if self.scores.is_meta:
            return
        self.check_stored("scores", "scores")
        generator = seeded(self._scores_seed)
        # Used or not: the scores would be the weight if they were the first values of its seed.
        weight = None if generator is None else self.draw_weight(generator)
        if self.seed is not None or not self._is_given:
            if weight is None or self.seed != self._scores_seed:
                weight = self.draw_weight(seeded(self.seed))
            self.frozen.copy_(weight)
            remember_draw(self, self.seed)
        self.reset_scores(generator)

    def draw_weight(self, generator: torch.Generator | None) -> Tensor:
        """A new random weight of its settings, on the CPU."""
        drawn = torch.empty(self.weight_shape, dtype=self.dtype, device="cpu")
        return draw_weights_(drawn, self.settings.weights, self.gain(), generator)

    @torch.no_grad()
    def reset_scores(self, generator: torch.Generator | None = None) -> None:
        """Draws the scores, and not the frozen weight, on the CPU.

        Args:
            generator: on the CPU; None for torch's own.
        """
        drawn = torch.empty(self.weight_shape, dtype=self.dtype, device="cpu")
        self.scores.copy_(nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator))

    @torch.no_grad()
    def draw_frozen_(self, draw: Callable[[Tensor], object]) -> None:
        """Initialises the frozen weight by ``draw`` if its distribution is that of the network.

        ``draw`` fills a tensor of the shape of the weight in place.
        """
        if self.settings.weights == "network":
            draw(self.frozen)
            self.frozen.mul_(self.gain())

    def gain(self) -> float:
        """The factor of weights that are drawn: 1 / √k under ``scale``."""
        return kept_gain(self.settings.k) if self.settings.scale else 1.0

    def _plan(self) -> MaskPlan:
        """How the weight is masked."""
        if self.settings.threshold == "layer":
            return MaskPlan(self._num_kept, self.binary, inner=self._inner)
        return MaskPlan(0, self.binary, self.known_threshold())

    def _compute_weight(self, input: Tensor) -> Tensor:
        """The masked weight in the type that a layer computes in for ``input``."""
        check_not_proxy(self, input)
        dtype = None if self.dtype == torch.float64 else autocast_dtype(input.device.type)
        return self._masked_weight(dtype or self.dtype)

    def _masked_weight(self, dtype: torch.dtype) -> Tensor:
        if self.held_mask is not None and self._inner:
            return coated_weight(self.frozen, self.coats, dtype)
        if self.held_mask is not None:
            mask = unpack_bits(self.held_mask, self.weight_shape).to(self.dtype)
            threshold = threshold_of_ones(mask)
            return masked_weight(self.frozen, mask, threshold, binary=self.binary, dtype=dtype)
        return supermask_weight(self.scores, self.frozen, self._plan(), dtype)

    def pack_mask(self) -> Tensor:
        """The mask as bits, uint8, ``[ceil(number of weights / 8)]``; a new tensor.

        With several coats, the binary digits of :attr:`coats`, ``[digits, ...]``, the lowest first.
        """
        if self.held_mask is not None:
            return self.held_mask.clone()
        if self._inner:
            return pack_digits(self.coats, self.settings.coats.bit_length())
        return pack_mask(self.scores.detach(), self._plan().threshold_of(self.scores))

    def hold_mask(self, bits: Tensor | None) -> None:
        """Uses the mask of :meth:`pack_mask` instead of that of the scores; None to stop that.

        The scores do not change, and get no gradient meanwhile. Only the bits are copied.
        """
        if bits is None:
            self.held_mask = None
        elif self.held_mask is None:
            # A tensor of inference mode could not be changed outside of it.
            with torch.inference_mode(False):
                self.held_mask = bits.to(self.frozen.device, copy=True)
        else:
            self.held_mask.copy_(bits)

    @property
    def weight(self) -> Tensor:
        """The masked weight, of ``weight_shape``; differentiable towards ``scores``.

        It is computed at each access, so changing it in place changes nothing.
        """
        return self._masked_weight(self.dtype)

    @weight.setter
    def weight(self, value: object) -> NoReturn:
        raise AttributeError(
            f"weight of a {type(self).__name__} is computed from its scores and frozen weight and "
            "cannot be replaced; change those, or make a plain layer first (`layer.to_plain()`)"
        )

    @property
    def mask(self) -> Tensor:
        """True for the weights that are kept, bool, of ``weight_shape``."""
        if self.held_mask is not None:
            return self.coats != 0
        return self.mask_of(self._plan().threshold_of(self.scores))

    @property
    def coats(self) -> Tensor:
        """How many nested masks keep each weight, uint8, of ``weight_shape``."""
        if self.held_mask is not None:
            return unpack_digits(torch.atleast_2d(self.held_mask), self.weight_shape)
        found = self.mask.to(torch.uint8)
        for kept in self._inner:
            found += self.mask_of(find_threshold(self.scores.detach(), kept))
        return found

    def mask_of(self, threshold: Threshold) -> Tensor:
        """The mask of the present scores under a threshold."""
        scores = self.scores.detach()
        return masked_weight(torch.ones_like(scores), scores, threshold).bool()

    def masks(self) -> dict[str, Tensor]:
        # As scores, they keep the same weights: as many are at least 1 (2, ...) as the first
        # (second, ...) mask keeps.
        return {"scores": self.coats.to(self.dtype)}

    @property
    def dtype(self) -> torch.dtype:
        return self.scores.dtype

    def frozen_parts(self) -> tuple[FrozenPart, ...]:
        # One score stands for each weight of the plain layer.
        return (FrozenPart(self.frozen, 0),)

    def frozen_buffers(self) -> tuple[str, ...]:
        # Weights that are drawn anew in training are not those of the seed: files hold them.
        return () if self.settings.rerandomise_every else ("frozen",)

    def learned_parts(self) -> tuple[LearnedPart, ...]:
        return ()

    def inference_bits(self) -> int:
        """One bit for each weight: whether it is kept. More for the number of coats."""
        return self.num_learned * self.settings.coats.bit_length()

    def weight_values(self) -> tuple[Tensor, Tensor]:
        kept = self.weight.detach()[self.mask]
        return (kept, kept[:0]) if self.scores.requires_grad else (kept[:0], kept)

    def learned_filters(self) -> int:
        return 0

    def configuration(self) -> dict[str, Any]:
        return {**self.settings.described(), "weight_shape": list(self.weight_shape)}

    @abstractmethod
    def _like(self, **options: Any) -> Self:
        """A new layer with the geometry, settings and dtype of this one."""

    def drawn_from(self, seed: int) -> Self:
        return self._like(seed=seed, device="cpu")

    @torch.no_grad()
    def to_frozen(self) -> Self:
        layer = self._like(frozen=self.frozen, device=self.scores.device)
        layer.scores.copy_(self.scores)
        layer.threshold_group = self.threshold_group
        return layer.requires_grad_(False).train(self.training)

    @torch.no_grad()
    def _fill(self, plain: nn.Module) -> nn.Module:
        """Gives a plain layer on the meta device the masked weight."""
        plain.weight = nn.Parameter(self.weight.clone(), requires_grad=self.scores.requires_grad)
        return plain.train(self.training)


def scored_layers(network: nn.Module) -> list[ScoredLayer]:
    """The supermask layers of a network, each once."""
    return [module for module in network.modules() if isinstance(module, ScoredLayer)]
