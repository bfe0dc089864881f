"""Names, options and recipes of the networks, and the errors for unknown ones."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from maskedconv import models


@pytest.mark.parametrize("name", models.available())
def test_available_networks_have_a_recipe(name: str) -> None:
    recipe = models.recipe(name)
    assert recipe.momentum == 0.9
    assert all(milestone < recipe.epochs for milestone in recipe.milestones)


def test_recipes_are_those_of_the_papers() -> None:
    assert models.recipe("wrn_28_4") == models.Recipe(200, 128, 0.1, 0.9, 5e-4, (60, 120, 160), 0.2)
    assert models.recipe("wrn_28_10").dropout == 0.3
    assert models.recipe("densenet_bc_100_12") == models.Recipe(
        300, 64, 0.1, 0.9, 1e-4, (150, 225), 0.1
    )
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
        ("densenet_bc_16_12", {"image_size": 3}, ValueError, "image_size is 3; .*least 4"),
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


def test_a_seed_may_be_an_integer_of_numpy() -> None:
    ours, theirs = (models.create("resnet_8", seed=seed) for seed in (3, np.int64(3)))
    assert torch.equal(ours.fc.weight, theirs.fc.weight)


def test_names_and_options_are_known_without_torch() -> None:
    code = (
        "import sys, maskedconv.models as m; m.available(); assert 'torch' not in sys.modules\n"
        "try: m.create('lenet')\n"
        "except ValueError: assert 'torch' not in sys.modules\n"
        "else: sys.exit(1)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
