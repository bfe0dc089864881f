"""``python -m maskedconv`` lists the commands; options of ``train`` for short runs."""

from __future__ import annotations

import subprocess
import sys

import pytest
from commands import call

from maskedconv import train
from maskedconv.__main__ import COMMANDS, main
from maskedconv.data import DataError, load
from maskedconv.runs import Store
from maskedconv.runs.experiment import fields_of_recipe


def test_the_commands_are_listed(capsys):
    assert main([]) == 0
    listed = capsys.readouterr().out
    assert all(f"python -m maskedconv.{name}" in listed for name in COMMANDS)
    assert main(["train"]) == 2
    assert "run python -m maskedconv.train" in capsys.readouterr().err
    assert main(["other"]) == 2
    assert "one of train, predict" in capsys.readouterr().err


def test_a_schedule_is_scaled_or_said_not_to_be(tmp_path):
    small = ("--model", "wrn_10_1", "--learned", "1", "--epochs", "2", "--subset", "5")
    assert "--scale-schedule scales" in call(train, *small).stderr
    result = call(train, *small, "--scale-schedule", "--out", tmp_path)
    assert "scales" not in result.stderr
    (row,) = Store(tmp_path).load().rows.values()
    assert all(1 <= epoch <= 2 for epoch in row["config"]["milestones"])
    whole = fields_of_recipe("wrn_28_4")
    half = fields_of_recipe("wrn_28_4", True, epochs=whole["epochs"] // 2)
    assert half["milestones"] == tuple(round(epoch / 2) for epoch in whole["milestones"])


def test_another_optimizer_leaves_the_recipes_momentum():
    assert fields_of_recipe("resnet_14")["momentum"] == 0.9
    assert fields_of_recipe("wrn_28_4", optimizer="yellowfin")["momentum"] == 0.0
    adam = fields_of_recipe("resnet_14", optimizer="adam")
    assert (adam["nesterov"], adam["momentum"]) == (False, 0.9)


def test_test_images_of_each_class():
    digits = load("digits")
    some = digits.take_test(3, 0)
    assert some.test_labels.bincount().tolist() == [3] * 10
    assert some.train_size == digits.train_size
    assert some.note != digits.note
    for count in (0, 1000):
        with pytest.raises(DataError, match=f"test_subset is {count} images per class"):
            digits.take_test(count, 0)
    result = call(train, "--model", "wrn_10_1", "--learned", "1", "--test-subset", "1000")
    assert result.exit_code == 2
    assert "test_subset is 1000" in result.stderr


@pytest.mark.parametrize("name", ["train", "predict", "reproduce", "report"])
def test_without_the_extra_a_command_says_what_to_install(name):
    # As after `pip install .` alone.
    code = (
        "import runpy, sys\n"
        "for one in ('typer', 'rich', 'jinja2', 'matplotlib', 'scipy', 'platformdirs', 'sklearn',"
        " 'torchvision', 'unicode_rbnf'):\n"
        "    sys.modules[one] = None\n"
        f"runpy.run_module('maskedconv.{name}', run_name='__main__')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith("error: the commands need the packages of the extra reproduce")
    assert "pip install 'maskedconv[reproduce]'" in result.stderr
    assert "Traceback" not in result.stderr
