"""Resolves ``--amp`` to the precision in a run's configuration. Does not import torch."""

from __future__ import annotations

from pathlib import Path

from maskedconv.checks import check_choice

AMP = ("bf16", "off")
ASKED = ("auto", *AMP)
_CPU_FACTS = Path("/proc/cpuinfo")
# Linux's names for bfloat16 units: tiles on x86, vectors on x86 and ARM.
_TILES = "amx_bf16"
_VECTORS = ("avx512_bf16", "bf16", "svebf16")


def resolve_amp(asked: str, device: str) -> str:
    """Returns ``asked``, with "auto" resolved to "bf16" on CUDA and on a CPU with AMX, else "off".

    Args:
        device: "cuda" or "cpu".

    Raises:
        ValueError: ``asked`` is not in ``ASKED``.
    """
    check_choice("amp", asked, ASKED)
    if asked != "auto":
        return asked
    return "bf16" if device == "cuda" or _TILES in _cpu_flags() else "off"


def is_slow(amp: str, device: str) -> bool:
    """Whether ``amp`` is bfloat16 on a CPU without hardware support for it."""
    return amp == "bf16" and device == "cpu" and _cpu_flags().isdisjoint((_TILES, *_VECTORS))


def _cpu_flags() -> frozenset[str]:
    """The features of the first processor, as Linux lists them; empty if it lists none."""
    try:
        lines = _CPU_FACTS.read_text().splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()
