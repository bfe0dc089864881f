"""``--amp``: its resolution, its use in every part of a run, and its messages."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from commands import SMALL, call, keys
from report_samples import config, row, write_folder
from torch import nn

from maskedconv import data, reproduce, train
from maskedconv.report import write
from maskedconv.runs import RunConfig, Store, ensemble
from maskedconv.runs.estimate import estimate
from maskedconv.runs.execute import execute
from maskedconv.runs.images import Size
from maskedconv.runs.workers import Workers
from maskedconv.training import history, loop, precision
from maskedconv.training.checkpoint import Checkpoint
from maskedconv.training.precision import is_slow, resolve_amp

X86 = "processor\t: 0\nflags\t\t: fpu avx2 {}\n"
TRAIN = ("--model", "wrn_10_1", "--learned", "0.1", "--epochs", "1", "--subset", "2")


@pytest.fixture
def cpu(tmp_path, monkeypatch):
    """Sets the system's description of the processor; None for a system without one."""

    def set_facts(text):
        path = tmp_path / "cpuinfo"
        if text is not None:
            path.write_text(text)
        monkeypatch.setattr(precision, "_CPU_FACTS", path)

    return set_facts


@pytest.mark.parametrize(
    ("facts", "device", "auto", "slow"),
    [
        (X86.format("amx_bf16 amx_tile"), "cpu", "bf16", False),
        (X86.format("avx512_bf16"), "cpu", "off", False),
        (X86.format("avx512f"), "cpu", "off", True),
        ("Features\t: fp asimd bf16\n", "cpu", "off", False),
        ("Features\t: fp asimd\n", "cpu", "off", True),
        (None, "cpu", "off", True),
        (X86.format(""), "cuda", "bf16", False),
    ],
)
def test_auto_is_bfloat16_where_that_is_fast(facts, device, auto, slow, cpu):
    cpu(facts)
    assert resolve_amp("auto", device) == auto
    assert [resolve_amp(asked, device) for asked in ("bf16", "off")] == ["bf16", "off"]
    assert is_slow("bf16", device) is slow
    assert not is_slow("off", device)


def test_only_bfloat16_changes_the_key():
    off = config()
    assert off.key == replace(off, amp="off").key
    assert off.key != replace(off, amp="bf16").key
    assert "bf16" in replace(off, amp="bf16").label()
    before = {name: value for name, value in off.to_json().items() if name != "amp"}
    assert RunConfig.from_json(before).key == off.key
    with pytest.raises(ValueError, match="amp is 'auto'; expected one of bf16, off"):
        config(amp="auto")


@pytest.mark.parametrize(("amp", "dtype"), [("bf16", torch.bfloat16), ("off", torch.float32)])
def test_every_part_of_a_run_computes_in_it(amp, dtype, tmp_path, monkeypatch):
    """Training, evaluation, predictions of an ensemble, and estimates, on the CPU."""
    found = set()
    plain = nn.functional.linear

    def seen(*arguments):
        result = plain(*arguments)
        found.add(result.dtype)
        return result

    monkeypatch.setattr(nn.functional, "linear", seen)
    digits = data.load("digits", subset=2)
    small = {"options": (("width", 0.125),), "batch_size": 16}
    start = config("alexnet", learned=0.5, subset=2, epochs=1, keep=True, amp=amp, **small)
    Store(tmp_path).prepare()
    assert execute(start, digits, folder=tmp_path)["status"] == "done"
    assert found == {dtype}
    found.clear()
    together = replace(start, keep=False, start=start.key, members=2)
    result = execute(together, digits, folder=tmp_path)
    assert (result["status"], result["error"]) == ("done", None)
    assert result["config"]["amp"] == amp
    assert found == {dtype}
    found.clear()
    estimate([start], {("digits", 2): Size(10, (1, 8, 8), 20, 20)}, Workers(1, "cpu", 1))
    assert found == {dtype}


@pytest.mark.parametrize(("amp", "dtype"), [("bf16", torch.bfloat16), ("off", torch.float32)])
def test_further_results_of_a_run_are_in_its_precision(amp, dtype, monkeypatch):
    found = []

    def measure(self, model):
        found.extend(model(images).dtype for images, _ in self.test_batches(100))
        return {"top5": 1.0}

    monkeypatch.setattr(data.Dataset, "measure", measure)
    digits = data.load("digits", subset=2)
    options = {"options": (("width", 0.125),), "batch_size": 16}
    row = execute(config("alexnet", epochs=1, subset=2, amp=amp, **options), digits)
    assert row["measured"] == {"top5": 1.0}, row["error"]
    assert set(found) == {dtype}


def test_an_ensembles_answers_are_in_its_precision(monkeypatch, tmp_path):
    asked = []

    def predict(model, dataset, amp):
        asked.append(amp)
        return torch.ones(len(dataset.test_labels), 10)

    monkeypatch.setattr(ensemble, "predict", predict)
    run = config(start="0" * 16, members=2, amp="bf16")
    epoch = history.Epoch(1, 1.0, 1.0, 1.0, 1.0, 1.0, 0.1)
    checkpoint = Checkpoint(tmp_path / "c.pt", {}, 1e9)
    digits = data.load("digits", subset=2)
    fit = lambda model, seed: history.History([epoch])  # noqa: E731
    ensemble.train_members(nn.Linear(1, 1), run, digits, fit, checkpoint)
    assert asked == [True, True]


def test_a_training_is_in_the_precision_of_its_configuration(monkeypatch):
    asked = []
    evaluate = loop.evaluate

    def watched(model, dataset, amp, **options):
        asked.append(amp)
        return evaluate(model, dataset, amp=amp, **options)

    monkeypatch.setattr(loop, "evaluate", watched)
    digits = data.load("digits", subset=2)
    for amp in ("bf16", "off"):
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        loop.train(model, digits, config(epochs=1, batch_size=16, amp=amp))
    assert asked == [True, False]


@pytest.mark.parametrize(
    ("flags", "options", "amp", "note"),
    [
        ("amx_bf16", (), "bf16", False),
        ("avx2", (), "off", False),
        ("amx_bf16", ("--amp", "off"), "off", False),
        ("avx2", ("--amp", "bf16"), "bf16", True),
    ],
)
def test_commands_resolve_it_before_the_configuration(flags, options, amp, note, tmp_path, cpu):
    cpu(X86.format(flags))
    result = call(train, *TRAIN, "--device", "cpu", "--out", tmp_path / "train", *options)
    assert result.exit_code == 0, result.output
    (found,) = Store(tmp_path / "train").load().rows.values()
    assert found["config"]["amp"] == amp
    assert ("has no bfloat16 instructions; --amp off is faster" in result.stderr) is note
    arguments = ("fig6", "--device", "cpu", "--parallel", "1", "--epochs", "1", "--subset", "2")
    result = call(reproduce, *arguments, "--no-report", "--out", tmp_path / "all", *options)
    assert result.exit_code == 0, result.output
    rows = Store(tmp_path / "all").load().rows.values()
    assert {row["config"]["amp"] for row in rows} == {amp}
    assert len(rows) == 4


@pytest.mark.parametrize("command", [train, reproduce])
def test_anything_else_is_refused(command):
    arguments = TRAIN if command is train else SMALL
    result = call(command, *arguments, "--amp", "fp16")
    assert result.exit_code == 2
    assert "amp is 'fp16'; expected one of auto, bf16, off" in result.stderr


def test_a_folder_has_one_precision(tmp_path):
    """Figures share runs, so that mixed precisions would go unnoticed."""
    small = ("fig6", "--epochs", "1", "--subset", "2", "--no-report", "--out", tmp_path)
    small += ("--device", "cpu", "--parallel", "1")
    assert call(reproduce, *small, "--amp", "off").exit_code == 0
    before = keys(tmp_path)
    result = call(reproduce, *small, "--amp", "bf16")
    assert result.exit_code == 2
    assert "holds runs of --amp off, not bf16; --amp off continues them" in result.stderr
    plan = json.loads((tmp_path / "plan.json").read_text())
    del plan["amp"]
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    assert call(reproduce, *small, "--amp", "bf16").exit_code == 2
    assert call(reproduce, *small, "--amp", "off").exit_code == 0
    assert keys(tmp_path) == before


def test_a_row_of_cuda_without_a_precision_is_not_taken_for_float32(tmp_path):
    store = Store(tmp_path)
    store.prepare()
    on_cpu, on_gpu = row(config(), 50.0), row(config(seed=1), 50.0, device="cuda (H200)")
    for found in (on_cpu, on_gpu):
        del found["config"]["amp"]
        store.append(found)
    loaded = store.load()
    assert list(loaded.rows) == [config().key]
    assert ["without its precision" in problem for problem in loaded.problems] == [True]


@pytest.mark.parametrize(("amp", "words"), [("bf16", "bfloat16 (autocast)"), ("off", "float32")])
def test_the_report_names_it(amp, words, tmp_path):
    write_folder(tmp_path, {"fig1": [config("wrn_10_1", learned=0.1, amp=amp)]}, lambda run: 50.0)
    text = write(tmp_path).with_suffix(".md").read_text()
    assert f"Precision: {words}" in text.replace("*", "").replace("| ", "")
