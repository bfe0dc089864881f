"""Checkpoints of supermasks: scores for training, or one bit a weight for use."""

from __future__ import annotations

import pytest
import torch
from damaged_checkpoints import parts_of, with_header
from torch import nn

from maskedconv import Ensemble, convert_, load, methods, models, save
from maskedconv.checkpoint import file, load_plain, load_sharded, save_sharded
from maskedconv.supermasks import Supermasks


def network(method, seed):
    # Small for the test, and large enough for the file's header to be a small part.
    return models.create("conv2", method=method, seed=seed, image_size=16)


def trained(method, seed=0):
    torch.manual_seed(1)
    model = network(method, seed)
    for parameter in model.parameters():
        parameter.data.normal_()
    model(images())
    return model


def images():
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


METHODS = (methods.supermask(0.3), methods.biprop(0.3), methods.biprop(0.3, threshold="global"))


@pytest.mark.parametrize("method", METHODS, ids=lambda m: f"{m.name}-{m.threshold}")
def test_a_seed_and_one_bit_a_weight(tmp_path, method):
    model = trained(method)
    save(model, tmp_path / "bits", masks=True)
    save(model, tmp_path / "scores")
    other = network(method, seed=1)
    load(other, tmp_path / "bits")
    assert torch.equal(other(images()), model(images()))
    weights = sum(p.numel() for p in model.parameters())
    size = (tmp_path / "bits").stat().st_size
    assert weights / 8 <= size < weights / 8 + 8000
    assert (tmp_path / "scores").stat().st_size >= 4 * weights


def test_scores_for_training(tmp_path):
    model = trained(METHODS[0])
    save(model, tmp_path / "file")
    other = load(network(METHODS[0], seed=1), tmp_path / "file")
    for one, two in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("method", METHODS[:2], ids=lambda m: m.name)
def test_plain_values(tmp_path, method):
    model = trained(method)
    save(model, tmp_path / "file", frozen=True, masks=True)
    plain = models.create("conv2", image_size=16)
    plain.load_state_dict(load_plain(tmp_path / "file"))
    torch.testing.assert_close(plain(images()), model(images()))


def test_one_layer_alone_does_not_know_a_global_threshold(tmp_path):
    save(trained(METHODS[2]), tmp_path / "file", frozen=True)
    with pytest.raises(ValueError, match=r"layers.features.0.threshold is 'global'; load the file"):
        load_plain(tmp_path / "file")


def test_a_model_without_masks(tmp_path):
    with pytest.raises(ValueError, match=r"masks is True, but model \(Linear\) has no supermask"):
        save(nn.Linear(2, 2), tmp_path / "file", masks=True)


def test_bits_that_do_not_fit(tmp_path):
    save(trained(METHODS[0]), path := tmp_path / "file", masks=True)

    def enlarge(header):
        header["masks"]["fc.0.scores"]["shape"][0] += 8
        return header

    path.write_bytes(with_header(path, enlarge, short=True))
    with pytest.raises(ValueError, match=r"fc.0.scores is damaged: bits is \["):
        load(network(METHODS[0], seed=0), path)


COATS = methods.supermask(0.3, coats=3)


@pytest.mark.parametrize("method", [*METHODS, COATS], ids=lambda m: f"{m.name}-{m.threshold}")
def test_a_switched_model(tmp_path, method):
    model = network(method, seed=0)
    tasks = Supermasks(model)
    tasks.add("first")
    tasks.reset_scores()
    save(model, tmp_path / "scores")
    scores = model(images())
    tasks.switch("first")
    out, before = model(images()), {k: t.clone() for k, t in model.state_dict().items()}
    ensemble = Ensemble(model, 2)
    for write in (save, save_sharded):
        with pytest.raises(ValueError, match=r"features\.0 uses a held mask.*masks=True"):
            write(model, tmp_path / "file")
    with pytest.raises(ValueError, match=r"uses a held mask.*expected masks=True"):
        ensemble.save(tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores"]
    save(model, tmp_path / "bits", masks=True)
    assert torch.equal(load(network(method, seed=1), tmp_path / "bits")(images()), out)
    ensemble.save(tmp_path / "folder", masks=True)
    other = Ensemble(network(method, seed=1), 2).load(tmp_path / "folder")
    assert torch.equal(other(images())[1], out)
    for read in (load, load_sharded):
        with pytest.raises(ValueError, match=r"held mask.*release"):
            read(model, tmp_path / "scores")
    assert all(torch.equal(model.state_dict()[key], one) for key, one in before.items())
    tasks.release()
    assert torch.equal(load(model, tmp_path / "scores")(images()), scores)


class Twice(nn.Module):
    """A layer under two names."""

    def __init__(self):
        super().__init__()
        self.first = self.second = nn.Conv2d(3, 3, 3, padding=1, bias=False)

    def forward(self, x):
        return self.second(self.first(x))


def twice(seed=0):
    return convert_(Twice(), method=methods.supermask(0.5), seed=seed)


def switched():
    """A model that uses another mask than that of its scores, and its output."""
    model = twice()
    tasks = Supermasks(model)
    tasks.add("task")
    tasks.reset_scores(torch.Generator().manual_seed(3))
    scores = model(images())
    tasks.switch("task")
    assert not torch.equal(model(images()), scores)
    return model, model(images())


def test_a_layer_under_two_names(tmp_path):
    model, out = switched()
    save(model, tmp_path / "bits", masks=True)
    _, tensors = parts_of(tmp_path / "bits")
    assert {key: t.dtype for key, t in tensors.items()} == {
        "first.scores": torch.uint8,
        "second.scores": torch.uint8,
    }
    for other in (twice(seed=1), torch.compile(twice(seed=1), backend="eager")):
        assert torch.equal(load(other, tmp_path / "bits")(images()), out)
    save(model, tmp_path / "whole", masks=True, frozen=True)
    assert torch.equal(load(Twice(), tmp_path / "whole")(images()), out)
    merged = Twice()
    merged.load_state_dict(load_plain(tmp_path / "whole"))
    torch.testing.assert_close(merged(images()), out)


@pytest.mark.parametrize("loaded", [twice, Twice], ids=["converted", "plain"])
def test_old_files_name_such_a_layer_once(tmp_path, loaded):
    """They have the values under the other name too, the scores instead of the held mask."""
    model, out = switched()
    save(model, tmp_path / "new", masks=True)
    new, state = file.read(tmp_path / "new"), model.state_dict()
    assert new.layers.keys() == {"first", "second"}
    old = new._replace(
        layers={"first": new.layers["first"]},
        frozen={"first.frozen": new.frozen["first.frozen"]},
        tensors={"first.scores": new.tensors["first.scores"]}
        | {key: state[key] for key in ("second.scores", "second.frozen")},
        masks=frozenset({"first.scores"}),
    )
    file.write(tmp_path / "old", old)
    other = loaded()
    if loaded is Twice:
        other.first.weight.data.copy_(model.first.frozen)
    assert torch.equal(load(other, tmp_path / "old")(images()), out)
    assert other.first is other.second


def test_a_file_of_two_layers_for_one_under_two_names(tmp_path):
    torch.manual_seed(0)
    apart = Twice()
    apart.second = nn.Conv2d(3, 3, 3, padding=1, bias=False)
    save(apart, tmp_path / "file")
    model = Twice()
    before = model.first.weight.clone()
    with pytest.raises(ValueError, match=r"second\.weight differs from first\.weight in the file"):
        load(model, tmp_path / "file")
    assert torch.equal(model.first.weight, before)
