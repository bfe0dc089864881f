"""The cases of the fuzzer and how they are drawn."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields, replace

KINDS = ("layer", "layer", "layer", "fused", "fused", "network")
NETWORKS = ("wrn_10_1", "densenet_bc_16_12", "resnet_8", "conv2")
DTYPES = ("float32", "float32", "float64", "bfloat16", "float16")
LAYOUTS = (
    "contiguous", "channels_last", "channels_last", "prefix", "prefix", "strided", "transposed",
    "expanded", "pixels_last", "negative", "unaligned", "subclass",
)  # fmt: skip
GRAD_LAYOUTS = (
    "contiguous", "channels_last", "channels_last", "strided", "transposed", "expanded",
    "negative", "zero", "prefix",
)  # fmt: skip
SPECIALS = ("", "", "", "", "nan input", "inf input", "nan gradient", "inf gradient", "nan weight")
PADDING_MODES = ("zeros", "zeros", "zeros", "zeros", "reflect", "replicate", "circular")
Pair = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One input. The defaults are the plainest one, so that a printed case has only unusual fields.

    Attributes:
        kind: "layer" (MaskedConv2d), "fused" (BNReLUConv2d) or "network".
        size: rows and columns of the input.
        layout, grad_layout: how the input and the output's gradient lie in memory.
        chosen: the learned indices are drawn, instead of the first ones.
        needs: which of input, convolution and norm require a gradient.
        special: a value that is not finite, and the tensor that has it.
        poisoned: memory that PyTorch allocates starts as NaN.
    """

    seed: int
    kind: str = "layer"
    network: str = NETWORKS[0]
    batch: int = 2
    channels: int = 4
    filters: int = 4
    size: Pair = (6, 6)
    kernel: Pair = (3, 3)
    stride: Pair = (1, 1)
    padding: Pair | str = (1, 1)
    dilation: Pair = (1, 1)
    groups: int = 1
    bias: bool = True
    padding_mode: str = "zeros"
    learned: float | int = 0.5
    slice_dim: int = 0
    frozen: str = "random"
    chosen: bool = False
    dtype: str = "float32"
    autocast: bool = False
    layout: str = "channels_last"
    grad_layout: str = "channels_last"
    needs: tuple[bool, bool, bool] = (True, True, True)
    training: bool = True
    affine: bool = True
    track_running_stats: bool = True
    momentum: float | None = 0.1
    special: str = ""
    backend: str | None = None
    poisoned: bool = False

    def __repr__(self) -> str:
        unusual = (
            f"{field.name}={value!r}"
            for field in fields(self)
            if (value := getattr(self, field.name)) != field.default
        )
        return f"Case({', '.join(unusual)})"

    def script(self) -> str:
        """A program that runs this case alone."""
        return (
            "# From the root of the repository.\n"
            "from tests.fuzz import Case, check\n\n"
            f"print(check({self!r}) or 'agrees')"
        )


def draw(seed: int, index: int) -> Case:
    """Case ``index`` of the sequence that ``seed`` names."""
    rng = random.Random(f"{seed} {index}")
    kind = rng.choice(KINDS)
    common = {
        "seed": rng.randrange(2**31),
        "kind": kind,
        "batch": rng.choice((0, 1, 1, 2, 2, 3, 5)),
        "frozen": rng.choice(("random", "zero")),
        "slice_dim": rng.choice((0, 0, 0, 1, 2, 3)),
        "dtype": rng.choice(DTYPES),
        "layout": rng.choice(LAYOUTS),
        "grad_layout": rng.choice(GRAD_LAYOUTS),
        "training": rng.random() < 0.7,
        "needs": tuple(rng.random() < 0.8 for _ in range(3)),
        "backend": rng.choice((None, None, None, "reference", "native")),
        "poisoned": rng.random() < 0.5,
    }
    common["autocast"] = common["dtype"] == "float32" and rng.random() < 0.15
    if kind == "network":
        return Case(**{**common, **_network(rng)})
    case = Case(**common, **_convolution(rng), **_norm(rng), special=rng.choice(SPECIALS))
    # Equal pixels have no variance, so that their statistics are amplified rounding errors.
    if case.layout == "expanded" and case.size == (1, 1):
        case = replace(case, layout="contiguous")
    # With two pixels, the gradient through a BatchNorm is a rounding error, except for eps.
    two = case.kind == "fused" and case.batch * case.size[0] * case.size[1] == 2
    return replace(case, batch=3) if two else case


def _network(rng: random.Random) -> dict[str, object]:
    return {
        "network": rng.choice(NETWORKS),
        # Batch statistics of few pixels are too sensitive to rounding to be compared.
        "batch": rng.choice((2, 3, 4)),
        "size": (rng.choice((8, 16)),) * 2,
        "channels": rng.choice((1, 3)),
        "learned": rng.choice((1, 0.1, 0.3, 0.7, 1.0)),
        "dtype": rng.choice(("float32", "float64")),
        "layout": rng.choice(("contiguous", "channels_last", "prefix", "expanded", "strided")),
        "backend": rng.choice((None, "reference")),
    }


def _convolution(rng: random.Random) -> dict[str, object]:
    def pair(*choices: int) -> Pair:
        first = rng.choice(choices)
        return (first, first if rng.random() < 0.6 else rng.choice(choices))

    groups = rng.choice((1, 1, 1, 1, 2, 3))
    kernel, dilation = pair(1, 1, 2, 3, 3, 5), pair(1, 1, 1, 2)
    # Sometimes smaller than the kernel, which is an error for the plain convolution, too.
    size = tuple(
        max(1, (k - 1) * d + rng.choice((-1, 1, 1, 2, 3, 5, 8)))
        for k, d in zip(kernel, dilation, strict=True)
    )
    shape = (groups * rng.choice((1, 2, 3, 7, 16, 20)), groups * rng.choice((1, 2, 3, 5, 12, 17)))
    stride = pair(1, 1, 1, 2, 3)
    padding: Pair | str = pair(0, 0, 1, 1, 2, 3)
    if stride == (1, 1) and rng.random() < 0.1:
        padding = rng.choice(("same", "valid"))
    elif max(stride) > 1:
        stride, padding = _within_pytorchs_means(kernel, dilation, size, stride, padding)
    return {
        "channels": shape[0],
        "filters": shape[1],
        "size": size,
        "kernel": kernel,
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "bias": rng.random() < 0.6,
        "padding_mode": rng.choice(PADDING_MODES),
        "learned": rng.choice((0, 1, 1, 2, 5, 0.1, 0.4, 0.7, 1.0)),
        "chosen": rng.random() < 0.3,
    }


def _within_pytorchs_means(
    kernel: Pair, dilation: Pair, size: Pair, stride: Pair, padding: Pair
) -> tuple[Pair, Pair]:
    """Stride and padding that oneDNN gets right in channels_last on AVX-512 (torch 2.11).

    It reads beyond its memory if a window may lie in the padding alone, and with one input channel
    also if unequal strides give a single column. A slice of one channel is such a convolution.
    """
    spans = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
    padding = (min(padding[0], spans[0]), min(padding[1], spans[1]))
    if size[1] + 2 * padding[1] - spans[1] - 1 < stride[1]:
        stride = (max(stride), max(stride))
    return stride, padding


def _norm(rng: random.Random) -> dict[str, object]:
    return {
        "affine": rng.random() < 0.85,
        "track_running_stats": rng.random() < 0.85,
        "momentum": rng.choice((0.1, 0.3, None)),
    }
