"""The settings of a run: their key, their form in JSON, their label and their errors."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest
import report_samples
from report_samples import runs_of

from maskedconv import papers
from maskedconv.report.results import is_reference, setting_label
from maskedconv.runs import RunConfig
from maskedconv.runs.formats import read_row, write_row

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

OTHER_METHOD = replace(CONFIG, learned=1.0, method="random_positions")


def test_key_is_stable():
    """Results on disk are found by their key, so it may not change between versions."""
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
        {"schedule": "cosine", "milestones": ()},
        {"dropout": 0.3},
        {"seed": 1},
        {"subset": 10},
        {"options": (("width", 0.5),)},
        {"optimizer": "adam"},
        {"optimizer": "yellowfin", "momentum": 0.0},
        {"keep": True},
        {"start": "0" * 16},
        {"start": "0" * 16, "members": 5},
        {"amp": "bf16"},
        {"compile": True},
        {"method": "norm_only", "learned": 1.0},
        {"method": "x", "learned": 1.0, "method_options": (("a", 0.5), ("b", True))},
        {"trained": "bn+shortcuts+fc"},
    ],
)
def test_every_setting_changes_the_key_and_survives_json(change):
    changed = replace(CONFIG, **change)
    assert changed.key != CONFIG.key
    assert RunConfig.from_json(json.loads(json.dumps(changed.to_json()))) == changed


def test_the_largest_seed_is_read_back():
    config = replace(CONFIG, seed=2**63)
    row = read_row(write_row(report_samples.row(config, 50.0)), "line 1")
    assert RunConfig.from_json(row["config"]) == config


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
    ours, same = (replace(OTHER_METHOD, method_options=options).key for options in (one, other))
    assert ours == same
    assert replace(CONFIG, trained="fc+conv1").key == replace(CONFIG, trained="conv1+fc").key


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"learned": 1.5}, ValueError, "learned is 1.5"),
        ({"learned": True}, TypeError, "learned"),
        ({"slice_dim": 4}, ValueError, "slice_dim is 4"),
        ({"frozen": "ones"}, ValueError, "frozen is 'ones'; expected one of random, zero"),
        ({"trained": "block9"}, ValueError, "trained is 'block9'"),
        ({"trained": "all+fc"}, ValueError, "trained is 'all'; expected one of bn, conv1"),
        ({"trained": "fc+conv1+fc"}, ValueError, "trained is 'fc.*expected each part once"),
        ({"trained": "bn+fc", "bn_learned": False}, ValueError, "bn_learned is False$"),
        ({"trained": "bn", "bn_learned": False}, ValueError, "nothing would be learned"),
        ({"method": "norm_only"}, ValueError, "learned is 0.1 and method is 'norm_only'; exp"),
        ({"method": "norm_only", "learned": 1}, ValueError, "learned is 1 and method is"),
        (
            {"method": "norm_only", "learned": 1.0, "slice_dim": 1},
            ValueError,
            "slice_dim is 1 and frozen is 'random'; expected 0",
        ),
        ({"method_options": (("a", 1),)}, ValueError, "method option a is given with method 'sl"),
        (
            {"method": "x", "learned": 1.0, "method_options": (("a", 1), ("a", 2))},
            ValueError,
            "method option a is given twice",
        ),
        ({"init": "x"}, ValueError, "init is 'x'"),
        ({"schedule": "x"}, ValueError, "schedule is 'x'"),
        ({"epochs": 0}, ValueError, "epochs is 0; expected at least 1"),
        ({"epochs": 1.0}, TypeError, "epochs is 1.0"),
        ({"subset": 0}, ValueError, "subset is 0"),
        ({"lr": -0.1}, ValueError, "lr is -0.1"),
        ({"lr": float("nan")}, ValueError, "lr is nan"),
        ({"lr": "fast"}, TypeError, "lr is 'fast'"),
        ({"seed": -1}, ValueError, "seed is -1"),
        ({"seed": 2**63 + 1}, ValueError, f"seed is {2**63 + 1}; expected at most {2**63}"),
        ({"batch_size": 2**63 + 1}, ValueError, "batch_size is .*; expected at most"),
        ({"milestones": (2**63 + 1,)}, ValueError, "milestones is .*; expected at most"),
        ({"optimizer": "lion"}, ValueError, "optimizer is 'lion'; expected one of sgd, adam"),
        ({"optimizer": "adam", "momentum": 0.5}, ValueError, "momentum is 0.5; expected 0.9"),
        ({"optimizer": "adam", "nesterov": True}, ValueError, "nesterov is True"),
        (
            {"optimizer": "yellowfin", "momentum": 1.0},
            ValueError,
            "momentum is 1.0; expected below",
        ),
        ({"start": "fig1"}, ValueError, "start is 'fig1'; expected the key of a run"),
        ({"members": 5}, ValueError, "members is 5; expected start"),
        ({"members": 1, "start": "0" * 16}, ValueError, "members is 1; expected 0"),
        ({"members": -1}, ValueError, "members is -1"),
        ({"members": 2, "start": "0" * 16, "keep": True}, ValueError, "keep is True"),
    ],
)
def test_bad_settings_are_named(change, error, words):
    with pytest.raises(error, match=words):
        replace(CONFIG, **change)


def test_json_of_another_version_is_refused():
    values = CONFIG.to_json()
    with pytest.raises(ValueError, match="unknown fields sharpness"):
        RunConfig.from_json({**values, "sharpness": "high"})
    del values["lr"]
    with pytest.raises(ValueError, match="lacks the fields lr"):
        RunConfig.from_json(values)


def test_labels_tell_the_settings_of_a_figure_apart():
    runs = {
        run.key: run.label() for name in papers.ITEMS for run in runs_of(name, "paper", seeds=2)
    }
    assert max(Counter(runs.values()).values()) == 1
    assert CONFIG.label() == "wrn_28_4 p=.1 random, cifar10, 10 epochs, lr .1, seed 0"
    other = replace(OTHER_METHOD, method_options=(("count", 5),), trained="fc")
    assert other.label().startswith("wrn_28_4 random_positions count=5 only fc, cifar10")


def test_another_method_does_not_learn_all_slices():
    everything = replace(CONFIG, learned=1.0)
    for config, learns_all in ((everything, True), (OTHER_METHOD, False)):
        assert config.learns_all_slices == is_reference(config) == learns_all
    options = replace(OTHER_METHOD, method_options=(("count", 5),))
    assert setting_label(options) == "random_positions count=5"
    assert setting_label(replace(options, trained="bn+fc")) == "random_positions count=5, BN + fc"
    assert setting_label(replace(CONFIG, trained="bn+shortcuts+fc")) == "BN + shortcuts + fc"


def test_json_without_defaults_is_the_same_run():
    for run in runs_of("fig4") + runs_of("bnonly"):
        brief = run.to_json(defaults=False)
        assert RunConfig.from_json(brief) == run
        assert brief.items() <= run.to_json().items()
        assert "compile" not in brief
