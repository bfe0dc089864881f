"""Measurements as rows, their tables, and their files with device and versions.

``python -m bench.results FILE.json`` prints the table of a file.
"""

from __future__ import annotations

import argparse
import functools
import json
import platform
from pathlib import Path
from typing import Any

import torch

from bench.ceilings import Ceilings
from bench.commit import commit
from bench.layers import Layer
from bench.timing import Quantiles, Samples, quantiles, ratio
from maskedconv import env
from maskedconv.ops import dispatch

FOLDER = Path(__file__).parent / "results"
OURS = (*dispatch.backend_names(), "maskedconv")
CHANNELS_LAST = "channels_last"  # of a file that does not say it
DTYPES = {"cpu": "float32", "cuda": "bfloat16"}  # by default
Row = dict[str, Any]

_commit_at_start = functools.cache(commit)


def row(
    what: str,
    subject: Layer | str,
    learned: int | str,
    frozen: str,
    least_ms: float | None,
    samples: Samples,
    **further: Any,
) -> Row:
    """One measurement; ``least_ms`` is the minimum time by the device's measured limits.

    ``ms`` has p20, p50 and p80 by name. ``ours_over`` has the time of each of our implementations
    as a multiple of each other one.
    """
    about = {"what": what, "layer": str(subject), "learned": learned, "frozen": frozen}
    ours_over = {
        own: {other: ratio(samples, own, other) for other in samples if other != own}
        for own in samples
        if own in OURS
    }
    times = {name: quantiles(values) for name, values in samples.items()}
    return {**about, "floor_ms": least_ms, **further, "ms": times, "ours_over": ours_over}


def table(rows: list[Row]) -> str:
    """A Markdown table: our times relative to the floor, and all others relative to ours."""
    lines = []
    for what in dict.fromkeys(row["what"] for row in rows):
        lines += [
            f"\n### {what}\n",
            "| | learned | ours ms (p20-p80) | ours / floor | others / ours |",
            "|---|---|---|---|---|",
        ]
        for row in (row for row in rows if row["what"] == what):
            lines += [_line(row, name) for name in row["ours_over"]]
    return "\n".join(lines)


def _line(row: Row, name: str) -> str:
    own = Quantiles(*row["ms"][name])
    ratios = ", ".join(f"{other} {1 / over:.2f}" for other, over in row["ours_over"][name].items())
    label = row["frozen"] if name == "maskedconv" else name
    span = f"{own.p50:.3f} ({own.p20:.3f}-{own.p80:.3f})"
    floor = "" if row["floor_ms"] is None else f"{own.p50 / row['floor_ms']:.2f}"
    return f"| {row['layer']} | {row['learned']} {label} | {span} | {floor} | {ratios} |"


def options(description: str | None) -> argparse.ArgumentParser:
    """A parser of ``--device``, ``--dtype`` and ``--rounds``, the options of every measurement."""
    _commit_at_start()  # files may change during the measurement
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"),
        help="of the tensors, or of autocast for networks; default: " + str(DTYPES),
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=20, help="paired repetitions")
    return parser


def dtype_of(arguments: argparse.Namespace) -> torch.dtype:
    """The dtype that the options name, or the device's default."""
    return getattr(torch, arguments.dtype or DTYPES[arguments.device])  # type: ignore[no-any-return]


def device_name(device: str) -> str:
    """The name of the device in file names."""
    if device == "cuda":
        return torch.cuda.get_device_name().replace(" ", "-").lower()
    return f"cpu-{platform.machine()}-{torch.get_num_threads()}-threads"


def as_text(record: dict[str, Any]) -> str:
    """JSON with one row per line and four significant digits, the format of the committed files."""
    head, tail = json.dumps({**record, "rows": []}, indent=1).rsplit("[]", 1)
    rows = ",\n".join(json.dumps(_short(row), separators=(",", ":")) for row in record["rows"])
    return f"{head}[\n{rows}\n]{tail}\n"


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _short(part) for key, part in value.items()}
    return [_short(part) for part in value] if isinstance(value, list | tuple) else value


def write(
    device: str,
    dtype: torch.dtype,
    name: str,
    rows: list[Row],
    further: str = "",
    layout: str = CHANNELS_LAST,
    limits: Ceilings | None = None,
) -> None:
    """Writes ``<device>-<name>.json``, and ``.md`` with the table and ``further``; prints both.

    The name includes the dtype if it is not the device's default. ``limits`` are those of the
    device in the same run.
    """
    about = {"device": device_name(device), "dtype": str(dtype), "layout": layout}
    record: dict[str, Any] = {**about, "commit": _commit_at_start(), "environment": env.collect()}
    if limits is not None:
        record["limits"] = _short(limits._asdict())
    record["rows"] = rows
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{_stem(device, dtype, name)}.json").write_text(as_text(record))
    write_text(device, dtype, name, f"{table(rows)}\n{further}", layout)


def write_text(
    device: str, dtype: torch.dtype, name: str, text: str, layout: str = CHANNELS_LAST
) -> None:
    """Writes the ``.md`` of :func:`write` alone, with ``text``; prints it."""
    FOLDER.mkdir(exist_ok=True)
    text = f"# {device_name(device)}, {dtype}, {layout}\n\n{text}\n"
    (FOLDER / f"{_stem(device, dtype, name)}.md").write_text(text)
    print(text)


def _stem(device: str, dtype: torch.dtype, name: str) -> str:
    dtype_name = str(dtype).removeprefix("torch.")
    name = name if dtype_name == DTYPES[device] else f"{name}-{dtype_name}"
    return f"{device_name(device)}-{name}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    record = json.loads(parser.parse_args().file.read_text())
    layout = record.get("layout", CHANNELS_LAST)
    print(f"# {record['device']}, {record['dtype']}, {layout}\n{table(record['rows'])}")


if __name__ == "__main__":
    main()
