"""The ImageNet ResNets: counts of Frankle, Schwab & Morcos 2020, and torchvision's networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from maskedconv import count_parameters, merge_, models

# Parameters of BatchNorm (Frankle, Schwab & Morcos 2020, table 1).
BATCH_NORM = {18: 9_600, 34: 17_024, 50: 53_120, 101: 105_344, 200: 176_000}
# All parameters, with 1000 classes, of torchvision's networks.
TOTALS = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160, 152: 60_192_808}


def make(layers, **options):
    with torch.device("meta"):
        return models.create(f"imagenet_resnet_{layers}", 1000, image_size=224, **options)


@pytest.mark.parametrize("layers", BATCH_NORM)
def test_parameters_of_batch_norm(layers):
    norms = [m for m in make(layers).modules() if isinstance(m, nn.BatchNorm2d)]
    assert sum(p.numel() for norm in norms for p in norm.parameters()) == BATCH_NORM[layers]


@pytest.mark.parametrize("layers", TOTALS)
def test_all_parameters(layers):
    assert count_parameters(make(layers)).total == TOTALS[layers]


@pytest.mark.parametrize("layers", [18, 50])
def test_computes_as_torchvision(layers):
    """Both have the same values; ours is fused, and torchvision's is not."""
    torchvision = pytest.importorskip("torchvision.models")
    ours = models.create(f"imagenet_resnet_{layers}", 10, learned=0.5, seed=0).double()
    theirs = getattr(torchvision, f"resnet{layers}")(num_classes=10).double()
    values = merge_(ours).state_dict().values()
    state = dict(zip(theirs.state_dict(), values, strict=True))
    theirs.load_state_dict(state)
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_other_depths_are_refused():
    with pytest.raises(ValueError, match="imagenet_resnet_18, 34, 50, 101, 152 or 200"):
        models.create("imagenet_resnet_20")


def test_initialisation():
    model = models.create("imagenet_resnet_18", seed=0)
    gamma = torch.cat([m.weight for m in model.modules() if isinstance(m, nn.BatchNorm2d)])
    assert 0 <= gamma.min() < 0.01
    assert 0.99 < gamma.max() <= 1
    weight = model.block4[1].conv2.weight
    assert abs(weight.std() * (9 * 512 / 2) ** 0.5 - 1) < 0.01
    fan_in = model.block4[0].conv1.weight  # 256 channels to 512
    assert abs(fan_in.std() * (9 * 256 / 2) ** 0.5 - 1) < 0.01


def test_the_recipe_warms_up():
    recipe = models.recipe("imagenet_resnet_50")
    assert (recipe.epochs, recipe.batch_size, recipe.lr, recipe.warmup) == (90, 1024, 0.4, 5)
