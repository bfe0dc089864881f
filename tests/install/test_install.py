"""Installing and finding the package: with and without compilers, from the root and elsewhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENV = "from maskedconv import env; env.main()"
WHERE = "import maskedconv.models, maskedconv._C; print(maskedconv.models.__file__)"


def run(*command, cwd=None, **environment):
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=1200,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.strip()


def copy_sources(folder):
    """The sources without build outputs."""
    ignored = shutil.ignore_patterns(
        ".git", ".venv*", "build", "*.so", "_build.json", "__pycache__"
    )

    def ignore(path, names):
        # A user's folder of results, which has the name of a folder of the package.
        return ignored(path, names) | ({"runs"} & set(names) if path == str(ROOT) else set())

    return shutil.copytree(ROOT, folder / "source", ignore=ignore)


def build_wheel(folder, **environment):
    """A wheel of a copy of the sources, built with the installed build requirements."""
    source = copy_sources(folder)
    run(
        sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index",
        "-w", folder, source, MASKEDCONV_CUDA="0", **environment,
    )  # fmt: skip
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """site-packages of a regular, not editable, installation."""
    folder = tmp_path_factory.mktemp("in a plain place")
    with zipfile.ZipFile(build_wheel(folder, MASKEDCONV_NATIVE="1")) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


def test_wheel_holds_what_is_installed(installed):
    top = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert top == {"maskedconv"}  # no top-level package `models` or `tests`
    held = ("models/wrn.py", "py.typed", "data", "runs", "ops", "report/templates/report.html.j2")
    for name in (*held, "papers/rosenfeld2018/author_runs.csv"):
        assert (installed / "maskedconv" / name).exists(), name
    assert list((installed / "maskedconv").glob("_C*.so"))


def run_in(site, code, cwd):
    """Runs ``code`` as if ``site`` were the only installation, started in the folder ``cwd``."""
    hide_editable = (
        "import sys; sys.meta_path = [finder for finder in sys.meta_path "
        "if getattr(finder, '__name__', '') != '_EditableFinder']; "
    )
    path = f"sys.path.append({str(site)!r}); sys.path.insert(0, {str(cwd)!r}); sys.argv = ['x']; "
    return run(sys.executable, "-c", hide_editable + path + code, cwd=cwd)


@pytest.mark.parametrize("cwd", [ROOT, Path("/")], ids=["root", "elsewhere"])
def test_plain_installation_is_whole(installed, cwd):
    """At the root Python finds the source folder first, which does not have models."""
    assert run_in(installed, WHERE, cwd).startswith(str(installed))


@pytest.mark.parametrize("cwd", [ROOT, Path("/")], ids=["root", "elsewhere"])
def test_this_installation_is_whole(cwd):
    run(sys.executable, "-c", WHERE, cwd=cwd)
    listing = run(sys.executable, "-m", "maskedconv.reproduce", "--list", cwd=cwd)
    assert "fig1" in listing
    assert "table4" in listing


def test_without_a_compiler_the_python_part_is_installed(tmp_path):
    wheel = build_wheel(tmp_path, CXX="no-such-compiler")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert not any(name.endswith(".so") for name in names)
    assert "maskedconv/models/wrn.py" in names
    printed = run_in(tmp_path / "site", ENV, Path("/"))
    reason = "there is no C++ compiler (CXX is 'no-such-compiler')"
    assert f"maskedconv._C is not installed: {reason}" in printed


def test_the_python_part_alone_is_for_every_python(tmp_path):
    wheel = build_wheel(tmp_path, MASKEDCONV_NATIVE="0")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        notes = json.loads(archive.read("maskedconv/_build.json"))
    assert notes == {"native": "MASKEDCONV_NATIVE=0", "cuda": "MASKEDCONV_NATIVE=0"}


def test_the_source_distribution_holds_every_file_of_the_native_module(tmp_path):
    source = copy_sources(tmp_path)
    run(sys.executable, "setup.py", "--quiet", "sdist", "--dist-dir", tmp_path, cwd=source)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    files = [path for path in (source / "csrc").rglob("*") if path.is_file()]
    assert files
    assert {str(path.relative_to(source)) for path in files} | {"native_build.py"} <= held


def test_env_says_what_was_built_and_what_not(installed, tmp_path):
    """It reads the notes of the loaded package, not of the working directory."""
    source = copy_sources(tmp_path)
    (source / "maskedconv" / "_build.json").write_text('{"cuda": "a note of another build"}')
    for cwd in (source, Path("/")):
        states = json.loads(run_in(installed, "sys.argv += ['--json']; " + ENV, cwd))["backends"]
        assert re.fullmatch(r"runs \(.+, .+\)", states["native"])
        assert states["cuda"] == "not built: MASKEDCONV_CUDA=0"


def test_torch_is_not_imported_early():
    code = "import sys, maskedconv; assert 'torch' not in sys.modules; maskedconv.MaskedConv2d"
    run(sys.executable, "-c", code, cwd="/")


@pytest.mark.parametrize("command", ["reproduce", "train", "report", "env"])
def test_help_answers_without_torch(command):
    code = (
        "import runpy, sys; sys.modules['torch'] = None; sys.argv = ['x', '--help']; "
        f"runpy.run_module('maskedconv.{command}', run_name='__main__')"
    )
    assert "Usage" in run(sys.executable, "-c", code, cwd="/").replace("usage", "Usage")
