"""The steps in order, with their time limits and cases. Does not import torch."""

from __future__ import annotations

from typing import NamedTuple

from bench.gpu_check import shapes

BACKENDS = ("cuda", "triton", "reference")
UNCONFIRMED = "cuda_wgmma"  # comes last in its steps, as it may hang or break the context
PEERS = ("slice", "full")
NETWORKS = ("wrn_28_10", "densenet_bc_100_12", "wrn_28_4")
SMALL_NETWORKS = ("wrn_10_1", "densenet_bc_16_12")
IMPLEMENTATIONS = ("ours", "plain", "slice")
MODES = ("eager", "graph")
# The one that is not confirmed last, as in the other steps.
SANITIZED_KERNELS = ("weight_grad", "bn_relu", "masked_weight", UNCONFIRMED)
SANITIZED = tuple(
    f"{tool} | {kernel}" for kernel in SANITIZED_KERNELS for tool in ("memcheck", "racecheck")
)
GPU_TESTS = (
    "tests/ops/test_gpu.py",
    "tests/ops/test_gpu_bn_relu.py",
    "tests/ops/test_gpu_masked_weight.py",
    "tests/training/test_gpu_captured_step.py",
)
EPOCHS = "epochs"


class Step(NamedTuple):
    """Cases that run in one process, one after the other.

    Attributes:
        seconds: time limit of the step.
        case_seconds: time limit of each case.
        at_once: number of processes that share the cases.
    """

    name: str
    seconds: float
    case_seconds: float
    cases: tuple[str, ...]
    at_once: int = 1


def key(step: str, case: str) -> str:
    """Of a row."""
    return f"{step}: {case}"


def steps(rehearse: bool, runs: tuple[str, ...] = ()) -> tuple[Step, ...]:
    """All steps; ``runs`` are the trainings of the last one."""
    return (
        Step("environment", 10, 10, ("versions", "copy", "matrix", "empty graph")),
        Step("numbers", 40, 20, _numbers(rehearse)),
        Step("kernels", 60, 20, _kernels(rehearse)),
        Step("steps", 90, 60, _whole_steps(rehearse)),
        Step("profile", 30, 20, tuple(map(str, shapes.profiled(rehearse)))),
        Step("sanitize", 30, 15, SANITIZED),
        Step("tests", 60, 60, GPU_TESTS),
        Step("compiled", 120, 120, _networks(rehearse)[:1]),
        Step(EPOCHS, 3600, 3600, runs, at_once=3),
    )


def _networks(rehearse: bool) -> tuple[str, ...]:
    return SMALL_NETWORKS if rehearse else NETWORKS


def _numbers(rehearse: bool) -> tuple[str, ...]:
    """All shapes, our own kernels first, so that an incomplete check includes them."""
    backends = (*BACKENDS, "native") if rehearse else BACKENDS
    packing = tuple(
        f"{operator} | {backend}"
        for operator in ("pack_filters", "masked_weight")
        for backend in backends
    )
    gradients = tuple(
        f"{shape} | {backend}"
        for backend in (*backends, "matmul")
        for shape in shapes.numbers(rehearse)
        if backend != "matmul" or _is_a_product(shape)
    )
    return (*gradients, *packing, *_unconfirmed(shapes.numbers(rehearse)))


def _unconfirmed(every: tuple[shapes.Shape, ...]) -> tuple[str, ...]:
    """The cases of the kernel by wgmma: of the shapes that it takes."""
    return tuple(f"{shape} | {UNCONFIRMED}" for shape in every if is_for_unconfirmed(shape))


def is_for_unconfirmed(shape: shapes.Shape) -> bool:
    """Whether the kernel by wgmma takes the shape."""
    return (
        shape.stride == 1
        and shape.kernel in (1, 3, 5)
        and shape.dtype == "bfloat16"
        and (shape.pitch or shape.channels) % 8 == shape.out_channels % 8 == 0
    )


def _is_a_product(shape: shapes.Shape) -> bool:
    """Whether the backend ``matmul`` takes the shape."""
    return shape.kernel == 1 and shape.stride == 1 and not shape.prologue


def _kernels(rehearse: bool) -> tuple[str, ...]:
    gradients = tuple(
        f"{shape} | {candidate}"
        for shape in shapes.table(rehearse)
        for candidate in ("cuda", "triton", *(["matmul"] if _is_a_product(shape) else []), *PEERS)
    )
    masks = tuple(
        f"{shapes.masked_name(shape)} | {candidate}"
        for shape in shapes.masked(rehearse)
        for candidate in (*BACKENDS, "sort")
    )
    return (*gradients, *masks, *_unconfirmed(shapes.table(rehearse)))


def _whole_steps(rehearse: bool) -> tuple[str, ...]:
    """Training steps; cases that take minutes to compile come last."""
    networks = _networks(rehearse)
    eager = [f"{n} | {i} | {m}" for n in networks for i in IMPLEMENTATIONS for m in MODES]
    return (*eager, *(f"{n} | plain compiled | {m}" for n in networks for m in MODES))
