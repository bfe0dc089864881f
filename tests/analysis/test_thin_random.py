"""thin() on random networks: other images of other sizes give the same outputs."""

from __future__ import annotations

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from maskedconv import thin

ACTIVATIONS = (nn.Identity, nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardsigmoid, nn.Tanh)


class Step(nn.Module):
    """A layer whose result is taken alone, or combined with its input."""

    def __init__(self, layer, combination):
        super().__init__()
        self.layer, self.combination = layer, combination

    def forward(self, x):
        y = self.layer(x)
        if self.combination == "sum":
            return x + y
        if self.combination == "cat":
            return torch.cat([x, y], dim=1)
        return x * y.mean((2, 3), keepdim=True) if self.combination == "gate" else y


def zero_some_(layer, generator):
    """Makes random filters and input channels of a layer zero, in groups and alone."""
    with torch.no_grad():
        for dimension in (0, 1):
            chosen = torch.rand(layer.weight.size(dimension), generator=generator) < 0.5
            if dimension == 0 and getattr(layer, "groups", 1) > 1:
                rows = layer.weight.size(0) // layer.groups
                chosen[: rows * (layer.groups // 2)] = True
            layer.weight.transpose(0, dimension)[chosen] = 0
        if layer.bias is not None:
            layer.bias.uniform_(-1, 1, generator=generator)


def prepare_(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            zero_some_(module, generator)
        elif isinstance(module, nn.BatchNorm2d):
            for one in (module.weight.data, module.running_var, module.bias.data):
                one.uniform_(0.2, 1, generator=generator)
            module.running_mean.uniform_(-0.5, 0.5, generator=generator)
    return model


@st.composite
def networks(draw):
    channels = 8
    steps = [nn.Conv2d(3, channels, 3, padding=draw(st.integers(0, 1)))]
    for _ in range(draw(st.integers(1, 4))):
        combination = draw(st.sampled_from(["alone", "alone", "sum", "cat", "gate"]))
        out = channels if combination in ("sum", "gate") else draw(st.sampled_from([4, 8]))
        groups = draw(st.sampled_from([1, 1, 1, 2, channels if out == channels else 4]))
        kernel = draw(st.sampled_from([1, 3]))
        mode = draw(st.sampled_from(["zeros", "zeros", "replicate"]))
        bias = draw(st.booleans())
        layer = [
            nn.Conv2d(channels, out, kernel, 1, kernel // 2, 1, groups, bias, mode),
            nn.BatchNorm2d(out) if draw(st.booleans()) else nn.Identity(),
            draw(st.sampled_from(ACTIVATIONS))(),
        ]
        if draw(st.booleans()):
            layer = [*layer[1:], layer[0]] if out == channels else layer
        steps.append(Step(nn.Sequential(*layer), combination))
        channels += out if combination == "cat" else out - channels
        steps += [nn.AvgPool2d(2, 1)] if draw(st.booleans()) else []
        steps += [nn.ReLU(inplace=True)] if draw(st.booleans()) else []
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 3)]
    return prepare_(nn.Sequential(*steps, *head), draw(st.integers(0, 2**31))).double().eval()


@settings(max_examples=20, suppress_health_check=list(HealthCheck))
@given(networks())
def test_other_images_of_other_sizes(model):
    thinned, report = thin(model, torch.randn(1, 3, 7, 7))
    x = torch.randn(2, 3, 9, 8).double()
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(thinned(x), expected, rtol=1e-9, atol=1e-10)
    before, after = report.parameters
    assert after < before or report.kept
    # Nothing more can be removed.
    assert thin(thinned, x)[1].parameters == (after, after)
