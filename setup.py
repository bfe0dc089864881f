"""Builds the native module ``maskedconv._C``: C++17 and CUDA, no torch headers, with ninja.

Environment variables:
    MASKEDCONV_NATIVE  auto (default): build it if there is a C++ compiler; 1: fail without; 0: no.
    MASKEDCONV_CUDA    auto (default): with CUDA if there is nvcc; 1: fail without; 0: no.
    MASKEDCONV_SANITIZE  1: with the address and undefined-behaviour sanitizers (make sanitize).
    MASKEDCONV_ARCHS   CUDA architectures, default "80 90 100"; the last one also as PTX.
    CXX, CUDA_HOME     the compilers to use.

Everything else about the package is in pyproject.toml.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, find_namespace_packages, setup
from setuptools.command.build_ext import build_ext

SANITIZE = (
    " -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined"
    if os.environ.get("MASKEDCONV_SANITIZE") == "1"
    else ""
)
ROOT = Path(__file__).resolve().parent
CPP_SOURCES = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "csrc").glob("*.cpp")
    if platform.machine() in ("x86_64", "AMD64") or "_avx" not in path.name
)
CUDA_SOURCES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc").glob("cuda/*.cu"))

# Sources that are compiled for an instruction set of their own, and chosen at run time.
ISA_FLAGS = {"_avx512.cpp": "-mavx512f", "_avx2.cpp": "-mavx2 -mfma"}

BUILD_NINJA = """\
builddir = {folder}
cxx = {cxx}
nvcc = {nvcc}
cxxflags = {cxxflags}
nvccflags = {nvccflags}
rule cpp
  command = $cxx -MMD -MF $out.d $cxxflags $isa -c $in -o $out
  depfile = $out.d
  deps = gcc
rule cuda
  command = $nvcc -MMD -MF $out.d $nvccflags -c $in -o $out
  depfile = $out.d
  deps = gcc
rule link
  command = $cxx -shared $in -o $out {ldflags}
{edges}
"""


def switch(variable: str) -> str:
    value = os.environ.get(variable, "auto")
    if value not in ("auto", "0", "1"):
        raise SystemExit(f"{variable} is {value!r}; expected auto, 0 or 1")
    return value


def find_cxx() -> str | None:
    named = os.environ.get("CXX")
    candidates = [named] if named else ["g++", "c++", "clang++"]
    return next((path for name in candidates if (path := shutil.which(name))), None)


def find_nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME")
    return shutil.which("nvcc", path=str(Path(home) / "bin") if home else None)


def cuda_library_folder(nvcc: str) -> str:
    """Where nvcc would look for the static runtime; it may itself be a wrapper script."""
    dry_run = subprocess.run(
        [nvcc, "--dryrun", "-o", "x", "x.cu"], capture_output=True, text=True, check=False
    )
    for folder in re.findall(r'-L"?([^"\s]+)"?', dry_run.stderr):
        if (Path(folder) / "libcudart_static.a").exists():
            return folder
    raise SystemExit(f"{nvcc} --dryrun names no folder with libcudart_static.a; MASKEDCONV_CUDA=0")


def cuda_flags(archs: list[str]) -> str:
    codes = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
    codes.append(f"-gencode=arch=compute_{archs[-1]},code=compute_{archs[-1]}")
    flags = "-std=c++17 -O3 --expt-relaxed-constexpr -Icsrc -Xcompiler=-fPIC,-fvisibility=hidden"
    return " ".join([flags, *codes])


def escape(text: str) -> str:
    return re.sub(r"([$ :])", r"$\1", text)


class NativeBuild(build_ext):
    """build_ext that hands the compiling to ninja."""

    def build_extension(self, ext: Extension) -> None:
        cxx, nvcc = find_cxx(), find_nvcc() if switch("MASKEDCONV_CUDA") != "0" else None
        if cxx is None:
            if switch("MASKEDCONV_NATIVE") == "1":
                raise SystemExit("MASKEDCONV_NATIVE=1, but there is no C++ compiler (set CXX)")
            print("maskedconv: no C++ compiler, so no native module", file=sys.stderr)
            return
        if nvcc is None and switch("MASKEDCONV_CUDA") == "1":
            raise SystemExit("MASKEDCONV_CUDA=1, but there is no nvcc (set CUDA_HOME)")
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self._run_ninja(cxx, nvcc), target)

    def _run_ninja(self, cxx: str, nvcc: str | None) -> Path:
        # A fixed folder: an editable installation would otherwise compile everything each time.
        suffix = sysconfig.get_config_var("EXT_SUFFIX")
        folder = ROOT / "build" / f"native{'-sanitized' if SANITIZE else ''}{suffix}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "build.ninja").write_text(self._ninja_file(cxx, nvcc, folder))
        command = [sys.executable, "-m", "ninja", "-f", str(folder / "build.ninja")]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            raise SystemExit(
                "compiling maskedconv._C failed; see above. MASKEDCONV_CUDA=0 leaves out CUDA, "
                "MASKEDCONV_NATIVE=0 the whole native module"
            )
        return folder / "_C.so"

    def _ninja_file(self, cxx: str, nvcc: str | None, folder: Path) -> str:
        import pybind11

        archs = os.environ.get("MASKEDCONV_ARCHS", "80 90 100").split() if nvcc else []
        includes = f"-I{pybind11.get_include()} -I{sysconfig.get_path('include')} -Icsrc"
        version = subprocess.run([cxx, "-dumpfullversion", "-dumpversion"], capture_output=True)
        compiler = f"{Path(cxx).name}-{version.stdout.decode().strip()}"
        defines = f"-DMASKEDCONV_COMPILER='\"{compiler}\"'"
        defines += f" -DMASKEDCONV_CUDA_ARCHS='\"{' '.join(archs)}\"'"
        ldflags = "-Wl,--exclude-libs,ALL" + SANITIZE
        if nvcc:
            defines += " -DMASKEDCONV_WITH_CUDA"
            ldflags += f" -L{cuda_library_folder(nvcc)} -lcudart_static -ldl -lrt -lpthread"
        objects, edges = [], []
        for source in CPP_SOURCES + (CUDA_SOURCES if nvcc else []):
            objects.append(escape(str(folder / f"{source}.o")))
            rule = "cuda" if source in CUDA_SOURCES else "cpp"
            isa = next((flag for name, flag in ISA_FLAGS.items() if source.endswith(name)), "")
            edges.append(f"build {objects[-1]}: {rule} {source}\n  isa = {isa}")
        edges.append(f"build {escape(str(folder / '_C.so'))}: link {' '.join(objects)}")
        return BUILD_NINJA.format(
            folder=folder,
            cxx=cxx, nvcc=nvcc or "", ldflags=ldflags, edges="\n".join(edges),
            cxxflags=f"-std=c++17 -O3 -Wall -Wextra -fPIC -fvisibility=hidden {includes} {defines}"
            + SANITIZE,
            nvccflags=cuda_flags(archs) if archs else "",
        )  # fmt: skip


# Namespace packages, as the folder of the report's templates counts as one.
packages = find_namespace_packages(include=["maskedconv*"], exclude=["*__pycache__*"])
native = [] if switch("MASKEDCONV_NATIVE") == "0" else [
    Extension("maskedconv._C", [*CPP_SOURCES, *CUDA_SOURCES], optional=True)
]  # fmt: skip
setup(
    packages=[*packages, "maskedconv.models"],
    package_dir={"maskedconv": "maskedconv", "maskedconv.models": "models"},
    ext_modules=native,
    cmdclass={"build_ext": NativeBuild},
)
