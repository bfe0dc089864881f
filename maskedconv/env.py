"""Prints installed versions and available backends: ``python -m maskedconv.env``."""

from __future__ import annotations

import argparse
import json
import os
import platform
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("maskedconv", "torch", "torchvision", "triton", "numpy", "pybind11")
NOT_RUN = "not yet run on a GPU; checked against the reference before use"
AMX_UNCONFIRMED = "available; no processor has confirmed it: runs only where it is named"
AMX_MISSING = "this processor lacks it (AMX-TILE, AMX-BF16 and AVX-512 BF16)"
UNCONFIRMED = "built for sm 90a; no GPU has confirmed it: runs only where it is named"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _backends() -> dict[str, str]:
    from maskedconv.build_notes import left_out
    from maskedconv.ops import native
    from maskedconv.ops.weight_grad import cuda_wgmma

    triton = _version("triton")
    states = {
        "reference": "runs",
        "native": native.REASON,
        "triton": NOT_RUN if triton else "triton is not installed",
        "cuda": native.REASON,
        "cuda_wgmma": cuda_wgmma.why_not_built() or UNCONFIRMED,
    }
    module = native.module()
    if module is not None:
        info = module.build_info()
        states["native"] = info["isa_error"] or f"runs ({info['compiler']}, {info['isa']})"
        states["cuda"] = _cuda(info["cuda_archs"], left_out(str(Path(str(module.__file__)).parent)))
    return states


def _cuda(archs: str, left_out: dict[str, str]) -> str:
    """The state of the CUDA part: its architectures and what was left out."""
    reason = left_out.get("cuda", "")
    if not archs:
        return f"not built: {reason or 'the installation recorded no reason'}"
    return f"built for sm {archs}{f' ({reason})' if reason else ''}; {_refused() or NOT_RUN}"


def _refused() -> str:
    """The reason why the current GPU does not run the CUDA part; empty without a reason or GPU."""
    import torch

    from maskedconv.ops import native

    if not torch.cuda.is_available():
        return ""
    return native.why_no_code_for(torch.device("cuda", torch.cuda.current_device()))


def _instruction_set() -> dict[str, str]:
    """Instruction set of the native CPU kernels."""
    from maskedconv.ops import native

    wanted = os.environ.get(native.ISA_VARIABLE)
    state = {native.ISA_VARIABLE: wanted or "not set: the widest that this processor supports"}
    module = native.module()
    if module is None:
        return {**state, "in use": native.REASON}
    info = module.build_info()
    return {
        **state,
        "in use": info["isa"] or info["isa_error"],
        "built": ", ".join(info["isas_built"]),
        "available": ", ".join(info["isas_available"]),
        "amx": _amx(info),
    }


def _amx(info: dict[str, Any]) -> str:
    """The state of the tiles for bfloat16."""
    if "amx" not in info["isas_built"]:
        return "not built: it is for x86-64"
    return AMX_UNCONFIRMED if "amx" in info["isas_available"] else AMX_MISSING


def _cpu() -> str:
    """The processor's name; its architecture where Linux does not tell."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _device() -> dict[str, Any]:
    import torch

    cuda = torch.cuda.is_available()
    return {
        "cpu": _cpu(),
        "cpu_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if cuda else "none",
    }


def collect() -> dict[str, Any]:
    """Versions, device, backends and instruction set, as plain JSON data."""
    return {
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "device": _device(),
        "backends": _backends(),
        "instruction_set": _instruction_set(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m maskedconv.env",
        description="Print versions, the device, and which backends run here and why not.",
    )
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    as_json = parser.parse_args().json
    report = collect()
    if as_json:
        print(json.dumps(report, indent=2))
        return
    print(f"python      {report['python']}")
    for section in ("versions", "device", "backends", "instruction_set"):
        print(f"\n{section.replace('_', ' ')}")
        for name, value in report[section].items():
            print(f"  {name:<16}{'not installed' if value is None else value}")


if __name__ == "__main__":
    main()
