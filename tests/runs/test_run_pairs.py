"""Pairs of settings that have no effect or contradict each other are refused or reported."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from commands import call, time_nothing
from report_samples import config
from torch import nn

from maskedconv import count_parameters, data, models, reproduce, select_learned_, train
from maskedconv.checkpoint import load_plain
from maskedconv.optim.factory import make_optimizer, make_scheduler
from maskedconv.runs import Store
from maskedconv.runs.execute import build_model, execute

WRN = ("--model", "wrn_10_1", "--epochs", "1", "--subset", "2")
ALEXNET = ("--model", "alexnet", "--option", "width=0.125", "--epochs", "1", "--subset", "2")


@pytest.mark.parametrize("trained", ["conv1", "block1", "fc"])
def test_a_part_without_batch_norm_learns_that_part_alone(trained):
    run = config("wrn_10_1", trained=trained, bn_learned=False)
    model = build_model(run, 10, (1, 8, 8))
    learned = {name for name, p in model.named_parameters() if p.requires_grad}
    norms = {
        f"{name}.{kind}"
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for kind in ("weight", "bias")
    }
    assert learned
    assert not learned & norms
    assert all(name.startswith(trained) for name in learned)
    with_bn = count_parameters(build_model(replace(run, bn_learned=True), 10, (1, 8, 8)))
    sizes = dict(model.named_parameters())
    left = with_bn.learned - sum(sizes[name].numel() for name in norms)
    assert count_parameters(model).learned == left


def test_a_run_of_fc_with_fixed_batch_norm_is_what_its_row_says(tmp_path):
    run = config("wrn_10_1", trained="fc", bn_learned=False, epochs=1, keep=True, subset=2)
    Store(tmp_path).prepare()
    row = execute(run, data.load("digits", subset=2), folder=tmp_path)
    assert (row["status"], row["config"]["bn_learned"]) == ("done", False)
    fresh = build_model(run, 10, (1, 8, 8))
    moved = {
        name
        for name, value in load_plain(tmp_path / row["weights"]).items()
        if "running" not in name
        and "batches" not in name
        and not torch.equal(value, _plain(fresh)[name])
    }
    assert moved == {"fc.weight", "fc.bias"}
    assert row["learned_parameters"] == sum(p.numel() for p in fresh.fc.parameters())


def _plain(model):
    state = dict(model.state_dict())
    for name, module in model.named_modules():
        if hasattr(module, "to_conv2d"):
            state[f"{name}.weight"] = module.weight.detach()
    return state


def test_rows_from_when_such_runs_learned_batch_norm_are_not_reused():
    """Their old key, without BatchNorm's state, is not valid any more."""
    assert config(trained="fc", bn_learned=False).key != "9101262899e84813"
    for unchanged, key in (
        (config(trained="fc"), "65128c221f5cb1e3"),
        (config(bn_learned=False), "46cc21cd11bae971"),
    ):
        assert unchanged.key == key


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"trained": "bn", "bn_learned": False}, "nothing would be learned"),
        ({"frozen": "zero"}, "frozen is 'zero'; expected 0 and 'random' with learned 1.0"),
        ({"slice_dim": 2}, "slice_dim is 2 .* with learned 1.0"),
        ({"schedule": "cosine"}, r"milestones is \(150, 225\); expected none with .* cosine"),
        ({"milestones": (0,)}, "milestones is 0; expected at least 1"),
        ({"nesterov": True, "momentum": 0.0}, "expected a momentum above 0"),
        ({"nesterov": True, "optimizer": "adam"}, "nesterov is True; expected False"),
        ({"options": (("width", 1), ("width", 2))}, "option width is given twice"),
        ({"options": (("dropout", 0.3),)}, "option dropout"),
        ({"options": (("bn_learned", False),)}, "option bn_learned"),
    ],
)
def test_contradictions_are_no_configuration(change, words):
    with pytest.raises(ValueError, match=words):
        config(**change)


@pytest.mark.parametrize(
    ("model", "change", "words"),
    [
        ("alexnet", {"bn_learned": False}, "bn_learned is False, but alexnet has no BatchNorm"),
        ("alexnet", {"trained": "bn"}, "trained is 'bn', but alexnet has no BatchNorm"),
        ("alexnet", {"dropout": 0.3}, "alexnet has no option 'dropout'"),
        ("densenet_bc_16_12", {"init": "authors", "learned": 0.5}, "the same values with 'he'"),
        ("wrn_10_1", {"init": "authors"}, "the same values with 'he'"),
        ("resnet_8", {"init": "default"}, "expected 'he', the initialisation of resnet_8"),
    ],
)
def test_what_changes_nothing_for_the_network_is_refused(model, change, words):
    with pytest.raises(ValueError, match=words):
        build_model(config(model, **change), 10, (3, 32, 32))


SPLIT_ANEW = {"wrn_10_1", "vgg19", "vgg19_bn"}


@pytest.mark.parametrize(
    ("init", "others"),
    [("authors", SPLIT_ANEW), ("default", SPLIT_ANEW | {"densenet_bc_16_12"})],
    ids=["authors", "default"],
)
@pytest.mark.parametrize(
    "name", ["wrn_10_1", "densenet_bc_16_12", "alexnet", "vgg19", "vgg19_bn", "resnet_8", "conv2"]
)
def test_an_initialisation_is_refused_where_it_changes_nothing(name, init, others):
    small = (("width", 0.125),) if "width" in models.options(name) else ()
    run = config(name, learned=0.5, options=small, init=init)
    if name not in others:
        with pytest.raises(ValueError, match="'he'"):
            build_model(run, 10, (3, 32, 32))
        return
    states = [build_model(r, 10, (3, 32, 32)).state_dict() for r in (run, replace(run, init="he"))]
    assert not all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("name", ["densenet_bc_16_12", "alexnet", "resnet_8", "conv2"])
def test_authors_is_he_elsewhere(name):
    he, authors = (models.create(name, learned=0.5, seed=0, init=i) for i in ("he", "authors"))
    values = authors.state_dict()
    assert all(torch.equal(value, values[key]) for key, value in he.state_dict().items())


def test_without_its_part_nothing_is_left_to_select():
    with pytest.raises(ValueError, match="leaves nothing to learn"):
        select_learned_(models.create("wrn_10_1"), "bn", bn_learned=False)


def test_the_loop_refuses_them_too():
    parameter = [nn.Parameter(torch.ones(1))]
    sgd = make_optimizer("sgd", parameter, lr=1, momentum=0.9, weight_decay=0, nesterov=True)
    with pytest.raises(ValueError, match="nesterov is True; expected False with optimizer adam"):
        make_optimizer("adam", parameter, lr=1, momentum=0.9, weight_decay=0, nesterov=True)
    for name, milestones in (("cosine", (1,)), ("step", (0, 2))):
        with pytest.raises(ValueError, match="milestones is"):
            make_scheduler(name, sgd, 3, milestones, 0.1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*WRN, "--frozen", "zero"), "expected 0 and 'random' with learned 1.0"),
        ((*WRN, "--slice-dim", "2"), "expected 0 and 'random' with learned 1.0"),
        ((*WRN, "--trained", "bn", "--bn-fixed"), "nothing would be learned"),
        ((*ALEXNET, "--bn-fixed"), "alexnet has no BatchNorm"),
        ((*ALEXNET, "--dropout", "0.1"), "alexnet has no option 'dropout'"),
        ((*ALEXNET, "--init", "authors"), "the same values with 'he'"),
        ((*ALEXNET, "--option", "width=0.5"), "option width is given twice"),
        ((*WRN, "--checkpoint-minutes", "5"), "checkpoint_minutes is 5.0; expected --out FOLDER"),
        ((*WRN, "--download"), "only cifar10, cifar100 and mnist can be fetched, not digits"),
        (("--model", "wrn_10_1", "--optimizer", "adam", "--momentum", "0.5"), "the beta1 of adam"),
    ],
)
def test_train_says_what_would_be_ignored(arguments, words):
    result = call(train, *arguments)
    assert result.exit_code == 2, result.output
    assert words in result.stderr


def test_reproduce_says_what_would_be_ignored(tmp_path, monkeypatch):
    time_nothing(monkeypatch)
    result = call(reproduce, "fig6", "--verbose", "--out", tmp_path)
    assert result.exit_code == 2
    assert "verbose is True; expected --list or --dry-run" in result.stderr
    result = call(reproduce, "fig6", "--data-dir", f"cifar10={tmp_path}", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "none of these runs reads the images of cifar10" in result.stderr


def test_train_says_what_becomes_of_the_weights_and_the_learning_rate(tmp_path):
    result = call(train, *WRN)
    assert "final weights will not be stored; --out FOLDER --keep stores them" in result.stderr
    assert "lowers the learning rate after epoch 60, 120, 160; this run has only" in result.stderr
    result = call(train, *WRN, "--out", tmp_path)
    assert "final weights will not be stored; --keep stores them" in result.stderr
    result = call(train, *WRN, "--out", tmp_path, "--keep")
    assert "weights will not be stored" not in result.stderr
    (path,) = [line for line in result.stdout.splitlines() if line.startswith("weights: ")]
    assert (tmp_path / path.removeprefix("weights: ")).is_file()


@pytest.mark.parametrize("learned", ["1.0", "0.5"])
def test_a_diverged_part_is_a_failed_run(learned, tmp_path):
    """The loss may be finite although a value of the network is not."""
    arguments = ("--model", "wrn_10_1", "--trained", "conv1", "--lr", "1e20", "--learned", learned)
    arguments += ("--epochs", "2", "--subset", "30")
    result = call(train, *arguments, "--out", tmp_path)
    assert result.exit_code == 1, result.output
    assert "not finite in epoch" in result.stderr
    (row,) = Store(tmp_path).load().rows.values()
    assert (row["status"], row["error_type"]) == ("failed", "Diverged")
