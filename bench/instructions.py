"""Machine code of each CUDA kernel: registers, memory, instructions, and those of loops.

``python -m bench.instructions`` reads the built module; ``--build`` has nvcc compile the sources
for the architecture instead, which takes a minute. It needs cuobjdump, of the CUDA toolkit or of
Triton's wheel, and no GPU; it measures no time. With ``--label NAME`` the counts are saved in
``results/sm_*-instructions.json`` beside those of other labels, and its table is rewritten.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent / "results"
CSRC = Path(__file__).resolve().parents[1] / "csrc"
# First instruction of a division by a number unknown to the compiler, of 32 and of 64 bits.
DIVISION = re.compile(r"\bMUFU\.RCP\b")
LOCAL = re.compile(r"\b(LDL|STL)\b")
PRODUCT = re.compile(r"\bHG?MMA\b")
BRANCH = re.compile(r"\bBRA\b.*?\b0x([0-9a-f]+)$")
INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(.*?) ;", re.MULTILINE)
USAGE = re.compile(r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+)")
COLUMNS = (
    "registers", "stack", "shared", "local", "divisions", "instructions", "main_loop", "steps",
)  # fmt: skip


class Counts(NamedTuple):
    """Counts of one kernel.

    Attributes:
        registers: registers of a thread.
        stack: bytes of a thread's stack, where spilled registers and arrays lie.
        shared: bytes of shared memory that do not depend on the launch.
        local: instructions that access the stack.
        divisions: divisions by numbers that are not constant.
        instructions: all instructions.
        main_loop: instructions of the loop over tiles and its inner loops; 0 without tensor cores.
        steps: instructions of each innermost loop that uses tensor cores, a k-step an iteration (by
            wgmma a tile).
    """

    registers: int
    stack: int
    shared: int
    local: int
    divisions: int
    instructions: int
    main_loop: int
    steps: tuple[int, ...]


def find_cuobjdump() -> str:
    """The tool's path."""
    home = os.environ.get("CUDA_HOME")
    triton = importlib.util.find_spec("triton")
    folders = [Path(home) / "bin"] if home else []
    if triton is not None and triton.origin is not None:
        folders.append(Path(triton.origin).parent / "backends" / "nvidia" / "bin")
    for path in (None, *map(str, folders)):
        if found := shutil.which("cuobjdump", path=path):
            return found
    raise SystemExit("there is no cuobjdump on PATH, in CUDA_HOME or in an installed Triton")


def read(tool: str, option: str, architecture: str, file: Path) -> str:
    command = [tool, option, "--gpu-architecture", f"sm_{architecture}", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def loops_of(code: list[tuple[int, str]]) -> list[tuple[int, int]]:
    """First and last index of each loop: the target of a jump back, and the jump."""
    index = {address: i for i, (address, _) in enumerate(code)}
    jumps = ((i, BRANCH.search(text)) for i, (_, text) in enumerate(code))
    targets = ((index[int(jump[1], 16)], i) for i, jump in jumps if jump)
    # The last instruction of a kernel jumps to itself.
    loops = [(first, last) for first, last in targets if first < last]

    def returns(jump: tuple[int, int]) -> bool:
        """Whether the jump goes back into a loop from code behind it, as in the rare case of a
        wait; this is no separate loop."""
        return any(first <= jump[0] <= last < jump[1] for first, last in loops)

    return [loop for loop in loops if not returns(loop)]


def count_loops(code: list[tuple[int, str]]) -> tuple[int, tuple[int, ...]]:
    """``main_loop`` and ``steps`` of :class:`Counts`."""
    products = [i for i, (_, text) in enumerate(code) if PRODUCT.search(text)]
    loops = [
        (first, last) for first, last in loops_of(code) if any(first <= i <= last for i in products)
    ]

    def within(loop: tuple[int, int], other: tuple[int, int]) -> bool:
        return loop != other and other[0] <= loop[0] and loop[1] <= other[1]

    inner = [loop for loop in loops if not any(within(other, loop) for other in loops)]
    outer = [last - first + 1 for first, last in loops if (first, last) not in inner]
    return min(outer, default=0), tuple(sorted(last - first + 1 for first, last in inner))


def count(tool: str, architecture: str, file: Path) -> dict[str, Counts]:
    """Counts by the kernel's mangled name."""
    usage = {
        match[1]: (int(match[2]), int(match[3]), int(match[4]))
        for match in USAGE.finditer(read(tool, "-res-usage", architecture, file))
    }
    counts = {}
    for part in read(tool, "-sass", architecture, file).split("Function : ")[1:]:
        name = part.split("\n", 1)[0].strip()
        code = [(int(address, 16), text) for address, text in INSTRUCTION.findall(part)]
        local, divisions = (
            sum(bool(pattern.search(text)) for _, text in code) for pattern in (LOCAL, DIVISION)
        )
        counts[name] = Counts(*usage[name], local, divisions, len(code), *count_loops(code))
    return counts


def readable(names: list[str]) -> list[str]:
    """Demangled names without namespaces and arguments; unchanged without c++filt."""
    if shutil.which("c++filt") is None:
        return names
    done = subprocess.run(
        ["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True
    )
    spaces = re.compile(r"^void |maskedconv::|wgmma::|\(anonymous namespace\)::|__nv_|__")
    return [re.sub(r"\(\w+\)$", "", spaces.sub("", name)) for name in done.stdout.splitlines()]


def table(labels: dict[str, dict[str, dict[str, object]]]) -> str:
    """Markdown with a section for each label."""
    lines = []
    for label, kernels in labels.items():
        lines += [f"\n### {label}\n", "| kernel | " + " | ".join(COLUMNS) + " |"]
        lines += ["|---" * (len(COLUMNS) + 1) + "|"]
        for name, kernel in kernels.items():
            steps = kernel["steps"]
            assert isinstance(steps, list | tuple)
            shown = [*(kernel[c] for c in COLUMNS[:-1]), ", ".join(map(str, steps))]
            lines += [f"| `{name}` | " + " | ".join(str(value or "") for value in shown) + " |"]
    return "\n".join(lines)


def keep(architecture: str, label: str, kernels: dict[str, dict[str, object]]) -> None:
    """Adds the counts to the committed ones, and writes their table."""
    path = FOLDER / f"sm_{architecture}-instructions.json"
    labels = json.loads(path.read_text()) if path.exists() else {}
    labels[label] = kernels
    path.write_text(json.dumps(labels, indent=1) + "\n")
    about = (
        f"# Machine code of the kernels for sm_{architecture}\n\n"
        "Counted in the machine code by `python -m bench.instructions`, which explains the "
        "columns; nothing was run.\n`steps`: instructions of a k-step (16 pixels; float32: 8), a "
        "number for each loop; by wgmma, of a tile of 64 pixels.\nOther kernels with a prologue "
        "have one for tiles within an image and one for tiles that leave it.\n"
    )
    path.with_suffix(".md").write_text(about + table(labels) + "\n")


def sources_for(architecture: str) -> list[Path]:
    """The sources with kernels for an architecture."""
    sources = sorted(CSRC.glob("**/cuda/*.cu"))
    return [s for s in sources if architecture == "90a" or not s.stem.endswith("_sm90a")]


def compile_kernels(source: Path, architecture: str, folder: Path) -> Path:
    """The cubin of a source, as the package's build makes it."""
    cubin = folder / f"{source.stem}.cubin"
    subprocess.run(
        ["nvcc", "-std=c++17", "-O3", "--expt-relaxed-constexpr", "-I", CSRC,
         f"-arch=sm_{architecture}", "-cubin", source, "-o", cubin], check=True,
    )  # fmt: skip
    return cubin


def built_module() -> Path:
    from maskedconv.ops import native

    module = native.module()
    if module is None:
        raise SystemExit(native.REASON)
    return Path(str(module.__file__))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("file", type=Path, nargs="*", help="modules or cubins; else the built one")
    parser.add_argument("--architecture", default="90", help="compute capability, as 90 or 90a")
    parser.add_argument("--build", action="store_true", help="compile the kernels of csrc/")
    parser.add_argument("--label", help="save the counts in results/ under this name")
    options = parser.parse_args()
    counts: dict[str, Counts] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = options.file
        if options.build:
            sources = sources_for(options.architecture)
            files = [compile_kernels(s, options.architecture, Path(folder)) for s in sources]
        for file in files or [built_module()]:
            counts |= count(find_cuobjdump(), options.architecture, file)
    if not counts:
        raise SystemExit(f"there is no kernel for sm_{options.architecture}")
    named = dict(zip(readable(list(counts)), counts.values(), strict=True))
    kernels = {name: kernel._asdict() for name, kernel in sorted(named.items())}
    print(table({f"sm_{options.architecture}": kernels}))
    if options.label:
        keep(options.architecture, options.label, kernels)


if __name__ == "__main__":
    main()
