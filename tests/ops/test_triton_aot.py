"""The Triton kernels compiled ahead of time, without a GPU: they fit, spill nothing, use the tensor
cores. Each is specialised as a launch on a layer of a real network would specialise it."""

from __future__ import annotations

import re
import subprocess
from itertools import product
from typing import NamedTuple

import pytest
import torch

from maskedconv.ops.geometry import ConvGeometry
from maskedconv.ops.weight_grad import WeightGradProblem, triton_config
from maskedconv.ops.weight_grad import triton as weight_grad

triton = pytest.importorskip("triton", reason="triton is not installed")


class Target(NamedTuple):
    """A compute capability, the shared memory of a block in bytes, and the tensor instruction."""

    arch: int
    shared_memory: int
    instruction: str


TARGETS = [
    Target(80, 163 * 1024, "mma.sync"),
    Target(90, 227 * 1024, "wgmma"),
    Target(100, 227 * 1024, "tcgen05.mma"),
]
POINTERS = {torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.float32: "*fp32"}
OTHER_POINTERS = {torch.float64: "*fp64", torch.int32: "*i32", torch.int64: "*i64"}
# channels, all filters, learned ones, kernel, stride, padding, size of the input
LAYERS = {
    "64-64 3x3, 1": (64, 64, 1, 3, 1, 1, 32),
    "64-64 3x3, 6": (64, 64, 6, 3, 1, 1, 32),
    "64-128 3x3/2, 12": (64, 128, 12, 3, 2, 1, 32),
    "640-640 3x3, 1": (640, 640, 1, 3, 1, 1, 8),
    "320-640 3x3/2, 5": (320, 640, 5, 3, 2, 1, 16),
    "640-640 3x3, 64": (640, 640, 64, 3, 1, 1, 8),
    "204-48 1x1, 5": (204, 48, 5, 1, 1, 0, 32),
    "204-48 1x1, 20": (204, 48, 20, 1, 1, 0, 32),
    "256-512 1x1, 16": (256, 512, 16, 1, 1, 0, 16),
    "640-640 1x1, 64": (640, 640, 64, 1, 1, 0, 8),
    "3-64 11x11/4, 6": (3, 64, 6, 11, 4, 5, 32),
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def configuration_of(layer):
    channels, _, learned, kernel, *_ = LAYERS[layer]
    return triton_config.choose(channels, learned, kernel * kernel)


def compile_as_launched(kernel, arch, tensors, numbers, constants, **options):
    """A kernel for ``arch``, specialised as a launch does it: 1 is a constant, multiples of 16 are
    known to be that."""
    signature, attributes = {}, {}
    for parameter in kernel.params:
        name = parameter.name
        if name in tensors and tensors[name] is not None:
            signature[name] = (POINTERS | OTHER_POINTERS)[tensors[name]]
        elif name in tensors or name in constants:
            signature[name] = "constexpr"
            constants = {**constants, name: constants.get(name)}
        elif numbers[name] == 1 and not parameter.do_not_specialize:
            signature[name] = "constexpr"
            constants = {**constants, name: 1}
        else:
            whole = "i64" if numbers[name] >= 2**31 else "i32"
            signature[name] = "fp32" if isinstance(numbers[name], float) else whole
        aligned = signature[name].startswith("*") or (
            name in numbers and numbers[name] % 16 == 0 and not parameter.do_not_specialize
        )
        if aligned and signature[name] != "constexpr":
            attributes[(parameter.num,)] = [["tt.divisibility", 16]]
    source = triton.compiler.ASTSource(kernel, signature, constants, attributes)
    target = triton.backends.compiler.GPUTarget("cuda", arch, 32)
    return triton.compile(source, target=target, options=options)


def check_resources(compiled, target, tmp_path):
    """No spills (which need a stack or local memory), and shared memory within the limit."""
    cubin = tmp_path / "kernel.cubin"
    cubin.write_bytes(compiled.asm["cubin"])
    tool = triton.knobs.nvidia.cuobjdump.path
    usage = subprocess.run(
        [tool, "-res-usage", str(cubin)], capture_output=True, text=True, check=True
    ).stdout
    found = {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    assert found["REG"] <= 255
    assert (found["STACK"], found["LOCAL"]) == (0, 0), found
    assert compiled.metadata.shared <= target.shared_memory


def test_the_layers_cover_every_configuration():
    assert {configuration_of(layer) for layer in LAYERS} == set(triton_config.list_configurations())


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: f"sm_{target.arch}")
@pytest.mark.parametrize("layer", LAYERS)
def test_weight_grad(layer, target, tmp_path):
    # Dtypes and prologues alternate over the layers, so that each target has all of them.
    turn = list(LAYERS).index(layer) + TARGETS.index(target)
    compiled = compile_weight_grad(layer, target, list(POINTERS)[turn % 3], turn % 2 == 1)
    check_resources(compiled, target, tmp_path)
    assert target.instruction in compiled.asm["ptx"]


@pytest.mark.parametrize("layer", LAYERS)
def test_weight_grad_where_shared_memory_is_tightest(layer, tmp_path):
    """float32 tiles are the largest; a prologue may store the input's tile a second time."""
    compiled = compile_weight_grad(layer, TARGETS[0], torch.float32, True)
    check_resources(compiled, TARGETS[0], tmp_path)


def compile_weight_grad(layer, target, dtype, with_prologue):
    from maskedconv.ops.weight_grad import triton_kernels as kernels

    channels, out_channels, learned, size, stride, padding, length = LAYERS[layer]
    prologue = torch.float32 if with_prologue else None
    output = (length + 2 * padding - size) // stride + 1
    problem = WeightGradProblem(
        torch.empty(8, length, length, channels, device="meta").permute(0, 3, 1, 2),
        torch.empty(8, output, output, out_channels, device="meta").permute(0, 3, 1, 2),
        torch.Size((learned, channels, size, size)),
        0,
        ConvGeometry((stride, stride), (padding, padding), (1, 1), 1),
        scale=torch.empty(channels, device="meta") if prologue else None,
    )
    config = configuration_of(layer)
    sizes, constants = weight_grad.arguments(problem, config)
    assert not constants["UPCAST"]
    tensors = {"x_ptr": dtype, "grad_ptr": dtype, "out_ptr": torch.float32}
    tensors |= {"scale_ptr": prologue, "shift_ptr": prologue}
    return compile_as_launched(
        kernels.taps_kernel if config.per_tap else kernels.pairs_kernel, target.arch,
        tensors, {**sizes, "tiles": 7}, constants,
        num_warps=config.warps, num_stages=config.stages,
    )  # fmt: skip


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: f"sm_{target.arch}")
def test_finish(target, tmp_path):
    from maskedconv.ops.weight_grad import triton_finish as finish

    dtype = list(POINTERS)[TARGETS.index(target)]
    tensors = {"x_ptr": dtype, "grad_ptr": dtype}
    tensors |= dict.fromkeys(("scale_ptr", "shift_ptr", "parts_ptr", "out_ptr"), torch.float32)
    numbers = {name: 1 if name in ("grad_channel",) else 640 for name in finish.SIZES}
    numbers |= {"elements": 14400, "parts": 66, "images": 8}
    constants = dict.fromkeys(finish.CONSTANTS, 3) | {"PROLOGUE": True, "UPCAST": False}
    compiled = compile_as_launched(
        finish.finish_kernel, target.arch, tensors, numbers,
        {**constants, **weight_grad.FINISH_BLOCK},
    )  # fmt: skip
    check_resources(compiled, target, tmp_path)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: f"sm_{target.arch}")
@pytest.mark.parametrize("slice_position", range(4))
def test_pack_filters(slice_position, target, tmp_path):
    from maskedconv.ops.pack_filters.triton_kernels import pack_filters_kernel

    dtypes = list(POINTERS)[slice_position % 3], torch.float32
    tensors = {"learned_ptr": dtypes[1], "frozen_ptr": dtypes[1], "bank_ptr": dtypes[0]}
    strides = {f"{part}{i}": 3 + i for part, i in product(("learned", "frozen"), range(4))}
    numbers = {"elements": 14400, "size1": 3, "size2": 3, "size3": 160, "split": 10, **strides}
    compiled = compile_as_launched(
        pack_filters_kernel, target.arch, tensors, numbers,
        {"SLICE": slice_position, "BLOCK": 1024}, num_warps=4,
    )  # fmt: skip
    check_resources(compiled, target, tmp_path)


NORM_SIZES = {
    "pixels": 131072, "channels": 204, "x_pixel": 216, "grad_pixel": 204, "out_pixel": 216,
    "row": 204, "part_row": 204, "parts": 128, "chunk": 1024, "eps": 1e-5, "fraction": 0.1,
}  # fmt: skip
NORM_KERNELS = ("activation", "sums", "coefficients", "input_grad", "spread", "union")


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: f"sm_{target.arch}")
@pytest.mark.parametrize("name", NORM_KERNELS)
def test_bn_relu(name, target, tmp_path):
    from maskedconv.ops.bn_relu import triton as bn_relu
    from maskedconv.ops.bn_relu import triton_kernels
    from maskedconv.ops.bn_statistics import triton_kernels as statistics

    module = statistics if name in ("spread", "union") else triton_kernels
    kernel = getattr(module, f"{name}_kernel")
    dtype = list(POINTERS)[TARGETS.index(target)]
    pointers = [part.name for part in kernel.params if part.name.endswith("_ptr")]
    tensors = dict.fromkeys(pointers, torch.float32)
    over_pixels = name not in ("coefficients", "union")
    if over_pixels:
        images = ("x", "summand", "total", "grad", "added", "out")
        tensors |= {f"{part}_ptr": dtype for part in images if f"{part}_ptr" in pointers}
    constants = dict(bn_relu.BLOCKS if over_pixels else bn_relu.OVER_PARTS)
    compiled = compile_as_launched(kernel, target.arch, tensors, NORM_SIZES, constants)
    check_resources(compiled, target, tmp_path)
