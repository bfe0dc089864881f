"""The fuzzer: its printed programs run, it finds a planted fault, and it survives a crash."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from maskedconv.ops.weight_grad import BACKENDS, reference
from tests.fuzz import Case, check
from tests.fuzz.cases import draw
from tests.fuzz.shrink import shrink
from tests.fuzz.tensors import LAYOUTS, laid_out

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("layout", sorted(LAYOUTS.keys() - {"expanded", "zero"}))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_layouts_keep_the_values(layout, dtype):
    values = torch.randn(2, 3, 4, 5).to(dtype)
    assert torch.equal(laid_out(values, layout), values)


def test_cases_are_functions_of_seed_and_index():
    assert draw(3, 7) == draw(3, 7) != draw(3, 8)


def test_a_case_prints_as_a_program_that_runs():
    done = subprocess.run(
        [sys.executable, "-c", Case(seed=1, filters=8).script()],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout == "agrees\n"


def test_a_planted_fault_is_found_and_shrunk(monkeypatch):
    right = reference.run
    for backend in BACKENDS.values():
        monkeypatch.setattr(backend, "run", lambda problem: -right(problem))
    case = Case(seed=1, batch=3, filters=8, stride=(2, 2), bias=False, poisoned=True)
    assert "weight: error 2, plain modules" in check(case)
    assert shrink(case, lambda plainer: bool(check(plainer))) == Case(seed=1)


@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-3), ("float64", 1e-9)])
def test_a_small_planted_fault_of_a_network_is_found(dtype, error, monkeypatch):
    case = Case(seed=1, kind="network", batch=3, channels=3, size=(8, 8), dtype=dtype)
    assert check(case) == ""
    right = reference.run
    for backend in BACKENDS.values():
        monkeypatch.setattr(backend, "run", lambda problem: right(problem) * (1 + error))
    assert f".weight: error {error:.3g}, plain modules" in check(case)


def test_a_case_that_ends_the_process_is_reported(tmp_path):
    """The first worker dies but plain modules do not: the fuzzer reports the case, status 1."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, pathlib, sys\n"
        f"seen = pathlib.Path({str(tmp_path / 'seen')!r})\n"
        "if '--multiprocessing-fork' in sys.argv and not seen.exists():\n"
        "    seen.touch()\n"
        "    os._exit(9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--minutes", "10", "--cases", "1"],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "the process ended with 9" in done.stdout
    assert repr(draw(0, 0)) in done.stdout
    assert done.stdout.endswith("0 passed, 1 failed\n")  # of one case, as was asked for


def test_an_input_at_its_mean_may_pass_the_relu_or_not():
    """Two float16 inputs are their channel's running mean; the shift's rounding decides."""
    case = Case(
        seed=134512875, kind="fused", batch=5, channels=7, filters=17, size=(12, 12),
        dtype="float16", training=False, affine=False,
    )  # fmt: skip
    assert check(case) == ""
