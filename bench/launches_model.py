"""Times on an H200 that the ledger of launches and the machine code predict; nothing is measured.

A prediction is a range. Its lower end lets memory, tensor cores and the issue of instructions work
at their ceilings at the same time. Its upper end has them work one after the other, and adds a gap
for each launch. A time outside of the range refutes the model. The general case of weight_grad's
kernel skips columns that its machine code has: instructions count for the upper end alone there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch

from bench.instructions import FOLDER
from bench.launches import CEILINGS, GPU, Launches
from bench.launches_cost import weight_grad_flops

LABEL = "all kernels"  # of the committed counts
ARCHITECTURE = "90a"
BANDWIDTH, RATE = CEILINGS
MMA_SHARE = 0.62  # of the dense rate, by mma.sync instead of wgmma
# Four schedulers, an instruction each a cycle, at the clock of the data sheet's 989 TFLOP/s.
ISSUE = GPU.multi_processor_count * 4 * 1.83e9
LAUNCH = 1.5e-6  # seconds from one kernel of a graph to the next that needs its result
TILE_PIXELS, COLUMNS = 64, 9  # kTilePixels and kColumns of csrc/weight_grad/cuda/plan.h
K_STEP = 16  # pixels of a product of 16-bit elements
SECTOR = 32  # bytes that a read moves at least

Plan = Callable[[Any], dict[str, int]]


class Range(NamedTuple):
    """Seconds, at least and at most."""

    least: float
    most: float


class Work(NamedTuple):
    """Work of the launches of one weight_grad.

    Attributes:
        floor_bytes: input, learned filters' gradient and result, once each.
        floor_flops: FLOPs of the learned filters.
        bytes: all bytes, with reads by several blocks and the sums between the two launches.
        flops: FLOPs of the tensor cores, with channels and filters padded to full products.
        instructions: instructions that warps issue.
        exact: whether all of these are issued.
        share: fraction of the multiprocessors that have work.
    """

    floor_bytes: int
    floor_flops: int
    bytes: int
    flops: int
    instructions: int
    exact: bool
    share: float

    def floor(self) -> float:
        """The seconds that no kernel can beat."""
        return max(self.floor_bytes / BANDWIDTH, self.floor_flops / RATE)

    def range(self) -> Range:
        tensor_cores = self.flops / (RATE * MMA_SHARE * self.share)
        issue = self.instructions / (ISSUE * self.share)
        least = max(self.floor(), tensor_cores, issue * self.exact)
        return Range(least, self.bytes / BANDWIDTH + tensor_cores + issue + 2 * LAUNCH)


def counts_of(plan: dict[str, int], problem: Any) -> dict[str, Any]:
    """The committed counts of the kernel that takes the problem."""
    labels = json.loads((FOLDER / f"sm_{ARCHITECTURE}-instructions.json").read_text())
    assert problem.input.dtype == torch.bfloat16
    cases = (problem.scale is not None, is_fast(problem))
    prologue, fast = (str(case).lower() for case in cases)
    found = labels[LABEL][f"weight_grad_kernel<bfloat16, {plan['m_tiles']}, {prologue}, {fast}>"]
    return dict(found)


def is_fast(problem: Any) -> bool:
    """The template's last argument; see ``is_fast`` of csrc/weight_grad/cuda/weight_grad.cu."""
    filters, channels, rows, columns = problem.shape
    whole = -(-filters // 8) * rows * columns % COLUMNS == 0
    pitches = (problem.input.stride(3), problem.grad_output.stride(3), channels)
    wide = all(pitch % 8 == 0 for pitch in pitches)
    return whole and wide and problem.geometry.stride == (1, 1)


def work_of(problem: Any, plan: dict[str, int]) -> Work:
    """Work of weight_grad's launches, by the plan of its kernel for an H200."""
    counts = counts_of(plan, problem)
    filters, channels, rows, columns = problem.shape
    warps = plan["channel_warps"] * plan["column_warps"] * plan["pixel_warps"]
    others = plan["channel_blocks"] * plan["column_blocks"]
    blocks = plan["splits"] * others
    steps = -(-TILE_PIXELS // K_STEP // plan["pixel_warps"])
    tile = counts["main_loop"] - sum(counts["steps"]) + counts["steps"][0] * steps
    once = counts["instructions"] - counts["main_loop"]
    padded = plan["channel_blocks"] * plan["channel_warps"] * plan["m_tiles"] * 16
    columns_there = -(-filters // 8) * rows * columns
    x = problem.input.numel() * 2
    grad = problem.grad_output.numel() // problem.grad_output.size(1) * max(SECTOR, filters * 2)
    out = filters * rows * columns * channels * 4
    sums = 2 * plan["splits"] * out if plan["splits"] > 1 else out
    return Work(
        x + grad + out,
        weight_grad_flops(problem),
        x * plan["column_blocks"] + grad * plan["channel_blocks"] + sums + out,
        2 * plan["tiles"] * TILE_PIXELS * padded * columns_there * 8,
        warps * (others * plan["tiles"] * tile + blocks * once),
        is_fast(problem),
        min(1.0, blocks / GPU.multi_processor_count),
    )


def optimizer_step(parameters: int) -> Launches:
    """SGD with momentum and weight decay in float32: PyTorch's four passes over lists."""
    return Launches("optimizer", 4, (3 + 2 + 3 + 3) * 4 * parameters)


def predict(entries: Iterable[Launches], plan: Plan) -> Range:
    """Time of all launches in a CUDA graph, without Python."""
    least = most = 0.0
    for entry in entries:
        if entry.operator == "weight_grad" and entry.problem is not None:
            found = work_of(entry.problem, plan(entry.problem)).range()
        else:
            moved, computed = entry.bytes / BANDWIDTH, entry.flops / RATE
            found = Range(entry.bound, moved + computed + entry.launches * LAUNCH)
        least, most = least + found.least, most + found.most
    return Range(least, most)
