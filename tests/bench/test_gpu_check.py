"""bench.gpu_check without a GPU: order, time limits, crashes, kills, and a rehearsal's file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import children_of, is_running, wait_until

from bench.gpu_check import __main__ as command
from bench.gpu_check import about, author_epochs, plan, shapes, summary, tools
from bench.gpu_check.record import BAD, Record
from bench.gpu_check.runner import Runner

ROOT = Path(__file__).resolve().parents[2]
ABOUT = {"device": "a GPU", "commit": "1", "rehearsal": True}


def rehearse(folder, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "bench.gpu_check", "--rehearse", "--out", folder, *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def rows_of(folder):
    """The rows of the file; every line must be JSON."""
    lines = (folder / "results.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=pytest.fail) for line in lines]


def keys(rows):
    return [row["key"] for row in rows if row["key"] != "end"]


def planned(*steps):
    every = plan.steps(rehearse=True, runs=(command.REHEARSED_RUN,))
    return [plan.key(s.name, case) for s in every if s.name in steps for case in s.cases]


def test_without_a_gpu_it_says_so(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(about, "gpu_name", lambda: "")
    assert command.main(["--out", str(tmp_path / "out")]) == 0
    assert "no GPU here" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_order_and_what_did_not_fit_and_a_kill_and_resume(tmp_path):
    steps = ("environment", "numbers", "sanitize")
    started = rehearse(tmp_path, "--minutes", "60", "--steps", *steps)
    results = tmp_path / "results.jsonl"
    wait_until(lambda: results.exists() and results.read_text().count("\n") >= 6, started)
    os.kill(started.pid, signal.SIGSTOP)  # it starts no more workers
    workers = children_of(started)
    os.kill(started.pid, signal.SIGKILL)
    started.communicate()
    # A worker ends when its standard input is closed.
    wait_until(lambda: not any(map(is_running, workers)))
    first = rows_of(tmp_path)
    with results.open("a") as file:
        file.write('{"key": "numbers: half a li')
    assert workers
    assert keys(first) == planned(*steps)[: len(first)]

    again = rehearse(tmp_path, "--minutes", "0", "--steps", *steps)
    assert "exists; expected --resume" in again.communicate()[0]
    assert again.returncode == 2

    none = rehearse(tmp_path, "--minutes", "0", "--resume", "--steps", *steps)
    output = none.communicate()[0]
    end = Record(results).rows()[-1]
    assert end["missing"] == planned(*steps)[len(first) :]
    assert len(end["missing"]) >= 2
    assert all(key in output for key in end["missing"])

    rest = rehearse(tmp_path, "--minutes", "60", "--resume", "--steps", *steps)
    output = rest.communicate(timeout=600)[0]
    assert rest.returncode == 0, output
    rows = Record(results).rows()
    # A partial line is ignored; a case whose tool was missing the first time is tried again.
    assert list(dict.fromkeys(keys(rows))) == planned(*steps)
    twice = [row for row in rows if keys(rows).count(row["key"]) > 1]
    assert {row["status"] for row in twice} <= {"not here"}
    names = ("device", "versions", "commit", "rehearsal", "seconds", "status")
    assert all(set(names) <= set(row) for row in rows if row["key"] != "end")
    assert {row["status"] for row in rows} <= {"ok", "not here", "end"}
    assert rows[-1]["missing"] == []


def test_what_goes_wrong_takes_nothing_along(tmp_path):
    cases = ("raises", "crashes", "hangs", "loses the GPU", "has no tool", "is wrong", "works")
    runner = Runner(tmp_path, True, {})
    runner.package = "tests.bench.gpu_check_cases"
    step = plan.Step("faulty", 200, 5, cases)
    try:
        runner.run(step, list(cases), time.monotonic() + 300)
    finally:
        runner.close()
    rows = {row["key"].removeprefix("faulty: "): row for row in rows_of(tmp_path)}
    assert {case: row["status"] for case, row in rows.items()} == {
        "raises": "error", "crashes": "crashed", "hangs": "timed out", "loses the GPU": "error",
        "has no tool": "not here", "is wrong": "wrong", "works": "ok",
    }  # fmt: skip
    assert rows["raises"]["error"] == "ValueError: three channels, not four"
    assert str(-signal.SIGSEGV) in rows["crashes"]["error"]
    assert rows["works"]["error_of"] == "nan"
    assert "ValueError" in (tmp_path / "log.txt").read_text()
    missing = {key.removeprefix("faulty: ") for key in set(map(plan.key, ["faulty"] * 7, cases))}
    assert missing - {k.removeprefix("faulty: ") for k in runner.answered()} == {
        "hangs", "has no tool",
    }  # fmt: skip


def test_behind_a_case_that_hangs_others_of_its_kernel_come_last(tmp_path):
    runner = Runner(tmp_path, True, {})
    runner.package = "tests.bench.gpu_check_cases"
    cases = ["hangs | one", "works | one", "works | other", "is wrong | one"]
    try:
        runner.run(plan.Step("faulty", 200, 3, tuple(cases)), cases, time.monotonic() + 300)
    finally:
        runner.close()
    assert [(row["key"], row["status"]) for row in rows_of(tmp_path)] == [
        ("faulty: hangs | one", "timed out"), ("faulty: works | other", "ok"),
        ("faulty: works | one", "ok"), ("faulty: is wrong | one", "wrong"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("cases", "statuses"),
    [(["hangs"], ["timed out"]), (["works", "hangs", "hangs | again"], ["ok", "cut off"])],
    ids=["first", "second"],
)
def test_a_step_ends_with_its_time(tmp_path, cases, statuses):
    """A case that took the full time counts as one that hangs.

    No other limit ends a case here, and one that hangs is "ok" after ten minutes.
    """
    runner = Runner(tmp_path, True, {})
    runner.package = "tests.bench.gpu_check_cases"
    try:
        runner.run(plan.Step("faulty", 5, 3600, tuple(cases)), cases, time.monotonic() + 3600)
    finally:
        runner.close()
    assert "faulty: hangs" not in runner.answered()
    assert [row["status"] for row in rows_of(tmp_path)] == statuses


def test_steps_are_in_the_order_of_what_they_are_worth():
    steps = plan.steps(rehearse=False, runs=("a run",))
    order = [step.name for step in steps]
    assert order == [
        "environment", "numbers", "kernels", "steps", "profile", "sanitize", *["tests"] * 4,
        "steps", "compiled", "steps", "tests", "epochs",
    ]  # fmt: skip
    turns = [step for step, _ in command.in_turn(steps)]
    assert turns == [*steps[:-4], *steps]
    (peer,) = next(step for step in turns[6:] if step.name == "steps").cases
    assert peer == "wrn_28_10 | plain compiled | graph"
    for every in (steps, plan.steps(rehearse=True)):
        names = [plan.key(step.name, case) for step in every for case in step.cases]
        assert len(set(names)) == len(names)
    assert len(shapes.NUMBERS) >= 18
    assert {shape.prologue for shape in shapes.NUMBERS} == {True, False}
    assert any(shape.pitch for shape in shapes.NUMBERS)


def test_modes_of_an_implementation_are_one_candidate():
    """Both begin with the same step, so that both come last if one hangs."""
    cases = ("wrn_28_10 | ours | eager", "wrn_28_10 | ours | graph", "64 @32 | cuda", "bn_relu")
    assert list(map(plan.candidate, cases)) == ["ours", "ours", "cuda", "bn_relu"]


def test_our_kernels_come_before_those_that_may_hang_and_those_that_are_compiled():
    for step in plan.steps(rehearse=False)[1:3]:
        candidates = list(map(plan.candidate, step.cases))
        ranks = {"cuda": 0, plan.UNCONFIRMED: 1, plan.TRITON: 2}
        found = [ranks[name] for name in candidates if name in ranks]
        assert found == sorted(found), step.name
        assert candidates.count(plan.UNCONFIRMED) >= 12, step.name
        for operator in ("bn_statistics", "bn_statistics_of_sum", "bn_relu", "bn_relu_backward"):
            cases = [case.partition(" | ") for case in step.cases if case.split()[0] == operator]
            assert {"cuda", "triton", "reference"} <= {name for *_, name in cases}, operator


def test_tests_of_kernels_that_are_compiled_come_behind_all_others():
    """A check of few minutes reaches the others; together they are all tests of a file."""
    files = [step for step in plan.steps(rehearse=False) if step.name == "tests"]
    assert [step.seconds > 0 for step in files] == [True] * 4 + [False]
    first = [case.partition(" | ") for step in files[:-1] for case in step.cases]
    assert {selected for *_, selected in first} == {"not triton"}
    last = [case.partition(" | ") for case in files[-1].cases]
    assert {selected for *_, selected in last} == {"triton"}
    texts = {file: (ROOT / file).read_text() for file, *_ in first}
    assert {file for file, *_ in last} == {file for file, text in texts.items() if "triton" in text}


def test_rows_of_another_device_or_commit_do_not_count(tmp_path):
    record = Record(tmp_path / "results.jsonl")
    record.append({"key": "numbers: one", "status": "ok", **ABOUT})
    record.append({"key": "numbers: two", "status": "ok", **ABOUT, "commit": "2"})
    record.append({"key": "numbers: three", "status": "ok", **ABOUT, "device": "another"})
    record.append({"key": "numbers: four", "status": "cut off", **ABOUT})
    assert record.answered(ABOUT) == {"numbers: one"}


def test_a_case_that_hung_counts_as_bad_until_it_is_answered(tmp_path):
    record = Record(tmp_path / "results.jsonl")
    for status in ("timed out", "cut off"):
        record.append({"key": "numbers: one", "status": status, **ABOUT})
    assert [row["status"] in BAD for row in record.latest(ABOUT)] == [True]
    record.append({"key": "numbers: one", "status": "ok", **ABOUT})
    assert [row["status"] for row in record.latest(ABOUT)] == ["ok"]


def test_the_profilers_page_is_read():
    text = (
        '==PROF== Connected\n"ID","Kernel Name","gpu__time_duration.sum","dram__bytes_read.sum"\n'
        '"","","ns","byte"\n"0","weight_grad_kernel","20,512","41943040"\n'
    )
    kernels = tools.kernels_in(text)
    assert [kernel["kernel"] for kernel in kernels] == ["weight_grad_kernel"]
    assert kernels[0]["gpu__time_duration.sum"] == "20,512"
    assert tools.kernels_in("==ERROR== Failed to initialize the profiler") == []


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("========= ERROR SUMMARY: 0 errors", 0),
        ("========= ERROR SUMMARY: 3 errors", 3),
        ("========= RACECHECK SUMMARY: 2 hazards displayed (2 errors, 0 warnings)", 2),
        ("========= Device not supported", None),
    ],
)
def test_what_the_sanitizer_found(text, faults):
    assert tools.faults_in(text) == faults


def test_the_authors_runs_are_cases():
    names = author_epochs.names("cifar10")
    assert len(names) == len(set(names)) > 20
    assert "densenet_bc_100_12 | 0.1 | 0 | random | True | all" in names
    assert author_epochs.published("densenet_bc_100_12 | 0.1 | 0 | random | True | all", "cifar10")


def test_the_summary_names_figures_faults_and_what_is_missing():
    rows = [
        {"key": "kernels: a", "step": "kernels", "status": "ok", "ms": [1.0, 2.0, 3.0]},
        {"key": "kernels: b", "step": "kernels", "status": "error", "error": "first\nlast"},
        {"key": "kernels: c", "step": "kernels", "status": "wrong", "error": {"largest": 0.5}},
        {"key": "tests: e", "step": "tests", "status": "wrong", "why": "two runs differ"},
    ]
    text = summary.table(rows, plan.steps(rehearse=True), ["kernels: d"])
    assert "2.0000 ms (1.0000-3.0000)" in text
    assert "kernels: b: error: last" in text
    assert "kernels: c: WRONG: {'largest': 0.5}" in text
    assert text.count("\ntests: 1 wrong\n  tests: e: WRONG: two runs differ") == 1
    assert text.endswith("not done, 1:\n  kernels: d")
