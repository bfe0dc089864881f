"""save and load: small files, checked frozen filters, no change by a refused file."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from maskedconv import MaskedConv2d, load, load_sharded, save, save_sharded


def network(seed=0, learned=1, **options):
    return nn.Sequential(
        MaskedConv2d(3, 32, 3, learned=learned, seed=seed, **options),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        MaskedConv2d(32, 32, 3, learned=learned, seed=seed, **options),
    )


def train_a_little(model):
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.randn(4, 3, 8, 8)).square().mean().backward()
    optimiser.step()
    return model.eval()


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("frozen", ["random", "zero"])
@pytest.mark.parametrize("slice_dim", range(4))
def test_round_trip(tmp_path, whole, frozen, slice_dim):
    model = train_a_little(network(frozen=frozen, slice_dim=slice_dim))
    save(model, tmp_path / "m.safetensors", frozen=whole)
    other = network(frozen=frozen, slice_dim=slice_dim).eval()
    assert load(other, tmp_path / "m.safetensors") is other
    for key, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key


def test_frozen_filters_are_not_stored(tmp_path):
    model = network()
    save(model, tmp_path / "small")
    save(model, tmp_path / "whole", frozen=True)
    frozen_bytes = sum(model[i].frozen.nbytes + model[i].bias_frozen.nbytes for i in (0, 3))
    small, whole = ((tmp_path / name).stat().st_size for name in ("small", "whole"))
    assert whole - small >= frozen_bytes
    assert small < 10_000


def test_frozen_filters_come_back_from_the_seed(tmp_path):
    model = train_a_little(network(seed=1))
    save(model, tmp_path / "m")
    other = load(network(seed=2).eval(), tmp_path / "m")
    assert torch.equal(other[0].weight, model[0].weight)


def test_other_frozen_filters_are_refused_and_nothing_changes(tmp_path):
    torch.manual_seed(0)
    model = network(seed=None)
    save(model, tmp_path / "m")
    other = network(seed=None)
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(ValueError, match=r"0\.frozen of the model is not what .*SHA-256"):
        load(other, tmp_path / "m")
    assert all(torch.equal(before[key], value) for key, value in other.state_dict().items())
    other[0].frozen.copy_(model[0].frozen)
    other[0].bias_frozen.copy_(model[0].bias_frozen)
    other[3].frozen.copy_(model[3].frozen)
    other[3].bias_frozen.copy_(model[3].bias_frozen)
    load(other, tmp_path / "m")


def test_files_that_are_not_checkpoints(tmp_path):
    from safetensors.torch import save_file

    model = network()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load(model, tmp_path / "nowhere")
    (tmp_path / "text").write_text("not this")
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load(model, tmp_path / "text")
    save(model, tmp_path / "m", frozen=True)
    (tmp_path / "cut").write_bytes((tmp_path / "m").read_bytes()[:-100])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load(model, tmp_path / "cut")
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign")
    with pytest.raises(ValueError, match="not written by maskedconv"):
        load(model, tmp_path / "foreign")
    with pytest.raises(ValueError, match=r"0\.num_learned is 1 in the file; the model has 2"):
        load(network(learned=2), tmp_path / "m")
    with pytest.raises(ValueError, match="has masked layers"):
        load(nn.Sequential(model[0]), tmp_path / "m")


def test_others_may_read_the_file_as_any_other(tmp_path):
    save(nn.Linear(2, 2), tmp_path / "model.safetensors")
    (tmp_path / "plain").write_bytes(b"")
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_a_view_whose_elements_share_memory_is_refused_and_nothing_changes(tmp_path):
    """PyTorch would load all other values before it fails."""

    def made():
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        model[0].register_buffer("table", torch.zeros(1).expand(3))
        return model

    save(made(), tmp_path / "m")
    save_sharded(made(), tmp_path / "folder")
    model = made()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"0\.table of the model is a view whose elements share"):
        load(model, tmp_path / "m")
    with pytest.raises(ValueError, match=r"0\.table of the model is a view whose elements share"):
        load_sharded(model, tmp_path / "folder")
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    model[0].table = model[0].table.contiguous()
    load(model, tmp_path / "m")


def test_a_file_of_apart_parameters_for_tied_ones(tmp_path):
    def made(tied):
        model = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 4))
        if tied:
            model[1].weight = model[0].weight
        return model

    save(made(tied=False), tmp_path / "apart")
    model = made(tied=True)
    before = model[0].weight.clone()
    with pytest.raises(ValueError, match=r"1\.weight differs from 0\.weight in the file"):
        load(model, tmp_path / "apart")
    assert torch.equal(model[0].weight, before)
    save(model, tmp_path / "tied")
    for other in (made(tied=True), made(tied=False)):
        assert torch.equal(load(other, tmp_path / "tied")[1].weight, before)
