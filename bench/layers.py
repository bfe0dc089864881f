"""The measured convolutions, their tensors, and the operations of each pass."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

# The paper's settings (Rosenfeld & Tsotsos 2018, section 4).
COUNTS = (1, 5, 10)
FRACTIONS = (0.07, 0.08, 0.09, 0.1, 0.4, 0.7, 1.0)


class Layer(NamedTuple):
    """A convolution of ``batch`` images of ``size``² pixels, padded by half its kernel."""

    in_channels: int
    out_channels: int
    size: int
    kernel: int
    batch: int
    stride: int = 1

    def __str__(self) -> str:
        kernel = f"{self.kernel}x{self.kernel}" + (f"/{self.stride}" if self.stride > 1 else "")
        channels = f"{self.in_channels}->{self.out_channels}"
        return f"{channels} @{self.size} {kernel}, batch {self.batch}"

    @property
    def padding(self) -> int:
        return self.kernel // 2

    @property
    def out_size(self) -> int:
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def pixels(self) -> int:
        """Number of pixels of the input."""
        return self.batch * self.size**2

    @property
    def out_pixels(self) -> int:
        return self.batch * self.out_size**2

    def products(self, filters: int) -> int:
        """Floating-point operations for this number of filters, in one of the three passes."""
        taps = self.kernel**2
        return 2 * self.out_pixels * self.in_channels * filters * taps


CPU_LAYERS = (
    Layer(64, 64, 32, 3, 16),
    Layer(128, 128, 16, 3, 16),
    Layer(256, 256, 8, 3, 16),
    Layer(160, 160, 32, 3, 8),
    Layer(204, 48, 32, 1, 16),
    Layer(48, 12, 32, 3, 16),
)
GPU_LAYERS = (
    Layer(160, 160, 32, 3, 128),
    Layer(320, 320, 16, 3, 128),
    Layer(640, 640, 8, 3, 128),
    Layer(64, 64, 32, 3, 128),
    Layer(128, 128, 16, 3, 128),
    Layer(256, 256, 8, 3, 128),
    Layer(204, 48, 32, 1, 128),
    Layer(48, 12, 32, 3, 128),
    Layer(512, 512, 4, 3, 128),
)
# The paper's five.
NETWORKS = ("densenet_bc_100_12", "wrn_28_4", "vgg19", "vgg19_bn", "alexnet")


def numbers_of_filters(layer: Layer, further: tuple[int, ...] = ()) -> list[int]:
    """The nonzero numbers of filters that the paper's settings learn in the layer."""
    fractions = (int(p * layer.out_channels + 1e-9) for p in FRACTIONS)
    return sorted(n for n in {*COUNTS, *further, *fractions} if 1 <= n <= layer.out_channels)


def layers_of(network: str) -> list[Layer]:
    """The distinct convolutions of a network for 32×32 images, in order, with the batch size of the
    paper's recipe.
    """
    from maskedconv import MaskedConv2d, models

    found: dict[Layer, None] = {}
    batch = models.recipe(network).batch_size

    def record(conv: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        assert isinstance(conv, MaskedConv2d)
        size = inputs[0].size(2)
        shape = (conv.in_channels, conv.out_channels, size, conv.kernel_size[0], batch)
        found[Layer(*shape, conv.stride[0])] = None

    model = models.create(network, seed=0).eval()
    for module in model.modules():
        if isinstance(module, MaskedConv2d):
            module.register_forward_hook(record)
    with torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    return list(found)


def tensors(layer: Layer, device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Input and output gradient, channels_last."""
    generator = torch.Generator().manual_seed(0)
    shapes = (
        (layer.batch, layer.in_channels, layer.size, layer.size),
        (layer.batch, layer.out_channels, layer.out_size, layer.out_size),
    )
    x, grad = (
        torch.randn(shape, generator=generator)
        .to(device, dtype)
        .to(memory_format=torch.channels_last)
        for shape in shapes
    )
    return x, grad


def plain(layer: Layer, device: str, dtype: torch.dtype) -> nn.Conv2d:
    """The layer as ``nn.Conv2d`` in channels_last, always with the same filters."""
    torch.manual_seed(0)
    conv = nn.Conv2d(
        layer.in_channels, layer.out_channels, layer.kernel, layer.stride, layer.padding, bias=False
    )
    return conv.to(device, dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
