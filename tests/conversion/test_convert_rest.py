"""Layers that convert_ does not convert: norms, the head, and the rest."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from maskedconv import conversion_report, convert_, count_parameters, merge_, methods


class Classifier(nn.Module):
    """[N, 3, 6, 6] to [N, 2]."""

    def __init__(self, bias=True):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, bias=bias)
        self.bn = nn.BatchNorm2d(8)
        self.conv = nn.Conv2d(8, 8, 3, bias=bias)
        self.group = nn.GroupNorm(2, 8)
        self.hidden = nn.Linear(32, 8, bias=bias)
        self.head = nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 2))

    def forward(self, x):
        x = self.group(self.conv(self.bn(self.stem(x)).relu()))
        return self.head(self.hidden(x.flatten(1)))


def learned(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


CONVS = {"stem.learned", "stem.bias_learned", "conv.learned", "conv.bias_learned"}
NORMS = {f"{name}.{p}" for name in ("bn", "group") for p in ("weight", "bias")}
HIDDEN = {"hidden.weight", "hidden.bias"}
HEAD = {f"head.{index}.{p}" for index in (0, 1) for p in ("weight", "bias")}
LINEAR = {name for name in HEAD if name.startswith("head.1.")}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"rest": "learn"}, CONVS | NORMS | HIDDEN | HEAD),
        ({"rest": "freeze"}, CONVS | NORMS | HEAD - LINEAR),
        ({"rest": "freeze", "head": "head"}, CONVS | NORMS | HEAD),
        ({"rest": "freeze", "norm": "fixed"}, CONVS),
        ({"rest": "freeze", "norm": "fixed", "head": "head"}, CONVS | HEAD),
        ({"rest": "learn", "norm": "frozen"}, CONVS | HIDDEN | LINEAR),
        ({"rest": "freeze", "norm": "frozen statistics", "head": ["h*"]},
         CONVS | NORMS | HIDDEN | HEAD),
    ],
)  # fmt: skip
def test_what_is_learned(options, expected):
    model = convert_(Classifier(), learned=0.5, **options)
    assert learned(model) == expected
    report = conversion_report(model)
    outside = (*report.others.values(), *report.norms.values())
    assert report.learned + sum(one.learned for one in outside) == count_parameters(model).learned


def test_the_head_is_learned_whole_even_if_it_was_frozen():
    model = Classifier().requires_grad_(False)
    with pytest.warns(UserWarning, match="no converted layer learns anything"):
        convert_(model, learned=0.5, head="head", rest="freeze")
    assert learned(model) == HEAD


def test_a_convolution_of_the_head_is_not_converted():
    model = convert_(Classifier(), learned=0.5, head="conv", rest="freeze")
    assert type(model.conv) is nn.Conv2d
    assert {"conv.weight", "conv.bias"} < learned(model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "nothing"}, "head has 'nothing', which matches no module with parameters"),
        ({"rest": "frozen"}, "rest is 'frozen'; expected one of learn, freeze"),
        ({"norm": "eval"}, "norm is 'eval'; expected one of learned, fixed, frozen statistics"),
    ],
)
def test_wrong_options_change_nothing(options, message):
    model = Classifier()
    before = learned(model)
    with pytest.raises(ValueError, match=message):
        convert_(model, learned=0.5, **options)
    assert learned(model) == before
    assert not conversion_report(model).converted
    with pytest.raises(TypeError, match=r"head has 3 \(int\); expected a pattern"):
        convert_(model, learned=0.5, head=[3])


@pytest.mark.parametrize(
    "method",
    [methods.slice(0.5), methods.norm_only(), methods.random_positions(500),
     methods.supermask(0.5), methods.biprop(0.5)],
)  # fmt: skip
def test_every_method_freezes_the_rest(method):
    model = convert_(
        Classifier(bias=False), method=method, head="head", norm="frozen", rest="freeze"
    )
    report = conversion_report(model)
    outside = {**report.others, **report.norms}
    assert {name for name, one in outside.items() if one.learned} == {"head.0", "head.1"}
    model.train()
    statistics = model.bn.running_mean.clone()
    model(torch.randn(4, 3, 6, 6)).sum().backward()
    assert torch.equal(model.bn.running_mean, statistics)


def test_a_rest_that_learns_more_is_said_unless_it_was_asked_for(recwarn):
    with pytest.warns(UserWarning, match=r"did not convert learn 866 values \(Conv2d, Linear\), "):
        convert_(Classifier(), learned=1, include="stem")
    recwarn.clear()
    for rest in ("learn", "freeze"):
        convert_(Classifier(), learned=1, include="stem", rest=rest)
    convert_(Classifier(), learned=0.9)
    assert not recwarn.list


def fixed():
    torch.manual_seed(0)
    model = Classifier()
    model(torch.randn(8, 3, 6, 6) + 1)
    return convert_(model, learned=0.5, norm="frozen statistics", rest="learn")


def test_frozen_statistics_are_those_of_evaluation():
    model, x = fixed(), torch.randn(4, 3, 6, 6)
    state = copy.deepcopy(model.state_dict())
    expected = model.eval()(x)
    assert torch.equal(model.train()(x), expected)
    assert model.training
    assert not model.bn.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    model(x).square().sum().backward()
    assert model.bn.weight.grad.abs().sum() > 0


def test_frozen_statistics_survive_copies_and_pickles():
    model, x = fixed().train(), torch.randn(4, 3, 6, 6)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for copied in (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(file, weights_only=False),
    ):
        assert isinstance(copied.bn, nn.BatchNorm2d)
        assert torch.equal(copied.train()(x), model(x))
        assert not copied.bn.training


def test_merge_makes_norms_follow_the_batch_again():
    model, x = merge_(fixed()).train(), torch.randn(4, 3, 6, 6)
    assert type(model.bn) is nn.BatchNorm2d
    before = model.bn.running_mean.clone()
    model(x)
    assert not torch.equal(model.bn.running_mean, before)


def test_norms_without_statistics_are_refused():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False))
    with pytest.raises(ValueError, match="norm is 'frozen', but 1 has no running statistics"):
        convert_(model, learned=0.5, norm="frozen")
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.LazyBatchNorm2d())
    with pytest.raises(ValueError, match="'frozen statistics', but 1 has no running statistics"):
        convert_(model, learned=0.5, norm="frozen statistics")
    model(torch.randn(2, 3, 4, 4))
    convert_(model, learned=0.5, norm="frozen statistics", rest="learn")
    assert not model.train()[1].training
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4))
    with pytest.raises(ValueError, match=r"but model \(Sequential\) has no norm with running stat"):
        convert_(model, learned=0.5, norm="frozen statistics")


def test_an_optimizer_of_frozen_parameters_is_named():
    model = Classifier()
    optimizer = torch.optim.AdamW(model.hidden.parameters())
    with pytest.warns(UserWarning, match=r"convert_ freezes parameters .*holds \(AdamW\)") as seen:
        convert_(model, learned=0.5, rest="freeze")
    assert len(seen) == 1
    assert seen[0].filename == __file__
    del optimizer


def test_a_parameter_shared_with_the_head_stays_learned():
    model = Classifier()
    model.hidden.bias = model.head[0].bias
    convert_(model, learned=0.5, head="head", rest="freeze")
    assert model.hidden.bias.requires_grad
    assert not model.hidden.weight.requires_grad


@pytest.mark.parametrize("norm", ["fixed", "frozen"])
@pytest.mark.parametrize("layers", [["hidden"], ["bn", "hidden"]])
def test_a_head_of_modules_that_stand_elsewhere_too(layers, norm):
    """It is learned in full under whichever name its modules come first."""
    model = Classifier()
    model.tail = nn.Sequential(nn.Dropout(), *(getattr(model, name) for name in layers))
    convert_(model, learned=0.5, head="tail", norm=norm, rest="freeze")
    expected = {f"{name}.{p}" for name in layers for p in ("weight", "bias")}
    assert learned(model) == CONVS | expected
    assert model.train().bn.training is ("bn" in layers or norm == "fixed")


def test_a_convolution_of_the_head_that_stands_elsewhere_too():
    model = Classifier()
    model.tail = nn.Sequential(model.conv)
    with pytest.warns(UserWarning, match=r"conv: it is the same module as tail\.0, which is not"):
        convert_(model, learned=0.5, head="tail", rest="freeze")
    assert type(model.conv) is nn.Conv2d
    assert {"conv.weight", "conv.bias"} < learned(model)


def test_a_method_without_parameters_says_that_the_rest_learns():
    """Nobody who asks for the norms alone expects a classifier that learns."""
    with pytest.warns(UserWarning, match=r"did not convert learn \d+ values \(Linear\)"):
        convert_(Classifier(bias=False), method=methods.norm_only())
