"""Learning which weights of a random network to use (Ramanujan et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from maskedconv import slices
from maskedconv.checks import check_choice, check_flag, check_fraction
from maskedconv.functional.supermask import MaskPlan, supermask_weight
from maskedconv.methods.method import Configuration, LayerFactory, Method
from maskedconv.nn.convertible import arguments_of, check_exact
from maskedconv.nn.global_threshold import share_threshold
from maskedconv.nn.mask_settings import (
    LATER_DEFAULTS,
    MOST_COATS,
    THRESHOLDS,
    MaskSettings,
    without_later_defaults,
)
from maskedconv.nn.partly_learned import PartlyLearned
from maskedconv.nn.random_weights import WEIGHTS
from maskedconv.nn.scored import ScoredLayer
from maskedconv.nn.supermask import SupermaskConv2d, SupermaskLinear
from maskedconv.nn.supermask_embedding import SupermaskEmbedding
from maskedconv.ops.geometry import is_channels_last_weight
from maskedconv.schema import Schema, count, flag, list_of, number, one_of


@dataclass(frozen=True)
class Supermask(Method):
    """Edge-popup: learns a score for each weight, and uses the weights with the largest |score|.

    Convolutions and fully connected layers become :class:`maskedconv.nn.SupermaskConv2d` and
    :class:`maskedconv.nn.SupermaskLinear`, the first, the last and shortcuts included. New networks
    have no biases and BatchNorm without affine parameters, as in the paper. ``convert_`` leaves
    layers with a bias alone.

    The learned parameters of such a network are its scores, which are as many as its weights. How
    many weights the masks keep is :func:`maskedconv.count_kept`.

    Source: Ramanujan et al. 2019 (arXiv 1911.13299).

    Args:
        k: fraction of each layer's weights that is used, in [0, 1].
        weights: "signed_constant" for ±σ, "kaiming" for N(0, σ²), with σ = √2 / √fan_in; "uniform"
            for PyTorch's initialisation; "network" for that of the new network's plain layers;
            "keep" for the values before the conversion (in a new
            network, PyTorch's initialisation).
        scale: whether weights that are drawn anew are multiplied by 1 / √k.
        threshold: "layer" keeps the fraction ``k`` of each layer, "global" that of the network.
        norm_learned: whether the BatchNorm of new networks has affine parameters.
        coats: number of nested masks (Okoshi et al. 2022, *Multicoated Supermasks Enhance Hidden
            Networks*), up to 255. A weight is multiplied by the number of masks that keep it. The
            i-th of n masks, counted from 0, keeps the fraction ``k * (n - i) / n``; this rule is
            our own. The scale 1 / √k remains that of the first mask. Not with
            ``threshold="global"``, nor for biprop.
        rerandomise_every: training steps between two partial redraws of the weights that the mask
            leaves out (IteRand, Chijiwa et al. 2021, arXiv 2106.09269; 300 there for CIFAR-10); 0
            for none. See :func:`maskedconv.nn.rerandomise.rerandomise_`. Not with ``weights`` of
            "network" or "keep".
        rerandomise_fraction: probability that such a redraw changes a weight that is left out.

    Raises:
        TypeError, ValueError: an argument is not one of these.
    """

    k: float = 0.5
    weights: str = "signed_constant"
    scale: bool = True
    threshold: str = "layer"
    norm_learned: bool = False
    coats: int = 1
    rerandomise_every: int = 0
    rerandomise_fraction: float = 0.1

    name = "supermask"
    layer = SupermaskConv2d
    linear_layer = SupermaskLinear
    embedding_layer: ClassVar[type[ScoredLayer]] = SupermaskEmbedding
    converted = (nn.Conv2d, nn.Linear)
    schema: ClassVar[Mapping[str, Schema]] = {
        "k": number,
        "weights": one_of(*WEIGHTS),
        "scale": flag,
        "threshold": one_of(*THRESHOLDS),
        "weight_shape": list_of(count),
    }
    later_schema: ClassVar[Mapping[str, Schema]] = {
        "coats": count,
        "rerandomise_every": count,
        "rerandomise_fraction": number,
    }
    later_defaults = LATER_DEFAULTS

    def __post_init__(self) -> None:
        for name in ("k", "rerandomise_fraction"):
            # A frozen dataclass is set this way.
            object.__setattr__(self, name, check_fraction(name, getattr(self, name)))
        check_choice("weights", self.weights, (*WEIGHTS, "keep"))
        check_choice("threshold", self.threshold, THRESHOLDS)
        for name in ("scale", "norm_learned"):
            check_flag(name, getattr(self, name))
        self._mask_settings(self.weights).check_options(binary=self.layer.binary)

    def settings(self) -> dict[str, Any]:
        return {"method": {"name": self.name, **without_later_defaults(vars(self))}}

    def _mask_settings(self, weights: str) -> MaskSettings:
        values = {name: getattr(self, name) for name in MaskSettings._fields}
        return MaskSettings(**{**values, "weights": weights})

    def factory(self) -> LayerFactory:
        settings = self._layer_settings()
        return LayerFactory(
            conv=cast(Callable[..., nn.Conv2d], partial(_without_bias, self.layer, settings)),
            linear=cast(
                Callable[..., nn.Linear], partial(_without_bias, self.linear_layer, settings)
            ),
            norm=partial(nn.BatchNorm2d, affine=self.norm_learned),
            embedding=cast(Callable[..., nn.Embedding], partial(self.embedding_layer, **settings)),
        )

    def _layer_settings(self) -> dict[str, Any]:
        weights = "uniform" if self.weights == "keep" else self.weights
        return self._mask_settings(weights)._asdict()

    @classmethod
    def obstacle(cls, plain: nn.Module) -> str | None:
        if plain._parameters.get("bias") is None:
            return None
        return f"it has a bias, which a {cls.name} does not have"

    def convert(self, plain: nn.Module, seed: int | None) -> PartlyLearned:
        settings = self._layer_settings()
        return self._in_place_of(plain, settings, keep=self.weights == "keep", seed=seed)

    def attach(self, model: nn.Module) -> None:
        if self.threshold == "global":
            share_threshold(model)

    @classmethod
    def restored(cls, plain: nn.Module, configuration: Configuration) -> PartlyLearned:
        names = configuration.keys() & set(MaskSettings._fields)
        settings = {name: configuration[name] for name in names}
        return cls._in_place_of(plain, settings, keep=True)

    @classmethod
    def _in_place_of(
        cls, plain: nn.Module, settings: dict[str, Any], *, keep: bool, seed: int | None = None
    ) -> PartlyLearned:
        """A layer of the geometry, device, dtype, memory format and mode of ``plain``.

        Args:
            keep: whether its frozen weight is a copy of that of ``plain``.
        """
        kind = next(kind for kind in cls.layers() if isinstance(plain, kind))
        check_exact(plain, kind, "the layer")
        if reason := cls.obstacle(plain):
            raise ValueError(f"the layer cannot be converted: {reason}")
        weight = cast(nn.Parameter, plain.weight)
        make: Any = cls.layers()[kind]
        layer = make(
            *_arguments_of(plain), frozen=weight.detach().clone() if keep else None, seed=seed,
            device=weight.device, dtype=weight.dtype, **settings,
        )  # fmt: skip
        layer.scores.requires_grad_(weight.requires_grad)
        if weight.dim() == 4 and is_channels_last_weight(weight):
            layer = layer.to(memory_format=torch.channels_last)
        return layer.train(plain.training)

    @classmethod
    def attach_restored(cls, model: nn.Module, configuration: Configuration) -> None:
        if configuration["threshold"] == "global":
            share_threshold(model)

    @staticmethod
    def mistake(configuration: Configuration) -> str:
        k = configuration["k"]
        if not 0 <= k <= 1:
            return f"k is {k}; expected a fraction in [0, 1]"
        coats = configuration.get("coats", 1)
        if not 1 <= coats <= MOST_COATS:
            return f"coats is {coats}; expected 1 to {MOST_COATS}"
        return ""

    @staticmethod
    def stored_shapes(configuration: Configuration) -> dict[str, list[int]]:
        shape = configuration["weight_shape"]
        return {"scores": shape, "frozen": shape}

    @classmethod
    def plain_values(
        cls, configuration: Configuration, stored: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        if configuration["threshold"] == "global":
            raise ValueError(
                "threshold is 'global'; load the file into its network, and merge that instead"
            )
        scores = stored["scores"]
        coats = configuration.get("coats", 1)
        kept, *inner = slices.nested_kept(configuration["k"], coats, scores.numel())
        plan = MaskPlan(kept, cls.layer.binary, inner=tuple(inner))
        return {"weight": supermask_weight(scores, stored["frozen"], plan)}


def _without_bias(
    layer: type[ScoredLayer], settings: dict[str, Any], *arguments: Any, **options: Any
) -> ScoredLayer:
    """A layer with the arguments of a plain one; ``bias`` is ignored."""
    return layer(*arguments, **{**options, "bias": False}, **settings)


def _arguments_of(plain: nn.Module) -> tuple[Any, ...]:
    """The arguments that make a layer like ``plain``."""
    if isinstance(plain, nn.Conv2d):
        return arguments_of(plain)
    if isinstance(plain, nn.Linear):
        return plain.in_features, plain.out_features
    assert isinstance(plain, nn.Embedding)
    return plain.num_embeddings, plain.embedding_dim
