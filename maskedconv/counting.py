"""Parameter counts as the paper counts them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from maskedconv.nn.global_threshold import refresh_thresholds
from maskedconv.nn.partly_learned import PartlyLearned
from maskedconv.nn.scored import scored_layers


@dataclass(frozen=True)
class ParameterCount:
    """Scalars in a model: those that training changes, and all of them."""

    learned: int
    total: int

    @property
    def fraction(self) -> float:
        """Learned share of all parameters, in [0, 1]."""
        return self.learned / self.total if self.total else 0.0

    def __str__(self) -> str:
        return f"{self.learned:,} of {self.total:,} parameters learned ({self.fraction:.2%})"


# The seed that draws every frozen value again, a 64-bit integer.
SEED_BYTES = 8


class InferenceBytes(NamedTuple):
    """Bytes that inference needs of a network.

    Attributes:
        stored: in a file: learned values, one bit for each weight of a mask, BatchNorm's
            statistics, and one seed for all frozen values; as values those that are drawn anew in
            training.
        in_memory: the frozen values instead of the seed. Layers that share a frozen weight hold it
            once.
    """

    stored: int
    in_memory: int


def count_inference_bytes(model: nn.Module) -> InferenceBytes:
    """Bytes that inference needs of ``model``, stored and in memory.

    Frozen values of zero that are not stored cost nothing. The masks of a layer are packed into
    whole bytes.
    """
    partly = [module for module in model.modules() if isinstance(module, PartlyLearned)]
    frozen = {
        id(part.tensor): part.tensor
        for layer in partly
        for part in layer.frozen_parts()
        if part.tensor is not None
    }
    redrawn = {
        id(part.tensor): part.tensor.nbytes
        for layer in partly
        if not layer.frozen_buffers()
        for part in layer.frozen_parts()
        if part.tensor is not None
    }
    inside = {id(t) for layer in partly for t in (*layer.parameters(), *layer.buffers())}
    others = {id(t): t for t in (*model.parameters(), *model.buffers()) if id(t) not in inside}
    learned = sum(-(-layer.inference_bits() // 8) for layer in partly)
    learned += sum(tensor.nbytes for tensor in others.values())
    held = sum(tensor.nbytes for tensor in frozen.values())
    seeds = SEED_BYTES if frozen.keys() - redrawn.keys() else 0
    return InferenceBytes(learned + seeds + sum(redrawn.values()), learned + held)


def count_parameters(model: nn.Module) -> ParameterCount:
    """Counts the parameters that require a gradient, and all parameters of the architecture.

    The total includes frozen and zeroed filters and their biases, so that it does not depend on
    what is learned. Running statistics count in neither. A parameter or frozen part that several
    layers share counts once.
    """
    learned = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    counted: set[int] = set()
    for module in model.modules():
        for frozen, size in module.frozen_parts() if isinstance(module, PartlyLearned) else ():
            if id(frozen) not in counted:
                total += size
            if frozen is not None:
                counted.add(id(frozen))
    return ParameterCount(learned, total)


@dataclass(frozen=True)
class KeptCount:
    """The weights of a supermask: those that its mask keeps, and all of them."""

    kept: int
    total: int

    @property
    def fraction(self) -> float:
        """Kept share of all weights, in [0, 1]."""
        return self.kept / self.total if self.total else 0.0


def count_kept(model: nn.Module) -> KeptCount:
    """Counts the weights that the masks of a model's supermasks keep, and all their weights.

    Both are 0 in a model without supermasks.

    Raises:
        RuntimeError: ``model`` is a part of a network whose layers have one threshold together,
            which is not known for their present scores; call the network first.
    """
    refresh_thresholds(model)
    layers = scored_layers(model)
    kept = sum(layer.num_kept for layer in layers)
    return KeptCount(kept, sum(layer.num_learned for layer in layers))
