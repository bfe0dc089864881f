"""``convert_(which=...)``: which slices are learned, and that all else is as for the first ones."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import nn
from which_networks import CONVOLUTIONS, chosen, converted, network

from maskedconv import (
    conversion_report,
    convert_,
    load,
    merge_,
    methods,
    models,
    save,
    summary,
    thin,
)


def norms(weight: torch.Tensor) -> list[float]:
    return [float(numpy.linalg.norm(one)) for one in weight.detach().numpy()]


def test_places() -> None:
    assert chosen(converted()) == chosen(converted(which="first"))
    assert chosen(converted(which="first")) == {"0": (0, 1), "3": (0, 1), "4": (0, 1, 2)}
    assert chosen(converted(which="last")) == {"0": (6, 7), "3": (6, 7), "4": (9, 10, 11)}


@pytest.mark.parametrize("which", ["largest", "smallest"])
def test_norms(which: str) -> None:
    plain, found = network(), chosen(converted(which=which))
    for name, indices in found.items():
        sizes = norms(plain.get_submodule(name).weight)
        ordered = sorted(range(len(sizes)), key=sizes.__getitem__, reverse=which == "largest")
        assert indices == tuple(sorted(ordered[: len(indices)]))


def test_norms_of_other_dimensions_and_equal_ones() -> None:
    plain = nn.Conv2d(4, 2, 1)
    plain.weight.data = torch.tensor([[0.0, 3, 3, 1], [2, 0, 0, 3]]).view(2, 4, 1, 1)
    method = methods.slice(2, slice_dim=1, which="largest")
    assert method.convert(plain, None).which == (1, 3)
    plain.weight.data = torch.ones(2, 4, 1, 1)
    assert method.convert(plain, None).which is None


def test_random_by_the_seed() -> None:
    found = [chosen(converted(which="random", seed=seed)) for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]
    without = chosen(converted(which="random"))
    assert all(indices == tuple(sorted(set(indices))) for indices in without.values())
    assert without.keys() == found[0].keys()


def test_indices_and_scores() -> None:
    scores = [0.0, 3.0, 1.0, 0.5, -1.0, 7.0, 2.0, 2.5]
    for which in ([5, 1], (1, 5), torch.tensor([5, 1]), scores, torch.tensor(scores)):
        layer = methods.slice(2, which=which).convert(network()[0], None)
        assert layer.which == (1, 5)


def test_patterns_and_functions() -> None:
    found = chosen(converted(which={"0": [3, 4], "4": "last", "*": "first"}))
    assert found == {"0": (3, 4), "3": (0, 1), "4": (9, 10, 11)}
    by_name = converted(
        which=lambda module, name: "last" if name == "3" else module.weight[:, 0, 0, 0]
    )
    assert chosen(by_name)["3"] == (6, 7)
    parts = convert_(
        network(), learned={"0": 1, "*": 0.5}, which={"0": [7], "*": "last"}, rest="freeze"
    )
    assert chosen(parts) == {"0": (7,), "3": (4, 5, 6, 7), "4": (6, 7, 8, 9, 10, 11)}


@pytest.mark.parametrize("which", ["last", "largest", "random"])
@pytest.mark.parametrize("frozen", ["keep", "random", "zero"])
@pytest.mark.parametrize("slice_dim", [0, 1, 2, 3])
def test_learns_slices_of_the_merged_network(slice_dim: int, frozen: str, which: str) -> None:
    ours = convert_(
        network(), learned=0.5, slice_dim=slice_dim, frozen=frozen, which=which, seed=3,
        rest="learn",
    )  # fmt: skip
    plain = merge_(copy.deepcopy(ours))
    input = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    outputs = ours(input), plain(input)
    torch.testing.assert_close(*outputs)
    for output in outputs:
        output.square().sum().backward()
    for name, indices in chosen(ours).items():
        grad = plain.get_submodule(name).weight.grad.index_select(slice_dim, torch.tensor(indices))
        torch.testing.assert_close(ours.get_submodule(name).learned.grad, grad)
    if frozen == "keep":
        expected = network().state_dict()
        assert all(torch.equal(value, expected[key]) for key, value in _weights(plain).items())


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {key: one for key, one in model.state_dict().items() if key[0] in CONVOLUTIONS}


@pytest.mark.parametrize("which", ["last", "largest", "random"])
def test_all_or_nothing_learned(which: str) -> None:
    for learned in (0, 1.0):
        model = convert_(network(), learned=learned, which=which, seed=0, rest="learn")
        assert all(model.get_submodule(name).which is None for name in CONVOLUTIONS)


def test_training_leaves_the_frozen_bits() -> None:
    model = converted(which="largest")
    before = {key: one.clone() for key, one in model.state_dict().items() if "frozen" in key}
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, weight_decay=0.1)
    for _ in range(3):
        model(torch.randn(2, 3, 8, 8).double()).square().sum().backward()
        optimizer.step()
    merged = merge_(copy.deepcopy(model))
    for name, indices in chosen(model).items():
        rest = [i for i in range(merged.get_submodule(name).out_channels) if i not in indices]
        start = network().get_submodule(name).weight[rest]
        assert torch.equal(merged.get_submodule(name).weight[rest], start)
    assert all(torch.equal(model.state_dict()[key], one) for key, one in before.items())


def test_gradients_of_the_learned_slices_are_kept() -> None:
    plain = network()
    plain(torch.randn(1, 3, 8, 8).double()).sum().backward()
    grads = {name: plain.get_submodule(name).weight.grad.clone() for name in CONVOLUTIONS}
    model = convert_(plain, learned=0.25, which="last", rest="freeze")
    for name, indices in chosen(model).items():
        assert torch.equal(model.get_submodule(name).learned.grad, grads[name][list(indices)])


def test_checkpoints_restore_the_indices(tmp_path: Path) -> None:
    model = converted(which="random", frozen="random", seed=4)
    save(model, tmp_path / "a.safetensors")
    assert chosen(load(network(), tmp_path / "a.safetensors")) == chosen(model)
    with pytest.raises(ValueError, match=r"which is \[.*\] in the file; the model has None"):
        load(converted(frozen="random", seed=4), tmp_path / "a.safetensors")
    save(converted(), tmp_path / "first.safetensors")
    with pytest.raises(ValueError, match=r"which is None in the file; the model has \["):
        load(model, tmp_path / "first.safetensors")


def test_the_report_and_the_text_name_them() -> None:
    model = converted(which={"0": [2, 5], "*": "first"})
    report = conversion_report(model)
    assert report.which == {"0": (2, 5)}
    assert "converted, not the first indices learned: 0\n" in str(report)
    assert "not the first" not in str(conversion_report(converted()))
    assert repr(model[0]).endswith("frozen='random', which=[2, 5])")
    assert "which=" not in repr(model[3])
    assert "which=[8, 9, 10, 11, ...])" in repr(
        methods.slice(8, which="last").convert(nn.Conv2d(1, 16, 1), 0)
    )


@pytest.mark.parametrize(
    ("which", "error", "message"),
    [
        ("middle", ValueError, "which is 'middle'; expected one of first, last, largest, smallest"),
        (3, TypeError, "which is 3; expected one of first"),
        (None, TypeError, "which is None; expected one of first"),
        ([True, False], TypeError, "a list or tensor of ints"),
        ([1, 2.0], TypeError, "a list or tensor of ints"),
        (torch.ones(2, 2), TypeError, "a list or tensor of ints"),
        ([1.0, float("nan")], ValueError, "NaN or infinite"),
        ([1.0, 2.0], ValueError, "0: which has 2 scores; expected one for each of the 8 indices"),
        ([1], ValueError, "0: which has 1 indices; expected the 2 that are learned"),
        ([1, 8], ValueError, "0: which is .*expected different indices from 0 to 7"),
        ({"0": "last"}, ValueError, "which has no pattern for 3, 4"),
        ({"9": "last", "*": "first"}, ValueError, "which has '9', which matches no layer"),
        ({"0": "middle", "*": "first"}, ValueError, r"which\['0'\]: which is 'middle'"),
        (lambda module, name: None, TypeError, r"which\(module, '0'\): which is None"),
    ],
)
def test_refuses_and_changes_nothing(which: Any, error: type[Exception], message: str) -> None:
    model = network()
    with pytest.raises(error, match=message):
        convert_(model, learned=0.25, which=which, rest="freeze")
    assert all(type(model.get_submodule(name)) is nn.Conv2d for name in CONVOLUTIONS)
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("name", ["wrn_10_1", "densenet_bc_22_4"])
def test_fused_steps_run_module_by_module(name: str) -> None:
    model = merge_(models.create(name, seed=0)).double()
    convert_(model, learned=0.25, which="random", seed=0, rest="freeze")
    plain, input = merge_(copy.deepcopy(model)), torch.randn(4, 3, 16, 16).double()
    for one in (model, plain):
        one(input).square().sum().backward()
    named = {name: one for name, one in model.named_modules() if hasattr(one, "which")}
    assert any(one.which for one in named.values())
    for key, layer in named.items():
        indices = list(layer.which or range(layer.num_learned))
        if indices:
            grad = plain.get_submodule(key).weight.grad[indices]
            torch.testing.assert_close(layer.learned.grad, grad)


def test_refuses_what_has_no_values() -> None:
    with pytest.raises(ValueError, match="which is 'largest', but the weight is on the meta"):
        methods.slice(1, which="largest").convert(nn.Conv2d(2, 2, 1, device="meta"), None)
    broken = nn.Conv2d(2, 2, 1)
    nn.init.constant_(broken.weight, float("nan"))
    with pytest.raises(ValueError, match="the weight has NaN"):
        methods.slice(1, which="smallest").convert(broken, None)
    assert methods.slice(1, which="last").convert(broken, None).which == (1,)


def test_other_methods_and_new_networks_name_the_way() -> None:
    with pytest.raises(ValueError, match=r"which is last and method is .*methods\.slice\(which="):
        convert_(network(), method=methods.norm_only(), which="last")
    with pytest.raises(ValueError, match="which is 'last'; expected 'first' in a new network"):
        models.create("conv2", method=methods.slice(0.5, which="last"))
    model = convert_(network(), method=methods.slice(0.25, which="last"), rest="freeze")
    assert chosen(model) == chosen(converted(which="last"))


def test_thin_removes_the_zero_filters_wherever_they_are() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 4, 1)
    )
    model = convert_(plain, learned=0.25, frozen="zero", which="random", seed=0, exclude="3")
    thinned, report = thin(model.eval(), torch.randn(2, 3, 8, 8))
    assert report.channels == {"0": (16, 4), "1": (16, 4), "3": (4, 4)}
    assert torch.equal(thinned[0].weight, model[0].learned)


def test_summary_counts_the_learned_part_alone() -> None:
    input = torch.randn(2, 3, 8, 8).double()
    costs = [summary(converted(which=which).double(), input) for which in ("first", "random")]
    operations = [cost.total.operations for cost in costs]
    assert operations[0] == operations[1] < costs[0].full.operations
    for name in ("learned", "frozen", "gradients", "optimizer", "activations", "all_reduce"):
        assert getattr(costs[0].total, name) == getattr(costs[1].total, name)
