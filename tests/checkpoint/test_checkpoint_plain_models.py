"""Checkpoints of partly frozen models, and plain models that a file converts."""

from __future__ import annotations

import copy
import hashlib
import warnings

import pytest
import torch
from damaged_checkpoints import equal, parts_of
from torch import nn

from maskedconv import convert_, load, methods, models, save
from maskedconv.checkpoint import read_notes
from maskedconv.nn.frozen_statistics import FrozenStatistics

METHODS = (
    methods.slice(0.5),
    methods.slice(0.5, slice_dim=1),
    methods.slice(0.5, which="largest"),
    methods.slice(0.5, frozen="zero"),
    methods.slice(0.5, frozen="zero", which="last"),
    methods.norm_only(),
    methods.random_positions(40),
    methods.supermask(0.5, weights="keep"),
    methods.biprop(0.5, weights="keep", threshold="global"),
)


def plain(seed=0, classes=3):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, bias=False),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes),
    ).eval()  # fmt: skip


def converted(method):
    with warnings.catch_warnings(action="ignore"):
        model = convert_(plain(), method=method)
    for parameter in model.parameters():
        parameter.data.normal_()
    model[1].running_mean.normal_()
    return model.eval()


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("frozen", [False, True])
def test_a_plain_model_is_converted(tmp_path, method, frozen):
    model = converted(method)
    save(model, tmp_path / "m", frozen=frozen)
    # Without frozen values in the file, the same backbone with the same biases is needed.
    other = plain(seed=1 if frozen else 0)
    images, random = torch.randn(2, 3, 8, 8), torch.get_rng_state()
    load(other, tmp_path / "m")
    assert torch.equal(torch.get_rng_state(), random)
    assert [type(m) for m in other.modules()] == [type(m) for m in model.modules()]
    assert equal(other.state_dict(), model.state_dict())
    assert torch.equal(other(images), model(images))


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_plain_model_is_converted_in_inference_mode(tmp_path, method):
    save(converted(method), tmp_path / "m", frozen=True)
    other = plain(seed=1)
    with torch.inference_mode():
        load(other, tmp_path / "m")
    other.train()(torch.randn(2, 3, 8, 8)).sum().backward()


def test_a_failed_load_leaves_a_plain_model_as_it_is(tmp_path):
    save(converted(METHODS[-1]), tmp_path / "m")
    other = plain(seed=1)
    modules, state = list(other.modules()), copy.deepcopy(other.state_dict())
    with pytest.raises(ValueError, match=r"1 of 1 layers with frozen values differ: 3\."):
        load(other, tmp_path / "m")
    assert all(one is two for one, two in zip(modules, other.modules(), strict=True))
    assert equal(state, other.state_dict())
    assert not other._forward_pre_hooks


def test_a_layer_of_another_type_is_named(tmp_path):
    save(converted(methods.slice(0.5)), tmp_path / "m")
    other = plain()
    other[3] = nn.Identity()
    with pytest.raises(ValueError, match=r"m cannot be loaded .*: 3 is a Identity in the model"):
        load(other, tmp_path / "m")


def frozen_backbone(classes=3):
    model = plain(classes=classes)
    model[0].requires_grad_(False)
    return model


def test_parameters_without_a_gradient_are_left_out(tmp_path):
    model = frozen_backbone()
    convert_(model, learned=0.5, include="3")
    save(model, tmp_path / "m", base="hub/model")
    _, tensors = parts_of(tmp_path / "m")
    assert not any(name.startswith("0.") for name in tensors)
    assert "1.running_mean" in tensors
    model[6].weight.data.normal_()
    save(model, tmp_path / "m", base="hub/model")
    loaded = load(frozen_backbone(), tmp_path / "m")
    assert equal(loaded.state_dict(), model.state_dict())
    assert not loaded[0].weight.requires_grad
    with pytest.raises(ValueError, match="or the weights of hub/model"):
        load(plain(seed=2), tmp_path / "m")


def test_values_of_no_known_source_are_warned_of(tmp_path):
    with pytest.warns(UserWarning, match=r"leaves out 2 parameters .* \(0\.weight, \.\.\.\)"):
        save(frozen_backbone(), tmp_path / "m")


def test_the_source_may_be_a_file(tmp_path):
    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"any weights")
    save(frozen_backbone(), tmp_path / "m", base=weights)
    digest = hashlib.sha256(b"any weights").hexdigest()
    with pytest.raises(ValueError, match=rf"loaded from weights.bin \(SHA-256 {digest}\)"):
        load(plain(seed=2), tmp_path / "m")


def test_a_head_of_another_size_is_named(tmp_path):
    save(models.create("resnet_14", learned=0.5, seed=1, num_classes=10), tmp_path / "m")
    other = models.create("resnet_14", learned=0.5, seed=1, num_classes=7)
    with pytest.raises(ValueError, match=r"fc.bias is \[10\] in the file; the model has \[7\]"):
        load(other, tmp_path / "m")


def test_notes(tmp_path):
    save(plain(), tmp_path / "m", notes={"classes": ["cat", "dog"]})
    assert read_notes(tmp_path / "m") == {"classes": ["cat", "dog"]}
    before = (tmp_path / "m").read_bytes()
    with pytest.raises(TypeError, match="JSON"):
        save(plain(), tmp_path / "m", notes={"classes": object()})
    assert (tmp_path / "m").read_bytes() == before


@pytest.mark.parametrize("network", ["resnet_50", "mobilenet_v2", "densenet_121"])
def test_size(tmp_path, network):
    """Files are at most 2 % and 8 KB larger than learned values and statistics of norms."""
    from torchvision import models as others

    make = getattr(others, network.replace("_50", "50").replace("_121", "121"))
    with warnings.catch_warnings(action="ignore"):
        model = convert_(make(weights=None), learned=0.1)
        save(model, tmp_path / "m", base="torchvision")
    frozen = {name for name, _ in model.named_buffers() if name.endswith("frozen")}
    kept = [t for name, t in model.state_dict().items() if name not in frozen]
    learned = sum(t.numel() * t.element_size() for t in kept)
    assert (tmp_path / "m").stat().st_size <= 1.02 * learned + 8192


def with_frozen_statistics(**options):
    model = convert_(plain(), learned=0.5, norm="frozen statistics", rest="learn", **options)
    model[1].running_mean.normal_()
    return model


def test_norms_keep_their_statistics(tmp_path):
    model, images = with_frozen_statistics().train(), torch.randn(2, 3, 8, 8)
    save(model, tmp_path / "m")
    other = load(plain(), tmp_path / "m").train()
    assert torch.equal(other(images), model(images))
    assert equal(other.state_dict(), model.state_dict())
    assert type(other[1]) is type(model[1])


class Within(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module


def test_norms_of_a_model_within_another_one(tmp_path):
    """Data parallel training names modules like this."""
    model = convert_(plain(), learned=0.5, norm="frozen statistics", rest="learn")
    save(Within(model), tmp_path / "file")
    loaded = load(plain(), tmp_path / "file")
    assert isinstance(loaded[1], FrozenStatistics)
    assert equal(loaded.state_dict(), model.state_dict())


def test_norms_of_a_converted_model_stay_as_they_are(tmp_path):
    save(with_frozen_statistics(), tmp_path / "frozen")
    followed = convert_(plain(), learned=0.5, rest="learn")
    assert type(load(followed, tmp_path / "frozen")[1]) is nn.BatchNorm2d
    save(followed, tmp_path / "followed")
    own = with_frozen_statistics()
    assert type(load(own, tmp_path / "followed")[1]) is type(with_frozen_statistics()[1])


def test_another_module_in_place_of_a_norm_is_refused(tmp_path):
    class Norm(nn.Module):
        def __init__(self, norm):
            super().__init__()
            for name, buffer in norm.named_buffers():
                self.register_buffer(name, buffer)
            self.weight, self.bias = norm.weight, norm.bias

    save(with_frozen_statistics(), tmp_path / "m")
    other = plain()
    other[1] = Norm(other[1])
    with pytest.raises(ValueError, match=r"1 is a norm with frozen statistics .* model has Norm"):
        load(other, tmp_path / "m")
    assert type(other[0]) is nn.Conv2d


def test_what_is_saved_and_from_where(tmp_path):
    model = frozen_backbone()
    with pytest.raises(TypeError, match="model is a OrderedDict; expected the module"):
        save(model.state_dict(), tmp_path / "m")
    (tmp_path / "there").write_bytes(b"")
    for base in ("weights.pt", str(tmp_path / "there")):
        with pytest.raises(ValueError, match="expected a Path for a file"):
            save(model, tmp_path / "m", base=base)
    with pytest.raises(FileNotFoundError, match=r"load_sharded\(\) and load_run\(\) read folders"):
        load(model, tmp_path)
    assert not (tmp_path / "m").exists()
