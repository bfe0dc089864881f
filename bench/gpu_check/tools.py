"""Finds NVIDIA's tools, runs them on the driver, and parses their output."""

from __future__ import annotations

import csv
import glob
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from bench.commit import ROOT
from bench.gpu_check.record import NotHere
from bench.gpu_check.shapes import Shape

METRICS = (
    "gpu__time_duration.sum",
    "dram__bytes_read.sum",
    "dram__bytes_write.sum",
    "smsp__inst_executed.sum",
    "smsp__issue_active.avg.pct_of_peak_sustained_active",
    "sm__warps_active.avg.pct_of_peak_sustained_active",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "launch__registers_per_thread",
    "launch__grid_size",
)
# Folders in which NVIDIA's packages install them.
PLACES = ("/usr/local/cuda/bin", "/opt/nvidia/nsight-compute/*")


def find(tool: str, rehearse: bool) -> list[str]:
    """The command of the tool, or in a rehearsal of a stand-in with the same output.

    Raises:
        NotHere: the tool is not installed.
    """
    if rehearse:
        return [sys.executable, str(Path(__file__).with_name("tool_stand_in.py")), tool]
    folders = [folder for place in PLACES for folder in sorted(glob.glob(place))]
    path = shutil.which(tool) or shutil.which(tool, path=os.pathsep.join(folders))
    if path is None:
        raise NotHere(f"{tool} is not installed")
    return [path]


def driver(
    shapes: tuple[Shape, ...], rehearse: bool, check: bool, kernel: str = "weight_grad"
) -> list[str]:
    """The command that launches the kernel."""
    command = [sys.executable, "-m", "bench.gpu_check.driver", "--kernel", kernel]
    for shape in shapes:
        command += ["--shape", json.dumps(shape._asdict())]
    return [*command, *(["--host"] if rehearse else []), *(["--check"] if check else [])]


def output_of(command: list[str]) -> tuple[int, str]:
    """Exit status and complete output."""
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        check=False,
    )  # fmt: skip
    print(" ".join(command), done.stdout, sep="\n", file=sys.stderr)
    return done.returncode, done.stdout


def kernels_in(text: str) -> list[dict[str, str]]:
    """The metrics of each launch, from the raw page of Nsight Compute as CSV."""
    lines = text.splitlines()
    start = next((at for at, line in enumerate(lines) if line.startswith('"ID"')), None)
    if start is None:
        return []
    # The row of units has no ID.
    rows = [row for row in csv.DictReader(lines[start:]) if (row.get("ID") or "").isdigit()]
    return [
        {"kernel": row["Kernel Name"], **{name: row[name] for name in METRICS if name in row}}
        for row in rows
    ]


def faults_in(text: str) -> int | None:
    """The number of faults that compute-sanitizer found; None if it is not in the output."""
    for pattern in (r"ERROR SUMMARY: (\d+) error", r"RACECHECK SUMMARY: (\d+) hazard"):
        if found := re.search(pattern, text):
            return int(found[1])
    return None
