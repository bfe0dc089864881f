"""Damaged, forged and invalid checkpoints raise an error that names the file, or load correctly."""

from __future__ import annotations

import copy

import pytest
import torch
from damaged_checkpoints import equal, network, parts_of, run, with_header
from safetensors.torch import save as serialize

from maskedconv import load, models, save
from maskedconv.checkpoint import load_plain


@pytest.mark.parametrize("seed", range(3))
def test_damage_is_refused_by_file_or_does_not_matter(tmp_path, seed):
    outcomes = run(100, seed, tmp_path)
    assert sum(number for (_, how), number in outcomes.items() if how == "refused") > 70


@pytest.fixture
def whole(tmp_path):
    path = tmp_path / "whole.safetensors"
    save(network(1), path, frozen=True)
    return path


def without(*keys):
    def change(header):
        *above, last = keys
        holder = header
        for key in above:
            holder = holder[key]
        del holder[last]
        return header

    return change


def deep(header):
    return '{"layers": ' + "[" * 100_000


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("frozen"), "header: frozen is missing"),
        (without("layers"), "header: layers is missing"),
        (without("layers", "0", "frozen_mode"), "layers.0.frozen_mode is missing"),
        (without("layers", "2", "weight_shape"), "layers.2.weight_shape is missing"),
        (lambda header: {**header, "layers": []}, r"layers is \[\]; expected an object"),
        (lambda header: {**header, "frozen": ["a"]}, "frozen is .*; expected an object"),
        (lambda header: [header], "the value is .*; expected an object"),
        (deep, "nested too deeply"),
        (
            lambda header: {**header, "frozen": {**header["frozen"], "0.frozgn": "0"}},
            "frozen.0.frozgn belongs to none of the layers",
        ),
        (
            lambda header: {**header, "frozen": {**header["frozen"], "0.frozen": "0" * 64}},
            "0.frozen is damaged",
        ),
    ],
)
def test_damaged_headers_name_the_place(whole, change, message, first):
    whole.write_bytes(with_header(whole, change, first))
    for action in (lambda: load(network(1), whole), lambda: load_plain(whole)):
        with pytest.raises(ValueError, match=rf"whole\.safetensors.*{message}"):
            action()


@pytest.mark.parametrize("first", [False, True])
def test_a_flipped_bit_of_a_frozen_filter(whole, first):
    """Flips a high bit of an exponent, which gives values of 6e37."""
    whole.write_bytes(with_header(whole, lambda header: header, first))
    frozen = parts_of(whole)[1]["0.frozen"].numpy().tobytes()
    content = bytearray(whole.read_bytes())
    content[bytes(content).index(frozen) + 3] ^= 0x40
    whole.write_bytes(content)
    for action in (lambda: load(network(1), whole), lambda: load_plain(whole)):
        with pytest.raises(ValueError, match=r"0\.frozen is damaged \(its SHA-256"):
            action()


def test_a_flipped_bit_of_a_learned_value(whole):
    bias = parts_of(whole)[1]["4.bias"].numpy().tobytes()
    content = bytearray(whole.read_bytes())
    content[bytes(content).index(bias)] ^= 1
    whole.write_bytes(content)
    with pytest.raises(ValueError, match=r"4\.bias is damaged"):
        load(network(1), whole)


def test_integers_are_no_weights(whole):
    """An int32 1065353216 has the bits of 1.0; it must load as neither."""
    whole.write_bytes(with_header(whole, lambda header: header, first_format=True))
    metadata, tensors = parts_of(whole)
    tensors["4.weight"] = tensors["4.weight"].view(torch.int32)
    whole.write_bytes(serialize(tensors, metadata=metadata))
    model = network(1)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"4\.weight is int32 in the file; the model has float32"):
        load(model, whole)
    assert equal(model.state_dict(), before)


@pytest.mark.parametrize("frozen", [False, True])
def test_files_of_the_first_format_load(whole, frozen):
    save(network(1), whole, frozen=frozen)
    whole.write_bytes(with_header(whole, lambda header: header, first_format=True))
    assert equal(load(network(2), whole).state_dict(), network(1).state_dict())


def test_a_header_tells_of_networks_that_are_none(tmp_path):
    path = tmp_path / "m"
    save(models.create("conv2", learned=0.5, seed=1, width=0.1), path)

    def change(header):
        header["networks"][0]["name"] = "conv0"
        return header

    path.write_bytes(with_header(path, change))
    with pytest.raises(ValueError, match=r"m, header: features.* cannot be drawn again: .*conv0"):
        load(models.create("conv2", learned=0.5, seed=2, width=0.1), path)
