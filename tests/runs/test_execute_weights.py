"""Stored weights of a run: their description in the row, and runs that start from them."""

from __future__ import annotations

from dataclasses import replace

import killed_runs
import pytest
import torch
from killed_runs import SMALL
from torch import nn

from maskedconv import MaskedConv2d, load, save, select_learned_
from maskedconv.checkpoint import load_plain
from maskedconv.runs.execute import build_model, execute
from maskedconv.runs.weights import describe_first_layer, describe_layers, start_from
from maskedconv.training.evaluation import evaluate

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def dataset():
    return killed_runs.small_dataset()


@pytest.fixture(scope="module")
def kept(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept")
    return folder, execute(SMALL, dataset, folder=folder)


def test_the_file_holds_the_whole_network(kept, dataset):
    folder, row = kept
    assert row["weights"] == f"weights/{SMALL.key}.safetensors"
    # With another seed, because no value may come from the network that loads the file.
    model = build_model(replace(SMALL, seed=9), 2, SHAPE)
    load(model, folder / row["weights"])
    _, top1 = evaluate(model.to(memory_format=torch.channels_last), dataset)
    assert top1 == pytest.approx(row["last_top1"], abs=1e-4)
    assert describe_layers(model) == row["layers"]


def test_what_a_killed_writer_of_weights_left_is_removed(dataset, tmp_path):
    config = replace(SMALL, epochs=1)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / f".{config.key}.safetensors.0123.partial").touch()
    row = execute(config, dataset, folder=tmp_path)
    assert [file.name for file in (tmp_path / "weights").iterdir()] == [
        row["weights"].split("/")[1]
    ]


def test_layers_are_described_in_the_models_order():
    model = nn.Sequential(
        MaskedConv2d(1, 4, 1, learned=0.5, bias=False),
        nn.ReLU(),
        nn.Sequential(MaskedConv2d(4, 2, 1, learned=1.0), MaskedConv2d(2, 3, 1, learned=0.0)),
        MaskedConv2d(3, 4, 1, learned=0.5, frozen="zero", bias=False),
    )
    with torch.no_grad():
        nn.init.constant_(model[3].weight, 2.0)
        model[0].weight.copy_(torch.tensor([1.0, -3.0, 2.0, 4.0])[:, None, None, None])
    layers = describe_layers(model)
    assert [layer["name"] for layer in layers] == ["0", "2.0", "2.1", "3"]
    assert layers[0] == {
        "name": "0",
        "kind": "conv",
        "learned": {"count": 2, "mean_abs": 2.0, "variance": 4.0},
        "frozen": {"count": 2, "mean_abs": 3.0, "variance": 1.0},
    }
    assert (layers[1]["learned"]["count"], layers[1]["frozen"]) == (8, None)
    assert (layers[2]["learned"], layers[2]["frozen"]["count"]) == (None, 6)
    assert layers[3]["learned"] == {"count": 6, "mean_abs": 2.0, "variance": 0.0}
    assert layers[3]["frozen"] is None


def test_a_layer_that_is_not_selected_counts_as_frozen():
    model = select_learned_(build_model(SMALL, 2, SHAPE), "fc")
    assert {layer["learned"] and "learned" for layer in describe_layers(model)} == {None}
    assert describe_layers(model)[0]["frozen"]["count"] == 16 * 9
    assert describe_first_layer(model)["learned"] == 0


def test_first_filters(kept):
    folder, row = kept
    first = row["first_layer"]
    weight = load_plain(folder / row["weights"])["conv1.weight"]
    assert first["shape"] == [16, 1, 3, 3]
    assert first["learned"] == 8
    values = torch.tensor(first["values"]).view(16, 1, 3, 3)
    torch.testing.assert_close(values, weight, rtol=6e-4, atol=0)
    assert all(value == float(f"{value:.4g}") for value in first["values"])
    assert describe_first_layer(nn.Linear(2, 2)) is None


@pytest.mark.parametrize("slice_dim", [0, 1, 2])
@pytest.mark.parametrize("frozen", ["random", "zero"])
def test_plain_weights_are_those_of_the_layers(slice_dim, frozen, tmp_path):
    model = nn.Sequential(
        MaskedConv2d(4, 6, 3, learned=0.5, slice_dim=slice_dim, frozen=frozen),
        MaskedConv2d(6, 2, 1, learned=0.0, bias=False),
        nn.BatchNorm2d(2),
    )
    save(model, tmp_path / "file", frozen=True)
    plain = load_plain(tmp_path / "file")
    assert torch.equal(plain["0.weight"], model[0].weight)
    assert torch.equal(plain["0.bias"], model[0].bias)
    assert torch.equal(plain["1.weight"], model[1].weight)
    assert {"0.weight", "0.bias", "1.weight", "2.weight", "2.running_var"} <= plain.keys()
    nn.Sequential(nn.Conv2d(4, 6, 3), nn.Conv2d(6, 2, 1, bias=False), model[2]).load_state_dict(
        plain
    )


def test_plain_weights_need_the_frozen_ones(tmp_path):
    save(MaskedConv2d(2, 4, 3, learned=0.5), tmp_path / "file")
    with pytest.raises(ValueError, match=r"file lacks .*frozen; expected a file of save"):
        load_plain(tmp_path / "file")


@pytest.mark.parametrize("learned", [0.25, 1.0])
def test_a_run_starts_from_every_value_of_another(learned, kept, dataset):
    folder, row = kept
    model = build_model(replace(SMALL, learned=learned, seed=5), 2, SHAPE)
    start_from(model, folder, SMALL.key)
    plain = load_plain(folder / row["weights"])
    assert torch.equal(model.conv1.weight, plain["conv1.weight"])
    assert torch.equal(model.bn.running_mean, plain["bn.running_mean"])
    assert torch.equal(model.fc.weight, plain["fc.weight"])
    config = replace(SMALL, learned=learned, start=SMALL.key, epochs=1, lr=1e-9, weight_decay=0.0)
    again = execute(config, dataset, folder=folder)
    assert again["status"] == "done"
    before = {layer["name"]: layer for layer in describe_layers(model)}
    for layer in again["layers"]:
        assert layer["learned"]["mean_abs"] == pytest.approx(
            before[layer["name"]]["learned"]["mean_abs"], rel=1e-5
        )


def test_a_start_that_is_not_there_fails_the_run(dataset, tmp_path):
    row = execute(replace(SMALL, start="0" * 16), dataset, folder=tmp_path)
    assert row["status"] == "failed"
    assert "0000.safetensors" in row["error"]
    assert row["error_type"] == "FileNotFoundError"


@pytest.mark.parametrize("name", ["conv1.weight", "fc.bias", "bn.bias"])
def test_a_start_of_another_type_is_named(kept, name):
    folder, _ = kept
    model = build_model(SMALL, 2, SHAPE)
    module = model.get_submodule(name.rpartition(".")[0])
    module.to(torch.float16)
    with pytest.raises(ValueError, match=rf"safetensors: {name} is torch.float32; expected"):
        start_from(model, folder, SMALL.key)


@pytest.mark.parametrize("changes", [{}, {"keep": False, "start": "0" * 16}])
def test_weights_need_a_folder(changes, dataset):
    with pytest.raises(ValueError, match="folder is None; expected a folder"):
        execute(replace(SMALL, **changes), dataset)


def test_a_failed_write_leaves_no_half_file(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match="file"):
        save(nn.Linear(2, 2), tmp_path / "file")
    with pytest.raises(FileNotFoundError, match="none"):
        save(nn.Linear(2, 2), tmp_path / "none" / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
