"""Ensembles: shared and own weights of the members, and the row."""

from __future__ import annotations

import statistics
from dataclasses import replace

import killed_runs
import pytest
import torch
from killed_runs import SMALL
from stopped_runs import stopped_after
from torch.nn import functional as F

from maskedconv import count_parameters, data, select_learned_
from maskedconv.checkpoint.saving import file_bytes
from maskedconv.models import create
from maskedconv.runs.checkpoints import checkpoint_path
from maskedconv.runs.ensemble import freeze_unlearned_, train_members
from maskedconv.runs.execute import build_model, execute
from maskedconv.seeds import Purpose, mixed_seed
from maskedconv.training.checkpoint import Checkpoint
from maskedconv.training.loop import train

START = replace(SMALL, learned=1.0, epochs=1)
MEMBERS = replace(START, keep=False, start=START.key, members=3, learned=0.25, epochs=2)


@pytest.fixture(scope="module")
def dataset():
    return killed_runs.small_dataset()


@pytest.fixture(scope="module")
def folder(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ensemble")
    assert execute(START, dataset, folder=folder)["status"] == "done"
    return folder


@pytest.fixture(scope="module")
def row(dataset, folder):
    return execute(MEMBERS, dataset, folder=folder)


def test_the_row(row, folder):
    assert row["status"] == "done", row["error"]
    assert len(row["members"]) == 3
    for member in row["members"]:
        assert [epoch["epoch"] for epoch in member["history"]] == [1, 2]
        assert member["top1"] == member["history"][-1]["test_top1"]
    mean = statistics.fmean(member["top1"] for member in row["members"])
    assert row["last_top1"] == row["best_top1"] == pytest.approx(mean, abs=1e-5)
    assert (row["best_epoch"], row["history"]) == (2, [])
    one = count_parameters(build_model(MEMBERS, 2, (1, 8, 8)))
    assert row["learned_parameters"] == 3 * one.learned
    assert row["total_parameters"] == one.total
    start_file = folder / "weights" / f"{START.key}.safetensors"
    assert row["stored_bytes"]["shared"] == start_file.stat().st_size
    assert len(row["stored_bytes"]["members"]) == 3


@pytest.mark.parametrize(
    ("learned", "trained", "paper"),
    [
        (1.0, "fc", 137_090),
        (0.1, "all", 450_980),
        (0.4, "all", 1_528_505),
        (0.7, "all", 2_664_470),
        (1.0, "all", 3_845_810),
    ],
)
def test_counts_and_files_of_table_4(learned, trained, paper):
    model = select_learned_(create("densenet_bc_100_12", learned=learned, seed=0), trained)
    freeze_unlearned_(model)
    count = count_parameters(model)
    assert 5 * count.learned == paper
    assert count.total == 769_162
    # Besides the learned part, a file contains BatchNorm's statistics and the description.
    learned_bytes, statistics_bytes = 4 * count.learned, 4 * 23_988
    surplus = file_bytes(model) - learned_bytes
    assert statistics_bytes < surplus < statistics_bytes + 200_000


def test_freezing_what_is_not_learned_changes_no_answer():
    model = select_learned_(build_model(SMALL, 2, (1, 8, 8)), "fc").eval()
    images = torch.randn(2, 1, 8, 8)
    before = model(images)
    freeze_unlearned_(model)
    assert [name for name, _ in model.named_parameters() if ".learned" in name] == []
    torch.testing.assert_close(model(images), before)


def test_members_differ_by_seed_and_share_what_is_frozen(dataset, tmp_path):
    start = build_model(replace(SMALL, learned=0.5), 2, (1, 8, 8))
    before = {name: value.clone() for name, value in start.state_dict().items()}
    trained = []

    def fit(model, seed):
        trained.append((seed, model))
        return train(model, dataset, replace(MEMBERS, epochs=1, batch_size=16, lr=0.02, seed=seed))

    checkpoint = Checkpoint(tmp_path / "run.pt", {}, 1000)
    result = train_members(start, replace(MEMBERS, seed=7), dataset, fit, checkpoint)
    assert [seed for seed, _ in trained] == [
        mixed_seed(7, member, Purpose.EPOCH) for member in range(3)
    ]
    states = [model.state_dict() for _, model in trained]
    assert not any(p.grad is not None for _, model in trained for p in model.parameters())
    for name, value in start.state_dict().items():
        assert torch.equal(value, before[name])
        same = torch.equal(states[0][name], states[1][name])
        if name.endswith("frozen"):
            assert torch.equal(states[0][name], value)
            if value.numel():
                assert len({state[name].data_ptr() for state in states}) == 1
        elif name.endswith(".learned"):
            assert not same
    averaged = sum(
        torch.cat([F.softmax(model(images), 1) for images, _ in data.test_batches(dataset, 30)])
        for _, model in trained
    )
    right = (averaged.argmax(1) == dataset.test_labels).double().mean().item()
    assert result["ensemble_top1"] == pytest.approx(100 * right)


def without_times(row):
    return [
        {**member, "history": [{**epoch, "seconds": 0} for epoch in member["history"]]}
        for member in row["members"]
    ]


# 10 writes per epoch, 2 epochs per member: in the first member, in the second epoch of the second
# member, and at the end of the last member.
@pytest.mark.parametrize("writes", [3, 35, 60])
def test_goes_on_within_a_member(writes, row, dataset, folder, monkeypatch):
    with stopped_after(monkeypatch, writes):
        execute(MEMBERS, dataset, folder=folder, checkpoint_seconds=0)
    told = []
    again = execute(MEMBERS, dataset, told.append, folder=folder)
    checkpoint_path(folder, MEMBERS).unlink()
    assert [epoch.epoch for epoch in told] == [1, 2] * 3
    assert [epoch.test_top1 for epoch in told] == [
        pytest.approx(epoch["test_top1"])
        for member in row["members"]
        for epoch in member["history"]
    ]
    assert without_times(again) == without_times(row)
    assert again["ensemble_top1"] == row["ensemble_top1"]
    assert again["stored_bytes"] == row["stored_bytes"]


def test_a_member_that_diverges_fails_the_run(dataset, folder):
    row = execute(replace(MEMBERS, lr=1e9, learned=1.0), dataset, folder=folder)
    assert (row["status"], row["error_type"]) == ("failed", "Diverged")
    assert row["learned_parameters"] > 0
