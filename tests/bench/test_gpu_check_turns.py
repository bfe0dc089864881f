"""bench.gpu_check: the order and the time of steps and cases, by runners that run nothing."""

from __future__ import annotations

import math
import time
from types import SimpleNamespace

import pytest

from bench.gpu_check import __main__ as command
from bench.gpu_check import about, plan
from bench.gpu_check.record import Record

ABOUT = {"device": "a GPU", "commit": "1", "rehearsal": True}


class Scripted:
    """A runner whose cases end with given statuses, one after the other."""

    def __init__(self, folder, **statuses):
        self.record, self.statuses, self.ran = Record(folder / "results.jsonl"), statuses, []

    def answered(self):
        return self.record.answered(ABOUT)

    def run(self, step, cases, deadline):
        self.ran.append(cases)
        for case in cases:
            row = {"key": plan.key(step.name, case), "status": self.statuses[case].pop(0)}
            self.record.append(row | ABOUT)


def test_what_its_step_cut_off_runs_again_and_what_hangs_does_not(tmp_path):
    runner = Scripted(tmp_path, a=["timed out", "ok"], b=["cut off", "ok"], c=["not here"] * 2)
    step = plan.Step("numbers", 5, 5, ("a", "b", "c"))
    command.run_all(runner, (step,), time.monotonic() + 100)
    assert runner.ran == [["a", "b", "c"], ["b"]]
    # It comes last in a check that continues, as it may hang again.
    command.run_all(runner, (step,), time.monotonic() + 100)
    assert runner.ran[2:] == [["c", "a"]]


def test_a_case_whose_limit_is_beyond_its_steps_end_runs_again(tmp_path):
    """A single case, such as one that compiles, may be slow."""
    runner = Scripted(tmp_path, a=["timed out", "ok"])
    command.run_all(runner, (plan.Step("compiled", 5, 300, ("a",)),), time.monotonic() + 100)
    assert runner.ran == [["a"], ["a"]]


class Timed(Scripted):
    """A runner with its own clock; its cases take most of their step's time, and one hangs.

    Attributes:
        given: the seconds of each step, when it first ran.
    """

    rehearse = True

    def __init__(self, folder, hangs=""):
        super().__init__(folder)
        self.now, self.given = 0.0, {}
        self.needed = {
            plan.key(step.name, case): 0.9 * min(step.seconds / len(step.cases), step.case_seconds)
            for step in plan.steps(rehearse=True)
            for case in step.cases
        } | {hangs: math.inf}

    def run(self, step, cases, deadline):
        self.given.setdefault(step.cases, step.seconds)
        left = min(step.seconds, deadline - self.now)
        for case in cases:
            key = plan.key(step.name, case)
            needed = self.needed.get(key, 0)
            taken = min(needed, step.case_seconds, left)
            status = "ok" if taken == needed else "timed out" if taken < left else "cut off"
            self.record.append({"key": key, "step": step.name, "status": status} | ABOUT)
            left, self.now = left - taken, self.now + taken
            if left <= 0:
                return

    def close(self):
        pass


@pytest.fixture
def timed(tmp_path, monkeypatch):
    """Creates a ``Timed`` runner, and makes the command use it and its clock."""

    def create(hangs=""):
        runner = Timed(tmp_path, hangs)
        monkeypatch.setattr(about, "describe", lambda rehearse: ABOUT)
        monkeypatch.setattr(command, "Runner", lambda *_: runner)
        monkeypatch.setattr(command, "time", SimpleNamespace(monotonic=lambda: runner.now))
        return runner

    return create


@pytest.mark.parametrize("step", ["environment", "numbers", "steps", "profile", "sanitize"])
def test_behind_a_case_that_hangs_all_others_run(step, timed, tmp_path):
    """The exit status is bad, also of the check that continues."""
    steps = plan.steps(rehearse=True, runs=(command.REHEARSED_RUN,))
    keys = {plan.key(one.name, case) for one in steps for case in one.cases}
    hangs = next(plan.key(step, one.cases[0]) for one in steps if one.name == step)
    runner = timed(hangs)
    options = ["--rehearse", "--resume", "--out", str(tmp_path), "--minutes", "6"]
    for _ in range(2):
        assert command.main(options) == 1
        assert runner.answered() == keys - {hangs}
        assert runner.record.rows()[-1]["missing"] == [hangs]


def test_what_was_cut_off_comes_last_in_its_step(tmp_path):
    """It comes last in the second turn, and in a check that continues, as it may hang again."""
    runner = Scripted(tmp_path, a=["cut off"] * 3 + ["ok"], b=["cut off", "not here", "ok"])
    runner.record.append({"key": "numbers: a", "status": "cut off"} | ABOUT)
    step = plan.Step("numbers", 5, 1, ("a", "b"))
    command.run_all(runner, (step,), time.monotonic() + 100)
    assert runner.ran == [["b", "a"], ["a", "b"]]
    command.run_all(runner, (step,), time.monotonic() + 100)
    assert runner.ran[2:] == [["b", "a"], ["a"]]


@pytest.mark.parametrize("rehearse", [False, True])
def test_one_case_has_not_the_time_of_all(rehearse):
    several = [s for s in plan.steps(rehearse, runs=("a", "b")) if s.seconds and len(s.cases) > 1]
    assert {step.name for step in several} >= {"environment", "numbers", "steps", "sanitize"}
    assert [step.name for step in several if step.case_seconds >= step.seconds] == []


@pytest.mark.parametrize("minutes", [1, 6])
@pytest.mark.parametrize("names", [[], ["numbers", "tests"]], ids=["all", "two"])
def test_the_limits_of_the_steps_sum_to_the_minutes(minutes, names, timed):
    options = ["--rehearse", *(["--steps", *names] if names else [])]
    steps, runner = command.chosen_steps(command.parse(options)), timed()
    command.run_all(runner, steps, 60 * minutes)
    given = [seconds for seconds in runner.given.values() if seconds < math.inf]
    assert sum(given) == pytest.approx(60 * minutes)
    if not names and minutes == 6:
        assert given == pytest.approx([step.seconds for step in steps if step.seconds])


def test_the_limits_of_the_remaining_steps_sum_to_the_minutes(timed):
    steps, runner = command.chosen_steps(command.parse(["--rehearse"])), timed()
    kept = next(step for step in steps if step.name == "profile")
    for step in steps:
        for case in step.cases if step != kept else ():
            runner.record.append({"key": plan.key(step.name, case), "status": "ok"} | ABOUT)
    command.run_all(runner, steps, 360)
    assert runner.given == {kept.cases: pytest.approx(360)}


def test_an_unknown_step_is_refused_with_each_name_once():
    with pytest.raises(SystemExit, match="--steps names speed; expected environment, ") as refused:
        command.chosen_steps(command.parse(["--steps", "speed"]))
    names = str(refused.value).rpartition("expected ")[2].split(", ")
    assert sorted(set(names)) == sorted(names)
