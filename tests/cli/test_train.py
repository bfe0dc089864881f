"""The command for one run: its output, its row, and the errors for bad options."""

from __future__ import annotations

import subprocess
import sys

import pytest
from commands import call, keys
from image_files import write_folder

from maskedconv import train
from maskedconv.cli.batch_progress import EpochLine
from maskedconv.cli.epoch_table import EpochTable
from maskedconv.cli.options import parse_learned, parse_option
from maskedconv.runs import Store


def test_train_prints_its_epochs_and_keeps_the_row(tmp_path):
    arguments = ("--model", "wrn_10_1", "--learned", "1", "--epochs", "2", "--subset", "5")
    result = call(train, *arguments, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["epoch", "1", "2", "last"]
    (row,) = Store(tmp_path).load().rows.values()
    assert (row["config"]["learned"], row["config"]["weight_decay"]) == (1, 5e-4)
    again = call(train, *arguments, "--out", tmp_path)
    assert "already in the folder" in again.stderr
    assert again.stdout == result.stdout
    assert len(keys(tmp_path)) == 1


def test_a_reader_that_ends_leaves_no_failed_run(tmp_path):
    """The reader ends as in ``train | head -1``."""
    small = ("--model", "wrn_10_1", "--epochs", "3", "--subset", "5", "--device", "cpu")
    process = subprocess.Popen(
        [sys.executable, "-m", "maskedconv.train", *small, "--out", str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline().startswith("epoch")
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait() == 1
    assert "rror" not in said
    assert keys(tmp_path) == []


def test_train_tells_lines_that_are_no_rows(tmp_path):
    arguments = ("--model", "wrn_10_1", "--epochs", "1", "--subset", "5", "--out", tmp_path)
    Store(tmp_path).prepare()
    (tmp_path / "results.jsonl").write_text("{}\n")
    result = call(train, *arguments)
    assert result.exit_code == 0, result.output
    assert "note: " in result.stderr
    assert "results.jsonl line 1" in result.stderr
    assert "line skipped" in result.stderr


def test_a_wait_is_told_once(capsys):
    table = EpochTable(EpochLine())
    for _ in range(3):
        table.waiting(1)
    assert capsys.readouterr().err.count("waiting for it") == 1


def test_train_on_other_images_of_the_same_name_is_refused(tmp_path):
    arguments = ("--dataset", "folder", "--model", "wrn_10_1", "--epochs", "1", "--out", tmp_path)
    for classes, exit_code in (("ab", 0), ("ba", 2)):
        images = write_folder(tmp_path / classes / "images", classes)
        result = call(train, *arguments, "--data-dir", images)
        assert result.exit_code == exit_code, result.output
    assert "holds results of other data" in result.stderr
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
        (["--model", "alexnet", "--seed", str(2**63 + 1)], "expected at most 9223372036854775808"),
        (
            ["--model", "wrn_10_1", "--optimizer", "yellowfin", "--momentum", "1.5"],
            "momentum is 1.5; expected below 1 with yellowfin",
        ),
        (["--model", "wrn_10_1", "--optimizer", "lion"], "optimizer is 'lion'"),
        (["--model", "wrn_10_1", "--keep"], "keep is True; expected --out FOLDER"),
        (["--model", "wrn_10_1", "--checkpoint-minutes", "-1"], "checkpoint_minutes is -1.0"),
        # The system refuses the name of the folder.
        (["--model", "alexnet", "--dataset", "folder", "--data-dir", "n" * 300], "n" * 300),
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
    parsed = parse_learned(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [("a=1", 1), ("a=0.5", 0.5), ("a=true", True), ("a=false", False), ("a=b=c", "b=c")],
)
def test_options_of_models(text, value):
    assert parse_option(text) == ("a", value)
