"""The networks: parameter counts of the paper and its authors, shapes, initialisation, seeds."""

from __future__ import annotations

import csv
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from maskedconv import MaskedConv2d, ParameterCount, count_parameters, models, select_learned_
from maskedconv.methods import LayerFactory
from maskedconv.models.initialisation import he_normal_

DENSENET = "densenet_bc_100_12"
AUTHOR_RUNS = Path(__file__).parent / "author_runs.csv"
SMALL = ("wrn_10_1", "densenet_bc_16_12", "resnet_8", "alexnet", "vgg19", "vgg19_bn", "conv4")


def count(name: str, num_classes: int = 10, part: str = "all", **options: Any) -> ParameterCount:
    """Parameter counts of a network that is never allocated."""
    with torch.device("meta"):
        model = models.create(name, num_classes, **options)
    # select_learned_ would make BatchNorm learned again if bn_learned=False.
    return count_parameters(model if part == "all" else select_learned_(model, part))


def parameters_by_name(model: nn.Module) -> dict[str, Tensor]:
    """All filters and biases, BatchNorm and fully connected parameters."""
    values = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.Linear):
            values[f"{name}.weight"] = module.weight.detach().clone()
            if module.bias is not None:
                values[f"{name}.bias"] = module.bias.detach().clone()
    return values


def author_runs() -> list[Any]:
    names = {"densenet": DENSENET, "wrn-28-4": "wrn_28_4", "wrn-28-10": "wrn_28_10"}
    cases = {}
    for row in csv.DictReader(AUTHOR_RUNS.read_text().splitlines()):
        share = row["learned"]
        learned = 1.0 if share == "all" else float(share) if float(share) < 1 else int(share)
        setting = (
            names.get(row["architecture"], row["architecture"]),
            {"cifar10": 10, "cifar100": 100}[row["dataset"]],
            row["trained"],
            learned,
            int(row["slice_dim"]),
            row["frozen"],
            row["bn_learned"] == "True",
        )
        expected = ParameterCount(int(row["learned_parameters"]), int(row["total_parameters"]))
        identifier = "-".join(str(value) for value in setting)
        cases[identifier] = pytest.param(setting, expected, id=identifier)
    return list(cases.values())


@pytest.mark.parametrize(("setting", "expected"), author_runs())
def test_counts_of_the_authors_runs(setting: tuple[Any, ...], expected: ParameterCount) -> None:
    name, num_classes, part, learned, slice_dim, frozen, bn_learned = setting
    counted = count(
        name, num_classes, part,
        learned=learned, slice_dim=slice_dim, frozen=frozen, bn_learned=bn_learned,
    )  # fmt: skip
    assert counted == expected


@pytest.mark.parametrize(
    ("name", "num_classes", "learned", "expected"),
    [
        (DENSENET, 10, 1.0, 769_162),
        (DENSENET, 100, 1.0, 800_032),
        (DENSENET, 10, 0.07, 58_453),
        (DENSENET, 10, 0.1, 90_196),
        (DENSENET, 10, 0.4, 305_701),
        (DENSENET, 10, 0.7, 532_894),
        (DENSENET, 10, 5, 177_973),
        (DENSENET, 10, 1, 57_529),
        ("wrn_28_4", 10, 1.0, 5_849_050),
        ("wrn_28_4", 100, 1.0, 5_872_180),
        ("wrn_28_10", 10, 1.0, 36_479_194),
        ("wrn_28_10", 10, 0.1, 3_669_829),
        ("wrn_28_10", 10, 0.4, 14_606_284),
        ("wrn_28_10", 10, 0.7, 25_542_739),
        ("vgg19_bn", 10, 1.0, 20_040_522),
        ("vgg19_bn", 10, 0.4, 7_994_301),
        ("vgg19_bn", 10, 0.7, 14_016_244),
        ("alexnet", 10, 1.0, 2_472_266),
        ("alexnet", 10, 0.4, 985_607),
        ("alexnet", 10, 0.7, 1_727_890),
    ],
)
def test_counts_by_share_of_filters(
    name: str, num_classes: int, learned: float, expected: int
) -> None:
    assert count(name, num_classes, learned=learned).learned == expected


@pytest.mark.parametrize(
    ("slice_dim", "learned", "expected"),
    [
        (1, 0.1, 96_610),
        (1, 0.4, 322_090),
        (1, 1, 35_380),
        (1, 5, 66_796),
        (2, 0.1, 602_842),
        (3, 0.1, 602_842),
    ],
)
def test_counts_by_slice_dimension(slice_dim: int, learned: float, expected: int) -> None:
    assert count(DENSENET, learned=learned, slice_dim=slice_dim).learned == expected


@pytest.mark.parametrize(
    ("name", "num_classes", "part", "expected"),
    [
        (DENSENET, 10, "all", 769_162),
        (DENSENET, 10, "bn", 23_988),
        (DENSENET, 10, "conv1", 24_636),
        (DENSENET, 10, "block1", 194_484),
        (DENSENET, 10, "block2", 258_996),
        (DENSENET, 10, "block3", 291_252),
        (DENSENET, 10, "fc", 27_418),
        (DENSENET, 100, "fc", 58_288),
        ("wrn_28_4", 10, "bn", 7_200),
        ("wrn_28_4", 10, "conv1", 7_632),
        ("wrn_28_4", 10, "block1", 275_488),
        ("wrn_28_4", 10, "block2", 1_121_312),
        ("wrn_28_4", 10, "block3", 4_463_648),
        ("wrn_28_4", 10, "fc", 9_770),
        ("wrn_28_4", 100, "fc", 32_900),
        ("wrn_28_10", 10, "bn", 17_952),
    ],
)
def test_counts_by_part(name: str, num_classes: int, part: str, expected: int) -> None:
    assert count(name, num_classes, part).learned == expected


@pytest.mark.parametrize(
    ("num_classes", "learned", "expected"),
    [
        (1000, 0.1, 829_027),
        (1000, 0.4, 2_588_682),
        (1000, 0.7, 4_339_633),
        (1000, 1.0, 6_103_480),
        (200, 0.1, 623_427),
        (200, 0.4, 2_383_082),
        (200, 0.7, 4_134_033),
        (200, 1.0, 5_897_880),
    ],
)
def test_counts_of_table_3(num_classes: int, learned: float, expected: int) -> None:
    assert count("wrn_28_4", num_classes, learned=learned, image_size=64).learned == expected


@pytest.mark.parametrize(
    ("part", "share", "expected"),
    [
        ("fc", 1.0, 137_090),
        ("all", 0.9, 450_980),
        ("all", 0.6, 1_528_505),
        ("all", 0.3, 2_664_470),
        ("all", 0.0, 3_845_810),
    ],
)
def test_counts_of_table_4(part: str, share: float, expected: int) -> None:
    """Five members; the paper counts the learned parameters of each, and no shared filter."""
    learned = 1.0 if part == "fc" else round(1 - share, 1)
    assert 5 * count(DENSENET, part=part, learned=learned).learned == expected


@pytest.mark.parametrize(
    ("depth", "bn", "total"),
    [
        (14, 1_120, 175_258),
        (32, 2_464, 466_906),
        (56, 4_256, 855_770),
        (110, 8_288, 1_730_714),
        (218, 16_352, 3_480_602),
        (434, 32_480, 6_980_378),
        (866, 64_736, 13_979_930),
    ],
)
def test_counts_of_the_cifar_resnets(depth: int, bn: int, total: int) -> None:
    assert count(f"resnet_{depth}", part="bn") == ParameterCount(bn, total)


def test_resnet_shortcuts_and_output_have_the_published_sizes() -> None:
    model = models.create("resnet_14")
    convs = [m for m in model.modules() if isinstance(m, MaskedConv2d)]
    assert sum(m.weight.numel() for m in convs if m.kernel_size == (1, 1)) == 2_560
    assert count_parameters(model.fc).total == 650


@pytest.mark.parametrize(
    ("name", "total"),
    [("conv2", 4_300_992), ("conv4", 2_425_024), ("conv6", 2_261_184), ("conv8", 5_275_840)],
)
def test_counts_of_the_conv_networks(name: str, total: int) -> None:
    assert count(name).total == total


@pytest.mark.parametrize("name", models.available())
@pytest.mark.parametrize("frozen", ["random", "zero"])
def test_total_does_not_depend_on_what_is_learned(name: str, frozen: str) -> None:
    assert count(name, learned=0.4, frozen=frozen).total == count(name).total


def small(name: str, **options: Any) -> nn.Module:
    if name in ("alexnet", "vgg19", "vgg19_bn", "conv4"):
        options.setdefault("width", 0.125)
    return models.create(name, **options)


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


@pytest.mark.parametrize(
    "name", ["wrn_28_4", "densenet_bc_40_12", "resnet_14", "vgg19_bn", "conv8"]
)
@pytest.mark.parametrize("frozen", ["random", "zero"])
def test_he_initialisation(name: str, frozen: str) -> None:
    model = models.create(name, learned=0.5, frozen=frozen, seed=0)
    checked = 0
    for conv in model.modules():
        if not isinstance(conv, MaskedConv2d):
            continue
        parts = [part for part in (conv.learned, conv.frozen) if part is not None]
        expected = math.sqrt(2 / (math.prod(conv.kernel_size) * conv.out_channels))
        for part in parts:
            if part.numel() >= 1000:
                assert part.std().item() == pytest.approx(expected, rel=0.1)
                assert part.mean().item() == pytest.approx(0, abs=0.15 * expected)
                checked += 1
        if conv.bias is not None:
            assert not conv.bias.any()
    assert checked > 5


def test_batch_norm_starts_as_published() -> None:
    for name in ("wrn_28_4", "densenet_bc_40_12", "vgg19_bn"):
        norms = [m for m in models.create(name).modules() if isinstance(m, nn.BatchNorm2d)]
        assert all(bool((m.weight == 1).all()) and not m.bias.any() for m in norms)
    norms = [m for m in models.create("resnet_56").modules() if isinstance(m, nn.BatchNorm2d)]
    gamma = torch.cat([m.weight for m in norms])
    assert 0 <= gamma.min() < 0.05
    assert 0.95 < gamma.max() <= 1
    assert gamma.mean().item() == pytest.approx(0.5, abs=0.03)
    assert not any(m.bias.any() for m in norms)


def test_fully_connected_layers_start_as_published() -> None:
    assert not models.create("wrn_10_1").fc.bias.any()
    fc = models.create("vgg19", num_classes=100).fc
    assert fc.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not fc.bias.any()


@pytest.mark.parametrize(
    ("name", "learned", "init", "default"),
    [
        ("wrn_10_4", 0.5, "authors", True),
        ("vgg19_bn", 0.5, "authors", True),
        ("wrn_10_4", 1, "authors", True),
        ("wrn_10_4", 1.0, "authors", False),
        ("wrn_10_4", 0.5, "he", False),
        ("densenet_bc_16_12", 0.5, "authors", False),
        ("alexnet", 0.5, "he", True),
    ],
)
def test_authors_initialisation(name: str, learned: float, init: str, default: bool) -> None:
    model = models.create(name, learned=learned, init=init, seed=0)
    for conv in (m for m in model.modules() if isinstance(m, MaskedConv2d)):
        if conv.weight.numel() < 2000:
            continue
        fan_in = math.prod(conv.weight_shape[1:])
        fan_out = math.prod(conv.kernel_size) * conv.out_channels
        expected = math.sqrt(1 / (3 * fan_in)) if default else math.sqrt(2 / fan_out)
        assert conv.weight.std().item() == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("name", SMALL)
def test_seed_decides_every_value_whatever_is_learned(name: str) -> None:
    whole = parameters_by_name(small(name, seed=3))
    for options in ({"learned": 0.3}, {"learned": 1}, {"learned": 0.5, "slice_dim": 1}):
        other = parameters_by_name(small(name, seed=3, **options))
        assert whole.keys() == other.keys()
        assert all(torch.equal(whole[key], other[key]) for key in whole)
    different = parameters_by_name(small(name, seed=4))
    drawn = [key for key, value in whole.items() if value.unique().numel() > 1]
    assert drawn
    assert not any(torch.equal(whole[key], different[key]) for key in drawn)


def test_zeroed_network_keeps_the_learned_values_of_the_seed() -> None:
    random = models.create("wrn_10_1", learned=0.5, seed=3)
    zero = models.create("wrn_10_1", learned=0.5, frozen="zero", seed=3)
    zero_values = dict(zero.named_parameters())
    for key, value in random.named_parameters():
        assert torch.equal(value, zero_values[key])


def test_seed_leaves_torchs_generator_alone() -> None:
    state = torch.get_rng_state()
    models.create("wrn_10_1", seed=3)
    assert torch.equal(torch.get_rng_state(), state)


def test_without_seed_the_values_come_from_torchs_generator() -> None:
    torch.manual_seed(5)
    first = parameters_by_name(models.create("wrn_10_1"))
    torch.manual_seed(5)
    again = parameters_by_name(models.create("wrn_10_1"))
    third = parameters_by_name(models.create("wrn_10_1"))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["conv1.weight"], third["conv1.weight"])


@pytest.mark.parametrize("slice_dim", [0, 1, 2, 3])
def test_masked_network_computes_what_plain_convolutions_do(slice_dim: int) -> None:
    from maskedconv.models.wrn import WideResNet

    model = models.create("wrn_10_1", learned=0.3, slice_dim=slice_dim, seed=0).double()
    plain = WideResNet(LayerFactory(), 10, blocks=1, widen_factor=1).double()
    plain.load_state_dict(parameters_by_name(model), strict=False)
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(model(x), plain(x))


def test_plain_networks_can_be_initialised_too() -> None:
    conv = nn.Conv2d(16, 64, 3)
    he_normal_(conv)
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.1)


def test_bn_learned_false_freezes_batch_norm_alone() -> None:
    model = models.create("wrn_10_1", bn_learned=False)
    frozen = {name for name, value in model.named_parameters() if not value.requires_grad}
    norms = {name for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert frozen == {f"{name}.{part}" for name in norms for part in ("weight", "bias")}


@pytest.mark.parametrize("name", models.available())
def test_available_networks_have_a_recipe(name: str) -> None:
    recipe = models.recipe(name)
    assert recipe.momentum == 0.9
    assert all(milestone < recipe.epochs for milestone in recipe.milestones)


def test_recipes_are_those_of_the_papers() -> None:
    assert models.recipe("wrn_28_4") == models.Recipe(200, 128, 0.1, 0.9, 5e-4, (60, 120, 160), 0.2)
    assert models.recipe("wrn_28_10").dropout == 0.3
    assert models.recipe(DENSENET) == models.Recipe(300, 64, 0.1, 0.9, 1e-4, (150, 225), 0.1)
    assert models.recipe("vgg19") == models.Recipe(164, 128, 0.1, 0.9, 1e-4, (81, 122), 0.1)
    assert models.recipe("alexnet") == models.recipe("vgg19")
    assert models.recipe("resnet_56") == models.Recipe(160, 128, 0.1, 0.9, 1e-4, (80, 120), 0.1)
    assert models.recipe("conv4").schedule == "cosine"


@pytest.mark.parametrize(
    "name", ["resnet", "wrn_28", "wrn_27_4", "wrn_4_1", "wrn_28_0", "densenet_bc_99_12", "resnet_2",
             "resnet_15", "conv3", "vgg16", "wrn_28_4 ", ""],
)  # fmt: skip
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="expected") as raised:
        models.create(name)
    assert repr(name) in str(raised.value)


def test_an_unknown_name_lists_the_networks() -> None:
    with pytest.raises(ValueError, match=r"wrn_D_W.*densenet_bc.*alexnet.*vgg19_bn.*conv2"):
        models.recipe("lenet")


@pytest.mark.parametrize(
    ("name", "arguments", "error", "message"),
    [
        ("wrn_10_1", {"width": 2}, ValueError, "width.*bn_learned, dropout, image_size"),
        ("alexnet", {"dropout": 0.1}, ValueError, "no option 'dropout'"),
        ("wrn_10_1", {"blocks": 2}, ValueError, "no option 'blocks'"),
        ("wrn_10_1", {"learned": 1.5}, ValueError, "learned is 1.5"),
        ("wrn_10_1", {"learned": "all"}, TypeError, "learned is 'all'"),
        ("wrn_10_1", {"learned": 17}, ValueError, "learned is 17"),
        ("wrn_10_1", {"slice_dim": 4}, ValueError, "slice_dim is 4"),
        ("wrn_10_1", {"frozen": "none"}, ValueError, "frozen is 'none'"),
        ("wrn_10_1", {"num_classes": 0}, ValueError, "num_classes is 0"),
        ("wrn_10_1", {"num_classes": 2.0}, TypeError, "num_classes is 2.0"),
        ("wrn_10_1", {"seed": -1}, ValueError, "seed is -1"),
        ("wrn_10_1", {"seed": 0.5}, TypeError, "seed is 0.5"),
        ("wrn_10_1", {"init": "xavier"}, ValueError, "init is 'xavier'; expected .* he, authors"),
        ("wrn_10_1", {"bn_learned": 1}, TypeError, "bn_learned is 1"),
        ("wrn_10_1", {"dropout": 1.0}, ValueError, "dropout is 1.0"),
        ("wrn_10_1", {"dropout": "0"}, TypeError, "dropout is '0'"),
        ("wrn_10_1", {"in_channels": 0}, ValueError, "in_channels is 0"),
        ("densenet_bc_16_12", {"image_size": 3}, ValueError, "image_size is 3; expected .* >= 4"),
        ("vgg19", {"width": 0}, ValueError, "width is 0"),
        ("vgg19", {"width": math.inf}, ValueError, "width is inf"),
        ("vgg19", {"width": True}, TypeError, "width is True"),
        (7, {}, TypeError, "name is 7"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused(
    name: Any, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        models.create(name, **arguments)


def test_names_and_options_are_known_without_torch() -> None:
    code = (
        "import sys, maskedconv.models as m; m.available(); assert 'torch' not in sys.modules\n"
        "try: m.create('lenet')\n"
        "except ValueError: assert 'torch' not in sys.modules\n"
        "else: sys.exit(1)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_compiled_network_computes_the_same() -> None:
    model = models.create("wrn_10_1", learned=0.5, seed=0)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(compiled(x), model(x))
