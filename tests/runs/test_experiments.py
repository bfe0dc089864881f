"""The runs of each experiment are those of the paper, or of its shorter presets."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest
from report_samples import ITEMS, preset_of

from maskedconv import count_parameters, papers
from maskedconv.papers import PRESETS, select
from maskedconv.runs import Store
from maskedconv.runs.execute import build_model
from maskedconv.runs.planning import check_folder, write_plan
from maskedconv.runs.preset import Request


def _runs(name, preset="quick", **changes):
    return ITEMS[name].runs(preset_of(preset, **changes))


def test_registry_is_the_papers_list_in_its_order():
    figures, tables = [f"fig{n}" for n in range(1, 7)], [f"table{n}" for n in range(1, 5)]
    assert list(ITEMS) == figures + tables
    assert list(papers.ITEMS)[:10] == figures + tables


def test_select():
    assert [item.id for item in select([])] == list(papers.ITEMS)
    assert [item.id for item in select(["all", "fig2"])] == list(papers.ITEMS)
    assert [item.id for item in select(["table1", "fig2"])] == ["fig2", "table1"]
    with pytest.raises(ValueError, match=r"unknown experiment fig9; expected fig1, .* or all"):
        select(["fig9"])


def test_fig1_of_the_paper():
    runs = _runs("fig1", "paper")
    # 9 settings × random and zero, and all weights; 5 networks, two of them with two rates.
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


def test_fig4_of_the_paper():
    """Figure 1's runs of two networks, and the same with BatchNorm fixed."""
    runs = _runs("fig4", "paper")
    fig1 = {run.key: run for run in _runs("fig1", "paper")}
    shared = [run for run in runs if run.key in fig1]
    assert len(runs) == 4 * (19 + 18)
    assert len(shared) == 4 * 19
    assert {run.model for run in runs} == {"densenet_bc_100_12", "wrn_28_4"}
    fixed = [run for run in runs if not run.bn_learned]
    assert {replace(run, bn_learned=True).key for run in fixed} < {run.key for run in shared}
    assert len(fixed) == 4 * 18


def test_fig5_of_the_paper():
    runs = _runs("fig5", "paper")
    assert len(runs) == 2 * 2 * (6 * 2 + 1)
    schedules = {(run.model, run.epochs, run.milestones, run.gamma, run.lr) for run in runs}
    assert schedules == {
        ("wrn_28_10", 200, (60, 120, 160), 0.2, 0.1),
        ("densenet_bc_100_12", 300, (150, 225), 0.1, 0.1),
    }
    with_dropout = {(run.model, run.learned, run.dropout) for run in runs if run.dropout}
    assert with_dropout == {("wrn_28_10", 1.0, 0.3)}
    shares = {repr(run.learned) for run in runs}
    assert shares == {"0.07", "0.1", "0.4", "0.7", "1", "5", "1.0"}


def test_shorter_full_runs_have_the_schedule_of_full_ones_in_proportion():
    runs = _runs("fig5", "paper", epochs=20)
    schedules = {(run.model, run.epochs, run.milestones) for run in runs}
    assert schedules == {("wrn_28_10", 20, (6, 12, 16)), ("densenet_bc_100_12", 20, (10, 15))}
    assert {run.milestones for run in _runs("table3", "paper", epochs=9)} == {(3, 6)}
    assert {run.milestones for run in _runs("table3", "paper", epochs=1)} == {(1, 1)}


def test_table2_is_a_part_of_fig5():
    runs = _runs("table2", "paper")
    assert {run.key for run in runs} < {run.key for run in _runs("fig5", "paper")}
    assert {run.dataset for run in runs} == {"cifar10"}
    settings_ = Counter((repr(run.learned), run.frozen) for run in runs)
    assert settings_ == {
        ("0.1", "random"): 2, ("0.1", "zero"): 2, ("0.4", "random"): 2, ("0.4", "zero"): 2,
        ("1.0", "random"): 2,
    }  # fmt: skip


def test_table3_of_the_paper():
    runs = _runs("table3", "paper")
    assert [run.learned for run in runs] == [0.1, 0.4, 0.7, 1.0]
    assert [run.key for run in runs] == [run.key for run in _runs("fig6", "paper")]
    for run in runs:
        assert (run.model, run.dataset, run.epochs) == ("wrn_28_4", "tiny-imagenet", 45)
        assert (run.optimizer, run.lr, run.momentum) == ("yellowfin", 0.1, 0.0)
        assert (run.milestones, run.gamma, run.keep) == ((15, 30), 0.1, True)


def test_table4_of_the_paper():
    """For each seed one start, then five kinds of ensembles with each of two optimizers."""
    runs = _runs("table4", "paper", seeds=2)
    assert len(runs) == 2 * 11
    for seed in (0, 1):
        start, *ensembles = [run for run in runs if run.seed == seed]
        assert (start.keep, start.start, start.members, start.epochs) == (True, "", 0, 1)
        assert {(run.start, run.members, run.epochs) for run in ensembles} == {(start.key, 5, 1)}
        kinds = {(run.trained, run.learned, run.optimizer, run.lr) for run in ensembles}
        assert kinds == {
            (*kind, *optimizer)
            for kind in (("fc", 1.0), ("all", 0.1), ("all", 0.4), ("all", 0.7), ("all", 1.0))
            for optimizer in (("sgd", 0.1), ("adam", 0.001))
        }
        assert ensembles[0].all_epochs == 5


def test_paper_has_every_run_once():
    runs = {run.key for name in ITEMS for run in _runs(name, "paper")}
    assert len(runs) == 266 + 40 + 72 + 52 + 24 + 4 + 11


def test_data_sets_that_take_the_place_of_the_presets():
    short = preset_of("short", dataset="cifar100")
    assert (short.datasets, short.tiny_dataset) == (("cifar100",), "cifar100")
    assert (short.subset, short.tiny_subset) == (500, 500)
    named = preset_of("short", dataset="cifar100", folders=frozenset({"tiny-imagenet"}))
    assert (named.datasets, named.tiny_dataset) == (("cifar100",), "tiny-imagenet")
    assert (named.subset, named.tiny_subset) == (500, None)
    assert preset_of("paper", subset=7).tiny_subset == 7


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)])
def test_quick_networks_can_be_built(shape):
    """Every network with the largest number of filters in the quick preset."""
    runs = [run for name in ITEMS for run in _runs(name) if run.learned in (5, 1.0)]
    for run in {(run.model, repr(run.learned), run.trained): run for run in runs}.values():
        assert count_parameters(build_model(run, 10, shape)).learned > 0


def test_overrides():
    runs = _runs("fig2", dataset="cifar100", epochs=3, subset=7, seeds=2)
    assert {(run.dataset, run.epochs, run.subset) for run in runs} == {("cifar100", 3, 7)}
    assert Counter(run.seed for run in runs) == {0: len(runs) // 2, 1: len(runs) // 2}
    assert preset_of("quick").subset is None
    assert preset_of("short").subset == 500


@pytest.mark.parametrize("name", list(PRESETS))
def test_no_two_runs_of_an_experiment_are_the_same(name):
    for experiment in ITEMS:
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
        preset_of("quick", **changes)
    with pytest.raises(ValueError, match="preset is 'long'; expected one of quick, short, paper"):
        preset_of("long")


def test_planning_does_not_load_torch():
    modules = "papers, runs, runs.store, runs.preset, runs.sequential, optim, training"
    code = f"import sys, {', '.join('maskedconv.' + name for name in modules.split(', '))}"
    subprocess.run([sys.executable, "-c", f"{code}; assert 'torch' not in sys.modules"], check=True)


def test_a_folder_takes_papers_with_other_data_sets(tmp_path):
    """BatchNorm's paper has CIFAR-10 alone, and filters' paper has CIFAR-100, too."""
    store = Store(tmp_path)
    store.prepare()
    small = papers.make_plan([papers.ITEMS["bnonly"]], Request("paper"))
    both = papers.make_plan([papers.ITEMS["bnonly"], papers.ITEMS["fig2"]], Request("paper"))
    assert both.preset.datasets == ("cifar10", "cifar100")
    write_plan(store, small, small, {}, "command")
    check_folder(store, both.preset)
    write_plan(store, both, both, {}, "command")
    check_folder(store, small.preset)
    other = papers.make_plan([papers.ITEMS["fig2"]], Request("paper", dataset="digits"))
    with pytest.raises(ValueError, match="on cifar10, cifar100, not paper on digits"):
        check_folder(store, other.preset)


@pytest.mark.parametrize(("paper", "full"), [("bnonly", 90), ("supermask", 100)])
@pytest.mark.parametrize("epochs", [1, 10, 45])
def test_shorter_runs_have_a_shorter_warmup(paper, full, epochs):
    request = Request("paper", dataset="imagenet", epochs=epochs)
    plan = papers.make_plan([papers.ITEMS[paper]], request)
    assert {run.warmup for runs in plan.runs.values() for run in runs} == {round(5 * epochs / full)}
