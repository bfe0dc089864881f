"""Finds the compilers of the native module and builds it with ninja; ``setup.py`` uses this."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

SANITIZE = (
    "-g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined"
    if os.environ.get("MASKEDCONV_SANITIZE") == "1"
    else ""
).split()
ROOT = Path(__file__).resolve().parent
SUFFIX = str(sysconfig.get_config_var("EXT_SUFFIX"))  # of an extension module of this Python

# Sources that are compiled for an instruction set of their own, and chosen at run time.
ISA_FLAGS = {
    "_amx.cpp": "-mavx512f -mavx512bw",
    "_amx_emulated.cpp": "-mavx512f -mavx512bw",
    "_avx512_bf16.cpp": "-mavx512f -mavx512bw -mavx512bf16",
    "_avx512.cpp": "-mavx512f",
    "_avx2.cpp": "-mavx2 -mfma -mf16c",
}
MODULE = "csrc/module.cpp"  # the only C++ source that knows whether there is CUDA
# Sources with instructions of sm_90 alone, which later architectures do not have.
HOPPER, HOPPER_SOURCE = "90a", "_sm90a.cu"


def find_sources() -> tuple[list[str], list[str]]:
    """The sources of the module without CUDA, and what CUDA adds: all in folders ``cuda``.

    What is in folders ``emulation`` is for the tests alone.
    """
    cpu, cuda = [], []
    isas = () if platform.machine() in ("x86_64", "AMD64") else tuple(ISA_FLAGS)
    for path in sorted((ROOT / "csrc").rglob("*.c*")):
        source = path.relative_to(ROOT)
        if source.suffix not in (".cpp", ".cu") or "emulation" in source.parts:
            continue
        if "cuda" in source.parts:
            cuda.append(str(source))
        elif not source.name.endswith(isas):
            cpu.append(str(source))
    return cpu, cuda


CPP_SOURCES, CUDA_SOURCES = find_sources()

CUDA_FLAGS = [
    "-std=c++17", "-O3", "--expt-relaxed-constexpr", "-Icsrc",
    "-Xcompiler=-fPIC,-fvisibility=hidden",
]  # fmt: skip
RULES = """\
builddir = {folder}
rule cpp
  command = {cxx} -MMD -MF $out.d {cxxflags} $defines $isa -c $in -o $out
  depfile = $out.d
  deps = gcc
rule cuda
  command = {nvcc} -MMD -MF $out.d {nvccflags} $codes -c $in -o $out
  depfile = $out.d
  deps = gcc
rule link
  command = {cxx} -shared $in -o $out {ldflags} $libraries
"""
LOAD = """\
import sys
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("maskedconv._C", sys.argv[1])
module = module_from_spec(spec)
spec.loader.exec_module(module)
module.build_info()
"""


class BuildFailed(Exception):
    """A part cannot be built; the message says what is missing."""


class Cuda(NamedTuple):
    """An nvcc, the architectures to compile for, the folder of its static runtime."""

    nvcc: str
    archs: list[str]
    library_folder: str


def find_cxx() -> list[str]:
    """The C++ compiler's command."""
    named = os.environ.get("CXX", "")
    for command in [shlex.split(named)] if named.strip() else [["g++"], ["c++"], ["clang++"]]:
        if path := shutil.which(command[0]):
            return [path, *command[1:]]
    tried = f"CXX is {named!r}" if named.strip() else "neither g++, c++ nor clang++"
    raise BuildFailed(f"there is no C++ compiler ({tried})")


def find_cuda() -> tuple[Cuda, list[str]]:
    """The CUDA compiler and its architectures, and those that it does not know."""
    home = os.environ.get("CUDA_HOME")
    nvcc = shutil.which("nvcc", path=str(Path(home) / "bin") if home else None)
    if nvcc is None:
        raise BuildFailed(f"there is no nvcc in {home}/bin" if home else "there is no nvcc")
    listed = run([nvcc, "--list-gpu-code"])
    known = set(re.findall(r"\bsm_(\d+)", listed.stdout))
    if listed.returncode or not known:
        raise BuildFailed(f"{nvcc} --list-gpu-code: {first_error(listed.stdout + listed.stderr)}")
    wanted = os.environ.get("MASKEDCONV_ARCHS", "80 90 100").split()
    archs = [arch for arch in wanted if re.sub(r"\D+$", "", arch) in known]
    if not archs:
        raise BuildFailed(f"{nvcc} knows none of the architectures {' '.join(wanted)}")
    unknown = [arch for arch in wanted if arch not in archs]
    return Cuda(nvcc, archs, cuda_library_folder(nvcc)), unknown


def cuda_library_folder(nvcc: str) -> str:
    """The folder in which nvcc finds the static runtime; nvcc may be a wrapper script."""
    dry_run = run([nvcc, "--dryrun", "-o", "x", "x.cu"])
    for quoted, plain in re.findall(r'"-L([^"]+)"|-L([^\s"]+)', dry_run.stderr):
        if (Path(quoted or plain) / "libcudart_static.a").exists():
            return str(quoted or plain)
    raise BuildFailed(f"{nvcc} --dryrun names no folder with libcudart_static.a")


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)


def first_error(output: str) -> str:
    """The line of a compiler's output that says what is wrong."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("ninja: ")]
    words = r"error|fatal|cannot|undefined|unsupported|unknown|not found|denied|killed"
    telling = (line for line in lines if re.search(words, line, re.IGNORECASE))
    return next(telling, lines[-1] if lines else "it ended without a word")


def quote(words: list[str]) -> str:
    """Words of a command as ninja and then the shell take them."""
    return shlex.join(words).replace("$", "$$")


def escape(path: str) -> str:
    """A path as ninja takes it."""
    return re.sub(r"([$ :])", r"$\1", path)


def write_ninja_file(folder: Path, cxx: list[str], cuda: Cuda | None) -> None:
    """For the module without CUDA, ``cpu.so``, and where there is CUDA the whole, ``cuda.so``."""
    objects = {source: f"{folder}/{source}.o" for source in CPP_SOURCES}
    parts = [rules(folder, cxx, cuda)]
    for source, target in objects.items():
        isa = next((flag for end, flag in ISA_FLAGS.items() if source.endswith(end)), "")
        defines = defines_of(cxx, None) if source == MODULE else ""
        parts.append(edge(target, "cpp", [source], isa=isa, defines=defines))
    parts.append(edge(f"{folder}/cpu.so", "link", [*objects.values()]))
    if cuda:
        objects[MODULE] = f"{folder}/module_cuda.o"
        parts.append(edge(objects[MODULE], "cpp", [MODULE], defines=defines_of(cxx, cuda)))
        for source in CUDA_SOURCES:
            objects[source] = f"{folder}/{source}.o"
            if source.endswith(".cu"):
                codes = quote(code_flags(source, cuda.archs))
                parts.append(edge(objects[source], "cuda", [source], codes=codes))
            else:
                parts.append(edge(objects[source], "cpp", [source]))
        libraries = [f"-L{cuda.library_folder}", "-lcudart_static", "-ldl", "-lrt", "-lpthread"]
        parts.append(
            edge(f"{folder}/cuda.so", "link", [*objects.values()], libraries=quote(libraries))
        )
    (folder / "build.ninja").write_text("".join(parts))


def rules(folder: Path, cxx: list[str], cuda: Cuda | None) -> str:
    try:
        import pybind11
    except ModuleNotFoundError:
        raise BuildFailed("there is no pybind11 (pip install pybind11)") from None
    includes = [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_path('include')}", "-Icsrc"]
    flags = ["-std=c++17", "-O3", "-Wall", "-Wextra", "-fPIC", "-fvisibility=hidden"]
    return RULES.format(
        folder=escape(str(folder)),
        cxx=quote(cxx),
        cxxflags=quote([*flags, *includes, *SANITIZE]),
        nvcc=quote([cuda.nvcc]) if cuda else "",
        nvccflags=quote(CUDA_FLAGS) if cuda else "",
        ldflags=quote(["-Wl,--exclude-libs,ALL", *SANITIZE]),
    )


def edge(target: str, rule: str, sources: list[str], **variables: str) -> str:
    line = f"build {escape(target)}: {rule} {' '.join(map(escape, sources))}\n"
    return line + "".join(f"  {name} = {value}\n" for name, value in variables.items() if value)


def defines_of(cxx: list[str], cuda: Cuda | None) -> str:
    """Macros for the compiler and the architectures, which the module reports."""
    version = run([*cxx, "-dumpfullversion", "-dumpversion"]).stdout.strip()
    name = " ".join(Path(word).name for word in cxx if not word.startswith("-"))
    archs = " ".join(cuda.archs) if cuda else ""
    defines = [f'-DMASKEDCONV_COMPILER="{name}-{version}"', f'-DMASKEDCONV_CUDA_ARCHS="{archs}"']
    return quote([*defines, "-DMASKEDCONV_WITH_CUDA"] if cuda else defines)


def code_flags(source: str, archs: list[str]) -> list[str]:
    """The architectures of a source; the last one also as PTX, which later GPUs can compile.

    A source for Hopper has code for that alone. Its kernels are empty where it is not built for.
    """
    if source.endswith(HOPPER_SOURCE) and {"90", HOPPER} & set(archs):
        return [f"-gencode=arch=compute_{HOPPER},code=sm_{HOPPER}"]
    codes = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
    return [*codes, f"-gencode=arch=compute_{archs[-1]},code=compute_{archs[-1]}"]


def build(folder: Path, target: str) -> Path:
    """Has ninja make a module, and loads it once: a library that is missing shows only then."""
    command = [*find_ninja(), "-f", f"{folder}/build.ninja", f"{folder}/{target}"]
    output, status = run_through(command)
    if status:
        # After "FAILED:" come the command that failed, on one line, and what it said.
        after = output.partition("FAILED: ")[2].split("\n", 2)
        raise BuildFailed(first_error(after[2] if len(after) == 3 else output))
    loaded = run([sys.executable, "-c", LOAD, f"{folder}/{target}"])
    if loaded.returncode and not SANITIZE:  # the sanitizers must be loaded before Python
        said = (loaded.stderr.strip() or f"status {loaded.returncode}").splitlines()[-1]
        raise BuildFailed(f"the compiled module does not load: {said}")
    return folder / target


def find_ninja() -> list[str]:
    if importlib.util.find_spec("ninja"):
        return [sys.executable, "-m", "ninja"]
    if path := shutil.which("ninja"):
        return [path]
    raise BuildFailed("there is no ninja (pip install ninja)")


def run_through(command: list[str]) -> tuple[str, int]:
    """The output of a command, which also passes through, and its exit status."""
    lines = []
    with subprocess.Popen(
        command, cwd=ROOT, text=True, errors="replace", env={**os.environ, "LC_ALL": "C"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        for line in process.stdout or ():
            print(line, end="", flush=True)
            lines.append(line)
    return "".join(lines), process.returncode
