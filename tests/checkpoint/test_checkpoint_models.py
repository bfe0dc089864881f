"""Checkpoints of compiled and wrapped models, on the meta device, and drawn elsewhere."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from damaged_checkpoints import equal, parts_of, with_header
from torch import nn

from maskedconv import MaskedConv2d, convert_, load, models, save
from maskedconv.checkpoint.digests import check_of, fingerprint
from maskedconv.nn.origin import origin_of


def network(seed=0, **options):
    return nn.Sequential(
        MaskedConv2d(3, 8, 3, learned=2, seed=seed, **options),
        nn.BatchNorm2d(8),
        nn.Sequential(MaskedConv2d(8, 4, 1, learned=0.5, seed=seed, **options)),
    ).eval()


def wrapped(kind, model):
    if kind == "compiled":
        return torch.compile(model, backend="eager")
    if kind == "compiled inside":
        model[2] = torch.compile(model[2], backend="eager")
        return model
    if kind == "data parallel":
        return nn.DataParallel(model)
    return model if kind == "plain" else torch.compile(nn.DataParallel(model), backend="eager")


KINDS = ("plain", "compiled", "compiled inside", "data parallel", "both")


@pytest.mark.parametrize("saved", KINDS)
@pytest.mark.parametrize("loaded", KINDS)
def test_wrappers_do_not_matter(tmp_path, saved, loaded):
    model, other = network(1), network(2)
    nn.init.normal_(model[1].running_mean)
    save(wrapped(saved, model), tmp_path / "m")
    plain = nn.Sequential(
        *copy.deepcopy(model[:2]), copy.deepcopy(getattr(model[2], "_orig_mod", model[2]))
    )
    expected = plain.state_dict()
    assert parts_of(tmp_path / "m")[1].keys() <= expected.keys()
    x = torch.randn(2, 3, 5, 5)
    into = wrapped(loaded, other)
    assert load(into, tmp_path / "m") is into
    assert torch.equal(other(x), plain(x))


@pytest.mark.parametrize("loaded", KINDS)
@pytest.mark.parametrize("prefix", ["_orig_mod.", "module."])
def test_names_in_old_files(tmp_path, prefix, loaded):
    """The first format stored the names of wrappers."""
    from safetensors.torch import load_file, save_file

    path, model = tmp_path / "m", network(1)
    save(model, path)

    def renamed(entries):
        return {f"{prefix}{name}": value for name, value in entries.items()}

    def change(header):
        return {**header, **{key: renamed(header[key]) for key in ("layers", "frozen")}}

    path.write_bytes(with_header(path, change, first_format=True))
    metadata, tensors = parts_of(path)[0], load_file(path)
    save_file(renamed(tensors), path, metadata)
    other = network(2)
    load(wrapped(loaded, other), path)
    assert torch.equal(other[0].weight, model[0].weight)


def test_distributed_data_parallel(tmp_path):
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    try:
        model = network(1)
        save(nn.parallel.DistributedDataParallel(model), tmp_path / "m")
        other = network(2)
        load(nn.parallel.DistributedDataParallel(other), tmp_path / "m")
        assert equal(load(network(3), tmp_path / "m").state_dict(), model.state_dict())
        assert equal(other.state_dict(), model.state_dict())
    finally:
        torch.distributed.destroy_process_group()


NETWORKS = [
    ("wrn_10_1", {}),
    ("densenet_bc_16_12", {"slice_dim": 1}),
    ("vgg19", {"width": 0.1, "image_size": 32, "init": "authors"}),
    ("resnet_8", {"bn_learned": False}),
    ("conv2", {"width": 0.1, "num_classes": 3}),
]


@pytest.mark.parametrize(("name", "options"), NETWORKS)
def test_filters_of_models_are_drawn_again_from_their_seed(tmp_path, name, options):
    model = models.create(name, learned=0.3, seed=1, **options)
    save(model, tmp_path / "m")
    for other in (
        models.create(name, learned=0.3, seed=2, **options),
        models.create(name, learned=0.3, **options),
        copy.deepcopy(models.create(name, learned=0.3, seed=3, **options)),
    ):
        assert equal(load(other, tmp_path / "m").state_dict(), model.state_dict())
        # From now on the model has the file's seed.
        save(other, tmp_path / "again")
        load(models.create(name, learned=0.3, seed=4, **options), tmp_path / "again")


def test_filters_of_models_in_another_type(tmp_path):
    model = models.create("wrn_10_1", learned=0.3, seed=1).bfloat16()
    save(model, tmp_path / "m")
    other = models.create("wrn_10_1", learned=0.3, seed=2).bfloat16()
    assert equal(load(other, tmp_path / "m").state_dict(), model.state_dict())


def test_a_seed_does_not_speak_for_filters_that_were_changed(tmp_path):
    model = models.create("wrn_10_1", learned=0.3, seed=1)
    model.conv1.frozen.mul_(2)
    with pytest.warns(UserWarning, match=r"frozen values \(conv1\.frozen"):
        save(model, tmp_path / "m")
    other = models.create("wrn_10_1", learned=0.3, seed=1)
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(ValueError, match=r"conv1\.frozen of the model is not what .*SHA-256"):
        load(other, tmp_path / "m")
    assert equal(other.state_dict(), before)
    assert equal(load(copy.deepcopy(model), tmp_path / "m").state_dict(), model.state_dict())


def test_a_loaded_model_is_saved_with_the_seed_of_its_filters(tmp_path):
    save(network(1), tmp_path / "one")
    second = load(network(2), tmp_path / "one")
    save(second, tmp_path / "two")
    assert equal(load(network(3), tmp_path / "two").state_dict(), network(1).state_dict())


@pytest.mark.parametrize("first_format", [False, True])
def test_a_type_that_differs_is_named(tmp_path, first_format):
    path = tmp_path / "m"
    save(network(1), path)
    path.write_bytes(with_header(path, lambda header: header, first_format))
    model = network(1).bfloat16()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="float32 in the file; the model has bfloat16") as caught:
        load(model, path)
    assert "SHA" not in str(caught.value)
    assert equal(model.state_dict(), before)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("slices", [{}, {"frozen": "zero"}, {"slice_dim": 1}])
def test_into_a_model_on_the_meta_device(tmp_path, frozen, slices):
    model = network(1, **slices)
    save(model, tmp_path / "m", frozen=frozen)
    with torch.device("meta"):
        other = network(2, **slices)
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(load(other, tmp_path / "m")(x), model(x))
    assert {type(p) for p in other.parameters()} == {nn.Parameter}
    assert [p.requires_grad for p in other.parameters()] == [
        p.requires_grad for p in model.parameters()
    ]


def test_a_network_on_the_meta_device(tmp_path):
    model = models.create("wrn_10_1", learned=0.0, seed=1).eval()
    save(model, tmp_path / "m")
    with torch.device("meta"):
        other = models.create("wrn_10_1", learned=0.0).eval()
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(load(other, tmp_path / "m")(x), model(x))


def test_tied_parameters_on_the_meta_device_stay_tied(tmp_path):
    def tied():
        one, other = nn.Linear(3, 3), nn.Linear(3, 3)
        other.weight = one.weight
        return nn.Sequential(one, other)

    model = tied()
    save(model, tmp_path / "m")
    with torch.device("meta"):
        other = tied()
    load(other, tmp_path / "m")
    assert other[0].weight is other[1].weight
    assert equal(other.state_dict(), model.state_dict())


def test_what_the_meta_device_lacks_is_named_before_anything_changes(tmp_path):
    model = network(None)
    save(model, tmp_path / "m")
    with torch.device("meta"):
        other = network(None)
    with pytest.raises(ValueError, match=r"0\.frozen of the model is on the meta device"):
        load(other, tmp_path / "m")
    assert all(value.is_meta for value in other.state_dict().values())

    save(network(1), tmp_path / "m")
    with torch.device("meta"):
        other = network(1)
        other[1].register_buffer("table", torch.ones(3), persistent=False)
    with pytest.raises(ValueError, match=r"1\.table of the model is on the meta device"):
        load(other, tmp_path / "m")
    assert all(value.is_meta for value in other.state_dict().values())


class Doubled(torch.Tensor):
    """A subclass whose memory does not contain its values."""


def with_buffer(tensor):
    module = nn.Linear(2, 2)
    module.register_buffer("extra", tensor)
    return module


@pytest.mark.parametrize(
    ("tensor", "what"),
    [
        (torch.ones(3, device="meta"), "on the meta device"),
        (torch.ones(3).to_sparse(), "of layout torch.sparse_coo"),
        (torch.ones(3).as_subclass(Doubled), "a Doubled"),
    ],
)
def test_what_is_no_plain_tensor_is_not_saved(tmp_path, tensor, what):
    with pytest.raises(ValueError, match=f"extra of the model is {what}; expected a plain tensor"):
        save(with_buffer(tensor), tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_lazy_signs_are_saved(tmp_path):
    negative = torch.complex(torch.ones(3), torch.arange(3.0)).conj().imag
    assert negative.is_neg()
    save(with_buffer(negative), tmp_path / "m")
    loaded = load(with_buffer(torch.zeros(3)), tmp_path / "m")
    assert loaded.extra.tolist() == [0.0, -1.0, -2.0]


def test_the_header_has_a_check_of_everything(tmp_path):
    model = network(1)
    save(model, tmp_path / "m")
    metadata, tensors = parts_of(tmp_path / "m")
    header = json.loads(metadata["maskedconv"])
    each = [check_of(key, fingerprint(tensors[key])) for key in sorted(tensors)]
    assert header["checks"] == "".join(each)
    assert tensors.keys() | header["frozen"].keys() == model.state_dict().keys()


def test_filters_of_no_seed_remember_their_file(tmp_path):
    """A file without the filters then names the one that has them."""
    backbone, task = tmp_path / "backbone.safetensors", tmp_path / "task.safetensors"
    model = convert_(nn.Sequential(nn.Conv2d(3, 8, 3)), learned=0.5)
    save(model, backbone, frozen=True)
    assert origin_of(model[0]) is None
    load(model, backbone)
    origin = origin_of(model[0])
    assert (origin.file, len(origin.sha256)) == (backbone.name, 64)
    save(model, task)
    load(model, task)
    assert origin_of(model[0]) == origin
    other = convert_(nn.Sequential(nn.Conv2d(3, 8, 3)), learned=0.5)
    with pytest.raises(ValueError, match=rf"loaded from {backbone.name} \(SHA-256 {origin.sha256}"):
        load(other, task)
    load(load(other, backbone), task)
    assert torch.equal(other[0].weight, model[0].weight)
