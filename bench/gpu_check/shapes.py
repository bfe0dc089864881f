"""The checked and timed convolutions. Does not import torch."""

from __future__ import annotations

from typing import NamedTuple


class Shape(NamedTuple):
    """A weight gradient of ``filters`` of ``out_channels`` filters over ``batch`` square images.

    Attributes:
        pitch: if the input is a view of the first ``channels`` of a wider tensor, the number of
            channels of that tensor; 0 for a dense input.
        prologue: whether BatchNorm and ReLU come first.
    """

    channels: int
    out_channels: int
    size: int
    kernel: int
    filters: int
    stride: int = 1
    batch: int = 128
    pitch: int = 0
    prologue: bool = False
    dtype: str = "bfloat16"

    def __str__(self) -> str:
        stride = f"/{self.stride}" if self.stride > 1 else ""
        further = [f"of {self.pitch}"] if self.pitch else []
        further += ["bn-relu"] if self.prologue else []
        further += [] if self.dtype == "bfloat16" else [self.dtype]
        name = (
            f"{self.channels}->{self.out_channels}@{self.size} {self.kernel}x{self.kernel}{stride}"
        )
        return " ".join([name, f"n{self.filters}", *further])

    @property
    def padding(self) -> int:
        return self.kernel // 2

    @property
    def out_size(self) -> int:
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1


WRN_28_10 = (
    Shape(160, 160, 32, 3, 16),
    Shape(320, 320, 16, 3, 32),
    Shape(640, 640, 8, 3, 64),
)
WRN_28_4 = (
    Shape(64, 64, 32, 3, 6),
    Shape(128, 128, 16, 3, 12),
    Shape(256, 256, 8, 3, 25),
)
DENSENET = (
    Shape(204, 48, 32, 1, 4, batch=64, pitch=216),
    Shape(48, 12, 32, 3, 1, batch=64),
    Shape(150, 48, 16, 1, 4, batch=64, pitch=304),
)
# About twenty: every layer of WRN-28-10 at p = .1, and the special cases of the other networks.
NUMBERS = (
    *WRN_28_10,
    *(shape._replace(prologue=True) for shape in WRN_28_10),
    *DENSENET,
    *(shape._replace(prologue=True) for shape in DENSENET),
    *WRN_28_4,
    Shape(160, 320, 32, 3, 32, stride=2, prologue=True),
    Shape(160, 320, 32, 1, 32, stride=2),
    Shape(3, 16, 32, 3, 1),
    Shape(512, 512, 4, 3, 51),
    Shape(216, 108, 32, 1, 10, batch=64, prologue=True),
    Shape(64, 64, 32, 3, 6, dtype="float32"),
)
TABLE = (
    *WRN_28_10,
    *WRN_28_4,
    *DENSENET,
    Shape(512, 512, 4, 3, 51),
    *(shape._replace(prologue=True) for shape in (*WRN_28_10, DENSENET[0])),
    *(shape._replace(filters=n) for n in (1, 8, 10) for shape in WRN_28_10),
    *(shape._replace(filters=int(0.4 * shape.out_channels)) for shape in WRN_28_10),
)
PROFILED = (WRN_28_10[0], WRN_28_10[0]._replace(prologue=True), WRN_28_4[0])
SANITIZED = (
    Shape(40, 16, 9, 3, 5, batch=2),
    Shape(24, 16, 8, 1, 3, batch=2, pitch=32, prologue=True),
    Shape(16, 16, 9, 3, 9, stride=2, batch=3, dtype="float32"),
)

SMALL = (
    Shape(16, 16, 8, 3, 2, batch=2),
    Shape(20, 8, 6, 1, 3, batch=2, pitch=24, prologue=True),
)

# In the order of a training step.
NORM_OPERATORS = ("bn_statistics", "bn_statistics_of_sum", "bn_relu", "bn_relu_backward")


class Norm(NamedTuple):
    """The square images that a BatchNorm gets.

    Attributes:
        pitch: as in :class:`Shape`.
    """

    batch: int
    channels: int
    size: int
    pitch: int = 0
    dtype: str = "bfloat16"

    def __str__(self) -> str:
        pitch = f" of {self.pitch}" if self.pitch else ""
        dtype = "" if self.dtype == "bfloat16" else f" {self.dtype}"
        return f"{self.batch}x{self.channels}@{self.size}{pitch}{dtype}"


# Inputs of BatchNorm in the layers of WRN-28-10 and DenseNet-BC-100-12.
TIMED_NORMS = (
    Norm(128, 160, 32),
    Norm(128, 320, 16),
    Norm(128, 640, 8),
    Norm(64, 204, 32, pitch=216),
    Norm(64, 48, 32),
)
CHECKED_NORMS = (
    *TIMED_NORMS,
    Norm(64, 150, 16, pitch=304),
    Norm(128, 64, 32, dtype="float32"),
    Norm(128, 64, 32, dtype="float16"),
    Norm(3, 13, 5, pitch=16),
)
SMALL_NORMS = (Norm(2, 20, 6, pitch=24), Norm(2, 8, 5, dtype="float32"))

# Weights [O, I, kH, kW] of supermasks: the largest of WRN-28-10 and ResNet-50, and a small one.
MASKED = ((640, 640, 3, 3), (2048, 512, 1, 1), (64, 3, 3, 3))
SMALL_MASKED = ((16, 8, 3, 3),)


def numbers(rehearse: bool) -> tuple[Shape, ...]:
    return SMALL if rehearse else NUMBERS


def table(rehearse: bool) -> tuple[Shape, ...]:
    return SMALL if rehearse else TABLE


def norms(rehearse: bool) -> tuple[Norm, ...]:
    """The inputs of BatchNorm that are timed."""
    return SMALL_NORMS if rehearse else TIMED_NORMS


def checked_norms(rehearse: bool) -> tuple[Norm, ...]:
    """The inputs of BatchNorm for the comparison of numbers."""
    return SMALL_NORMS if rehearse else CHECKED_NORMS


def profiled(rehearse: bool) -> tuple[Shape, ...]:
    return SMALL[:1] if rehearse else PROFILED


def masked(rehearse: bool) -> tuple[tuple[int, int, int, int], ...]:
    return SMALL_MASKED if rehearse else MASKED


def masked_name(shape: tuple[int, int, int, int]) -> str:
    """The name of a case."""
    return f"masked_weight {'x'.join(map(str, shape))}"
