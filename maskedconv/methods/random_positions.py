"""Learning scalars at random positions of the weights (Frankle, Schwab & Morcos 2020).

There it is the control of learning BatchNorm alone: as many parameters, chosen at random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from maskedconv.checks import check_int
from maskedconv.methods.method import Configuration, LayerFactory, Method, no_embedding
from maskedconv.nn.convertible import check_exact
from maskedconv.nn.partly_learned import PartlyLearned
from maskedconv.nn.positions import AtPositions, PositionsConv2d, PositionsLinear
from maskedconv.nn.random_weights import seeded
from maskedconv.schema import Schema, flag, list_of
from maskedconv.schema import count as count_schema


@dataclass(frozen=True)
class RandomPositions(Method):
    """``count`` scalars of all weights are learned; see ``nn.positions.AtPositions``.

    They are drawn without replacement from the weights of all convolutions and fully connected
    layers of a new network, whose biases and norms are frozen; one with embeddings is refused
    (ValueError). ``convert_`` takes them from the
    converted convolutions alone and leaves all other layers as they are.

    A checkpoint holds the positions, unless the seed of its network gives them again.

    Args:
        count: of learned scalars in the network.

    Raises:
        TypeError, ValueError: ``count`` is no int >= 1.
    """

    count: int

    name = "random_positions"
    layer = PositionsConv2d
    linear_layer = PositionsLinear
    schema: ClassVar[Mapping[str, Schema]] = {
        "num_learned": count_schema,
        "weight_shape": list_of(count_schema),
        "has_bias": flag,
    }
    integers = frozenset({"positions"})

    def __post_init__(self) -> None:
        check_int("count", self.count, 1)

    def factory(self) -> LayerFactory:
        return LayerFactory(
            conv=PositionsConv2d,
            linear=PositionsLinear,
            norm=_frozen_norm,
            embedding=no_embedding(self.name),
        )

    def convert(self, conv: nn.Conv2d, seed: int | None) -> PositionsConv2d:
        check_exact(conv, nn.Conv2d, "conv")
        return PositionsConv2d.from_plain(conv)

    @classmethod
    def restored(cls, plain: nn.Module, configuration: Configuration) -> PartlyLearned:
        conv = isinstance(plain, nn.Conv2d)
        kind: type[AtPositions] = PositionsConv2d if conv else PositionsLinear
        check_exact(plain, nn.Conv2d if conv else nn.Linear, "the layer")
        layer = kind.from_plain(plain)
        # Any positions: the checkpoint has the right ones.
        count = min(configuration["num_learned"], layer.frozen.numel())
        layer.learn_(torch.arange(count, device="cpu"))
        return layer

    def finish(self, layers: Sequence[PartlyLearned], seed: int | None) -> None:
        """Draws the positions, and starts to learn them.

        Raises:
            ValueError: the layers have fewer than ``count`` weights.
        """
        chosen = [layer for layer in layers if isinstance(layer, AtPositions)]
        sizes = [layer.frozen.numel() for layer in chosen]
        if self.count > sum(sizes):
            raise ValueError(
                f"count is {self.count}; expected at most {sum(sizes)}, the number of weights of "
                "the layers"
            )
        # On the CPU and with its own generator, so that the positions depend on the seed alone.
        drawn = torch.randperm(sum(sizes), generator=seeded(seed), device="cpu")[: self.count]
        start = 0
        for layer, size in zip(chosen, sizes, strict=True):
            own = drawn[(drawn >= start) & (drawn < start + size)] - start
            layer.learn_(own.sort().values)
            start += size

    @staticmethod
    def mistake(configuration: Configuration) -> str:
        shape, learned = configuration["weight_shape"], configuration["num_learned"]
        if len(shape) not in (2, 4):
            return f"weight_shape is {shape}; expected 2 or 4 sizes"
        size = torch.Size(shape).numel()
        return "" if learned <= size else f"num_learned is {learned}; expected at most {size}"

    @staticmethod
    def stored_shapes(configuration: Configuration) -> dict[str, list[int]]:
        shape, learned = configuration["weight_shape"], configuration["num_learned"]
        shapes = {
            "frozen": shape,
            "positions": [learned] if learned else None,
            "values": [learned] if learned else None,
            "bias": [shape[0]] if configuration["has_bias"] else None,
        }
        return {name: size for name, size in shapes.items() if size}

    @staticmethod
    def plain_values(
        configuration: Configuration, stored: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        weight, size = stored["frozen"], stored["frozen"].numel()
        if (positions := stored.get("positions")) is not None:
            if bool(((positions < 0) | (positions >= size)).any()):
                raise ValueError(f"positions are not all within the {size} values of the weight")
            flat = weight.flatten().index_copy(0, positions, stored["values"])
            weight = flat.view(weight.shape)
        return {"weight": weight, **({"bias": stored["bias"]} if "bias" in stored else {})}


def _frozen_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels).requires_grad_(False)
