"""The command for experiments: exit codes, resuming, interrupts, killed and concurrent runners."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest
import report_samples
from commands import SMALL as SMALL_ARGUMENTS
from commands import SMALL_RUNS, call, keys, start, time_nothing, wait_for_rows

from maskedconv import papers, reproduce
from maskedconv.runs import RunConfig, Store, execute
from maskedconv.training.history import Diverged, History

# One run at a time, in the process of the command.
SMALL = (*SMALL_ARGUMENTS, "--parallel", "1")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which table1 was run, and the command's output."""
    out = tmp_path_factory.mktemp("finished")
    return out, call(reproduce, *SMALL, "--out", out)


def test_all_runs_are_done_and_planned(finished):
    out, result = finished
    assert result.exit_code == 0, result.output
    rows = Store(out).load().rows
    assert len(rows) == SMALL_RUNS
    plan = json.loads((out / "plan.json").read_text())
    assert (plan["preset"], plan["dataset"]) == ("quick", "digits")
    assert {run["key"] for run in plan["experiments"]["table1"]["runs"]} == set(rows)
    for row in rows.values():
        assert row["status"] == "done"
        assert 0 < row["learned_parameters"] < row["total_parameters"]
        assert len(row["history"]) == 1
        assert row["last_top1"] == row["best_top1"] == row["history"][0]["test_top1"]
        assert row["peak_memory_bytes"] > 1e6
        assert row["versions"]["torch"]
        assert "5 training images per class" in row["data_note"]
    assert "wall time" in result.stdout
    assert "[12/12]" in result.stderr


def test_what_is_there_is_not_run_again(finished):
    out, _ = finished
    before = (out / "results.jsonl").read_bytes()
    result = call(reproduce, *SMALL, "--out", out)
    assert result.exit_code == 0
    assert f"{SMALL_RUNS} of {SMALL_RUNS} runs are finished in {out}" in result.stderr
    assert (out / "results.jsonl").read_bytes() == before


def test_match_trains_some_runs_and_adds_them_to_the_plan(tmp_path):
    def run(*match):
        result = call(reproduce, *SMALL, *match, "--out", tmp_path)
        assert result.exit_code == 0, result.output
        plan = json.loads((tmp_path / "plan.json").read_text())
        planned = plan["experiments"]["table1"]["runs"]
        assert {entry["key"] for entry in planned} == set(keys(tmp_path))
        return result, [RunConfig.from_json(entry["config"]).label() for entry in planned]

    first = ("--match", "only fc", "--match", "only conv1")
    _, labels = run(*first)
    assert len(labels) == 4
    assert all("only fc" in label or "only conv1" in label for label in labels)
    again, same = run(*first)
    assert same == labels
    assert "4 of 4 runs are finished" in again.stderr
    _, labels = run("--match", "only bn")
    assert len(labels) == 6


def test_match_takes_the_runs_from_which_a_run_starts():
    result = call(reproduce, "fig1", "table4", "--match", "members adam", "--list", "--verbose")
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines if line[0] != " "] == ["table4", "total"]
    assert lines[-1].split()[:2] == ["total", "6"]
    assert sum("members adam" in line for line in lines) == 5


def test_another_preset_or_dataset_in_the_folder_is_refused(finished, tmp_path):
    out, _ = finished
    result = call(reproduce, "--dataset", "folder", "--data-dir", _images(tmp_path), "--out", out)
    assert result.exit_code == 2
    assert "holds the preset quick on digits, not quick on folder" in result.stderr


def test_other_images_under_the_same_name_are_refused(tmp_path):
    store = Store(tmp_path)
    store.prepare()
    config = report_samples.config(subset=5)
    store.append(report_samples.row(config, 50.0, data_note="other digits"))
    result = call(reproduce, *SMALL, "--out", tmp_path)
    assert result.exit_code == 2
    assert "results of other data: 'other digits'" in result.stderr


def _images(folder):
    from PIL import Image

    for split in ("train", "test"):
        for name in "ab":
            path = folder / "images" / split / name
            path.mkdir(parents=True)
            for number in range(2):
                Image.new("RGB", (8, 8)).save(path / f"{number}.png")
    return folder / "images"


def histories(out):
    """The epochs of every run, without times."""
    rows = Store(out).load().rows
    return {
        key: [{**epoch, "seconds": None} for epoch in row["history"]] for key, row in rows.items()
    }


def test_kill_and_resume(tmp_path, finished):
    always = (*SMALL, "--checkpoint-minutes", "0")
    process = start(*always, "--out", tmp_path)
    wait_for_rows(tmp_path, 2, process)
    process.kill()
    process.communicate()
    kept = (tmp_path / "results.jsonl").read_bytes()
    # A crash of the machine may truncate the last row.
    (tmp_path / "results.jsonl").write_bytes(kept[:-100])
    result = call(reproduce, *always, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "perhaps truncated" in result.stderr
    assert histories(tmp_path) == histories(finished[0])
    assert list((tmp_path / ".checkpoints").iterdir()) == []
    loaded = Store(tmp_path).load()
    assert len(loaded.rows) == SMALL_RUNS
    assert (tmp_path / "results.jsonl").read_bytes().startswith(kept[:-100] + b"\n")


def test_interrupt_keeps_what_is_finished(tmp_path):
    # Long enough that the signal arrives in time on a busy machine.
    process = start(*SMALL, "--epochs", "40", "--out", tmp_path)
    wait_for_rows(tmp_path, 1, process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 130
    kept = keys(tmp_path)
    assert 1 <= len(kept) < SMALL_RUNS
    assert f"interrupted: {len(kept)} of {SMALL_RUNS} runs are finished in {tmp_path}" in said
    assert "Traceback" not in said


def test_two_runners_share_a_folder(tmp_path):
    runners = [start(*SMALL, "--out", tmp_path) for _ in range(2)]
    for runner in runners:
        _, said = runner.communicate(timeout=300)
        assert runner.returncode == 0, said
    assert len(keys(tmp_path)) == len(set(keys(tmp_path))) == SMALL_RUNS


@pytest.mark.parametrize(
    ("error", "kept"),
    [(Diverged("the training loss", 1, History()), True), (RuntimeError("out of memory"), False)],
)
def test_failed_runs_are_named_and_the_others_kept(tmp_path, monkeypatch, error, kept):
    def fails_for_fc(model, dataset, config, **options):
        if sum(p.requires_grad for p in model.conv1.parameters()) == 0:
            raise error
        return real(model, dataset, config, **options)

    real = execute.train
    monkeypatch.setattr(execute, "train", fails_for_fc)
    result = call(reproduce, *SMALL, "--out", tmp_path)
    assert result.exit_code == 1
    rows = Store(tmp_path).load().rows
    # All parts except conv1, in two networks.
    failed = [row for row in rows.values() if row["status"] == "failed"]
    assert (len(failed), len(rows)) == (10, SMALL_RUNS)
    assert {row["error"] for row in failed} == {str(error)}
    assert "10 runs failed:" in result.stderr
    assert f"wrn_10_1 only fc, digits, 1 epoch, lr .1, seed 0: {error}" in result.stderr

    monkeypatch.setattr(execute, "train", real)
    again = call(reproduce, *SMALL, "--out", tmp_path)
    assert again.exit_code == (1 if kept else 0)
    assert len(keys(tmp_path)) == (SMALL_RUNS if kept else SMALL_RUNS + 10)


def test_list_and_dry_run_write_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    time_nothing(monkeypatch)
    listed = call(reproduce, "--list")
    assert listed.exit_code == 0
    names = [line.split()[0] for line in listed.stdout.splitlines()]
    assert names == [*papers.ITEMS, "total"]
    assert "BatchNorm learned or fixed (42 runs, 22 of them above)" in listed.stdout
    every = call(reproduce, "table3", "fig6", "--list", "--verbose", "--preset", "paper")
    lines = every.stdout.splitlines()
    assert sum("p=.1 random yellowfin, tiny-imagenet, 45 e" in line for line in lines) == 2
    assert sum(line.endswith("(above)") for line in lines) == 4
    assert lines[-1].split() == ["total", "4", "runs"]
    dry = call(reproduce, "table1", "--dry-run")
    assert dry.exit_code == 0, dry.output
    total = dry.stdout.splitlines()[-1].split()
    assert total[:4] == ["total", "12", "12", "72"]
    assert not any("only conv1" in line for line in dry.stdout.splitlines())
    at_once = call(reproduce, "table4", "--dry-run", "--verbose", "--parallel", "2")
    assert at_once.exit_code == 0, at_once.output
    *_, total = at_once.stdout.splitlines()
    # The start and ten ensembles of five, two epochs each.
    assert total.split()[:4] == ["total", "11", "11", "102"]
    assert "the times of the items assume 2 runs at once" in at_once.stderr
    assert sum("5 members adam" in line for line in at_once.stdout.splitlines()) == 5
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("dataset", "told"), [("digits", False), ("imagenet", True)])
def test_dry_run_says_that_reading_is_not_timed(tmp_path, monkeypatch, dataset, told):
    time_nothing(monkeypatch)
    options = ("--dataset", dataset, "--match", "resnet_18" if told else "resnet_8")
    result = call(reproduce, "bnonly", "--dry-run", *options, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    said = "the times leave out reading and decoding the images of imagenet"
    assert (said in result.stderr) is told


def test_dry_run_needs_no_images_and_leaves_out_what_is_done(finished, tmp_path, monkeypatch):
    time_nothing(monkeypatch)
    out, _ = finished
    result = call(reproduce, *SMALL, "--dry-run", "--out", out)
    assert result.stdout.splitlines()[-1].split()[:4] == ["total", "12", "0", "0"]
    missing = ("--dataset", "cifar10", "--data-dir", tmp_path, "--subset", "1")
    result = call(reproduce, "table1", "--dry-run", "--parallel", "1", *missing)
    assert result.exit_code == 0
    assert "note: no CIFAR-10 in" in result.stderr
    assert result.stdout.splitlines()[-1].split()[4] == "720"


def test_help_does_not_load_torch():
    code = "import sys, maskedconv.reproduce, maskedconv.train; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
