"""MASKEDCONV_ISA: the operators with each instruction set of the kernels, and invalid values."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from maskedconv.ops import native

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("generic", "avx2", "avx512", "avx512_bf16", "amx", "amx_emulated")
OPERATORS = (
    "weight_grad", "narrow_maps", "rounding", "bn_relu", "bn_statistics", "not_finite",
    "masked_weight",
)  # fmt: skip
WEIGHT_GRAD = """
import torch
from torch.nn import functional as F
from maskedconv import MaskedConv2d
x = torch.randn(2, 16, 9, 9).contiguous(memory_format=torch.channels_last)
MaskedConv2d(16, 8, 3, learned=.5)(x).sum().backward()
"""
BN_RELU = """
import torch
from maskedconv import BNReLUConv2d, MaskedConv2d
x = torch.randn(2, 16, 9, 9).contiguous(memory_format=torch.channels_last)
BNReLUConv2d(torch.nn.BatchNorm2d(16), MaskedConv2d(16, 8, 3, learned=.5))(x)
"""

pytestmark = pytest.mark.skipif(native.module() is None, reason=native.REASON)


def info():
    module = native.module()
    assert module is not None
    return module.build_info()


def run(*arguments, isa):
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "MASKEDCONV_ISA": isa, "OMP_NUM_THREADS": "1"}, timeout=600,
    )  # fmt: skip


@pytest.mark.parametrize("isa", NAMES)
def test_operators_with(isa):
    """The current instruction set is tested in this process, the others in separate processes."""
    if isa not in info()["isas_available"]:
        pytest.skip(f"this processor or this build has {', '.join(info()['isas_available'])} only")
    if isa == info()["isa"]:
        return
    files = [f"tests/ops/test_{operator}.py" for operator in OPERATORS]
    done = run("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files, isa=isa)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = done.stdout.splitlines()[-1]
    assert int(summary.split(" passed")[0].split()[-1]) > 500, summary


@pytest.mark.parametrize("isa", NAMES)
def test_the_forced_instruction_set_is_in_use(isa):
    reported = json.loads(run("-m", "maskedconv.env", "--json", isa=isa).stdout)
    in_use, backend = reported["instruction_set"]["in use"], reported["backends"]["native"]
    assert reported["instruction_set"]["MASKEDCONV_ISA"] == isa
    if isa in info()["isas_available"]:
        assert in_use == isa
        assert backend.endswith(f", {isa})")
    else:
        assert in_use == backend
        assert in_use.startswith(f"MASKEDCONV_ISA is '{isa}', which ")


def test_amx_runs_only_where_it_is_named():
    reported = json.loads(run("-m", "maskedconv.env", "--json", isa="").stdout)
    assert reported["instruction_set"]["in use"] not in ("amx", "amx_emulated")
    there = "amx" in info()["isas_available"]
    assert reported["instruction_set"]["amx"].startswith("available" if there else "this processor")


def lacking():
    return [name for name in NAMES if name not in info()["isas_available"]]


@pytest.mark.parametrize("use", [WEIGHT_GRAD, BN_RELU], ids=["weight_grad", "bn_relu"])
def test_an_unknown_name_is_an_error(use):
    done = run("-c", use, isa="sse9")
    expected = f"ValueError: MASKEDCONV_ISA is 'sse9'; expected one of {', '.join(NAMES)}"
    assert done.stderr.strip().endswith(expected), done.stderr
    printed = run("-m", "maskedconv.env", isa="sse9").stdout
    assert "in use          MASKEDCONV_ISA is 'sse9'; expected one of generic" in printed


@pytest.mark.parametrize("use", [WEIGHT_GRAD, BN_RELU], ids=["weight_grad", "bn_relu"])
def test_what_the_processor_lacks_is_an_error(use):
    if not lacking():
        pytest.skip("this processor has every instruction set")
    done = run("-c", use, isa=lacking()[0])
    assert f"RuntimeError: MASKEDCONV_ISA is '{lacking()[0]}', which " in done.stderr


def test_without_the_module_no_instruction_set_can_be_forced():
    hidden = "import sys; sys.modules['maskedconv._C'] = None\n"
    done = run("-c", hidden + WEIGHT_GRAD, isa="generic")
    assert "RuntimeError: MASKEDCONV_ISA is 'generic', but maskedconv._C " in done.stderr
    assert run("-c", hidden + WEIGHT_GRAD, isa="").returncode == 0
