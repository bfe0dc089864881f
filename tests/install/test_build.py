"""Builds with missing or failing compilers: the working part is built, the rest is reported."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
from fake_compilers import Compilers, refuse

import native_build
from maskedconv.ops import native

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ("setup.py", "native_build.py", "pyproject.toml", "README.md", "LICENSE", "csrc", "models")
UNSUPPORTED_HOST = (
    "/cuda/include/crt/host_config.h:143:2: error: #error -- unsupported GNU version! "
    "gcc versions later than 12 are not supported!"
)
pytestmark = pytest.mark.skipif(native.module() is None, reason=native.REASON)


@pytest.fixture
def compilers(tmp_path):
    folder = tmp_path / "bin"
    folder.mkdir()
    return Compilers(folder, str(native.module().__file__))


class Built:
    """The result of a build: output, notes, and the file of the compiled module, if any."""

    def __init__(self, folder, result):
        self.status, self.output = result.returncode, result.stdout + result.stderr
        package = folder / "maskedconv"
        self.module = package / f"_C{EXTENSION_SUFFIXES[0]}"
        notes = package / "_build.json"
        self.notes = json.loads(notes.read_text()) if notes.exists() else None
        self.lines = [line for line in self.output.splitlines() if line.startswith("maskedconv:")]


@pytest.fixture
def build(tmp_path, compilers):
    """Builds a copy of the sources, in a folder with a space, with only ``compilers`` on PATH."""
    source, target = tmp_path / "the sources", tmp_path / "built"
    source.mkdir()
    for name in SCRIPT:
        (source / name).symlink_to(ROOT / name)
    for name in ("setup.py", "native_build.py"):  # they look for the sources where they are
        (source / name).unlink()
        shutil.copy(ROOT / name, source)
    shutil.copytree(
        ROOT / "maskedconv", source / "maskedconv",
        ignore=shutil.ignore_patterns("*.so", "_build.json", "__pycache__", "models"),
    )  # fmt: skip

    def run(**environment):
        kept = {
            name: value for name, value in os.environ.items() if name not in ("CXX", "CUDA_HOME")
        }
        environment = {**kept, "PATH": f"{compilers.folder}:/nowhere", **environment}
        environment["PATH"] += f":{shell_tools(tmp_path)}"
        command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(target)]
        return Built(target, subprocess.run(
            command, cwd=source, env=environment, capture_output=True, text=True, timeout=1200,
            check=False,
        ))  # fmt: skip

    return run


def shell_tools(folder):
    """A folder with the commands that the compiler scripts need, but no compilers."""
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    for name in ("sh", "cp", "printf", "env"):
        if not (tools / name).exists():
            (tools / name).symlink_to(shutil.which(name))
    return tools


def check_left_out(built, part, *words):
    """One line and the notes report the missing part and the reason."""
    assert built.status == 0, built.output
    assert all(word in built.notes[part] for word in words), built.notes
    assert sum(built.notes[part] in line for line in built.lines) == 1, built.output
    assert built.module.exists() == ("native" not in built.notes)


def check_refused(built, *words):
    assert built.status != 0
    assert all(word in built.output.splitlines()[-1] for word in words), built.output


def test_everything_is_built_where_it_works(build, compilers):
    compilers.add_cxx()
    compilers.add_nvcc(listing="printf 'sm_%s\\n' 80 90 100 120")
    built = build(MASKEDCONV_NATIVE="1", MASKEDCONV_CUDA="1")
    assert built.status == 0, built.output
    assert built.notes == {}
    assert built.lines == []
    assert built.module.exists()
    arguments = [word for call in compilers.calls("g++") for word in call]
    assert '-DMASKEDCONV_COMPILER="g++-9.9.9"' in arguments
    assert '-DMASKEDCONV_CUDA_ARCHS="80 90 100"' in arguments
    assert f"-L{compilers.folder}" in arguments


def test_an_nvcc_that_does_not_know_an_architecture(build, compilers):
    compilers.add_cxx()
    compilers.add_nvcc()
    built = build()
    check_left_out(built, "cuda", "nvcc does not know sm_100")
    compiled = [call for call in compilers.calls("nvcc") if "-c" in call]
    assert compiled
    for call in compiled:
        hopper = any(word.endswith("_sm90a.cu") for word in call)
        last = "-gencode=arch=compute_90,code=compute_90"
        assert ("-gencode=arch=compute_90a,code=sm_90a" if hopper else last) in call
        assert not any("100" in word for word in call if "arch" in word)
    arguments = [word for call in compilers.calls("g++") for word in call]
    assert '-DMASKEDCONV_CUDA_ARCHS="80 90"' in arguments
    check_refused(build(MASKEDCONV_CUDA="1"), "MASKEDCONV_CUDA=1", "does not know sm_100")


@pytest.mark.parametrize(
    ("archs", "codes"),
    [
        ("80 90 100", ["compute_90a,code=sm_90a"]),
        ("90a", ["compute_90a,code=sm_90a"]),
        ("80", ["compute_80,code=sm_80", "compute_80,code=compute_80"]),
    ],
)
def test_a_source_for_hopper_is_built_for_it_alone(archs, codes):
    flags = native_build.code_flags("csrc/kernel_sm90a.cu", archs.split())
    assert flags == [f"-gencode=arch={code}" for code in codes]
    others = native_build.code_flags("csrc/kernel.cu", archs.split())
    assert len(others) == len(archs.split()) + 1


NVCCS = {
    "no listing": ({"listing": refuse("nvcc fatal : Unknown option 'list-gpu-code'")}, "Unknown"),
    "too old": ({"listing": "printf 'sm_%s\\n' 35 50"}, "none of the architectures 80 90"),
    "host compiler": ({"before": refuse(UNSUPPORTED_HOST)}, "unsupported GNU version"),
}


@pytest.mark.parametrize("case", NVCCS)
def test_an_nvcc_that_does_not_work_leaves_the_cpu_part(case, build, compilers):
    options, reason = NVCCS[case]
    compilers.add_cxx()
    compilers.add_nvcc(**options)
    built = build(MASKEDCONV_ARCHS="80 90")
    check_left_out(built, "cuda", reason)
    assert list(built.notes) == ["cuda"]
    refused = build(MASKEDCONV_ARCHS="80 90", MASKEDCONV_CUDA="1")
    check_refused(refused, "MASKEDCONV_CUDA=1", reason)


def test_without_the_static_runtime(build, compilers):
    compilers.add_cxx()
    compilers.add_nvcc()
    (compilers.folder / "libcudart_static.a").unlink()
    check_left_out(build(), "cuda", "libcudart_static.a")


def test_without_nvcc(build, compilers, tmp_path):
    compilers.add_cxx()
    check_left_out(build(), "cuda", "there is no nvcc")
    check_refused(build(MASKEDCONV_CUDA="1"), "there is no nvcc")
    check_left_out(build(CUDA_HOME=str(tmp_path)), "cuda", f"there is no nvcc in {tmp_path}/bin")


PYTHON_H = "pybind11/detail/common.h:231:10: fatal error: Python.h: No such file or directory"
COMPILERS = {
    "Python.h": (PYTHON_H, ""),
    "no C++17": ("g++: error: unrecognized command line option '-std=c++17'", ""),
    "link": ("/usr/bin/ld: cannot find -lstdc++: No such file or directory", "-shared"),
}


@pytest.mark.parametrize("case", COMPILERS)
def test_a_compiler_that_does_not_work_leaves_python_alone(case, build, compilers):
    message, where = COMPILERS[case]
    compilers.add_cxx(before=f'case "$*" in *-dump*) ;; *{where}*) {refuse(message)};; esac\n')
    built = build()
    check_left_out(built, "native", message)
    check_refused(build(MASKEDCONV_NATIVE="1"), "MASKEDCONV_NATIVE=1", message)
    check_refused(build(MASKEDCONV_CUDA="1", MASKEDCONV_NATIVE="auto"), "MASKEDCONV_CUDA=1")


def test_a_module_that_does_not_load_is_not_installed(build, compilers, tmp_path):
    (tmp_path / "empty.so").touch()
    compilers.module = str(tmp_path / "empty.so")
    compilers.add_cxx()
    check_left_out(build(), "native", "the compiled module does not load: ImportError")


def test_without_a_compiler_and_with_a_wrong_one(build):
    check_left_out(build(), "native", "there is no C++ compiler")
    check_left_out(build(CXX="gxx -m64"), "native", "CXX is 'gxx -m64'")
    check_refused(build(MASKEDCONV_NATIVE="1"), "there is no C++ compiler")


def test_a_failed_build_removes_the_module_of_an_earlier_one(build, compilers):
    compilers.add_cxx()
    assert build().module.exists()
    built = build(CXX="gxx")
    assert not built.module.exists()
    check_left_out(built, "native", "there is no C++ compiler")


def test_a_launcher_before_the_compiler(build, compilers):
    compilers.add_cxx()
    compilers.add("ccache", 'exec "$@"\n')
    built = build(CXX="ccache g++ -m64", MASKEDCONV_NATIVE="1", MASKEDCONV_CUDA="0")
    assert built.status == 0, built.output
    assert built.notes == {"cuda": "MASKEDCONV_CUDA=0"}
    assert built.module.exists()
    assert all(call[:2] == ["g++", "-m64"] for call in compilers.calls("ccache"))
    arguments = [word for call in compilers.calls("g++") for word in call]
    assert '-DMASKEDCONV_COMPILER="ccache g++-9.9.9"' in arguments


def test_an_environment_whose_path_has_a_space(build, compilers, tmp_path):
    import pybind11

    site = tmp_path / "an environment's site $x"
    site.mkdir()
    (site / "pybind11").symlink_to(Path(pybind11.__file__).parent)
    compilers.add_cxx()
    built = build(PYTHONPATH=str(site), MASKEDCONV_NATIVE="1", MASKEDCONV_CUDA="0")
    assert built.status == 0, built.output
    compiled = [call for call in compilers.calls("g++") if "-c" in call]
    assert all(any(f"{site}/pybind11" in word for word in call) for call in compiled)


def test_contradicting_and_unknown_wishes(build):
    check_refused(build(MASKEDCONV_NATIVE="0", MASKEDCONV_CUDA="1"), "needs the native module")
    check_refused(build(MASKEDCONV_CUDA="yes"), "'yes'; expected auto, 0 or 1")


def test_the_real_notes_reach_env(tmp_path):
    from maskedconv import build_notes, env

    reason = "/usr/bin/nvcc does not know sm_100"
    (tmp_path / "_build.json").write_text(json.dumps({"cuda": reason}))
    assert build_notes.left_out(str(tmp_path)) == {"cuda": reason}
    assert env._cuda("80 90", {"cuda": reason}).startswith(f"built for sm 80 90 ({reason})")
    assert env._cuda("", {"cuda": reason}) == f"not built: {reason}"
