"""Builds the package; its native module ``maskedconv._C`` is C++17 and CUDA, without torch headers.

Environment variables:
    MASKEDCONV_NATIVE  auto (default): build it if possible; 1: fail if not possible; 0: omit it.
    MASKEDCONV_CUDA    auto (default): with CUDA if possible; 1: fail if not possible; 0: without.
    MASKEDCONV_SANITIZE  1: with the address and undefined-behaviour sanitizers (make sanitize).
    MASKEDCONV_ARCHS   CUDA architectures, default "80 90 100"; the last one also as PTX.
    CXX, CUDA_HOME     the compilers to use; CXX may have a launcher or options: "ccache g++".

Omitted parts are named on stderr and recorded in ``maskedconv/_build.json`` for
``python -m maskedconv.env`` to repeat. Everything else about the package is in pyproject.toml.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from setuptools import Extension, find_namespace_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

sys.path.insert(0, str(Path(__file__).resolve().parent))  # an isolated build leaves it out
import native_build
from native_build import ROOT, BuildFailed


def switch(part: str) -> str:
    value = os.environ.get(f"MASKEDCONV_{part}", "auto")
    if value not in ("auto", "0", "1"):
        raise SystemExit(f"MASKEDCONV_{part} is {value!r}; expected auto, 0 or 1")
    return value


def note(package: Path, left_out: dict[str, str]) -> None:
    """Writes down why parts were left out, and removes a module that an earlier build left."""
    if "native" in left_out:
        (package / f"_C{native_build.SUFFIX}").unlink(missing_ok=True)
    package.mkdir(parents=True, exist_ok=True)
    (package / "_build.json").write_text(json.dumps(left_out, indent=2) + "\n")


class PythonPart(build_py):
    """build_py; it is the only step without the native module."""

    def run(self) -> None:
        super().run()
        if switch("NATIVE") == "0":
            package = ROOT if self.editable_mode else Path(self.build_lib)
            note(package / "maskedconv", dict.fromkeys(("native", "cuda"), "MASKEDCONV_NATIVE=0"))


class NativePart(build_ext):
    """build_ext that hands the compiling to ninja: the CPU's part, then the whole with CUDA."""

    def run(self) -> None:
        self.left_out: dict[str, str] = {}
        super().run()
        note((ROOT if self.inplace else Path(self.build_lib)) / "maskedconv", self.left_out)

    def build_extension(self, ext: Extension) -> None:
        # A fixed folder: an editable installation would otherwise compile everything each time.
        name = f"native{'-sanitized' if native_build.SANITIZE else ''}{native_build.SUFFIX}"
        folder = ROOT / "build" / name
        folder.mkdir(parents=True, exist_ok=True)
        try:
            cxx, cuda = native_build.find_cxx(), self._find_cuda()
            native_build.write_ninja_file(folder, cxx, cuda)
            module = native_build.build(folder, "cpu.so")
        except BuildFailed as failure:
            self._leave_out("native", "native module", str(failure))
            if switch("CUDA") != "0":
                self._leave_out("cuda", "CUDA", "it is a part of the native module")
            return
        try:
            module = native_build.build(folder, "cuda.so") if cuda else module
        except BuildFailed as failure:
            self._leave_out("cuda", "CUDA", str(failure))
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(module, target)

    def _find_cuda(self) -> native_build.Cuda | None:
        if switch("CUDA") == "0":
            self.left_out["cuda"] = "MASKEDCONV_CUDA=0"
            return None
        try:
            cuda, unknown = native_build.find_cuda()
        except BuildFailed as failure:
            self._leave_out("cuda", "CUDA", str(failure))
            return None
        if unknown:
            missing = " ".join(f"sm_{arch}" for arch in unknown)
            self._leave_out("cuda", f"CUDA for {missing}", f"{cuda.nvcc} does not know {missing}")
        return cuda

    def _leave_out(self, part: str, missing: str, reason: str) -> None:
        """Goes on without a part, with one line; raises SystemExit where it was asked for."""
        if switch(part.upper()) == "1":
            raise SystemExit(f"MASKEDCONV_{part.upper()}=1, but no {missing}: {reason}")
        print(f"maskedconv: built without {missing}: {reason}", file=sys.stderr)
        self.left_out[part] = reason


# Namespace packages, as the folder of the report's templates counts as one.
packages = find_namespace_packages(include=["maskedconv*"], exclude=["*__pycache__*"])
if (native := switch("NATIVE")) == "0" and switch("CUDA") == "1":
    raise SystemExit("MASKEDCONV_CUDA=1 needs the native module, but MASKEDCONV_NATIVE=0")
sources = [*native_build.CPP_SOURCES, *native_build.CUDA_SOURCES]
setup(
    packages=[*packages, "maskedconv.models"],
    package_dir={"maskedconv": "maskedconv", "maskedconv.models": "models"},
    ext_modules=[] if native == "0" else [Extension("maskedconv._C", sources, optional=True)],
    cmdclass={"build_ext": NativePart, "build_py": PythonPart},
)
