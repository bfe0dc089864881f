"""masked_weight's Triton kernels compiled ahead of time, without a GPU, as a launch on a weight
``[512, 512, 3, 3]`` compiles them."""

from __future__ import annotations

import pytest
import torch
from test_triton_aot import POINTERS, TARGETS, check_resources, compile_as_launched

from maskedconv.ops.masked_weight import triton as masked_weight
from maskedconv.ops.masked_weight.layout import layout_of

pytest.importorskip("triton", reason="triton is not installed")
INTEGERS = {"state_ptr": torch.int64, "first_ptr": torch.int64, "counts_ptr": torch.int32}
WEIGHTS = {
    "contiguous": torch.empty(512, 512, 3, 3, device="meta"),
    "channels_last": torch.empty(512, 512, 3, 3, device="meta").to(
        memory_format=torch.channels_last
    ),
}
VARIANTS = {
    "digit": [{"INDEXED": False}, {"INDEXED": True}],
    "threshold": [{}],
    "sums": [{}],
    "mask": [{"sums_ptr": None}, {"sums_ptr": torch.float64}],
    "score_grad": [{"BINARY": False}, {"BINARY": True}],
}
CASES = [(name, variant) for name, variants in VARIANTS.items() for variant in variants]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def sizes_of(weight):
    layout = layout_of(weight)
    names = ("size1", "size2", "size3", "step0", "step1", "step2", "step3")
    parts, chunk = masked_weight.split(weight.numel())
    return {
        **dict(zip(names, masked_weight.arguments(layout), strict=True)),
        "elements": weight.numel(), "num_dropped": 700001, "level": 5, "shift": 39, "bits": 8,
        "previous_shift": 47, "chunk": chunk, "parts": parts, "scale": 0.7,
    }  # fmt: skip


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: f"sm_{target.arch}")
@pytest.mark.parametrize("layout", WEIGHTS)
@pytest.mark.parametrize(("name", "variant"), CASES, ids=str)
def test_masked_weight(name, variant, layout, target, tmp_path):
    from maskedconv.ops.masked_weight import triton_kernels

    kernel, weight = getattr(triton_kernels, f"{name}_kernel"), WEIGHTS[layout]
    names = [parameter.name for parameter in kernel.params]
    tensors = {part: INTEGERS.get(part, torch.float32) for part in names if part.endswith("_ptr")}
    dtype = list(POINTERS)[TARGETS.index(target)]
    tensors |= {part: dtype for part in ("out_ptr", "grad_ptr") if part in names}
    tensors |= {part: given for part, given in variant.items() if part.endswith("_ptr")}
    constants = {
        "KEY_LEVELS": len(masked_weight.KEY_SHIFTS), "BINS": 2**masked_weight.DIGIT,
        "PARTS": masked_weight.PARTS, "BLOCK": masked_weight.BLOCK["BLOCK"],
        **masked_weight.ordered(layout_of(weight)), **variant,
    }  # fmt: skip
    constants = {part: constants[part] for part in names if part in constants.keys() - tensors}
    compiled = compile_as_launched(
        kernel, target.arch, tensors, sizes_of(weight), constants,
        num_warps=masked_weight.BLOCK["num_warps"],
    )  # fmt: skip
    check_resources(compiled, target, tmp_path)
