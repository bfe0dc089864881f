"""Damaged, forged and invalid checkpoints raise an error that names the file, or load correctly.

``python tests/checkpoint/test_checkpoint_damage.py COUNT`` tries that many cases.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save as serialize
from torch import nn

from maskedconv import MaskedConv2d, load, models, save
from maskedconv.checkpoint import load_plain
from maskedconv.checkpoint.file import fingerprint


def network(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        classifier = nn.Linear(3, 2)
    return nn.Sequential(
        MaskedConv2d(2, 6, 3, learned=2, seed=seed),
        nn.BatchNorm2d(6),
        MaskedConv2d(6, 4, 1, learned=0.5, slice_dim=1, seed=seed, bias=False),
        MaskedConv2d(4, 4, 3, learned=1, frozen="zero", seed=seed, groups=2),
        classifier,
    )


def equal(one, other):
    return one.keys() == other.keys() and all(
        fingerprint(one[key]) == fingerprint(other[key]) for key in one
    )


def parts_of(path):
    """Metadata and tensors of a safetensors file."""
    with safe_open(path, framework="pt") as file:
        return file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def with_header(path, change, first_format=False):
    """The file's bytes with ``change`` applied to its header, and a matching digest."""
    metadata, tensors = parts_of(path)
    header = json.loads(metadata["maskedconv"])
    if first_format:
        header["format"] = "maskedconv-1"
        del header["tensors"], header["networks"]
        for layer in header["layers"].values():
            del layer["dtype"], layer["origin"]
    header = change(header)
    written = header if isinstance(header, str) else json.dumps(header)
    metadata = {"maskedconv": written, "sha256": hashlib.sha256(written.encode()).hexdigest()}
    return serialize(tensors, metadata={key: metadata[key] for key in metadata})


def nodes(value, path=()):
    """The paths of all values in a JSON document."""
    yield path
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from nodes(item, (*path, key))


NESTED = eval("[" * 50 + "]" * 50)
ODD = (None, "x", "", -1, 0, 1, 2, 7, 2**62, 2**70, 1.5, True, [], {}, [1], {"a": 1}, NESTED)


def mutated(value, draw):
    """``value`` with one node replaced, removed, renamed or repeated."""
    value = copy.deepcopy(value)
    path = draw.choice([path for path in nodes(value) if path])
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    kind, key = draw.randrange(4), path[-1]
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[draw.choice((f"{key}x", str(key)[:-1], f"_orig_mod.{key}"))] = holder.pop(key)
    else:
        holder[key] = draw.choice(ODD)
    return value


def retyped(path, draw):
    """One tensor changed in dtype, shape or name, added or removed; some with valid digests."""
    metadata, tensors = parts_of(path)
    key = draw.choice(list(tensors))
    tensor = tensors.pop(key)
    kind = draw.randrange(5)
    if kind == 0:
        types = (torch.int32, torch.float64, torch.bfloat16, torch.float16, torch.uint8, torch.bool)
        tensors[key] = tensor.to(draw.choice(types))
    elif kind == 1:
        shapes = (tensor[None], tensor.flatten(), torch.cat([tensor.flatten()] * 2))
        tensors[key] = draw.choice(shapes).contiguous()
    elif kind == 2:
        tensors[f"{key}x"] = tensor
    elif kind == 3:
        tensors |= {key: tensor, "more": tensor.clone()}
    if draw.random() < 0.7:
        header = json.loads(metadata["maskedconv"])
        header["tensors"] = {name: fingerprint(value) for name, value in tensors.items()}
        written = json.dumps(header)
        metadata = {"maskedconv": written, "sha256": hashlib.sha256(written.encode()).hexdigest()}
    return serialize(tensors, metadata=metadata)


def foreign(draw):
    tensors = {f"t{n}": torch.zeros(draw.randrange(3)) for n in range(draw.randrange(3))}
    texts = (None, {}, {"maskedconv": "{}"}, {"maskedconv": "["}, {"format": "pt"})
    return serialize(tensors, metadata=draw.choice(texts))


def damaged(path, draw):
    """The kind of damage, and the damaged bytes of ``path``."""
    content = path.read_bytes()
    kinds = ("cut", "flip", "flips", "header", "header", "first", "tensor", "foreign", "noise")
    kind = draw.choice(kinds)
    if kind == "cut":
        return kind, content[: draw.randrange(len(content))]
    if kind in ("flip", "flips"):
        content = bytearray(content)
        for _ in range(1 if kind == "flip" else 20):
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        return kind, bytes(content)
    if kind in ("header", "first"):
        first = kind == "first"
        return kind, with_header(path, lambda header: mutated(header, draw), first)
    if kind == "tensor":
        return kind, retyped(path, draw)
    return kind, foreign(draw) if kind == "foreign" else draw.randbytes(draw.randrange(200))


def attempt(action, *arguments):
    """The result of ``action``, or None if it raised an error that names the file."""
    try:
        return action(*arguments)
    except (ValueError, OSError) as error:
        if str(arguments[-1]) not in str(error):
            raise
        return None


def run(count, seed, folder):
    """Tries ``count`` cases; returns how many of each kind were refused or loaded unchanged."""
    draw, outcomes = random.Random(seed), Counter()
    saved = network(1)
    expected = saved.state_dict()
    paths = {whole: folder / f"{whole}.safetensors" for whole in (False, True)}
    for whole, path in paths.items():
        save(saved, path, frozen=whole)
    plain = load_plain(paths[True])
    target = folder / "damaged.safetensors"
    other = network(2)
    start = copy.deepcopy(other.state_dict())
    for number in range(count):
        whole = draw.random() < 0.5
        kind, content = damaged(paths[whole], draw)
        target.write_bytes(content)
        case = f"case {number} of seed {seed}: {kind}"
        merged = attempt(load_plain, target)
        # A forged file with valid digests may belong to another network.
        forged = kind in ("header", "first", "tensor")
        assert merged is None or forged or equal(merged, plain), case
        loaded = attempt(load, other, target)
        assert equal(other.state_dict(), start if loaded is None else expected), case
        outcomes[kind, "refused" if loaded is None else "loaded"] += 1
        if loaded is not None:
            other = network(2)
    return outcomes


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
    metadata, tensors = parts_of(whole)
    del metadata["sha256"]
    header = json.loads(metadata["maskedconv"])
    header["format"] = "maskedconv-1"
    tensors["4.weight"] = tensors["4.weight"].view(torch.int32)
    whole.write_bytes(serialize(tensors, metadata={"maskedconv": json.dumps(header)}))
    model = network(1)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"4\.weight is int32; expected float32"):
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


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for (kind, how), number in sorted(run(int(sys.argv[1]), 99, Path(folder)).items()):
            print(f"{kind:8} {how:8} {number}")
