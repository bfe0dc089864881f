"""Ensemble: frozen values once, learned values separately."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from test_summary import METHODS, network

from maskedconv import Ensemble, convert_, load, methods, models, save
from maskedconv.nn.partly_learned import PartlyLearned
from maskedconv.nn.rerandomise import rerandomise_


def addresses(member):
    return [
        getattr(module, key).data_ptr()
        for module in member.modules()
        if isinstance(module, PartlyLearned)
        for key in module.frozen_buffers()
        if getattr(module, key) is not None
    ]


def pickled(ensemble):
    return pickle.loads(pickle.dumps(ensemble))


@pytest.mark.parametrize("name", sorted(METHODS.keys() - {"random_positions"}))
def test_every_method(name, tmp_path):
    model, x = convert_(network(), method=METHODS[name], seed=0), torch.randn(4, 3, 6, 6)
    ensemble = Ensemble(model, 3, seed=5).double().float().eval()
    first, second, _ = ensemble.members
    assert addresses(first) == addresses(second)
    again = Ensemble(model, 3, seed=5).eval()
    out = ensemble(x)
    assert torch.equal(out, again(x))
    assert not torch.equal(out[0], out[1])
    ensemble.save(tmp_path)
    other = Ensemble(model, 3, seed=7).eval()
    assert not torch.equal(other(x), out)
    assert torch.equal(other.load(tmp_path)(x), out)
    assert addresses(other.members[0]) == addresses(other.members[1])


@pytest.mark.parametrize("freeze", [[0, 1, 2], [1], [0, 1], [0]])
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled])
@pytest.mark.parametrize("name", ["slice", "supermask"])
def test_members_that_are_frozen_later_keep_what_they_learned(name, copied, freeze):
    model, x = convert_(network(), method=METHODS[name], seed=0), torch.randn(4, 3, 6, 6)
    ensemble = copied(Ensemble(model, 3, seed=5)).eval()
    out = ensemble(x)
    for index in freeze:
        ensemble.members[index].requires_grad_(False)
    assert torch.equal(ensemble.to("cpu")(x), out)
    assert torch.equal(ensemble.double().float()(x), out)
    first, second, third = ensemble.members
    assert addresses(first) == addresses(second) == addresses(third) != []


@pytest.mark.filterwarnings("error")
def test_a_layer_that_one_member_froze_is_in_its_file(tmp_path):
    model, x = convert_(network(), learned=0.25, seed=0), torch.randn(4, 3, 6, 6)
    ensemble = Ensemble(model, 3, seed=5).eval()
    ensemble.members[1][0].requires_grad_(False)
    ensemble.save(tmp_path)
    assert torch.equal(Ensemble(model, 3).load(tmp_path).eval()(x), ensemble(x))
    sizes = [path.stat().st_size for path in sorted(tmp_path.iterdir())]
    assert sizes[2] < sizes[0]


@pytest.mark.filterwarnings("error")
def test_frozen_layers_are_written_once(tmp_path):
    model = convert_(network(), learned=0.25, include="0", rest="freeze", seed=0)
    ensemble, x = Ensemble(model, 2, seed=5).eval(), torch.randn(4, 3, 6, 6)
    ensemble.save(tmp_path)
    assert torch.equal(Ensemble(model, 2).load(tmp_path).eval()(x), ensemble(x))
    first, second = (path.stat().st_size for path in sorted(tmp_path.iterdir()))
    assert first - second > 4 * sum(p.numel() for p in model[3:].parameters())


def test_weights_that_are_drawn_anew_are_not_shared():
    method = methods.supermask(rerandomise_every=1, rerandomise_fraction=1.0)
    ensemble = Ensemble(convert_(network(), method=method, seed=0), 2)
    first, second = (member[0].frozen for member in ensemble.double().members)
    assert torch.equal(first, second)
    rerandomise_(ensemble.members[0], 1, 0)
    assert not torch.equal(first, second)


def test_averages_and_disagreement():
    model, x = convert_(network(), learned=0.25, seed=0), torch.randn(4, 3, 6, 6)
    ensemble = Ensemble(model, 3, seed=0).eval()
    out = torch.stack([member(x) for member in ensemble.members])
    torch.testing.assert_close(ensemble.mean(x), out.sum(0) / 3)
    torch.testing.assert_close(ensemble.probabilities(x), out.softmax(-1).sum(0) / 3)
    a, b, c = out.argmax(-1)
    expected = ((a != b).float() + (a != c).float() + (b != c).float()) / 3
    torch.testing.assert_close(ensemble.disagreement(x), expected)


def test_a_failed_load_changes_nothing(tmp_path):
    model, x = convert_(network(), learned=0.25, seed=0), torch.randn(2, 3, 6, 6)
    Ensemble(model, 2, seed=1).save(tmp_path)
    (tmp_path / "member_1.safetensors").write_bytes(b"damaged")
    ensemble = Ensemble(model, 2, seed=2).eval()
    before = ensemble(x)
    with pytest.raises(ValueError, match="member_1"):
        ensemble.load(tmp_path)
    assert torch.equal(ensemble(x), before)
    with pytest.raises(ValueError, match="has 2 members; expected 3"):
        Ensemble(model, 3).load(tmp_path)


def test_wrong_arguments():
    model = convert_(network(), learned=0.25)
    with pytest.raises(ValueError, match="members is 0"):
        Ensemble(model, 0)
    with pytest.raises(ValueError, match="1 member; expected at least 2"):
        Ensemble(model, 1).disagreement(torch.randn(1, 3, 6, 6))


def test_random_positions_keep_their_start(tmp_path):
    model = convert_(network(), method=METHODS["random_positions"], seed=0)
    with pytest.raises(ValueError, match=r"layer 0 \(random_positions\)"):
        Ensemble(model, 2, seed=1)
    ensemble = Ensemble(model, 2)
    assert addresses(ensemble.members[0]) == addresses(ensemble.members[1]) != []
    with torch.no_grad():
        next(ensemble.members[1].parameters()).add_(1)
    x = torch.randn(2, 3, 6, 6)
    out = ensemble.eval()(x)
    ensemble.save(tmp_path)
    assert torch.equal(Ensemble(model, 2).load(tmp_path).eval()(x), out)


def test_a_smaller_ensemble_replaces_the_files_of_a_larger_one(tmp_path):
    model, x = convert_(network(), learned=0.25, seed=0), torch.randn(2, 3, 6, 6)
    Ensemble(model, 3, seed=1).save(tmp_path)
    others = ["member_best.safetensors", "member_02.safetensors", "member_2.txt", "notes"]
    for name in others:
        (tmp_path / name).write_bytes(b"of someone else")
    ensemble = Ensemble(model, 2, seed=2).eval()
    ensemble.save(tmp_path)
    own = ["member_0.safetensors", "member_1.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(own + others)
    assert torch.equal(Ensemble(model, 2).load(tmp_path).eval()(x), ensemble(x))


def test_a_failed_save_leaves_the_files_as_they_were(tmp_path):
    """New and old members in one folder would be loaded as one ensemble."""
    model = convert_(network(), learned=0.25, seed=0)
    Ensemble(model, 2, seed=1).save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    ensemble = Ensemble(model, 2, seed=2)
    ensemble.members[1].register_buffer("extra", torch.ones(3).to_sparse())
    with pytest.raises(ValueError, match="extra of the model is of layout"):
        ensemble.save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def created(seed, members=2):
    return Ensemble(models.create("resnet_8", learned=0.25, seed=seed), members, seed=seed).eval()


@pytest.mark.filterwarnings("error")
def test_loaded_members_know_where_their_values_come_from(tmp_path):
    """Each is saved alone, and loaded without the other's file."""
    ensemble = created(1)
    ensemble.save(tmp_path)
    loaded = created(2).load(tmp_path)
    for index, member in enumerate(loaded.members):
        save(member, tmp_path / "alone")
        other = load(models.create("resnet_8", learned=0.25, seed=3).eval(), tmp_path / "alone")
        x = torch.randn(2, 3, 32, 32)
        assert torch.equal(other(x), ensemble.members[index](x))


@pytest.mark.parametrize("seed", [0, None])
def test_members_on_the_meta_device(tmp_path, seed):
    def made(weights):
        torch.manual_seed(weights)
        return Ensemble(convert_(network(), learned=0.25, frozen="random", seed=seed), 2).eval()

    ensemble, x = made(1), torch.randn(2, 3, 6, 6)
    ensemble.members[1][0].learned.data.mul_(2)
    ensemble.save(tmp_path)
    other = made(2).to("meta").load(tmp_path)
    assert torch.equal(other(x), ensemble(x))
    assert addresses(other.members[0]) == addresses(other.members[1])


def test_plain_members_are_converted_unless_a_file_does_not_fit(tmp_path):
    model, x = convert_(network(), learned=0.25, seed=0), torch.randn(2, 3, 6, 6)
    ensemble = Ensemble(model, 2, seed=1).eval()
    ensemble.save(tmp_path)
    assert torch.equal(Ensemble(network(), 2).load(tmp_path).eval()(x), ensemble(x))
    (tmp_path / "member_1.safetensors").write_bytes(b"damaged")
    other = Ensemble(network(), 2).eval()
    before, kinds = other(x), list(map(type, other.modules()))
    with pytest.raises(ValueError, match="member_1"):
        other.load(tmp_path)
    assert torch.equal(other(x), before)
    assert list(map(type, other.modules())) == kinds


@pytest.mark.parametrize("rest", ["learn", "freeze"])
@pytest.mark.parametrize("name", sorted(METHODS))
def test_plain_members_share_what_is_frozen_in_their_files(tmp_path, name, rest):
    model = convert_(network(), method=METHODS[name], rest=rest, seed=0)
    seed = None if name == "random_positions" else 1
    ensemble, x = Ensemble(model, 3, seed=seed).eval(), torch.randn(2, 3, 6, 6)
    ensemble.save(tmp_path)
    loaded = Ensemble(network(), 3).load(tmp_path).eval()
    assert torch.equal(loaded(x), ensemble(x))
    assert count_values(loaded) == count_values(ensemble)
    # Values that a member froze by itself stay its own.
    for member in loaded.members[:2]:
        member.requires_grad_(False)
    before = count_values(loaded)
    assert count_values(loaded.load(tmp_path)) == before


def count_values(ensemble):
    return sum(one.numel() for one in (*ensemble.parameters(), *ensemble.buffers()))


def test_files_that_differ_in_what_members_share(tmp_path):
    """Files of two ensembles: the last one would set the values of all members."""
    for index, seed in enumerate([1, 2]):
        member = created(seed).members[0]
        save(member, tmp_path / f"member_{index}.safetensors", frozen=True)
    ensemble = created(3)
    before = copy.deepcopy(ensemble.state_dict())
    with pytest.raises(ValueError, match=r"frozen differs from conv1\.frozen in .*member_0"):
        ensemble.load(tmp_path)
    assert all(torch.equal(value, before[key]) for key, value in ensemble.state_dict().items())
