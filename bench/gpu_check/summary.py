"""The final table. Does not import torch."""

from __future__ import annotations

from collections import Counter
from typing import Any

from bench.gpu_check.plan import Step
from bench.gpu_check.record import CUT_OFF, NOT_HERE, TIMED_OUT, Row


def table(rows: list[Row], steps: tuple[Step, ...], missing: list[str]) -> str:
    """The results and figures of each step, and the missing cases."""
    lines = []
    for name in dict.fromkeys(step.name for step in steps):
        found = [row for row in rows if row.get("step") == name]
        if not found:
            continue
        states = Counter(row["status"] for row in found)
        counts = ", ".join(f"{count} {state}" for state, count in states.items())
        lines.append(f"\n{name}: {counts}")
        lines += [text for row in found if (text := _line(row["key"], row))]
    if missing:
        lines.append(f"\nnot done, {len(missing)}:")
        lines += [f"  {key}" for key in missing]
    else:
        lines.append("\nall cases were run")
    return "\n".join(lines)


def _line(key: str, row: Row) -> str:
    """The figures or the error of a row; empty for a correct row without figures."""
    status = row["status"]
    if status in ("error", "crashed", CUT_OFF, TIMED_OUT, NOT_HERE):
        why = str(row.get("error") or row.get("reason") or row.get("summary", ""))
        return f"  {key}: {status}: {why.splitlines()[-1][:160] if why else ''}"
    if status == "wrong":
        why = row.get("why") or row.get("error", row.get("faults", ""))
        return f"  {key}: WRONG: {why}"
    return f"  {key:<70} {_figures(row)}" if _figures(row) else ""


def _figures(row: dict[str, Any]) -> str:
    found = []
    if "ms" in row:
        p20, p50, p80 = row["ms"]
        found.append(f"{p50:9.4f} ms ({p20:.4f}-{p80:.4f})")
    if row.get("held") is False:
        found.append("including Python")
    units = (
        ("bytes_a_second", 1e12, "TB/s"), ("operations_a_second", 1e12, "TFLOP/s"),
        ("peak_bytes", 2**20, "MiB at the peak"), ("saved_bytes", 2**20, "MiB saved"),
        ("first_step_seconds", 1, "s first step"), ("top1", 1, "% top-1"),
    )  # fmt: skip
    found += [f"{row[name] / unit:.2f} {text}" for name, unit, text in units if name in row]
    if row.get("published"):
        found.append(f"published {row['published']}")
    return ", ".join(found)
