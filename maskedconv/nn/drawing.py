"""Draws the learned values of a model anew, from one seed; frozen values stay."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from maskedconv.nn.frozen_statistics import FrozenStatistics
from maskedconv.nn.partly_learned import PartlyLearned
from maskedconv.seeds import seed_of_32_bits

_NAMED = 4  # names that a message lists


def draw_learned_(model: nn.Module, seed: int) -> None:
    """Draws all values that require a gradient anew; torch's own generator stays as it is.

    Layers that are partly learned draw theirs, and ``reset_parameters`` of other modules sets
    those of the module and of modules within. Buffers that it sets are drawn too, except frozen
    statistics and those of modules with frozen parameters.

    Raises:
        ValueError: a layer cannot be drawn anew, as of ``random_positions``.

    Warns:
        UserWarning: no ``reset_parameters`` sets a learned value, which stays as it is.
    """
    kept = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad(), _seeded(seed):
        for name, module in model.named_modules():
            for value, drawn in _drawn(name, module):
                value.copy_(drawn)
                kept.pop(id(value), None)
    if kept:
        names = ", ".join(list(kept.values())[:_NAMED]) + (", ..." if len(kept) > _NAMED else "")
        warnings.warn(
            f"the seed draws nothing for {len(kept)} learned parameters ({names}), as no "
            "reset_parameters() sets them; they keep the values of the model",
            stacklevel=3,
        )


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Context with seeded generators, which are as before after it."""
    on_gpu = torch.cuda.is_initialized()
    with torch.random.fork_rng(range(torch.cuda.device_count()) if on_gpu else []):
        # torch.manual_seed would seed the generators of GPUs that are used later, too.
        (torch.manual_seed if on_gpu else torch.default_generator.manual_seed)(
            seed_of_32_bits(seed)
        )
        yield


def _drawn(name: str, module: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    """The values that ``module`` draws, and the new ones."""
    if isinstance(module, PartlyLearned):
        own = list(module.parameters(recurse=False))
        seed = int(torch.randint(2**31, (), device="cpu"))
        if any(parameter.requires_grad for parameter in own):
            drawn = _layer_from(seed, name, module).parameters(recurse=False)
            pairs = zip(own, drawn, strict=True)
            yield from ((old, new) for old, new in pairs if old.requires_grad)
    elif hasattr(module, "reset_parameters"):
        yield from _reset(module)


def _layer_from(seed: int, name: str, layer: PartlyLearned) -> PartlyLearned:
    try:
        return layer.drawn_from(seed)
    except ValueError as error:
        raise ValueError(
            f"layer {name} ({layer.method}) cannot be drawn anew from a seed ({error}); expected "
            "seed=None, which keeps the values of the model"
        ) from None


def _reset(module: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    """The values that ``reset_parameters`` sets, and the new ones.

    It runs on a copy, as it may write into frozen values, those of layers within included.
    """
    values = _values(module)
    if not values:
        return
    other = copy.deepcopy(module)
    for new in _values(other).values():
        if new.requires_grad:
            new.fill_(math.nan)
    cast(Any, other).reset_parameters()
    after = _values(other)
    for key in values.keys() & after.keys():
        old, new = values[key], after[key]
        # Elements that are still NaN were not set.
        unset = new.isnan() if old.requires_grad else torch.zeros_like(new, dtype=torch.bool)
        if old.shape != new.shape or (unset.all() and new.numel()):
            continue
        # A buffer may be a view whose elements share memory; nothing can be written to it.
        if old.requires_grad or not torch.equal(old, new):
            yield old, torch.where(unset, old, new)


def _values(module: nn.Module) -> dict[str, Tensor]:
    """Learned parameters and buffers outside of partly learned layers, by name.

    No buffers of modules with frozen parameters or statistics.
    """
    found: dict[str, Tensor] = {}
    for name, part in module.named_modules():
        if not isinstance(part, PartlyLearned):
            own = dict(part.named_parameters(recurse=False))
            found |= {f"{name}.{key}": one for key, one in own.items() if one.requires_grad}
            fixed = isinstance(part, FrozenStatistics)
            if not fixed and all(p.requires_grad for p in own.values()):
                found |= {f"{name}.{key}": one for key, one in part.named_buffers(recurse=False)}
    return {key: one for key, one in found.items() if not (is_lazy(one) or one.is_meta)}
