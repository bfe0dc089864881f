"""thin(): smaller networks with the same outputs."""

import pytest
import torch
import torchvision
from test_summary import METHODS, network
from torch import nn
from torch.nn import functional as F

from maskedconv import convert_, merge_, models, thin


def mobilenet():
    blocks = [[1, 16, 1, 1], [6, 24, 2, 2]]  # expansion, channels, layers, stride
    plain = torchvision.models.MobileNetV2(10, inverted_residual_setting=blocks)
    plain.features[-1] = torchvision.ops.Conv2dNormActivation(24, 32, 1)
    plain.classifier[1] = nn.Linear(32, 10)
    return plain


# Networks by name, with the largest share of parameters that may stay.
NETWORKS = {
    "resnet_14": (lambda: models.create("resnet_14"), 0.1),
    "resnet18": (lambda: models.create("resnet18", width=0.25), 0.15),
    "wrn": (lambda: models.create("wrn_10_1"), 0.1),
    "densenet": (lambda: models.create("densenet_bc_16_12"), 0.2),
    "mobilenet": (mobilenet, 0.3),
}


def train_(model, steps=3):
    """Takes steps on noise: constants and statistics move away from their start."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(torch.randn(8, 3, 16, 16)), torch.randint(10, [8])).backward()
        optimizer.step()


@pytest.mark.parametrize("is_trained", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_equal_and_channels_are_removed(name, is_trained):
    create, share = NETWORKS[name]
    model = merge_(create())
    # A filter that was zero from the start would get no gradient behind a ReLU.
    train_(model, 3 if is_trained else 0)
    convert_(model, learned=0.25, frozen="zero")
    train_(model, 3 if is_trained else 0)
    thinned, report = thin(model.eval(), torch.randn(2, 3, 16, 16))
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected = model(x)
        found = thinned(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    before, after = report.parameters
    assert after == sum(p.numel() for p in thinned.parameters())
    assert after < before * share
    assert type(thinned) is type(model)
    assert report.kept.keys() <= {name for name, _ in model.named_modules()}
    assert bool(report.kept) == (is_trained and name != "mobilenet")


@pytest.mark.parametrize("name", METHODS)
def test_every_method(name):
    model, x = convert_(network(), method=METHODS[name], seed=0), torch.randn(2, 3, 6, 6)
    model(x)
    thinned, report = thin(model.eval(), x)
    with torch.no_grad():
        torch.testing.assert_close(thinned(x), model(x))
    is_zero = getattr(METHODS[name], "frozen", None) == "zero"
    assert (report.parameters[1] < report.parameters[0]) == is_zero


def test_one_constant_stays_before_padding_and_carries_the_weight_of_all():
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 2, 3, padding=1))
    with torch.no_grad():
        model[0].weight[2:] = 0
        model[0].bias[2:] = torch.tensor([0.5, -1, 2, 1])
        expected = model[2].weight[:, [2, 4, 5]] * torch.tensor([0.25, 1, 0.5]).reshape(3, 1, 1)
    thinned, report = thin(model, torch.randn(2, 3, 8, 8))
    assert report.channels == {"0": (6, 3), "2": (2, 2)}
    assert report.kept == {"2": 1}
    torch.testing.assert_close(thinned[2].weight[:, 2], expected.sum(1))
    assert torch.equal(thinned[2].bias, model[2].bias)


def test_channels_that_no_layer_reads_are_removed_back_to_the_first():
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 3, padding=1), nn.Conv2d(5, 2, 1))
    with torch.no_grad():
        model[2].weight[:, 1:] = 0
        model[1].weight[0, 2:] = 0
    x = torch.randn(2, 3, 8, 8)
    thinned, report = thin(model, x)
    assert report.channels == {"0": (6, 2), "1": (5, 1), "2": (2, 2)}
    torch.testing.assert_close(thinned(x), model(x))


def test_changes_in_place_are_followed():
    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1)
            nn.init.zeros_(self.one.weight[1:])
            nn.init.constant_(self.one.bias, -1)

        def forward(self, x):
            x = self.one(x)
            before = self.two(x)
            y = F.relu(x, inplace=True)
            x.add_(1)
            return torch.cat([before, y, x], 1)

    x = torch.randn(2, 3, 8, 8)
    model = Late()
    thinned, report = thin(model, x)
    assert report.kept == {"output": 3}
    torch.testing.assert_close(thinned(x), model(x))


@pytest.mark.parametrize("flatten", ["flatten", "view"])
def test_pixels_of_a_channel_are_flattened_and_removed(flatten):
    class Flattened(nn.Sequential):
        def forward(self, x):
            x = self[0](x)
            return self[1](x.flatten(1) if flatten == "flatten" else x.view(x.size(0), -1))

    model = Flattened(nn.Conv2d(3, 4, 3), nn.Linear(4 * 9, 2))
    nn.init.zeros_(model[0].weight[1:])
    x = torch.randn(2, 3, 5, 5)
    thinned, report = thin(model, x)
    assert (report.channels, report.kept) == ({"0": (4, 1), "1": (2, 2)}, {})
    assert thinned[1].in_features == 9
    torch.testing.assert_close(thinned(x), model(x))


def test_norms_that_include_the_activation():
    norm = pytest.importorskip("timm.layers").BatchNormAct2d(4)
    nn.init.ones_(norm.bias)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.Conv2d(4, 2, 3)).eval()
    nn.init.zeros_(model[0].weight[1:])
    thinned, report = thin(model, torch.randn(2, 3, 8, 8))
    assert report.channels == {"0": (4, 1), "1": (4, 1), "2": (2, 2)}
    assert type(thinned[1]) is type(norm)


def test_functions_that_keep_channels_are_named_with_their_module():
    class Block(nn.Module):
        def forward(self, x):
            return x.roll(1, 1)

    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(Block()), nn.Conv2d(4, 2, 1))
    nn.init.zeros_(model[0].weight[1:])
    assert thin(model, torch.randn(2, 3, 8, 8))[1].kept == {"1.0 (roll)": 3}


def test_a_constant_moves_to_the_bias_where_nothing_is_padded():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3, bias=False))
    with torch.no_grad():
        model[0].weight[1:] = 0
    x = torch.randn(2, 3, 8, 8)
    thinned, report = thin(model, x)
    assert report.channels == {"0": (4, 1), "2": (2, 2)}
    assert not report.kept
    torch.testing.assert_close(thinned(x), model(x))


class Branches(nn.Sequential):
    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else x


class Measures(nn.Sequential):
    def forward(self, x):
        return super().forward(x).reshape(len(x), -1)


class Asserts(nn.Sequential):
    def forward(self, x):
        if type(x) is not torch.Tensor:
            raise AssertionError
        return super().forward(x)


@pytest.mark.parametrize(
    ("kind", "why"),
    [(Branches, "control flow"), (Measures, "'len' is not supported"), (Asserts, "AssertionError")],
)
def test_what_cannot_be_traced_is_named(kind, why):
    with pytest.raises(ValueError, match=f"cannot be traced by torch.fx: .*{why}"):
        thin(kind(nn.Conv2d(1, 1, 1)), torch.ones(1, 1, 2, 2))
    with pytest.raises(ValueError, match="inputs are missing"):
        thin(nn.Sequential(nn.Conv2d(1, 1, 1)))


@pytest.mark.parametrize("zeros", [0, 4])
def test_a_weight_of_two_layers(zeros):
    first, last = nn.Conv2d(8, 8, 1, bias=False), nn.Conv2d(8, 8, 1, bias=False)
    last.weight = first.weight
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), first, nn.ReLU(), last, nn.Conv2d(8, 4, 1))
    nn.init.zeros_(model[0].weight[:zeros])
    nn.init.zeros_(first.weight[:zeros])
    x = torch.randn(2, 3, 8, 8)
    thinned, report = thin(model, x)
    # Layers of which nothing is removed still share it.
    assert report.parameters[0] == report.parameters[1] if not zeros else report.kept == {}
    assert report.channels["2"] == report.channels["4"] == (8, 8 - zeros)
    torch.testing.assert_close(thinned(x), model(x))


def test_arguments_that_the_forward_pass_computes():
    class Shuffled(nn.Sequential):
        def forward(self, x):
            x = torch.cat(self[0](x).chunk(2, 1)[::-1], 1)
            return self[1](x.mean((x.dim() - 1, 2), True))

    model, x = Shuffled(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)), torch.randn(2, 3, 8, 8)
    nn.init.zeros_(model[0].weight[4:])
    thinned, report = thin(model, x)
    assert sum(report.kept.values()) == 4
    torch.testing.assert_close(thinned(x), model(x))


@pytest.mark.parametrize("padding", [(1, 1), 1, "same", (0, 0), "valid"])
def test_padding_that_was_changed_later(padding):
    model, x = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)), torch.randn(1, 3, 9, 9)
    nn.init.zeros_(model[0].weight[:4])
    nn.init.ones_(model[0].bias)
    model[1].padding = padding
    thinned, report = thin(model, x)
    assert report.channels["0"] == (8, 4 if padding in ((0, 0), "valid") else 5)
    torch.testing.assert_close(thinned(x), model(x))
