"""The steps in order, with their time limits and cases. Does not import torch."""

from __future__ import annotations

from typing import NamedTuple

from bench.gpu_check import shapes

UNCONFIRMED = "cuda_wgmma"  # may hang or break the context
TRITON = "triton"  # compiled on the first run of each kind of problem
PEERS = ("slice", "full")
NETWORKS = ("wrn_28_10", "densenet_bc_100_12", "wrn_28_4")
SMALL_NETWORKS = ("wrn_10_1", "densenet_bc_16_12")
IMPLEMENTATIONS = ("ours", "plain", "slice")
MODES = ("eager", "graph")
# The unconfirmed kernel is last.
SANITIZED_KERNELS = ("weight_grad", "bn_relu", "masked_weight", UNCONFIRMED)
SANITIZED = tuple(
    f"{tool} | {kernel}" for kernel in SANITIZED_KERNELS for tool in ("memcheck", "racecheck")
)
# Files and their seconds; files with few tests come first.
GPU_TESTS = {
    "tests/ops/test_gpu_bn_relu.py": 20,
    "tests/ops/test_gpu_masked_weight.py": 15,
    "tests/ops/test_gpu.py": 25,
    "tests/training/test_gpu_captured_step.py": 10,
}
EPOCHS = "epochs"
# Operators with a single case for all shapes.
WHOLE_OPERATORS = (*shapes.NORM_OPERATORS, "pack_filters", "masked_weight")


class Step(NamedTuple):
    """Cases that run in one process, one after the other.

    Attributes:
        seconds: time limit of the step, in a check of six minutes; 0 if its cases come after all
            others, in the remaining time.
        case_seconds: time limit of each case, which only one that hangs should reach. Below
            ``seconds`` if there are several, so that the others run behind one that hangs.
        at_once: number of processes that share the cases.
    """

    name: str
    seconds: float
    case_seconds: float
    cases: tuple[str, ...]
    at_once: int = 1


def key(step: str, case: str) -> str:
    """Key of a row."""
    return f"{step}: {case}"


def candidate(case: str) -> str:
    """The kernel or implementation that a case runs; the modes of a step do not matter."""
    parts = case.split(" | ")
    return parts[-2] if parts[-1] in MODES else parts[-1]


def steps(rehearse: bool, runs: tuple[str, ...] = ()) -> tuple[Step, ...]:
    """All steps; ``runs`` are the trainings of the last one. Entries of one name are one step."""
    peers = _compiled_steps(rehearse)
    return (
        Step("environment", 10, 8, ("versions", "copy", "matrix", "empty graph")),
        Step("numbers", 45, 20, _numbers(rehearse)),
        Step("kernels", 45, 20, _kernels(rehearse)),
        Step("steps", 80, 40, _whole_steps(rehearse)),
        Step("profile", 20, 15, tuple(map(str, shapes.profiled(rehearse)))),
        Step("sanitize", 30, 20, SANITIZED),
        *(Step("tests", s, 180, (f"{f} | not {TRITON}",)) for f, s in GPU_TESTS.items()),
        # The peer of our step as a graph; our compiled one is next.
        Step("steps", 60, 300, peers[:1]),
        Step("compiled", 0, 300, _networks(rehearse)[:1]),
        Step("steps", 0, 300, peers[1:]),
        Step("tests", 0, 180, tuple(f"{f} | {TRITON}" for f in GPU_TESTS if "/ops/" in f)),
        Step(EPOCHS, 0, 3600, runs, at_once=3),
    )


def within(some: tuple[Step, ...], seconds: float) -> tuple[Step, ...]:
    """The steps with time limits in the same proportion, which sum to ``seconds``."""
    factor = seconds / (sum(step.seconds for step in some) or 1)
    return tuple(step._replace(seconds=factor * step.seconds) for step in some)


def _networks(rehearse: bool) -> tuple[str, ...]:
    return SMALL_NETWORKS if rehearse else NETWORKS


def _numbers(rehearse: bool) -> tuple[str, ...]:
    """All kernels of one backend after another, so that an incomplete check has our own."""
    every = shapes.numbers(rehearse)

    def cases_of(backend: str) -> list[str]:
        gradients = [f"{shape} | {backend}" for shape in every]
        return [*(f"{name} | {backend}" for name in WHOLE_OPERATORS), *gradients]

    products = (f"{shape} | matmul" for shape in every if _is_a_product(shape))
    others = [*cases_of(TRITON), *cases_of("reference")]
    if rehearse:  # the CPU always packs by PyTorch's operators
        others += [case for case in cases_of("native") if not case.startswith("pack_filters")]
    return (*cases_of("cuda"), *_unconfirmed(every), *products, *others)


def _unconfirmed(every: tuple[shapes.Shape, ...]) -> tuple[str, ...]:
    """The cases of the kernel by wgmma, for the shapes that it takes."""
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
    """Our own kernels and PyTorch's; then those that may hang, and those that are compiled."""
    norms = [
        f"{operator} {shape}"
        for shape in shapes.norms(rehearse)
        for operator in shapes.NORM_OPERATORS
    ]
    masks = [shapes.masked_name(shape) for shape in shapes.masked(rehearse)]
    table = shapes.table(rehearse)
    gradients = [
        f"{shape} | {one}"
        for shape in table
        for one in ("cuda", *(["matmul"] if _is_a_product(shape) else []), *PEERS)
    ]
    return (
        *(f"{norm} | {one}" for norm in norms for one in ("cuda", "reference")),
        *gradients,
        *(f"{mask} | {one}" for mask in masks for one in ("cuda", "reference", "sort")),
        *_unconfirmed(table),
        *(f"{name} | {TRITON}" for name in (*norms, *table, *masks)),
    )


def _whole_steps(rehearse: bool) -> tuple[str, ...]:
    networks = _networks(rehearse)
    return tuple(f"{n} | {i} | {m}" for n in networks for i in IMPLEMENTATIONS for m in MODES)


def _compiled_steps(rehearse: bool) -> tuple[str, ...]:
    """Training steps that take minutes to compile."""
    modes = MODES[::-1]  # the graph first
    return tuple(f"{n} | plain compiled | {m}" for n in _networks(rehearse) for m in modes)
