"""What runs the experiments are made of."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from maskedconv import count_parameters
from maskedconv.experiments import EXPERIMENTS, RunConfig
from maskedconv.experiments.execute import build_model
from maskedconv.experiments.presets import PRESETS, settings
from maskedconv.experiments.registry import built_ids, select

CONFIG = RunConfig(
    model="wrn_28_4",
    dataset="cifar10",
    learned=0.1,
    epochs=10,
    batch_size=128,
    lr=0.1,
    momentum=0.9,
    weight_decay=5e-4,
    milestones=(60, 120, 160),
    gamma=0.2,
)


def test_key_is_stable():
    """Results on disk are found by it, so that it may not change from version to version."""
    assert CONFIG.key == "0918e4ed71549e33"


@pytest.mark.parametrize(
    "change",
    [
        {"learned": 0.4},
        {"slice_dim": 1},
        {"frozen": "zero"},
        {"trained": "bn"},
        {"bn_learned": False},
        {"init": "authors"},
        {"epochs": 9},
        {"lr": 0.01},
        {"milestones": (60,)},
        {"schedule": "cosine"},
        {"dropout": 0.3},
        {"seed": 1},
        {"subset": 10},
        {"options": (("width", 0.5),)},
    ],
)
def test_every_setting_changes_the_key_and_survives_json(change):
    changed = replace(CONFIG, **change)
    assert changed.key != CONFIG.key
    assert RunConfig.from_json(json.loads(json.dumps(changed.to_json()))) == changed


def test_one_filter_and_all_filters_have_different_keys():
    one, all_ = replace(CONFIG, learned=1), replace(CONFIG, learned=1.0)
    assert one.key != all_.key
    for config in (one, all_):
        again = RunConfig.from_json(json.loads(json.dumps(config.to_json())))
        assert type(again.learned) is type(config.learned)
        assert again.key == config.key


def test_equal_settings_written_differently_have_one_key():
    assert replace(CONFIG, lr=1).key == replace(CONFIG, lr=1.0).key
    one, other = (("a", 1), ("b", 2)), (("b", 2), ("a", 1))
    assert replace(CONFIG, options=one).key == replace(CONFIG, options=other).key


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"learned": 1.5}, ValueError, "learned is 1.5"),
        ({"learned": True}, TypeError, "learned"),
        ({"slice_dim": 4}, ValueError, "slice_dim is 4"),
        ({"frozen": "ones"}, ValueError, "frozen is 'ones'; expected one of random, zero"),
        ({"trained": "block9"}, ValueError, "trained is 'block9'"),
        ({"init": "x"}, ValueError, "init is 'x'"),
        ({"schedule": "x"}, ValueError, "schedule is 'x'"),
        ({"epochs": 0}, ValueError, "epochs is 0; expected at least 1"),
        ({"epochs": 1.0}, TypeError, "epochs is 1.0"),
        ({"subset": 0}, ValueError, "subset is 0"),
        ({"lr": -0.1}, ValueError, "lr is -0.1"),
        ({"lr": float("nan")}, ValueError, "lr is nan"),
        ({"lr": "fast"}, TypeError, "lr is 'fast'"),
        ({"seed": -1}, ValueError, "seed is -1"),
    ],
)
def test_bad_settings_are_named(change, error, words):
    with pytest.raises(error, match=words):
        replace(CONFIG, **change)


def test_json_of_another_version_is_refused():
    values = CONFIG.to_json()
    with pytest.raises(ValueError, match="unknown fields optimizer"):
        RunConfig.from_json({**values, "optimizer": "adam"})
    del values["lr"]
    with pytest.raises(ValueError, match="lacks the fields lr"):
        RunConfig.from_json(values)


def test_labels_tell_the_settings_of_a_figure_apart():
    runs = {run.key: run.label() for name in built_ids() for run in _runs(name, "paper")}
    # Epochs are the only difference between fig1's and fig2's slices of filters.
    fig2 = {run.key for run in _runs("fig2", "paper")}
    for keys in (fig2, set(runs) - fig2):
        assert max(Counter(runs[key] for key in keys).values()) == 1
    assert CONFIG.label() == "wrn_28_4 p=.1 random, cifar10, lr .1, seed 0"


def _runs(name, preset="quick", **changes):
    return EXPERIMENTS[name].runs(settings(preset, **changes))


def test_registry_is_the_papers_list_in_its_order():
    figures, tables = [f"fig{n}" for n in range(1, 7)], [f"table{n}" for n in range(1, 5)]
    assert list(EXPERIMENTS) == figures + tables
    assert built_ids() == ["fig1", "fig2", "fig3", "table1"]


def test_select():
    assert [item.id for item in select([])] == built_ids()
    assert [item.id for item in select(["all"])] == built_ids()
    assert [item.id for item in select(["table1", "fig2"])] == ["fig2", "table1"]
    with pytest.raises(ValueError, match=r"unknown experiment fig9; expected fig1, .* or all"):
        select(["fig9"])
    with pytest.raises(ValueError, match=r"fig4: not built yet; built: fig1, fig2, fig3, table1"):
        select(["fig1", "fig4"])


def test_fig1_of_the_paper():
    runs = _runs("fig1", "paper")
    # 9 settings × random and zero, and all weights; 5 networks of which two have two rates.
    assert len(runs) == 2 * 7 * 19
    assert {run.dataset for run in runs} == {"cifar10", "cifar100"}
    assert {run.epochs for run in runs} == {10}
    rates = {(run.model, run.lr) for run in runs}
    assert rates == {
        ("densenet_bc_100_12", 0.1),
        ("wrn_28_4", 0.1),
        ("vgg19_bn", 0.1),
        *((model, lr) for model in ("vgg19", "alexnet") for lr in (0.1, 0.01)),
    }
    shares = {repr(run.learned) for run in runs}
    assert shares == {"0.07", "0.08", "0.09", "0.1", "0.4", "0.7", "1", "5", "10", "1.0"}
    densenet = next(run for run in runs if run.model.startswith("densenet"))
    assert (densenet.batch_size, densenet.weight_decay, densenet.momentum) == (64, 1e-4, 0.9)
    wrn = next(run for run in runs if run.model.startswith("wrn"))
    assert (wrn.batch_size, wrn.weight_decay, wrn.dropout) == (128, 5e-4, 0.0)


def test_fig2_of_the_paper():
    runs = _runs("fig2", "paper")
    assert len(runs) == 4 * 5 * 2
    assert {(run.model, run.dataset, run.epochs) for run in runs} == {
        ("densenet_bc_100_12", "cifar10", 1)
    }
    assert {run.slice_dim for run in runs} == {0, 1, 2, 3}


def test_fig3_is_made_of_fig1s_runs():
    assert [run.key for run in _runs("fig3")] == [run.key for run in _runs("fig1")]


def test_table1_of_the_paper():
    runs = _runs("table1", "paper")
    assert len(runs) == 2 * 2 * 6
    assert {run.trained for run in runs} == {"bn", "conv1", "block1", "block2", "block3", "fc"}
    counts = {
        run.trained: count_parameters(build_model(run, 10, (3, 32, 32))).learned
        for run in runs
        if run.model == "wrn_28_4" and run.dataset == "cifar10"
    }
    assert counts["bn"] == 7_200
    assert counts["block2"] == 1_121_312


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)])
def test_quick_networks_can_be_built(shape):
    """Every network with the largest count of filters that quick asks of it."""
    runs = [run for name in built_ids() for run in _runs(name) if run.learned in (5, 1.0)]
    for run in {(run.model, repr(run.learned), run.trained): run for run in runs}.values():
        assert count_parameters(build_model(run, 10, shape)).learned > 0


def test_overrides():
    runs = _runs("fig2", dataset="cifar100", epochs=3, subset=7, seeds=2)
    assert {(run.dataset, run.epochs, run.subset) for run in runs} == {("cifar100", 3, 7)}
    assert Counter(run.seed for run in runs) == {0: len(runs) // 2, 1: len(runs) // 2}
    assert settings("quick").subset is None


@pytest.mark.parametrize("name", list(PRESETS))
def test_no_two_runs_of_an_experiment_are_the_same(name):
    for experiment in built_ids():
        keys = [run.key for run in _runs(experiment, name, seeds=2)]
        assert len(keys) == len(set(keys))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seeds": 0}, "seeds is 0"),
        ({"epochs": 0}, "epochs is 0"),
        ({"subset": -1}, "subset is -1"),
    ],
)
def test_bad_overrides_are_named(changes, words):
    with pytest.raises(ValueError, match=words):
        settings("quick", **changes)
    with pytest.raises(ValueError, match="preset is 'long'; expected one of quick, short, paper"):
        settings("long")


def test_planning_does_not_load_torch():
    modules = "experiments, experiments.store, experiments.presets, experiments.runner"
    code = f"import sys, {', '.join('maskedconv.' + name for name in modules.split(', '))}"
    subprocess.run([sys.executable, "-c", f"{code}; assert 'torch' not in sys.modules"], check=True)
