"""The cases of bench.gpu_check on the stand-in for a GPU; each writes a row."""

from __future__ import annotations

import importlib
import warnings
from types import SimpleNamespace

import pytest
import torch

from bench.gpu_check import about, batch_norms, masked_weights, plan, shapes, worker
from bench.gpu_check.__main__ import REHEARSED_RUN
from bench.gpu_check.cases import numbers, steps
from bench.gpu_check.device import Rehearsed
from bench.gpu_check.record import Record
from maskedconv.ops import dispatch
from maskedconv.ops.agreement import outputs_of
from maskedconv.ops.measured import WrongKernel

OPTIONS = {"dataset": "digits", "data_dir": ""}
DENSE, VIEW = map(str, shapes.SMALL)
NORM = shapes.SMALL_NORMS[0]
DECIDED = {"backends", "decisions", "warnings"}
# Step, case, and required fields of its row. Cases that start other programs or compile for long
# are only in the complete rehearsal.
CASES = [
    ("environment", "versions", {"environment", "cudnn"}),
    ("environment", "copy", {"ms", "bytes_a_second"}),
    ("environment", "empty graph", {"ms", "held"}),
    ("numbers", f"{VIEW} | native", {"error", "plain_error", "repeats_to_the_bit", "shape", "n"}),
    ("numbers", "pack_filters | reference", {"shape", "dtype", "n"}),
    ("numbers", "masked_weight | native", {"repeats_to_the_bit", "shape", "dtype", "n"}),
    *(
        ("numbers", f"{operator} | native", {"repeats_to_the_bit", "shape", "dtype", "n"})
        for operator in shapes.NORM_OPERATORS
    ),
    *(
        ("kernels", f"{operator} {NORM} | cuda", {"ms", "least_bytes", "shape", "dtype", "n"})
        for operator in shapes.NORM_OPERATORS
    ),
    ("kernels", "masked_weight 16x8x3x3 | cuda", {"ms", "shape", "dtype", "n"}),
    ("kernels", "masked_weight 16x8x3x3 | sort", {"ms", "shape", "dtype", "n"}),
    ("kernels", f"{VIEW} | slice", {"ms", "least_bytes", "shape", "dtype", "n"}),
    ("kernels", f"{DENSE} | full", {"ms", "least_bytes", "shape", "dtype", "n"}),
    ("kernels", f"{VIEW} | cuda", {"ms", "least_bytes", "shape", "dtype", "n"}),
    ("steps", "wrn_10_1 | ours | eager", {"ms", "peak_bytes", "saved_bytes", *DECIDED}),
    ("steps", "wrn_10_1 | ours | graph", {"ms", "peak_bytes", "saved_bytes", *DECIDED}),
    ("steps", "densenet_bc_16_12 | slice | eager", {"ms", "peak_bytes", "saved_bytes"}),
    ("epochs", REHEARSED_RUN, {"top1", "published", "run_history", "run_key"}),
]


@pytest.mark.parametrize(
    ("step", "case", "names"),
    CASES,
    ids=lambda value: str(value)[:40] if isinstance(value, str) else "",
)
def test_case(tmp_path, step, case, names):
    planned = plan.steps(rehearse=True, runs=(REHEARSED_RUN,))
    assert case in next(s.cases for s in planned if s.name == step)
    module = importlib.import_module(f"bench.gpu_check.cases.{step}")
    row = worker.run_case(module, step, case, Rehearsed(), OPTIONS)
    assert row["status"] == "ok", row
    assert set(names) | {"device", "versions", "commit", "seconds"} <= set(row)
    record = Record(tmp_path / "results.jsonl")
    record.append(row)
    assert record.answered(about.describe(True)) == {plan.key(step, case)}


def test_a_kernel_that_writes_nothing_is_called_wrong(monkeypatch):
    """Its memory may still hold the right result of another kernel."""
    right = numbers.BACKENDS["native"].run
    case = f"{DENSE} | native"

    def allocates(problem):
        """Memory as it is found: NaN, or values that another kernel left there."""
        found, memory = right(problem), torch.empty_like(right(problem))
        return memory if memory.isnan().all() else found

    monkeypatch.setattr(numbers.BACKENDS["native"], "run", allocates)
    row = worker.run_case(numbers, "numbers", case, Rehearsed(), OPTIONS)
    assert row["status"] == "wrong"


def test_a_kernel_that_is_wrong_by_more_than_rounding_is_called_wrong(monkeypatch):
    right = numbers.BACKENDS["native"].run
    monkeypatch.setattr(numbers.BACKENDS["native"], "run", lambda problem: right(problem) * 1.05)
    row = worker.run_case(numbers, "numbers", f"{DENSE} | native", Rehearsed(), OPTIONS)
    assert row["status"] == "wrong"
    monkeypatch.setattr(
        numbers.BACKENDS["native"], "run", lambda problem: right(problem) * float("nan")
    )
    row = worker.run_case(numbers, "numbers", f"{DENSE} | native", Rehearsed(), OPTIONS)
    assert row["status"] == "wrong"


def test_a_kernel_that_cannot_run_here_is_said_so():
    module = importlib.import_module("bench.gpu_check.cases.numbers")
    row = worker.run_case(module, "numbers", f"{DENSE} | cuda", Rehearsed(), OPTIONS)
    assert row["status"] == "not here"
    # With CUDA, its kernel is for another device; without CUDA, it does not exist.
    assert "for cuda" in row["reason"] or "CUDA" in row["reason"]


def test_a_mask_that_keeps_another_score_is_called_wrong(monkeypatch):
    native = masked_weights.BACKENDS["native"]
    right = native.find_threshold

    def one_less(problem):
        return right(problem._replace(num_kept=problem.num_kept - 1))

    monkeypatch.setattr(native, "find_threshold", one_less)
    row = worker.run_case(numbers, "numbers", "masked_weight | native", Rehearsed(), OPTIONS)
    assert row["status"] == "wrong"


def test_a_gradient_without_the_sign_of_the_score_is_called_wrong(monkeypatch):
    native = masked_weights.BACKENDS["native"]
    right = native.score_grad

    def unsigned(problem):
        return right(problem._replace(score=problem.score.abs()))

    monkeypatch.setattr(native, "score_grad", unsigned)
    row = worker.run_case(numbers, "numbers", "masked_weight | native", Rehearsed(), OPTIONS)
    assert row["status"] == "wrong"


def status_of(case):
    return worker.run_case(numbers, "numbers", case, Rehearsed(), OPTIONS)


ROWS = ("mean", "variance", "inverse", "scale", "shift")
WRONG_OUTPUTS = [
    *(("bn_statistics", at, 0, name) for at, name in enumerate(ROWS)),
    ("bn_statistics_of_sum", None, 1, "sum"),
    ("bn_relu", None, 0, "activation"),
    *(("bn_relu_backward", None, at, f"gradient {at}") for at in range(3)),
]


@pytest.mark.parametrize(
    ("name", "row", "output"), [case[:3] for case in WRONG_OUTPUTS],
    ids=[f"{case[0]}-{case[3]}" for case in WRONG_OUTPUTS],
)  # fmt: skip
def test_a_wrong_output_of_batch_norm_is_called_wrong(monkeypatch, name, row, output):
    operator = batch_norms.OPERATORS[name]

    def wrong(backend, problem):
        outputs = list(outputs_of(operator.run(backend, problem)))
        if backend is operator.backends["reference"]:
            return tuple(outputs)
        part = outputs[output] if row is None else outputs[output][row]
        part.select(-1 if part.dim() == 1 else 1, 2).mul_(1.1)  # of one channel
        return tuple(outputs)

    assert status_of(f"{name} | native")["status"] == "ok"
    other = SimpleNamespace(backends=operator.backends, compare=operator.compare, run=wrong)
    monkeypatch.setitem(batch_norms.OPERATORS, name, other)
    found = status_of(f"{name} | native")
    assert found["status"] == "wrong"
    assert found["faults"]


@pytest.mark.parametrize("part", [0, 1, 2], ids=["mean", "variance", "batches"])
def test_running_statistics_that_move_wrongly_are_called_wrong(monkeypatch, part):
    kernel = batch_norms.OPERATORS["bn_statistics"].backends["native"]
    right = kernel.run

    def wrong(problem):
        found = right(problem)
        problem.running[part].add_(1)
        return found

    monkeypatch.setattr(kernel, "run", wrong)
    assert status_of("bn_statistics | native")["status"] == "wrong"


def changing(function, change):
    """The function, with another last bit in its second and third result."""
    calls = []

    def run(problem):
        calls.append(problem)
        result = function(problem)
        return change(result) if len(calls) in (2, 3) else result

    return run


@pytest.mark.parametrize("is_deterministic", [True, False], ids=["deterministic", "not"])
@pytest.mark.parametrize(
    ("case", "kernel", "function"),
    [
        (f"{DENSE} | native", numbers.BACKENDS["native"], "run"),
        ("bn_relu | native", batch_norms.OPERATORS["bn_relu"].backends["native"], "run"),
        ("masked_weight | native", masked_weights.BACKENDS["native"], "score_grad"),
    ],
    ids=["weight_grad", "bn_relu", "masked_weight"],
)
def test_a_race_of_a_deterministic_kernel_is_called_wrong(
    monkeypatch, case, kernel, function, is_deterministic
):
    def change(result):
        return torch.nextafter(result, torch.full_like(result, torch.inf))

    monkeypatch.setattr(kernel, "DETERMINISTIC", is_deterministic, raising=False)
    monkeypatch.setattr(kernel, function, changing(getattr(kernel, function), change))
    found = status_of(case)
    assert not found["repeats_to_the_bit"]
    assert found["status"] == ("wrong" if is_deterministic else "ok")
    assert ("two runs differ" in found.get("why", "")) == is_deterministic


@pytest.mark.parametrize("mode", plan.MODES)
def test_a_step_without_a_kernel_that_is_wrong_is_called_wrong(monkeypatch, mode):
    """So is a later step of the process, because decisions are made anew."""
    decide, wrong = dispatch._decide, [True]

    def with_a_wrong_kernel(operator, *arguments):
        if operator.name == "weight_grad" and wrong[0]:
            warnings.warn("weight_grad: the cuda kernel is off by 1", WrongKernel, stacklevel=1)
        return decide(operator, *arguments)

    monkeypatch.setattr(dispatch, "_decide", with_a_wrong_kernel)
    case = f"wrn_10_1 | ours | {mode}"
    for _ in range(2):
        row = worker.run_case(steps, "steps", case, Rehearsed(), OPTIONS)
        assert (row["status"], row["why"]) == ("wrong", "weight_grad: the cuda kernel is off by 1")
        assert row["warnings"].count(row["why"]) == 1
    wrong[0] = False
    row = worker.run_case(steps, "steps", case, Rehearsed(), OPTIONS)
    assert row["status"] == "ok"
    assert {"weight_grad", "bn_statistics", "bn_relu", "bn_relu_backward"} <= set(row["backends"])
    assert sum(row["backends"]["weight_grad"].values()) > 5
    assert all("(" in text for text in row["decisions"])
