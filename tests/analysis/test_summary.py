"""summary(): the costs of a step, measured."""

from __future__ import annotations

import collections
import copy
import dataclasses
import gc
import io
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from maskedconv import convert_, count_parameters, fuse_, methods, models, save, summary

METHODS = {
    "slice": methods.slice(0.25),
    "slice_at_random": methods.slice(0.25, which="random"),
    "zero": methods.slice(0.25, frozen="zero"),
    "zero_but_last": methods.slice(0.25, frozen="zero", which="last"),
    "norm_only": methods.norm_only(),
    "random_positions": methods.random_positions(500),
    "supermask": methods.supermask(),
    "biprop": methods.biprop(),
}


def network():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, bias=False),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(64, 5, bias=False),
    )


@pytest.mark.parametrize("name", METHODS)
def test_every_method(name, tmp_path):
    model, x = convert_(network(), method=METHODS[name], seed=0), torch.randn(2, 3, 6, 6)
    found = summary(model, x)
    count = count_parameters(model)
    learned = 4 * count.learned
    assert (found.total.learned, found.total.total) == (count.learned, count.total)
    assert found.total.gradients == found.total.all_reduce == learned
    # AdamW keeps two values for each parameter and a step for each tensor.
    steps = 4 * sum(p.requires_grad for p in model.parameters())
    assert found.total.optimizer == 2 * learned + steps
    save(model, tmp_path / "file")
    assert found.total.checkpoint == (tmp_path / "file").stat().st_size
    stored = sum(layer.costs.checkpoint for layer in found.layers)
    assert 0 <= found.total.checkpoint - stored <= 8192
    assert found.full.learned == found.full.total == found.total.total
    assert 0 < found.total.operations <= found.full.operations
    assert sum(layer.costs.operations for layer in found.layers) == found.total.operations
    assert found.full.packed == 0


def test_operations_of_a_plain_network_are_known():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.Flatten(), nn.Linear(128, 5))
    found = summary(model, torch.randn(2, 3, 6, 6))
    convolution, linear = 2 * 2 * 8 * 16 * 27, 2 * 2 * 128 * 5
    # The input of the network has no gradient; that of the linear layer has one.
    assert found.total.operations == found.full.operations == 2 * convolution + 3 * linear
    operations = {layer.name: layer.costs.operations for layer in found.layers}
    assert operations == {"0": 2 * convolution, "2": 3 * linear}


def test_activations_of_a_plain_network_are_known():
    x = torch.randn(2, 3, 6, 6)
    found = summary(nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.Sigmoid()), x)
    costs = {layer.name: layer.costs.activations for layer in found.layers}
    assert costs == {"0": x.nbytes, "1": 2 * 8 * 16 * 4}


def test_operations_of_layers_beside_each_other():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

        def forward(self, x):
            x = torch.relu(x)
            return x.mean((2, 3)) @ x.new_ones(4, 2) + (self.one(x) * self.two(x)).sum()

    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), convert_(Branches(), learned=0.25))
    found = summary(model, torch.randn(1, 3, 5, 5))
    layers = {layer.name: layer for layer in found.layers}
    pixels, product = 2 * 25 * 4 * 4, 2 * 4 * 2
    # The weight's gradient needs a quarter of the operations.
    assert layers["1.one"].costs.operations == 2.25 * 9 * pixels
    assert layers["1.one"].full_operations == 3 * 9 * pixels
    assert layers["1.two"].costs.operations == 2.25 * pixels
    assert layers["1"].costs.operations == layers["1"].full_operations == 2 * product


def test_weights_that_layers_assemble_are_no_activations():
    x = torch.randn(2, 3, 6, 6)
    model = convert_(network(), learned=0.25, seed=0)
    found, plain = summary(model, x), summary(network(), x)
    # The first layer needs no gradient of its input, and so no weight.
    weights = {layer.name: layer.costs.packed for layer in found.layers if layer.costs.packed}
    assert weights == {"3": 4 * 16 * 16 * 9}
    assert found.total.packed == 4 * 16 * 16 * 9
    assert found.total.activations == found.full.activations == plain.total.activations


def test_full_training_is_without_fusion():
    x = torch.randn(2, 3, 8, 8)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3)]
    model = convert_(nn.Sequential(*layers), learned=0.5)
    before = summary(model, x)
    fuse_(model, x)
    after = summary(model, x)
    assert after.full == before.full
    # ReLU's result, which the convolution needs, is computed again.
    assert before.total.activations - after.total.activations == 4 * 2 * 8 * 64
    assert after.total.packed == before.total.packed


def test_layers_that_are_one_step_are_measured_as_such():
    model = models.create("wrn_10_1", learned=0.25, seed=0)
    found = summary(model, torch.randn(2, 3, 16, 16))
    blocks = [layer for layer in found.layers if layer.kind == "BasicBlock"]
    assert all(layer.costs.activations for layer in blocks)
    norms = [layer for layer in found.layers if layer.kind == "BatchNorm2d"]
    assert not any(layer.costs.activations for layer in norms if layer.name != "bn")


def test_the_model_stays_as_it_is():
    model, x = convert_(network(), learned=0.25), torch.randn(2, 3, 6, 6)
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    summary(model, x)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(random, torch.get_rng_state())


class Recorded(nn.Module):
    """Remembers the memory of its results."""

    results: ClassVar[list[StorageWeakRef]] = []

    def forward(self, x):
        result = torch.sigmoid(x)
        self.results.append(StorageWeakRef(result.untyped_storage()))
        return result


def test_nothing_outlasts_the_call():
    """Sigmoid saves its own result, here also of a part that is not in the output."""

    class Model(nn.Sequential):
        def forward(self, x):
            return self[1](self[0](x)), self[1](self[0](x)).detach()

    Recorded.results.clear()
    summary(Model(nn.Conv2d(3, 4, 3), Recorded()), torch.randn(2, 3, 6, 6))
    gc.collect()
    assert Recorded.results
    assert all(one.expired() for one in Recorded.results)


def test_shared_layers_count_once():
    one = nn.Conv2d(4, 4, 3, padding=1)
    model = convert_(nn.Sequential(one, nn.ReLU(), one), learned=0.5)
    assert summary(model, torch.randn(1, 4, 5, 5)).total.total == 4 * 36 + 4


def test_the_text_has_all_rows_and_pefts_line():
    pytest.importorskip("rich")
    from rich.console import Console

    found = summary(convert_(network(), learned=0.25), torch.randn(2, 3, 6, 6))
    count = count_parameters(convert_(network(), learned=0.25))
    line = (
        f"trainable params: {count.learned:,} || all params: {count.total:,} || "
        f"trainable%: {100 * count.fraction:.4f}"
    )
    assert found.trainable == line
    assert str(found).endswith(line)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(found)
    text = console.export_text()
    for row in found.rows():
        assert all(cell in text for cell in row)


def test_frozen_model_and_other_optimizers():
    x = torch.randn(2, 3, 6, 6)
    model = network().requires_grad_(False)
    found = summary(model, x)
    assert (found.total.learned, found.total.gradients, found.total.optimizer) == (0, 0, 0)
    sgd = summary(network(), x, optimizer=lambda p: torch.optim.SGD(p, 0.1, momentum=0.9))
    assert sgd.total.optimizer == sgd.total.gradients


def test_input_without_a_tensor():
    with pytest.raises(TypeError, match="input is list; expected a Tensor"):
        summary(network(), [1.0])


@dataclasses.dataclass
class Logits:
    logits: torch.Tensor


Named = collections.namedtuple("Named", "logits")


def with_output(made):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)

        def forward(self, x):
            return made(self.conv(x))

    return Model()


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (Logits, "output is Logits, and no tensor is found in it; expected a Tensor"),
        (torch.Tensor.tolist, "output is list, and no tensor is found"),
        (torch.Tensor.detach, "output is Tensor, and none of its tensors has a gradient"),
        (lambda x: {"classes": x.argmax(1)}, "output is dict, and none of its tensors has"),
    ],
    ids=["dataclass", "numbers", "detached", "integers"],
)
def test_outputs_without_a_gradient_are_refused(made, words):
    with pytest.raises(TypeError, match=words):
        summary(with_output(made), torch.randn(2, 3, 6, 6))


@pytest.mark.parametrize(
    "made", [Named, lambda x: {"logits": [x, x.argmax(1)]}], ids=["namedtuple", "dict"]
)
def test_outputs_of_several_values_are_measured(made):
    x = torch.randn(2, 3, 6, 6)
    plain = summary(with_output(lambda x: x), x)
    assert summary(with_output(made), x).total == plain.total
