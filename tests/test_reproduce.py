"""The commands: exit codes, resuming, interrupts, killed and concurrent runners."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import typer
from typer.testing import CliRunner

from maskedconv import reproduce, train
from maskedconv.experiments import Store, execute
from maskedconv.training import Diverged, History

SMALL = ("table1", "--epochs", "1", "--subset", "5", "--no-report")
RUNS = 12


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def call(module, *arguments):
    app = typer.Typer()
    app.command()(module.main)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def start(*arguments):
    command = [sys.executable, "-m", "maskedconv.reproduce", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        # Tests that run in the background of a script inherit that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def wait_for_rows(out, count, process):
    end = time.monotonic() + 60
    while len(Store(out).load().rows) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def keys(out):
    return [json.loads(line)["key"] for line in (out / "results.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which table1 was run, and what the command said."""
    out = tmp_path_factory.mktemp("finished")
    return out, call(reproduce, *SMALL, "--out", out)


def test_all_runs_are_done_and_planned(finished):
    out, result = finished
    assert result.exit_code == 0, result.output
    rows = Store(out).load().rows
    assert len(rows) == RUNS
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
    assert f"{RUNS} of {RUNS} runs are in {out} already" in result.stderr
    assert (out / "results.jsonl").read_bytes() == before


def test_another_preset_or_dataset_in_the_folder_is_refused(finished, tmp_path):
    out, _ = finished
    result = call(reproduce, "--dataset", "folder", "--data-dir", _images(tmp_path), "--out", out)
    assert result.exit_code == 2
    assert "holds the preset quick on digits, not quick on folder" in result.stderr


def test_other_images_under_the_same_name_are_refused(tmp_path):
    store = Store(tmp_path)
    store.prepare()
    config = {"dataset": "digits", "subset": 5}
    store.append({"key": "x", "status": "done", "config": config, "data_note": "other digits"})
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


def test_kill_and_resume(tmp_path):
    process = start(*SMALL, "--out", tmp_path)
    wait_for_rows(tmp_path, 2, process)
    process.kill()
    process.communicate()
    kept = (tmp_path / "results.jsonl").read_bytes()
    # As a machine that goes down leaves it: the last row cut in the middle.
    (tmp_path / "results.jsonl").write_bytes(kept[:-100])
    result = call(reproduce, *SMALL, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "half-written" in result.stderr
    loaded = Store(tmp_path).load()
    assert len(loaded.rows) == RUNS
    assert (tmp_path / "results.jsonl").read_bytes().startswith(kept[:-100] + b"\n")


def test_interrupt_keeps_what_is_finished(tmp_path):
    # Long enough that the signal comes in time, however the machine is loaded.
    process = start(*SMALL, "--epochs", "40", "--out", tmp_path)
    wait_for_rows(tmp_path, 1, process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    kept = keys(tmp_path)
    assert 1 <= len(kept) < RUNS
    assert f"interrupted: {len(kept)} of {RUNS} finished runs are kept in {tmp_path}" in said
    assert "Traceback" not in said


def test_two_runners_share_a_folder(tmp_path):
    runners = [start(*SMALL, "--out", tmp_path) for _ in range(2)]
    for runner in runners:
        _, said = runner.communicate(timeout=60)
        assert runner.returncode == 0, said
    assert len(keys(tmp_path)) == len(set(keys(tmp_path))) == RUNS


@pytest.mark.parametrize(
    ("error", "kept"), [(Diverged(1, History()), True), (RuntimeError("out of memory"), False)]
)
def test_failed_runs_are_named_and_the_others_kept(tmp_path, monkeypatch, error, kept):
    def fails_for_fc(model, dataset, **settings):
        if sum(p.requires_grad for p in model.conv1.parameters()) == 0:
            raise error
        return real(model, dataset, **settings)

    real = execute.train
    monkeypatch.setattr(execute, "train", fails_for_fc)
    result = call(reproduce, *SMALL, "--out", tmp_path)
    assert result.exit_code == 1
    rows = Store(tmp_path).load().rows
    # All but conv1, of two networks.
    failed = [row for row in rows.values() if row["status"] == "failed"]
    assert (len(failed), len(rows)) == (10, RUNS)
    assert {row["error"] for row in failed} == {str(error)}
    assert "10 runs failed:" in result.stderr
    assert f"wrn_10_1 only fc, digits, lr .1, seed 0: {error}" in result.stderr

    monkeypatch.setattr(execute, "train", real)
    again = call(reproduce, *SMALL, "--out", tmp_path)
    assert again.exit_code == (1 if kept else 0)
    assert len(keys(tmp_path)) == (RUNS if kept else RUNS + 10)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fig9"], "unknown experiment fig9; expected fig1"),
        (["fig6"], "fig6: not built yet; built: fig1, fig2, fig3, table1"),
        (["--preset", "long"], "preset is 'long'; expected one of quick, short, paper"),
        (["--dataset", "mnist"], "unknown dataset 'mnist'; there are: digits"),
        (["--device", "tpu"], "device is 'tpu'; expected one of auto, cpu, cuda"),
        (["--threads", "0"], "threads is 0"),
        (["--seeds", "0"], "seeds is 0"),
        (["--epochs", "0"], "epochs is 0"),
        (["--subset", "0"], "subset"),
        (["--subset", "5000"], "subset"),
        (["--epochs", "many"], "Invalid value"),
        (["--colour"], "--colour"),
        (["--dataset", "cifar10", "--data-dir", "/nonexistent"], "--download"),
        (["--preset", "paper", "--data-dir", "/nonexistent"], "--dataset takes one of them alone"),
        (["--out", "/proc/nothing"], "the folder /proc/nothing cannot be used"),
        (["--out", __file__], "cannot be used: Not a directory"),
    ],
)
def test_bad_options_exit_2_before_anything_is_done(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call(reproduce, *arguments)
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="the message of a machine without a GPU")
def test_cuda_without_a_gpu_exits_2(tmp_path):
    result = call(reproduce, "--device", "cuda", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "torch finds no GPU" in result.stderr


def test_list_and_dry_run_write_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listed = call(reproduce, "--list")
    assert listed.exit_code == 0
    assert [line.split()[0] for line in listed.stdout.splitlines()] == list(reproduce.EXPERIMENTS)
    assert "fig4    Figure 4  BatchNorm learned or not (not built yet)" in listed.stdout
    dry = call(reproduce, "table1", "--dry-run")
    assert dry.exit_code == 0, dry.output
    total = dry.stdout.splitlines()[-1].split()
    assert total[:4] == ["total", "12", "12", "72"]
    assert list(tmp_path.iterdir()) == []


def test_dry_run_needs_no_images_and_leaves_out_what_is_done(finished, tmp_path):
    out, _ = finished
    result = call(reproduce, *SMALL, "--dry-run", "--out", out)
    assert result.stdout.splitlines()[-1].split()[:4] == ["total", "12", "0", "0"]
    missing = ("--dataset", "cifar10", "--data-dir", tmp_path, "--subset", "1")
    result = call(reproduce, "table1", "--dry-run", *missing)
    assert result.exit_code == 0
    assert "note: no CIFAR-10 in" in result.stderr
    assert result.stdout.splitlines()[-1].split()[4] == "720"


def test_help_does_not_load_torch():
    code = "import sys, maskedconv.reproduce, maskedconv.train; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_train_prints_its_epochs_and_keeps_the_row(tmp_path):
    arguments = ("--model", "wrn_10_1", "--learned", "1", "--epochs", "2", "--subset", "5")
    result = call(train, *arguments, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["epoch", "1", "2", "last"]
    (row,) = Store(tmp_path).load().rows.values()
    assert (row["config"]["learned"], row["config"]["weight_decay"]) == (1, 5e-4)
    again = call(train, *arguments, "--out", tmp_path)
    assert "in the folder already" in again.stderr
    assert again.stdout == result.stdout
    assert len(keys(tmp_path)) == 1


def test_train_that_diverges_exits_1():
    small = ("--model", "vgg19", "--option", "width=0.1", "--subset", "5", "--epochs", "2")
    result = call(train, *small, "--lr", "1e20")
    assert result.exit_code == 1
    assert "not finite in epoch" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "lenet"], "name is 'lenet', which is no network"),
        (["--model", "wrn_10_1", "--learned", "most"], "learned is 'most'"),
        (["--model", "wrn_10_1", "--learned", "1.5"], "learned is 1.5"),
        (["--model", "wrn_10_1", "--learned", "99"], "learned is 99 filters"),
        (["--model", "alexnet", "--trained", "block1"], "part is 'block1'"),
        (["--model", "alexnet", "--option", "depth=3"], "alexnet has no option 'depth'"),
        (["--model", "alexnet", "--option", "width"], "option is 'width'; expected name=value"),
        (["--model", "alexnet", "--lr", "0"], "lr"),
        (["--model", "alexnet", "--seed", "-1"], "seed is -1"),
        ([], "--model"),
    ],
)
def test_train_names_bad_options(arguments, words):
    result = call(train, *arguments)
    assert result.exit_code == 2, result.output
    assert words in result.stderr


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1), ("1.0", 1.0), ("0.1", 0.1), (".1", 0.1), ("1e-1", 0.1)]
)
def test_learned_is_a_count_only_where_it_is_written_as_one(text, value):
    parsed = train.parse_learned(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [("a=1", 1), ("a=0.5", 0.5), ("a=true", True), ("a=false", False), ("a=b=c", "b=c")],
)
def test_options_of_models(text, value):
    assert train.parse_option(text) == ("a", value)
