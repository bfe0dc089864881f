"""Parameter counts of the networks equal those of the paper and its authors."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from maskedconv import MaskedConv2d, ParameterCount, count_parameters, models, select_learned_

DENSENET = "densenet_bc_100_12"
AUTHOR_RUNS = Path(__file__).parent / "author_runs.csv"


def count(name: str, num_classes: int = 10, part: str = "all", **options: Any) -> ParameterCount:
    """Parameter counts of a network that is never allocated."""
    with torch.device("meta"):
        model = models.create(name, num_classes, **options)
    # select_learned_ would make BatchNorm learned again if bn_learned=False.
    return count_parameters(model if part == "all" else select_learned_(model, part))


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


@pytest.mark.parametrize(("width", "bn"), [(2, 2_240), (4, 4_480), (8, 8_960), (16, 17_920)])
def test_counts_of_the_wide_resnets(width: int, bn: int) -> None:
    model = models.create("resnet_14", width=width)
    sizes = [getattr(model, f"block{n}")[0].conv2.out_channels for n in (1, 2, 3)]
    assert [model.conv1.out_channels, *sizes] == [16 * width, 16 * width, 32 * width, 64 * width]
    assert count("resnet_14", part="bn", width=width).learned == bn
    assert models.create("resnet_14").state_dict().keys() == model.state_dict().keys()


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
