"""Predictions for an H200, without one: launches, bytes, floors and times of layers and networks.

``python -m bench.launches_table`` counts them anew (:mod:`bench.launches`), predicts times
(:mod:`bench.launches_model`), writes ``results/cuda-predictions.json``, and puts the tables between
the marks in ``docs/performance.md``. Each row names the case of ``python -m bench.gpu_check`` that
will decide it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from bench.gpu_check import plan, shapes
from bench.gpu_check.problems import by_name, weight_grad_problem
from bench.gpu_check.shapes import Shape
from bench.gpu_check.training_steps import BATCH as CHECKED_BATCH
from bench.gpu_check.training_steps import LEARNED
from bench.instructions import FOLDER
from bench.launches import (
    GPU,
    Launches,
    Ledger,
    autocast,
    count_step,
    pretended_gpu,
    without_memory,
)
from bench.launches_model import Plan, counts_of, optimizer_step, predict, work_of
from maskedconv import BNReLUConv2d, MaskedConv2d, count_parameters, models
from maskedconv.ops.weight_grad import WeightGradProblem
from tests.support import emulation

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
RECORD = FOLDER / "cuda-predictions.json"
LAYERS = (
    "160->160@32 3x3 n10", "320->320@16 3x3 n32", "640->640@8 3x3 n64", "64->64@32 3x3 n6",
    "48->12@32 3x3 n1", "204->48@32 1x1 n4 of 216",
)  # fmt: skip
NO_CASE = "no case"
# Variants: whether the modules are plain, and the backend of our operators.
VARIANTS = {"references": (False, "reference"), "kernels": (False, "cuda"), "plain": (True, "cuda")}


def meta_problem(shape: Shape) -> WeightGradProblem:
    """The weight gradient of a shape of gpu_check, without memory."""
    return weight_grad_problem(shape, device="meta")


def count_layer(shape: Shape, variant: str, module: Any) -> list[Launches]:
    """Forward and backward of BatchNorm, ReLU and convolution, the input's gradient included."""
    plain, backend = VARIANTS[variant]
    ledger = Ledger()
    sizes = (shape.channels, shape.out_channels, shape.kernel, shape.stride, shape.padding)
    with torch.device("meta"):
        norm = nn.BatchNorm2d(shape.channels)
        conv = (
            nn.Conv2d(*sizes, bias=False)
            if plain
            else MaskedConv2d(*sizes, bias=False, learned=shape.filters)
        )
    layer = nn.Sequential(norm, nn.ReLU(), conv) if plain else BNReLUConv2d(norm, conv)
    with FakeTensorMode(allow_non_fake_inputs=True), pretended_gpu(ledger, module, backend):
        without_memory(layer).train()
        problem = meta_problem(shape._replace(prologue=False))
        input, grad = (
            torch.empty_strided(t.shape, t.stride(), dtype=t.dtype) for t in problem.tensors()
        )
        with ledger:
            with autocast():
                out = layer(input.requires_grad_())
            torch.autograd.grad(out, [input, *layer.parameters()], grad)
    return ledger.entries


def measured_by(name: str, shape: Shape) -> str:
    """The case of gpu_check's step kernels."""
    case = f"{shape} | cuda"
    kernels = next(step for step in plan.steps(False) if step.name == "kernels")
    assert case in kernels.cases, name
    return f"kernels: {case}"


def layer_rows(plan_of: Plan, module: Any) -> Iterator[dict[str, Any]]:
    """Rows of the layers: the weight gradient, and the launches of the layer."""
    for name in LAYERS:
        shape = by_name(shapes.TABLE, name)
        problem = meta_problem(shape)
        planned = plan_of(problem)
        work = work_of(problem, planned)
        normed = shape._replace(prologue=True)
        counted = {variant: totals(count_layer(shape, variant, module)) for variant in VARIANTS}
        yield {
            "layer": name,
            "batch": shape.batch,
            "weight_grad": {
                "blocks": planned["splits"] * planned["channel_blocks"] * planned["column_blocks"],
                "shared_bytes": planned["shared_bytes"],
                "registers": counts_of(planned, problem)["registers"],
                "floor_us": microseconds(work.floor()),
                "us": microseconds(*work.range()),
                "bn_relu_us": microseconds(
                    *work_of(meta_problem(normed), plan_of(meta_problem(normed))).range()
                ),
                "decided_by": measured_by(name, shape),
                "bn_relu_decided_by": (
                    measured_by(name, normed) if normed in shapes.TABLE else NO_CASE
                ),
            },
            "step": counted,
        }


def network_rows(plan_of: Plan, module: Any) -> Iterator[dict[str, Any]]:
    """Rows of the training steps; launches, bytes and floor are without the optimizer's."""
    batch = CHECKED_BATCH["cuda"]
    for network in plan.NETWORKS:
        with torch.device("meta"):
            parameters = count_parameters(models.create(network, learned=LEARNED))
        counted = {}
        for variant, (plain, backend) in VARIANTS.items():
            entries = count_step(network, LEARNED, plain, module, backend, batch)
            counted[variant] = totals(entries)
            entries.append(optimizer_step(parameters.total if plain else parameters.learned))
            counted[variant]["ms"] = [round(1e3 * s, 2) for s in predict(entries, plan_of)]
        yield {
            "network": network,
            "batch": batch,
            "step": counted,
            "decided_by": {
                variant: f"steps: {network} | {implementation} | graph"
                for variant, implementation in (("kernels", "ours"), ("plain", "plain"))
            },
        }


def totals(entries: list[Launches]) -> dict[str, Any]:
    return {
        "launches": sum(entry.launches for entry in entries),
        "MB": round(sum(entry.bytes for entry in entries) / 1e6, 1),
        "floor_us": microseconds(sum(entry.bound for entry in entries))[0],
    }


def microseconds(*seconds: float) -> list[float]:
    return [round(1e6 * value, 1) for value in seconds]


def code(*cases: str) -> str:
    """Cases as a cell: a bar would end it."""
    return ", ".join(f"`{case}`" for case in cases).replace("|", "\\|")


def between(values: list[float]) -> str:
    """A range, as text."""
    return f"{values[0]:g}–{values[1]:g}"


def gradient_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| layer, batch | blocks | shared memory, KB | registers | floor, µs | predicted, µs "
        "| with BatchNorm and ReLU, µs | decided by |",
        "|---|--:|--:|--:|--:|--:|--:|---|",
    ]
    for row in rows:
        g = row["weight_grad"]
        named = (g["decided_by"], g["bn_relu_decided_by"])
        cases = code(*(case for case in named if case != NO_CASE))
        cells = [
            f"{row['layer']}, {row['batch']}", str(g["blocks"]),
            f"{g['shared_bytes'] / 1024:.0f}", str(g["registers"]), f"{g['floor_us'][0]:g}",
            between(g["us"]), between(g["bn_relu_us"]), cases,
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def triples(step: dict[str, Any]) -> list[str]:
    """Launches, bytes and floor of the three variants."""
    return [
        " / ".join(f"{step[variant][name]:,.0f}" for variant in VARIANTS)
        for name in ("launches", "MB", "floor_us")
    ]


def layer_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| layer, batch | launches: references / kernels / plain | MB | floor, µs |",
        "|---|--:|--:|--:|",
    ]
    for row in rows:
        cells = triples(row["step"])
        lines.append(f"| {row['layer']}, {row['batch']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def network_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| network, batch | launches: references / kernels / plain | MB | floor, µs | predicted, "
        "ms: kernels / plain | decided by |",
        "|---|--:|--:|--:|--:|---|",
    ]
    for row in rows:
        step = row["step"]
        cells = triples(step)
        cells.append(" / ".join(between(step[name]["ms"]) for name in ("kernels", "plain")))
        cells.append(code(*row["decided_by"].values()))
        lines.append(f"| {row['network']}, {row['batch']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write(record: dict[str, Any]) -> None:
    """The record, and its tables in the document."""
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    text = DOCUMENT.read_text()
    tables = {
        "weight gradients": gradient_table(record["layers"]),
        "layers": layer_table(record["layers"]),
        "networks": network_table(record["networks"]),
    }
    for name, table in tables.items():
        begin, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}{table}{end}{rest.split(end)[1]}"
    DOCUMENT.write_text(text)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        module = emulation.build_module(Path(folder))
        kernel = emulation.WeightGradEmulation(
            emulation.build("weight_grad", Path(folder)),
            GPU.multi_processor_count, GPU.shared_memory_per_block_optin,
        )  # fmt: skip
        layers = list(layer_rows(kernel.plan, module))
        networks = list(network_rows(kernel.plan, module))
    write({"learned": LEARNED, "layers": layers, "networks": networks})
    print(DOCUMENT.read_text())


if __name__ == "__main__":
    main()
