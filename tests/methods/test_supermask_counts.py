"""How many weights supermasks keep: the published counts."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from maskedconv import convert_, count_kept, count_parameters, methods, models
from maskedconv.slices import num_kept

WEIGHTS = {"conv2": 4_300_992, "conv4": 2_425_024, "conv6": 2_261_184, "conv8": 5_275_840}
KEPT = {
    0.5: (2_150_496, 1_212_512, 1_130_592, 2_637_920),
    0.1: (430_101, 242_505, 226_122, 527_588),
    0.3: (1_290_300, 727_510, 678_359, 1_582_757),
}


def made(name, k, **options):
    with torch.device("meta"):
        return models.create(name, method=methods.supermask(k), **options)


@pytest.mark.parametrize("k", KEPT)
@pytest.mark.parametrize("name", WEIGHTS)
def test_conv_networks(name, k):
    model = made(name, k)
    counted, kept = count_parameters(model), count_kept(model)
    assert counted.learned == counted.total == kept.total == WEIGHTS[name]
    assert kept.kept == dict(zip(WEIGHTS, KEPT[k], strict=True))[name]


@pytest.mark.parametrize(
    ("name", "total", "kept"),
    [
        ("resnet18", 11_164_352, 3_349_316),
        ("vgg_small", 4_656_512, None),
        ("fc_300_100", 784 * 300 + 300 * 100 + 100 * 10, None),
    ],
)
def test_other_networks(name, total, kept):
    options = {"in_channels": 1, "image_size": 28} if name == "fc_300_100" else {}
    counted = count_kept(made(name, 0.3, **options))
    assert counted.total == total
    if kept is not None:
        assert counted.kept == kept


@pytest.mark.parametrize(
    ("name", "total", "kept"),
    [
        ("resnet50", 25_502_912, 7_650_902),
        ("resnet101", 44_442_816, 13_332_914),
        ("wide_resnet50_2", 68_814_016, 20_644_231),
    ],
)
def test_imagenet_networks_through_convert(name, total, kept):
    with torch.device("meta"):
        model = getattr(torchvision.models, name)()
        # The paper's networks have no biases.
        model.fc = nn.Linear(model.fc.in_features, 1000, bias=False)
        convert_(model, method=methods.supermask(0.3))
    counted = count_kept(model)
    assert (counted.kept, counted.total) == (kept, total)


@pytest.mark.parametrize(
    ("k", "size", "kept"),
    [
        (0.9, 10, 9),  # int((1 - 0.9) * 10) is 0, so that 10 would be kept
        (0.7, 10, 7),
        (0.3, 10, 3),
        (0.25, 7, 2),
        (0.0, 7, 0),
        (1.0, 7, 7),
        (1, 7, 7),
    ],
)
def test_rounding_is_exact(k, size, kept):
    assert num_kept(k, size) == kept


@pytest.mark.parametrize(
    ("k", "error"), [(1.5, ValueError), (-0.1, ValueError), (float("nan"), ValueError),
                     ("half", TypeError), (True, TypeError)]
)  # fmt: skip
def test_a_fraction_is_checked(k, error):
    with pytest.raises(error, match=r"k is .*; expected a fraction"):
        methods.supermask(k)
