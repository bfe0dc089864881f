"""Everything that needs a GPU, in one command: ``make gpu-check``.

Runs the tests on the GPU, compute-sanitizer on the CUDA kernels where it is installed, and the
comparisons with the peers, which it writes to ``bench/results/``. Says so where there is no GPU.
"""

from __future__ import annotations

import shutil
import subprocess
import sys

import torch

SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
# A few small problems: a sanitizer is hundreds of times slower.
SANITIZED = "test_weight_grad and cuda and (3x3 or 1x1) and not reference or test_pack_filters"


def commands() -> dict[str, list[str]]:
    """The steps by name, in order."""
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    steps = {"tests on the GPU": [*pytest, "tests/test_gpu.py"]}
    if sanitizer := shutil.which("compute-sanitizer"):
        for tool in SANITIZERS:
            steps[f"compute-sanitizer {tool}"] = [
                sanitizer, "--tool", tool, "--error-exitcode", "9", "--target-processes", "all",
                *pytest, "-x", "tests/test_gpu.py", "-k", SANITIZED,
            ]  # fmt: skip
    for name, rounds in (("compare", 20), ("steps", 10), ("networks", 7)):
        steps[f"bench.{name}"] = [
            sys.executable, "-m", f"bench.{name}", "--device", "cuda", "--rounds", str(rounds),
        ]  # fmt: skip
    steps["the other tests"] = [*pytest, "tests", "--ignore", "tests/test_gpu.py"]
    return steps


def main() -> int:
    if not torch.cuda.is_available():
        print("no GPU here: nothing was checked")
        return 0
    failed = []
    for name, command in commands().items():
        print(f"\n== {name}: {' '.join(command)}", flush=True)
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    print(f"\nfailed: {', '.join(failed)}" if failed else "\nall steps passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
