"""Computations of the networks: outputs, gradients, strides, pools and dropout."""

from __future__ import annotations

import pytest
import torch
from small_networks import SMALL, parameters_by_name, small
from torch import nn

from maskedconv import MaskedConv2d, models
from maskedconv.methods import LayerFactory


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(("in_channels", "image_size"), [(3, 32), (1, 8), (3, 64), (2, 5)])
def test_logits_have_a_row_per_image(name: str, in_channels: int, image_size: int) -> None:
    model = small(name, num_classes=7, in_channels=in_channels, image_size=image_size, learned=0.4)
    logits = model(torch.randn(2, in_channels, image_size, image_size))
    assert logits.shape == (2, 7)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("frozen", ["random", "zero"])
@pytest.mark.parametrize("slice_dim", [0, 1])
def test_training_reaches_every_learned_parameter_and_no_frozen_one(
    name: str, frozen: str, slice_dim: int
) -> None:
    model = small(
        name, learned=0.5, frozen=frozen, slice_dim=slice_dim, in_channels=1, image_size=8, seed=0
    )
    buffers = {key: value.clone() for key, value in model.named_buffers() if key.endswith("frozen")}
    model(torch.randn(8, 1, 8, 8)).square().sum().backward()
    without = [key for key, value in model.named_parameters() if value.grad is None]
    assert without == []
    torch.optim.SGD(model.parameters(), 0.1, weight_decay=0.1).step()
    for key, value in model.named_buffers():
        if key in buffers:
            assert torch.equal(value, buffers[key])
    assert bool(buffers) == (frozen == "random")


def strides(model: nn.Module) -> list[int]:
    convs = [m for m in model.modules() if isinstance(m, MaskedConv2d) and m.kernel_size[0] == 3]
    return [m.stride[0] for m in convs if m.stride[0] != 1]


def test_wrn_halves_the_image_a_third_time_at_64() -> None:
    assert strides(models.create("wrn_10_1", image_size=32)) == [2, 2]
    assert strides(models.create("wrn_10_1", image_size=64)) == [2, 2, 2]


def test_pools_of_a_single_pixel_are_left_out() -> None:
    def pools(image_size: int) -> int:
        model = small("vgg19", image_size=image_size)
        return sum(isinstance(m, nn.MaxPool2d) for m in model.modules())

    assert (pools(32), pools(8)) == (5, 3)


def test_wrn_shortcut_reads_the_tensor_behind_bn_and_relu() -> None:
    block = models.create("wrn_10_2", seed=0).block1[0].eval()
    x = torch.randn(1, 16, 4, 4)
    nn.init.zeros_(block.conv2.weight)
    expected = nn.functional.conv2d(block.bn1(x).relu(), block.shortcut.weight)
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_wrn_dropout_acts_in_training_only(dropout: float) -> None:
    model = models.create("wrn_10_1", dropout=dropout, seed=0)
    x = torch.randn(4, 3, 8, 8)
    assert torch.equal(model(x), model(x)) == (dropout == 0)
    model.eval()
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize("slice_dim", [0, 1, 2, 3])
def test_masked_network_computes_what_plain_convolutions_do(slice_dim: int) -> None:
    from maskedconv.models.data_shape import DataShape
    from maskedconv.models.wrn import WideResNet

    model = models.create("wrn_10_1", learned=0.3, slice_dim=slice_dim, seed=0).double()
    plain = WideResNet(LayerFactory(), DataShape(), blocks=1, widen_factor=1).double()
    plain.load_state_dict(parameters_by_name(model), strict=False)
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(model(x), plain(x))


def test_bn_learned_false_freezes_batch_norm_alone() -> None:
    model = models.create("wrn_10_1", bn_learned=False)
    frozen = {name for name, value in model.named_parameters() if not value.requires_grad}
    norms = {name for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert frozen == {f"{name}.{part}" for name in norms for part in ("weight", "bias")}


def test_compiled_network_computes_the_same() -> None:
    model = models.create("wrn_10_1", learned=0.5, seed=0)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(compiled(x), model(x))
