"""SupermaskConv2d and SupermaskLinear: a learned mask keeps a part of a random weight."""

from __future__ import annotations

from typing import Any, Literal, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskedconv import slices
from maskedconv.nn.convertible import arguments_of, plain_like, take_attributes
from maskedconv.nn.mask_settings import MaskSettings
from maskedconv.nn.scored import ScoredLayer
from maskedconv.ops.geometry import Pair


class SupermaskConv2d(ScoredLayer):
    """A convolution that uses only the fraction ``k`` of a frozen random weight.

    A score for each weight is learned instead of the weight. Forward uses the weights whose
    ``|score|`` is among the largest of the layer. The gradient of the mask is passed straight
    through to the scores; see :func:`maskedconv.functional.supermask.supermask_weight`.

    Source: Ramanujan et al. 2019, *What's Hidden in a Randomly Weighted Neural Network?*
    (arXiv 1911.13299), section 3. Their networks have no biases, and neither has this layer.

    Args:
        in_channels ... padding_mode: as in ``nn.Conv2d``; ``bias`` must be False.
        k: fraction of the weights that is kept, in [0, 1]. ``int((1 - k) * n)`` of the n weights
            are masked out, computed exactly; of equal scores, the later ones are kept.
        weights: "signed_constant" (±√2 / √fan_in), "kaiming" (normal) or "uniform" (PyTorch's);
            None for the method's own.
        scale: whether the weights are multiplied by 1 / √k.
        threshold: "layer", or "global" for one threshold of all layers of a network; then call
            :func:`maskedconv.nn.global_threshold.share_threshold` on the network once, or
            ``update_thresholds`` there before each forward pass.
        coats: number of nested masks, up to 255. A weight counts as often as masks keep it; the
            first mask keeps the fraction ``k``, see :func:`maskedconv.slices.nested_kept`. More
            than 1 needs ``threshold="layer"``.
        rerandomise_every, rerandomise_fraction: for
            :func:`maskedconv.nn.rerandomise.rerandomise_`, which a training loop calls.
        seed: draws weight and scores from this seed alone; None uses torch's global generator.
        frozen: a weight ``[O, I / groups, kH, kW]`` to use instead of a random one; ``seed`` then
            draws the scores alone. A tensor without a gradient is not copied: several layers may
            share it. For a Parameter, each layer has a tensor of its own in the same memory.
        device, dtype: of weight and scores; None for those of ``frozen`` if it is given.

    Input ``[N, C, H, W]`` or ``[C, H, W]``, output as ``nn.Conv2d``. The gradient of the
    scores cannot be differentiated.

    Raises:
        TypeError, ValueError: an argument is not one of these, or what ``nn.Conv2d`` raises.
    """

    method = "supermask"

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] | str
    dilation: tuple[int, int]
    groups: int
    padding_mode: str

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair | str = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = False,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        *,
        k: float = 0.5,
        weights: str | None = None,
        scale: bool = True,
        threshold: str = "layer",
        coats: int = 1,
        rerandomise_every: int = 0,
        rerandomise_fraction: float = 0.1,
        seed: int | None = None,
        frozen: Tensor | None = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        _check(bias, seed)
        settings = MaskSettings(
            k, weights or self.default_weights, scale, threshold,
            coats, rerandomise_every, rerandomise_fraction,
        )  # fmt: skip
        shape: tuple[Any, ...] = (
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, False,
            padding_mode,
        )  # fmt: skip
        # A plain convolution without memory checks PyTorch's arguments and derives attributes.
        plain = nn.Conv2d(*shape, device="meta")  # type: ignore[misc]
        super().__init__()
        take_attributes(self, plain)
        self._set_up(plain.weight.shape, settings, seed, frozen, device, dtype)

    def forward(self, input: Tensor) -> Tensor:
        weight = self._compute_weight(input)
        # It reads the attributes of a convolution alone.
        return nn.Conv2d._conv_forward(cast(nn.Conv2d, self), input, weight, None)

    def extra_repr(self) -> str:
        plain = nn.Conv2d.extra_repr(cast(nn.Conv2d, self))
        return f"{plain}, {self._kept_repr()}"

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(2, 2, 1, device="meta"),)

    def _like(self, **options: Any) -> Self:
        arguments = arguments_of(cast(nn.Conv2d, self))
        options = {**self.settings._asdict(), "dtype": self.dtype, **options}
        return type(self)(*arguments, **options)

    def to_plain(self) -> nn.Module:
        return self._fill(plain_like(cast(nn.Conv2d, self), self.dtype))


class SupermaskLinear(ScoredLayer):
    """A fully connected layer that uses only the fraction ``k`` of a frozen random weight.

    As :class:`SupermaskConv2d`, which describes the arguments; its source has fully connected
    layers as 1×1 convolutions. The weight is ``[out_features, in_features]``; ``bias`` must be
    False. Input ``[..., in_features]``, output ``[..., out_features]``.

    Raises:
        TypeError, ValueError: an argument is invalid.
    """

    method = "supermask"

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = False,
        *,
        k: float = 0.5,
        weights: str | None = None,
        scale: bool = True,
        threshold: str = "layer",
        coats: int = 1,
        rerandomise_every: int = 0,
        rerandomise_fraction: float = 0.1,
        seed: int | None = None,
        frozen: Tensor | None = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        _check(bias, seed)
        settings = MaskSettings(
            k, weights or self.default_weights, scale, threshold,
            coats, rerandomise_every, rerandomise_fraction,
        )  # fmt: skip
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self._set_up((out_features, in_features), settings, seed, frozen, device, dtype)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self._compute_weight(input))

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, {self._kept_repr()}"
        )

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(2, 2, device="meta"),)

    def _like(self, **options: Any) -> Self:
        arguments = self.in_features, self.out_features
        options = {**self.settings._asdict(), "dtype": self.dtype, **options}
        return type(self)(*arguments, **options)

    def to_plain(self) -> nn.Module:
        arguments = self.in_features, self.out_features
        return self._fill(nn.Linear(*arguments, bias=False, device="meta", dtype=self.dtype))


def _check(bias: object, seed: object) -> None:
    slices.check_seed(seed)
    if bias:
        raise ValueError("bias is True; expected False, as a supermask has no biases")
