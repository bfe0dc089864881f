"""Runs whose frozen weights are partly drawn anew: steps are counted, and a stopped run resumes."""

from __future__ import annotations

from dataclasses import replace

import killed_runs
import pytest
import torch
from safetensors.torch import load_file
from stopped_runs import stopped_after

from maskedconv.nn.rerandomise import rerandomise_
from maskedconv.runs.execute import execute
from maskedconv.training import loop

# 30 training steps.
CONFIG = replace(
    killed_runs.SMALL,
    learned=1.0,
    method="supermask",
    method_options=(("coats", 2), ("rerandomise_every", 4), ("rerandomise_fraction", 0.5)),
)


@pytest.fixture(scope="module")
def dataset():
    return killed_runs.small_dataset()


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def uninterrupted(dataset, tmp_path_factory):
    return weights(execute_in(tmp_path_factory.mktemp("whole"), CONFIG, dataset))


def execute_in(folder, config, dataset, **options):
    folder.mkdir(exist_ok=True)
    return folder, execute(config, dataset, folder=folder, **options)


def weights(run):
    folder, row = run
    assert row["status"] == "done", row
    return load_file(folder / row["weights"])


@pytest.mark.parametrize("writes", [3, 4, 13])
def test_a_stopped_run_resumes_bit_for_bit(writes, dataset, uninterrupted, tmp_path, monkeypatch):
    with stopped_after(monkeypatch, writes):
        execute_in(tmp_path, CONFIG, dataset, checkpoint_seconds=0)
    resumed = weights(execute_in(tmp_path, CONFIG, dataset))
    assert resumed.keys() == uninterrupted.keys()
    assert all(torch.equal(resumed[name], value) for name, value in uninterrupted.items())


def test_training_steps_are_counted_and_no_others(dataset, uninterrupted, tmp_path, monkeypatch):
    steps = []

    def told(model, step, seed):
        steps.append((step, seed))
        rerandomise_(model, step, seed)

    monkeypatch.setattr(loop, "rerandomise_", told)
    again = weights(execute_in(tmp_path, CONFIG, dataset))
    assert steps == [(step, CONFIG.seed) for step in range(1, 31)]
    assert all(torch.equal(again[name], value) for name, value in uninterrupted.items())


def test_0_is_an_ordinary_supermask(dataset, uninterrupted, tmp_path):
    found = []
    for name, options in (("none", ()), ("zero", (("coats", 1), ("rerandomise_every", 0)))):
        config = replace(CONFIG, method_options=options)
        found.append(weights(execute_in(tmp_path / name, config, dataset)))
    assert all(torch.equal(found[1][name], value) for name, value in found[0].items())
    frozen = [name for name in found[0] if name.endswith(".frozen")]
    assert frozen
    assert any(not torch.equal(found[0][name], uninterrupted[name]) for name in frozen)
