"""The comparison of fine-tuning: its ways, its search for a learning rate, its table."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from bench.fine_tuning import __main__ as command
from bench.fine_tuning.costs import file_bytes
from bench.fine_tuning.images import Setting
from bench.fine_tuning.rows import Rows
from bench.fine_tuning.table import SEEDS, table
from bench.fine_tuning.ways import (
    FUSED,
    LORA,
    TRAINED,
    WAYS,
    Way,
    build,
    learned_parameters,
    lora_rank,
)

SMALL = Setting(batch=2, size=32)


@pytest.mark.parametrize(
    "way", [way for way in WAYS if way.name != LORA], ids=lambda way: way.label
)
def test_files_restore_what_was_learned(way):
    """file_bytes raises if they do not."""
    learned = sum(p.numel() for p in learned_parameters(build(way, 0)))
    assert 4 * learned < file_bytes(way, SMALL) < 4 * learned + 350_000


@pytest.mark.parametrize("is_fixed", [False, True])
def test_statistics_are_those_that_the_way_names(is_fixed):
    model = build(Way("full", is_fixed), 0)
    assert {m.training for m in model.modules() if isinstance(m, _BatchNorm)} == {not is_fixed}
    assert model.training


def test_the_rank_gives_lora_the_size_of_the_slices():
    layers = [nn.Conv2d(64, 128, 1), nn.Conv2d(128, 64, 1)]
    slices = 13 * 64 + 6 * 128
    assert abs(lora_rank(layers) * 2 * (64 + 128) - slices) <= 64 + 128


def searched(rows, monkeypatch, best):
    """The rates and seeds that run, if accuracy falls with the distance from ``best``."""
    ran = []

    def train(way, rate, seed, images):
        ran.append((way, rate, seed))
        accuracy = 1 / (1 + abs(math.log(rate / best)))
        return {"validation_accuracy": accuracy, "test_accuracy": accuracy, "seconds": 1.0}

    monkeypatch.setattr(command, "train", train)
    command.run_missing(rows, SimpleNamespace(setting=SMALL))
    return ran


@pytest.mark.parametrize(
    ("best", "tried"),
    [
        (1e-3, [3e-4, 1e-3, 3e-3]),
        (1e-2, [3e-4, 1e-3, 3e-3, 1e-2, 3e-2]),
        (1e-4, [3e-4, 1e-3, 3e-3, 1e-4]),
    ],
)
def test_the_rate_is_searched_once_for_each_way(tmp_path, monkeypatch, best, tried):
    ran = searched(Rows(tmp_path / "rows"), monkeypatch, best)
    for way in TRAINED:
        rates = [rate for one, rate, seed in ran if one == way and seed == SEEDS[0]]
        assert rates == tried
        others = [(rate, seed) for one, rate, seed in ran if one == way and seed != SEEDS[0]]
        assert others == [(best, seed) for seed in SEEDS[1:]]
    assert searched(Rows(tmp_path / "rows"), monkeypatch, best) == []


def test_fused_steps_compute_the_same():
    images, labels = torch.randn(2, 3, 32, 32), torch.tensor([0, 1])
    gradients = []
    for way in (Way(FUSED, True), Way(FUSED, True).trained):
        model = build(way, 0)
        F.cross_entropy(model(images), labels).backward()
        gradients.append([p.grad for p in learned_parameters(model)])
    assert len(gradients[0]) > 100
    assert all(map(torch.equal, *gradients))


def test_table_has_a_line_for_each_way(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.fine_tuning.table.version", lambda package: "1.0")
    rows = Rows(tmp_path / "rows")
    searched(rows, monkeypatch, 3e-3)
    for index, way in enumerate(WAYS):
        costs = {"learned": 1000 + index, "kept": 2**20, "peak": 3 * 2**20, "file": 2**12}
        rows.add({"kind": "costs", "way": way.label, **SMALL.as_row(), **costs})
    ms = {way.label: [10.0 + index] * 3 for index, way in enumerate(WAYS)}
    rows.add({"kind": "times", **SMALL.as_row(), "ms": ms})
    lines = [line for line in table(rows, SMALL).splitlines() if line.startswith("| ")][2:]
    assert len(lines) == len(WAYS)
    assert lines[1] == (
        "| full | fixed | 1,001 | 0.003 | 100.0 (100.0–100.0) | 11 | 1.10 | 3 | 1 | 4 |"
    )
