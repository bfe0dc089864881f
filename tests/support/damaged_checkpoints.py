"""Checkpoints damaged at random, and how the package takes them.

``python tests/support/damaged_checkpoints.py 10000 --out bench/results/damaged-checkpoints.md``
tries that many and writes a table. Any other outcome than those in it is an error.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import random
import tempfile
from collections import Counter
from pathlib import Path

import torch
from mutated_json import mutated
from safetensors import safe_open
from safetensors.torch import save as serialize
from torch import nn

from maskedconv import MaskedConv2d, load, save
from maskedconv.checkpoint import load_plain
from maskedconv.checkpoint.digests import fingerprint
from maskedconv.checkpoint.header import read_header

DAMAGES = {
    "cut": "truncated",
    "flip": "one bit flipped",
    "flips": "up to 20 bits flipped",
    "header": "header changed, in full, digest valid",
    "short": "header changed, as written, digest valid",
    "first": "header of format 1 changed, digest valid",
    "tensor": "a tensor of another type, shape or name",
    "foreign": "safetensors of another program",
    "noise": "random bytes",
}


def network(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        classifier = nn.Linear(3, 2)
    return nn.Sequential(
        MaskedConv2d(2, 6, 3, learned=2, seed=seed),
        nn.BatchNorm2d(6),
        MaskedConv2d(6, 4, 1, learned=0.5, slice_dim=1, which=[1, 4, 5], seed=seed, bias=False),
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


def full_header(path):
    """The header as earlier versions wrote it: each layer in full, a SHA-256 for each tensor."""
    metadata, tensors = parts_of(path)
    header = read_header(metadata["maskedconv"], path)
    del header["checks"]
    return {**header, "tensors": {name: fingerprint(value) for name, value in tensors.items()}}


def with_header(path, change, first_format=False, short=False):
    """The file's bytes with ``change`` applied to its header, and a matching digest.

    The header is as earlier versions wrote it, unless it is to be ``short``.
    """
    metadata, tensors = parts_of(path)
    header = json.loads(metadata["maskedconv"]) if short else full_header(path)
    if first_format:
        header["format"] = "maskedconv-1"
        del header["tensors"], header["networks"]
        for layer in header["layers"].values():
            del layer["dtype"], layer["origin"]
    header = change(header)
    written = header if isinstance(header, str) else json.dumps(header)
    metadata = {"maskedconv": written, "sha256": hashlib.sha256(written.encode()).hexdigest()}
    return serialize(tensors, metadata={key: metadata[key] for key in metadata})


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
        header = full_header(path)
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
    kind = draw.choice(tuple(DAMAGES))
    if kind == "cut":
        return kind, content[: draw.randrange(len(content))]
    if kind in ("flip", "flips"):
        content = bytearray(content)
        for _ in range(1 if kind == "flip" else 20):
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        return kind, bytes(content)
    if kind in ("header", "short", "first"):
        arguments = kind == "first", kind == "short"
        return kind, with_header(path, lambda header: mutated(header, draw), *arguments)
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
        forged = kind in ("header", "short", "first", "tensor")
        assert merged is None or forged or equal(merged, plain), case
        loaded = attempt(load, other, target)
        assert equal(other.state_dict(), start if loaded is None else expected), case
        outcomes[kind, "refused" if loaded is None else "loaded"] += 1
        if loaded is not None:
            other = network(2)
    return outcomes


def table(outcomes, seed):
    """The counts by kind of damage, in Markdown."""
    refused, loaded = ([outcomes[kind, how] for kind in DAMAGES] for how in ("refused", "loaded"))
    rows = zip(DAMAGES.values(), refused, loaded, strict=True)
    return "\n".join([
        "# Damaged checkpoints", "",
        f"`python tests/support/damaged_checkpoints.py {sum(refused + loaded)}`, seed {seed}.",
        "Refused: `load` raises a ValueError or OSError that names the file, and changes no bit of",
        "the model. Valid: the damage does not matter, and `load` gives every saved value.",
        "Nothing else happened.", "",
        "| damage | refused | valid |", "|---|--:|--:|",
        *(f"| {title} | {first:,} | {second:,} |" for title, first, second in rows),
        f"| all | {sum(refused):,} | {sum(loaded):,} |", "",
    ])  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=99)
    parser.add_argument("--out", type=Path, help="file for the table, besides the terminal")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = table(run(asked.count, asked.seed, Path(folder)), asked.seed)
    print(text)
    if asked.out is not None:
        asked.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
