"""The model of weight_grad's time, and the page of predictions."""

from __future__ import annotations

import json
import re

import emulation
import pytest
import torch
from test_cuda_emulation import CASES, make_fast_problem, make_problem
from test_cuda_fast_path import FAST_CASES

from bench import launches_model, launches_table
from bench.gpu_check import plan as gpu_check
from bench.gpu_check.problems import by_name
from bench.gpu_check.shapes import TABLE
from bench.launches import GPU, Launches

needs_compiler = pytest.mark.skipif(
    emulation.compiler() is None, reason="there is no C++ compiler to build the emulation"
)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return emulation.build("weight_grad", tmp_path_factory.mktemp("emulated"))


@pytest.fixture(scope="module")
def h200(library):
    limits = GPU.multi_processor_count, GPU.shared_memory_per_block_optin
    return emulation.WeightGradEmulation(library, *limits).plan


def test_constants_are_those_of_the_kernel():
    source = (emulation.ROOT / "csrc" / "weight_grad" / "cuda" / "plan.h").read_text()
    for name, value in (
        ("kTilePixels", launches_model.TILE_PIXELS),
        ("kColumns", launches_model.COLUMNS),
    ):
        assert re.search(rf"constexpr int {name} = (\d+);", source)[1] == str(value)


@needs_compiler
def test_the_case_of_the_kernel_is_known(library):
    kernel = emulation.WeightGradEmulation(library)
    problems = [make_problem(case, torch.bfloat16) for case in CASES.values()]
    problems += [make_fast_problem(case, torch.bfloat16) for case in FAST_CASES.values()]
    for problem in problems:
        kernel.run(problem)
        assert launches_model.is_fast(problem) == kernel.took_the_fast_path(), problem.shape


@needs_compiler
def test_work_of_a_layer(h200):
    problem = launches_table.meta_problem(by_name(TABLE, "160->160@32 3x3 n10"))
    work = launches_model.work_of(problem, h200(problem))
    pixels = 128 * 32 * 32
    assert work.floor_bytes == pixels * (160 * 2 + 32) + 10 * 9 * 160 * 4
    assert work.floor_flops == 2 * pixels * 160 * 9 * 10
    assert work.flops == 2 * pixels * 160 * 9 * 16
    assert work.instructions > 0
    assert work.exact
    found = work.range()
    assert work.floor() <= found.least < found.most


@needs_compiler
@pytest.mark.parametrize("shape", TABLE, ids=str)
def test_a_range_holds_its_floor(h200, shape):
    problem = launches_table.meta_problem(shape)
    work = launches_model.work_of(problem, h200(problem))
    assert 0 < work.floor() <= work.range().least < work.range().most


def test_other_operators_are_bounded_by_bytes_or_flops():
    entries = [Launches("add", 1, 4_300_000_000), Launches("convolution", 1, 1, 790_000_000_000)]
    found = launches_model.predict(entries, {}.get)
    assert found.least == pytest.approx(2e-3)
    assert found.most == pytest.approx(2e-3 + 2 * launches_model.LAUNCH)


def test_the_page_has_the_committed_predictions():
    record = json.loads(launches_table.RECORD.read_text())
    text = launches_table.DOCUMENT.read_text()
    for table in (
        launches_table.gradient_table(record["layers"]),
        launches_table.layer_table(record["layers"]),
        launches_table.network_table(record["networks"]),
    ):
        assert f"-->\n{table}\n<!--" in text


def test_each_prediction_names_a_case_that_gpu_check_has():
    record = json.loads(launches_table.RECORD.read_text())
    cases = {f"{step.name}: {case}" for step in gpu_check.steps(False) for case in step.cases}
    named = {case for row in record["networks"] for case in row["decided_by"].values()}
    for row in record["layers"]:
        named |= {row["weight_grad"]["decided_by"], row["weight_grad"]["bn_relu_decided_by"]}
    assert named - {launches_table.NO_CASE} <= cases
