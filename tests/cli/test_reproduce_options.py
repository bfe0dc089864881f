"""Bad options of the command end it with status 2 before anything is done."""

from __future__ import annotations

import pytest
import torch
from commands import call

from maskedconv import reproduce


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fig9"], "unknown experiment fig9; expected fig1"),
        (["--preset", "long"], "preset is 'long'; expected one of quick, short, paper"),
        (["--dataset", "svhn"], "dataset is 'svhn'; expected one of digits"),
        (["--device", "tpu"], "device is 'tpu'; expected one of auto, cpu, cuda"),
        (["--threads", "0"], "threads is 0"),
        (["--parallel", "0"], "parallel is '0'; expected auto or a number"),
        (["--checkpoint-minutes", "-1"], "checkpoint_minutes is -1.0"),
        (["--checkpoint-minutes", "nan"], "checkpoint_minutes is nan"),
        (["--data-dir", "a", "--data-dir", "b"], "data_dir is given twice without the name"),
        (
            ["--data-dir", "cifar10=a", "--data-dir", "cifar10=b"],
            "data_dir is given twice for cifar10",
        ),
        (["--download"], "download: only cifar10, cifar100 and mnist can be fetched, not digits"),
        (["--seeds", "0"], "seeds is 0"),
        (["--epochs", "0"], "epochs is 0"),
        (["--subset", "0"], "subset"),
        (["--subset", "5000"], "subset"),
        (["--epochs", "many"], "Invalid value"),
        (["table1", "--match", "fc", "--match", "wide"], "match is 'wide'; expected part of a"),
        (["--colour"], "--colour"),
        (["--list", "--dry-run"], "list is True and dry_run is True; expected one of them"),
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


def test_several_processes_of_torchrun_are_refused(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    result = call(reproduce, "fig1")
    assert result.exit_code == 2, result.output
    assert "torchrun started 2 processes; expected one" in result.stderr
