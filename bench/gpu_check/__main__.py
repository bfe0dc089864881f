"""``python -m bench.gpu_check``: see the package's docstring."""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from typing import Any

import bench.gpu_check
from bench.gpu_check import about, plan, summary
from bench.gpu_check.plan import Step
from bench.gpu_check.record import BAD, CUT_OFF, END, NOT_HERE, TIMED_OUT, Row
from bench.gpu_check.runner import Runner

# An epoch of the smallest network on scikit-learn's digits.
REHEARSED_RUN = "wrn_10_1 | 0.1 | 0 | random | True | all"
# Ranks of cases that did not end; that of all others is 0.
_LATE: dict[str | None, int] = {CUT_OFF: 1, TIMED_OUT: 2}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu_check", description=bench.gpu_check.__doc__
    )
    parser.add_argument("--minutes", type=float, default=6.0, help="total time budget")
    parser.add_argument("--out", type=Path, default=Path("gpu-check"), help="folder of the results")
    parser.add_argument("--resume", action="store_true", help="run the missing cases only")
    parser.add_argument("--rehearse", action="store_true", help="use the CPU and small shapes")
    parser.add_argument("--steps", nargs="+", help="names of the steps to run; default all")
    parser.add_argument(
        "--data-dir", default="", help="folder of CIFAR-10, for first epochs of the authors' runs"
    )
    parser.add_argument("--dataset", default="cifar10", help="the data set in --data-dir")
    return parser.parse_args(arguments)


def chosen_steps(arguments: argparse.Namespace) -> tuple[Step, ...]:
    """The steps with their cases, in order.

    Raises:
        SystemExit: --steps has an unknown name.
    """
    runs: tuple[str, ...] = (REHEARSED_RUN,) if arguments.rehearse else ()
    if arguments.data_dir and not arguments.rehearse:
        from bench.gpu_check import author_epochs

        runs = author_epochs.names(arguments.dataset)
    steps = plan.steps(arguments.rehearse, runs)
    names = list(dict.fromkeys(step.name for step in steps))
    if unknown := set(arguments.steps or ()) - set(names):
        raise SystemExit(f"--steps names {', '.join(sorted(unknown))}; expected {', '.join(names)}")
    return tuple(step for step in steps if step.name in (arguments.steps or names))


def missing_cases(step: Step, keys: set[str]) -> list[str]:
    """The step's cases without one of these keys."""
    return [case for case in step.cases if plan.key(step.name, case) not in keys]


def in_turn(steps: tuple[Step, ...]) -> list[tuple[Step, float]]:
    """Steps and their seconds: each step in its own time, then its remaining cases in the remaining
    time, and last the steps without a time of their own.
    """
    first = [step for step in steps if step.seconds]
    last = [step for step in steps if not step.seconds]
    return [
        *((step, step.seconds) for step in first),
        *((step, math.inf) for step in (*first, *last)),
    ]


def late_last(step: Step, cases: list[str], rows: list[Row]) -> list[str]:
    """The cases in order; those that did not end the last time come last, as they may hang."""
    last = {row["key"]: row.get("status") for row in rows}
    return sorted(cases, key=lambda case: _LATE.get(last.get(plan.key(step.name, case)), 0))


def run_all(runner: Runner, steps: tuple[Step, ...], until: float) -> None:
    """Runs the cases without an answer, in time limits that sum to the time left.

    A case runs again if the end of its step's own time came before its own limit.
    """
    answered, before = runner.answered(), len(runner.record.rows())
    left = max(0.0, until - time.monotonic())
    steps = plan.within(tuple(step for step in steps if missing_cases(step, answered)), left)
    for step, seconds in in_turn(steps):
        rows = runner.record.rows()
        ended_early = {CUT_OFF, TIMED_OUT} if 0 < step.seconds < step.case_seconds else {CUT_OFF}
        tried = {row["key"] for row in rows[before:] if row.get("status") not in ended_early}
        cases = late_last(step, missing_cases(step, answered | tried), rows)
        left = until - time.monotonic()
        if cases and left > 0:
            print(f"{step.name}: {len(cases)} cases, {min(seconds, left):.0f} s", flush=True)
            runner.run(step._replace(seconds=seconds), cases, until)


def finish(runner: Runner, steps: tuple[Step, ...], seconds: float) -> list[Row]:
    """Reports missing cases in the file and on the screen; returns the rows that count."""
    same = about.describe(runner.rehearse)
    done = runner.record.answered(same, NOT_HERE)
    missing = [plan.key(s.name, case) for s in steps for case in missing_cases(s, done)]
    row = {"key": END, "status": "end", "missing": missing, "seconds": round(seconds, 1)}
    runner.record.append(row | same)
    found = runner.record.latest(same)
    print(summary.table(found, steps, missing), flush=True)
    return found


def main(arguments: list[str] | None = None) -> int:
    begin = time.monotonic()
    options = parse(arguments)
    steps = chosen_steps(options)
    if not options.rehearse and not about.gpu_name():
        print("no GPU here: nothing was checked (--rehearse takes the same path on the CPU)")
        return 0
    folder = options.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    results = folder / "results.jsonl"
    runner = Runner(folder, options.rehearse, _for_the_cases(options, results))
    if results.exists() and not options.resume:
        print(f"{results} exists; expected --resume or another --out", file=sys.stderr)
        return 2
    try:
        run_all(runner, steps, begin + 60 * options.minutes)
    finally:
        runner.close()
    found = finish(runner, steps, time.monotonic() - begin)
    print(f"\n{results}")
    return 1 if any(row["status"] in BAD for row in found) else 0


def _for_the_cases(options: argparse.Namespace, results: Path) -> dict[str, Any]:
    data = {"dataset": options.dataset, "data_dir": options.data_dir}
    if options.rehearse:
        data = {"dataset": "digits", "data_dir": ""}
    return {"results": str(results), **data}


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted: the same command with --resume continues", file=sys.stderr)
        sys.exit(130)
