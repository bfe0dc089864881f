"""JSON documents with one value changed at random."""

from __future__ import annotations

import copy


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
