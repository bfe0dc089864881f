"""Learning γ and β of the norms alone (Frankle, Schwab & Morcos 2020, arXiv 2003.00152)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from maskedconv.methods.method import Configuration, LayerFactory, Method, no_embedding
from maskedconv.methods.slice import Slice
from maskedconv.nn import MaskedConv2d
from maskedconv.nn.positions import PositionsLinear


@dataclass(frozen=True)
class NormOnly(Method):
    """Nothing but the affine parameters of the norms is learned.

    The convolutions are ``MaskedConv2d`` that learn no filter: they save nothing for backward, and
    a checkpoint names them as layers of the method ``slice``. Fully connected layers are frozen
    too. ``convert_`` freezes the convolutions alone, and leaves all other layers as they are.

    To learn the output layer or the shortcuts as well, take a network that learns all weights and
    ``maskedconv.select_learned_(model, ("bn", "shortcuts", "fc"))``. A new network with embeddings
    is refused (ValueError).
    """

    name = "norm_only"
    layer = MaskedConv2d
    linear_layer = PositionsLinear
    schema = Slice.schema
    mistake = staticmethod(Slice.mistake)
    stored_shapes = staticmethod(Slice.stored_shapes)
    plain_values = staticmethod(Slice.plain_values)

    def factory(self) -> LayerFactory:
        return LayerFactory(
            conv=Slice(0).factory().conv,
            linear=PositionsLinear,
            embedding=no_embedding(self.name),
        )

    def convert(self, conv: nn.Conv2d, seed: int | None) -> MaskedConv2d:
        return Slice(0).convert(conv, seed)

    @classmethod
    def restored(cls, plain: nn.Conv2d, configuration: Configuration) -> MaskedConv2d:
        return Slice.restored(plain, configuration)
