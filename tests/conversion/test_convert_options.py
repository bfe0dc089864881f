"""Which layers are converted, and how much each of them learns."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from two_convolutions import Net

from maskedconv import (
    MaskedConv2d,
    conversion_report,
    convert_,
    erk,
    merge_,
    methods,
    models,
)


class Mixed(nn.Module):
    """[N, 3, 8, 8] to [N, 2], with layers of other dimensions."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.wide = nn.Conv2d(8, 16, 3)
        self.up = nn.ConvTranspose2d(16, 4, 2)
        self.along = nn.Conv1d(4, 4, 1)
        self.volume = nn.Conv3d(1, 1, 1)
        self.fc = nn.Linear(4 * 5 * 5, 2, bias=False)

    def forward(self, x):
        x = self.up(self.wide(self.first(x)).relu())
        x = self.volume(self.along(x.flatten(2)).unflatten(2, (5, 5))[:, None])
        return self.fc(x.flatten(1))


def learned_of(model):
    layers = model.named_modules()
    return {name: one.num_learned for name, one in layers if isinstance(one, MaskedConv2d)}


def test_a_filter_sees_modules_that_the_patterns_select():
    seen = []

    def large(module, name):
        seen.append((type(module), name))
        return module.out_channels > 8

    model = convert_(Mixed(), learned=0.5, filter_fn=large, rest="learn")
    assert seen == [(nn.Conv2d, "first"), (nn.Conv2d, "wide")]
    assert learned_of(model) == {"wide": 8}
    seen.clear()
    with pytest.raises(ValueError, match=r"model .Mixed. has no nn.Conv2d to convert"):
        convert_(Mixed(), learned=0.5, filter_fn=large, exclude="wide")
    assert seen == [(nn.Conv2d, "first")]
    with pytest.raises(TypeError, match=r"filter_fn is 'wide' \(str\); expected a function"):
        convert_(Mixed(), learned=0.5, filter_fn="wide")


def test_a_filter_decides_about_what_another_method_converts():
    model = convert_(
        Mixed(), method=methods.supermask(0.5), filter_fn=lambda module, name: name == "fc"
    )
    assert conversion_report(model).converted == ("fc",)


@pytest.mark.parametrize(
    "learned",
    [{"first": 3, "*": 0.5}, lambda module, name: 3 if name == "first" else 0.5],
)
def test_each_layer_learns_its_own_part(learned):
    model, x = Mixed(), torch.randn(2, 3, 8, 8)
    expected = model(x)
    convert_(model, learned=learned, rest="learn")
    assert learned_of(model) == {"first": 3, "wide": 8}
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize(
    ("learned", "error", "message"),
    [
        ({"first": 3}, ValueError, "learned has no pattern for wide; expected one for every"),
        ({"fc": 1, "*": 1}, ValueError, "learned has 'fc', which matches no layer that is conv"),
        ({"*": 2.0}, ValueError, r"learned\['\*'\]: "),
        ({"*": "all"}, TypeError, r"learned\['\*'\]: "),
        (lambda module, name: -1, ValueError, r"learned\(module, 'first'\): "),
        ({"wide": 17, "*": 1}, ValueError, "wide: "),
    ],
)
def test_a_wrong_part_is_refused_before_anything_changes(learned, error, message):
    model = Mixed()
    with pytest.raises(error, match=message):
        convert_(model, learned=learned)
    assert not conversion_report(model).converted


def test_one_module_under_two_names_learns_one_part():
    layer = nn.Conv2d(4, 4, 1)
    model = nn.Sequential(layer, layer)
    with pytest.raises(ValueError, match="1 for 0 and 2 for 1, which are the same module"):
        convert_(model, learned={"0": 1, "1": 2})
    convert_(model, learned={"*": 2})
    assert model[0] is model[1]


def test_a_part_of_one_layer_that_learns_nothing_is_named():
    with pytest.warns(UserWarning, match=r"learned=0.1 learns no filter .*: conv2 \(8\)"):
        convert_(Net(), learned={"conv1": 0.5, "*": 0.1})


SHAPES = st.tuples(*(st.integers(1, 40) for _ in range(2)), *(st.integers(1, 5) for _ in range(2)))


@given(st.lists(SHAPES, min_size=1, max_size=6), st.floats(0, 1))
def test_densities_follow_the_formula_and_sum_to_the_fraction(shapes, fraction):
    densities = erk(fraction).densities(shapes)
    sizes = [math.prod(shape) for shape in shapes]
    assert all(0 <= density <= 1 for density in densities)
    learned = sum(density * size for density, size in zip(densities, sizes, strict=True))
    assert learned == pytest.approx(fraction * sum(sizes), abs=1e-6)
    scales = [
        density * size / sum(shape)
        for density, size, shape in zip(densities, sizes, shapes, strict=True)
        if density < 1
    ]
    assert scales == pytest.approx(scales[:1] * len(scales))


def test_erk_gives_each_layer_the_nearest_count():
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 64, 3), nn.Conv2d(64, 128, 3))
    convert_(model, learned=erk(0.2))
    densities = erk(0.2).densities([(16, 3, 3, 3), (64, 16, 3, 3), (128, 64, 3, 3)])
    counts = [round(d * size) for d, size in zip(densities, (16, 64, 128), strict=True)]
    assert list(learned_of(model).values()) == counts
    assert counts[0] / 16 > counts[1] / 64 > counts[2] / 128 > 0
    for wrong in (1.5, -0.1, float("nan")):
        with pytest.raises(
            ValueError, match=rf"fraction is {wrong}; expected a fraction in \[0, 1"
        ):
            erk(wrong)


def test_a_second_conversion_says_that_the_model_is_converted():
    model = convert_(Net(), learned=0.5)
    layers = list(model.modules())
    with pytest.raises(
        ValueError, match=r"no nn.Conv2d to convert: conv1, conv2: it is converted already; "
    ):
        convert_(model, learned=0.25)
    with pytest.raises(
        ValueError, match="include has 'conv1', but convert_ leaves alone conv1: it"
    ):
        convert_(model, learned=0.25, include="conv1")
    assert all(a is b for a, b in zip(layers, model.modules(), strict=True))
    convert_(merge_(model), learned=0.25)
    assert learned_of(model) == {"conv1": 2, "conv2": 2}


def test_the_rest_of_the_layers_can_be_converted_in_a_second_step():
    model = convert_(Net(), learned=0.5, include="conv1", rest="learn")
    with pytest.warns(UserWarning, match="left 1 of 2 layers alone: conv1: it is converted alre"):
        convert_(model, learned=0.25)
    assert learned_of(model) == {"conv1": 4, "conv2": 2}


def test_layers_of_other_dimensions_are_named():
    model = convert_(Mixed(), learned=0.5, rest="learn")
    report = conversion_report(model)
    assert {name: one.kind for name, one in report.others.items()} == {
        "up": "ConvTranspose2d", "along": "Conv1d", "volume": "Conv3d", "fc": "Linear"
    }  # fmt: skip
    assert "not converted, learned: 1 Conv3d (volume), 2 values learned, 0 frozen" in str(report)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("supermask", r"expected an instance, such as methods.supermask\(...\)"),
        (methods.norm_only, r"expected an instance, such as methods.norm_only\(...\)"),
        ("lora", "expected an instance, such as one of slice, "),
    ],
    ids=["name", "class", "unknown"],
)
def test_what_is_no_method(method, expected):
    with pytest.raises(TypeError, match=expected):
        convert_(nn.Sequential(nn.Conv2d(3, 8, 3)), method=method)
    with pytest.raises(TypeError, match=expected):
        models.create("resnet_8", method=method)


@pytest.mark.parametrize("argument", ["exclude", "include", "learned", "which"])
def test_the_name_of_a_module_is_answered_by_the_pattern_for_its_layers(argument):
    model = nn.ModuleDict(
        {"layer1": nn.Sequential(nn.Conv2d(3, 4, 1)), "layer10": nn.Conv2d(3, 4, 1)}
    )
    value = {"layer1": "last", "*": "first"} if argument == "which" else {"layer1": 1, "*": 2}
    options = {argument: value if argument in ("learned", "which") else "layer1"}
    with pytest.raises(
        ValueError, match=r"'layer1', which .*; 'layer1\.\*' matches those in layer1$"
    ):
        convert_(model, **{"learned": 1, **options})
    with pytest.raises(ValueError, match=r"include has 'layer', which matches no nn\.Conv2d$"):
        convert_(model, learned=1, include="layer")
