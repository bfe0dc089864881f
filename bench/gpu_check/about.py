"""Fields of every row that describe the device and the code. Does not import torch."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import platform
import subprocess
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@functools.cache
def describe(rehearse: bool) -> dict[str, Any]:
    """Device, versions and commit."""
    return {
        "device": "rehearsal on the CPU" if rehearse else gpu_name(),
        "rehearsal": rehearse,
        "versions": _versions(),
        "commit": _commit(),
    }


def gpu_name() -> str:
    """The name of the driver's first GPU, or an empty string."""
    with suppress(OSError, AttributeError):
        driver = ctypes.CDLL("libcuda.so.1")
        device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
        if driver.cuInit(0) == 0 and driver.cuDeviceGet(ctypes.byref(device), 0) == 0:
            driver.cuDeviceGetName(name, 256, device)
            return name.value.decode(errors="replace")
    return ""


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("torch", "triton", "numpy", "maskedconv"):
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def _commit() -> str:
    """The commit with a hash of uncommitted changes; without git, a hash of the code."""
    with suppress(OSError, subprocess.CalledProcessError):
        commit = _git("rev-parse", "--short=12", "HEAD")
        changes = _git("diff", "HEAD")
        return f"{commit}+{hashlib.sha256(changes.encode()).hexdigest()[:8]}" if changes else commit
    digest = hashlib.sha256()
    for file in _sources():
        digest.update(f"{file.relative_to(ROOT)}\n".encode() + file.read_bytes())
    return f"no git, {digest.hexdigest()[:12]}"


def _sources() -> list[Path]:
    """The files that results may depend on; in csrc all, most of a kernel is in .h and .inl."""
    files = [file for file in (ROOT / "csrc").rglob("*") if file.is_file()]
    for folder in ("maskedconv", "models", "bench", "tests"):
        files += (ROOT / folder).rglob("*.py")
    return sorted([*files, *ROOT.glob("*.py"), *ROOT.glob("*.toml")])


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
