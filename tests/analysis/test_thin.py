"""thin(): smaller networks with the same outputs."""

import pytest
import torch
import torchvision
from torch import nn

from maskedconv import convert_, models, thin

NETWORKS = {
    "resnet_14": lambda: models.create("resnet_14", learned=0.25, frozen="zero", seed=0),
    "resnet18": lambda: models.create("resnet18", learned=0.25, frozen="zero", seed=0, width=0.25),
    "wrn": lambda: models.create("wrn_10_1", learned=0.25, frozen="zero", seed=0),
    "conv4": lambda: models.create("conv4", learned=0.25, frozen="zero", seed=0),
    "torchvision": lambda: convert_(torchvision.models.resnet18(), learned=0.25, frozen="zero"),
}


@pytest.mark.parametrize("is_shifted", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_equal_and_channels_are_removed(name, is_shifted):
    torch.manual_seed(0)
    model = NETWORKS[name]().eval()
    if is_shifted:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.bias, -0.5, 0.5)
    x = torch.randn(2, 3, 32, 32)
    thinned, report = thin(model, x)
    with torch.no_grad():
        torch.testing.assert_close(thinned(x), model(x), rtol=1e-4, atol=1e-4)
    before, after = report.parameters
    assert after == sum(p.numel() for p in thinned.parameters())
    assert after < before * (1 if is_shifted else 0.35)
    assert type(thinned) is type(model)
    assert bool(report.kept) == (is_shifted and name != "conv4")


def test_a_constant_moves_to_the_bias_where_nothing_is_padded():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3, bias=False))
    with torch.no_grad():
        model[0].weight[1:] = 0
    x = torch.randn(2, 3, 8, 8)
    thinned, report = thin(model, x)
    assert report.channels == {"0": (4, 1), "2": (2, 2)}
    assert not report.kept
    torch.testing.assert_close(thinned(x), model(x))


def test_what_cannot_be_traced_is_named():
    class Branches(nn.Sequential):
        def forward(self, x):
            return super().forward(x) if x.sum() > 0 else x

    with pytest.raises(ValueError, match="cannot be traced"):
        thin(Branches(nn.Conv2d(1, 1, 1)), torch.ones(1, 1, 2, 2))
    with pytest.raises(ValueError, match="inputs are missing"):
        thin(nn.Sequential(nn.Conv2d(1, 1, 1)))
