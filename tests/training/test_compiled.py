"""``--compile``: a training under torch.compile, the names of what it stores, its requirements."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from commands import SMALL as TABLE1
from commands import call
from killed_runs import small_dataset
from report_samples import config
from safetensors.torch import load_file

from maskedconv import reproduce, train
from maskedconv.runs import Store
from maskedconv.runs.execute import execute
from maskedconv.training import compiled
from maskedconv.training.checkpoint import Checkpoint
from maskedconv.training.compiled import check_compile

TINY = config("conv4", epochs=2, batch_size=32, options=(("width", 0.125),), compile=True)


@pytest.fixture
def graphs(monkeypatch):
    """Replaces torch.compile's code generator; lists what each compiled graph is made for."""
    found = []

    def backend(module, inputs):
        found.append([getattr(value, "shape", value) for value in inputs])
        return module.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    return found


def test_a_small_network_trains_and_everything_has_plain_names(tmp_path, monkeypatch):
    """The real compiler runs."""
    stored, write = [], Checkpoint.write

    def watched(self, training):
        stored.append(training)
        write(self, training)

    monkeypatch.setattr(Checkpoint, "write", watched)
    rows = {}
    arguments = ("--model", "conv4", "--option", "width=0.125", "--learned", "0.5", "--subset", "4")
    arguments += ("--epochs", "2", "--batch-size", "20", "--lr", "0.01", "--checkpoint-minutes", 0)
    for name, options in {"plain": (), "compiled": ("--compile",)}.items():
        result = call(train, *arguments, "--keep", "--out", tmp_path / name, *options)
        assert result.exit_code == 0, result.output
        (rows[name],) = Store(tmp_path / name).load().rows.values()
    row, plain = rows["compiled"], rows["plain"]
    assert (row["config"]["compile"], plain["config"]["compile"]) == (True, False)
    assert row["key"] != plain["key"]
    for epoch, other in zip(row["history"], plain["history"], strict=True):
        assert epoch["train_loss"] == pytest.approx(other["train_loss"], rel=1e-3)
    assert [layer["name"] for layer in row["layers"]] == [
        layer["name"] for layer in plain["layers"]
    ]
    weights, others = (load_file(tmp_path / name / rows[name]["weights"]) for name in rows)
    assert weights.keys() == others.keys()
    assert not [name for name in weights if "_orig_mod" in name]
    half = len(stored) // 2
    assert half == 4
    assert all(state["model"].keys() == stored[0]["model"].keys() for state in stored)


def test_each_batch_size_has_code_of_its_own(graphs):
    """Rounding then does not depend on the order in which a process sees them."""
    row = execute(TINY, small_dataset())
    assert (row["status"], row["error"]) == ("done", None)
    images = [shape for graph in graphs for shape in graph if tuple(shape[1:]) == (1, 8, 8)]
    assert {int(shape[0]) for shape in images} == {32, 16}
    assert all(type(size) is int for shape in images for size in shape)


@torch._dynamo.config.patch(recompile_limit=2)
def test_every_run_of_a_process_is_compiled(graphs):
    """The code of earlier runs would reach torch.compile's limit, and later runs be eager."""
    counts = []
    for seed in range(4):
        before = len(graphs)
        assert execute(replace(TINY, epochs=1, seed=seed), small_dataset())["status"] == "done"
        counts.append(len(graphs) - before)
    assert counts[0] > 0
    assert set(counts) == {counts[0]}


def test_the_numbers_are_those_of_the_compiled_forward_pass(graphs):
    eager, row = (
        execute(replace(TINY, compile=False), small_dataset()),
        execute(TINY, small_dataset()),
    )
    assert graphs
    for epoch, other in zip(eager["history"], row["history"], strict=True):
        assert epoch["train_loss"] == pytest.approx(other["train_loss"])


@pytest.fixture
def without(monkeypatch, tmp_path):
    """A machine without programs, and without the named packages."""

    def remove(*packages):
        monkeypatch.setenv("PATH", str(tmp_path))
        for name in ("CC", "CXX"):
            monkeypatch.delenv(name, raising=False)
        find = compiled.find_spec
        monkeypatch.setattr(
            compiled, "find_spec", lambda name: None if name in packages else find(name)
        )

    return remove


@pytest.mark.parametrize(
    ("device", "packages", "words"),
    [
        (
            "cpu",
            (),
            r"compile is True, but the C\+\+ compiler g\+\+ is missing \(CXX names another\)",
        ),
        ("cuda", (), r"compile is True, but the C compiler gcc or clang is missing \(CC names"),
        ("cuda", ("triton",), r"compile is True, but the package triton is missing; expected it"),
    ],
)
def test_what_is_missing_is_named(device, packages, words, without):
    without(*packages)
    with pytest.raises(ValueError, match=words):
        check_compile(True, device)
    check_compile(False, device)


def test_pythons_header_is_needed(monkeypatch, tmp_path):
    monkeypatch.setattr(compiled.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(ValueError, match=r"Python\.h is missing"):
        check_compile(True, "cpu")


def test_another_compiler_is_taken(without, monkeypatch, tmp_path):
    without()
    program = tmp_path / "mycxx"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("CXX", "mycxx")
    check_compile(True, "cpu")


@pytest.mark.parametrize("command", [train, reproduce])
def test_commands_end_before_any_work(command, without, tmp_path):
    without()
    arguments = ("--model", "conv4") if command is train else TABLE1
    result = call(command, *arguments, "--device", "cpu", "--compile", "--out", tmp_path / "out")
    assert result.exit_code == 2, result.output
    assert "the C++ compiler g++ is missing" in result.stderr
    assert not (tmp_path / "out").exists()
