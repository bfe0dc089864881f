"""Whole models: nn.Conv2d to MaskedConv2d and back, in place."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Literal, TypeVar

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from maskedconv import methods
from maskedconv.conversion.carrying import carry_to_parts, carry_to_plain
from maskedconv.conversion.convolutions import (
    grouped,
    obstacles,
    partly_learned_layers,
    plain_convolutions,
)
from maskedconv.conversion.stale_optimizers import warn_of_stale_optimizers
from maskedconv.conversion.unlearned import warn_of_all_frozen, warn_of_none_learned
from maskedconv.methods import Method
from maskedconv.nn.partly_learned import PartlyLearned

Model = TypeVar("Model", bound=nn.Module)
Patterns = str | Sequence[str] | None
Layers = list[tuple[str, nn.Conv2d]]


def convert_(
    model: Model,
    *,
    learned: float | int | None = None,
    slice_dim: int = 0,
    frozen: Literal["keep", "random", "zero"] = "keep",
    method: Method | None = None,
    include: Patterns = None,
    exclude: Patterns = None,
    seed: int | None = None,
) -> Model:
    """Replaces the model's ``nn.Conv2d`` by layers that learn a part of them, in place.

    ``convert_(model, learned=0.1)`` makes each a :class:`MaskedConv2d`.

    The conversion keeps device, dtype, memory format, training mode, ``requires_grad`` of weight
    and bias, the learned part of their gradients, forward and backward hooks, and attributes.
    A layer that appears twice in the model is replaced by one layer. Optimizers must be created
    after the conversion, because the parameters are new.

    The conversion skips every layer that is more than a plain ``nn.Conv2d``, and one warning names
    the skipped layers: subclasses, parametrized or pruned layers, layers with hooks on parameters
    or on the state dict, layers that share a parameter, layers that are also held outside the
    model's modules (in a plain list, say), and layers selected under only one of their names. See
    :func:`maskedconv.conversion_report`. Objects outside ``model`` are not searched.

    Args:
        learned, slice_dim: of every layer, as for :class:`MaskedConv2d`.
        frozen: what happens to the filters that are not learned: ``"keep"`` their values,
            ``"random"`` draws them anew, ``"zero"`` drops them.
        method: another method of :mod:`maskedconv.methods`, instead of these three.
        include, exclude: shell patterns of module names ("layer1.*", "*.conv2"); None includes
            every convolution and excludes none.
        seed: of the values drawn under ``"random"``; every layer gets its own from it.

    Returns:
        ``model``.

    Raises:
        ValueError, TypeError: as :class:`MaskedConv2d`; or not exactly one of ``learned`` and
            ``method`` is given. Nothing has been replaced then.
        ValueError: ``model`` is itself a convolution or holds a DistributedDataParallel, no layer
            can be converted, or a pattern matches nothing or only layers that are left alone.
    """
    _check_model(model, "MaskedConv2d.from_conv2d")
    method = _method(learned, slice_dim, frozen, method)
    convs = plain_convolutions(model)
    chosen, left = _choose(model, convs, method, _patterns(include), _patterns(exclude))
    layers = _converted(chosen, method, seed)
    _warn_of_left(left, len(convs), "convert_")
    named = [(name, layers[id(conv)]) for name, conv in chosen]
    warn_of_none_learned(named, method, 3)
    warn_of_all_frozen(named, 3)
    warn_of_stale_optimizers([conv for _, conv in chosen], "convert_")
    for conv in {id(conv): conv for _, conv in chosen}.values():
        carry_to_parts(conv, layers[id(conv)])
    for name, conv in chosen:
        model.set_submodule(name, layers[id(conv)])
    return model


def merge_(model: Model) -> Model:
    """Replaces the model's :class:`MaskedConv2d` by plain ``nn.Conv2d`` with the same filters.

    Likewise for the layers of the other methods. Keeps and skips the same things as
    :func:`convert_`. A merged weight requires a gradient unless the learned part had
    ``requires_grad=False``. It has a ``grad`` only if the whole layer was learned.

    Returns:
        ``model``, changed in place.

    Raises:
        ValueError: ``model`` is itself a convolution or holds a DistributedDataParallel, or it has
            masked layers and none can be merged.
    """
    _check_model(model, "its to_conv2d()")
    masked = partly_learned_layers(model)
    left = obstacles(model, masked, nn.Conv2d)
    chosen = [(name, layer) for name, layer in masked if name not in left]
    if masked and not chosen:
        raise ValueError(f"none of the model's masked layers can be merged: {grouped(left)}")
    plain = {id(layer): layer.to_plain() for _, layer in chosen}
    _warn_of_left(left, len(masked), "merge_")
    warn_of_stale_optimizers([layer for _, layer in chosen], "merge_")
    for layer in {id(layer): layer for _, layer in chosen}.values():
        carry_to_plain(layer, plain[id(layer)])
    for name, layer in chosen:
        model.set_submodule(name, plain[id(layer)])
    return model


def _method(
    learned: float | int | None,
    slice_dim: int,
    frozen: Literal["keep", "random", "zero"],
    method: Method | None,
) -> Method:
    if method is None:
        if learned is None:
            raise TypeError("learned is missing; expected a fraction, a count, or a method")
        return methods.slice(learned, slice_dim, frozen)
    if learned is not None:
        raise ValueError(f"learned is {learned} and method is {method}; expected one of the two")
    return method


def _converted(chosen: Layers, method: Method, seed: int | None) -> dict[int, PartlyLearned]:
    """The new layers, by the ``id`` of the old ones."""
    layers: dict[int, PartlyLearned] = {}
    for index, (name, conv) in enumerate(chosen):
        if id(conv) not in layers:
            try:
                layers[id(conv)] = method.convert(conv, None if seed is None else seed + index)
            except (ValueError, TypeError) as error:
                raise type(error)(f"{name}: {error}") from None
    method.finish(list(layers.values()), seed)
    return layers


def _check_model(model: nn.Module, instead: str) -> None:
    if isinstance(model, nn.Conv2d | PartlyLearned):
        raise ValueError(f"model is a convolution itself; use {instead}")
    for name, module in model.named_modules():
        if isinstance(module, DistributedDataParallel):
            raise ValueError(
                f"{name or 'model'} is a DistributedDataParallel, which keeps the old parameters; "
                "convert the model before it is wrapped"
            )


def _warn_of_left(left: Mapping[str, str], total: int, caller: str) -> None:
    if left:
        warnings.warn(
            f"{caller} left {len(left)} of {total} convolutions alone: {grouped(left)}. "
            "maskedconv.conversion_report(model) lists all of them",
            stacklevel=3,
        )


def _partly_selected(convs: Layers, selected: Layers) -> dict[str, str]:
    """Names of layers that the model also holds under an unselected name."""
    chosen = {name for name, _ in selected}
    others = {id(conv): name for name, conv in convs if name not in chosen}
    return {
        name: f"it is the same module as {others[id(conv)]}, which is not selected"
        for name, conv in selected
        if id(conv) in others
    }


def _patterns(value: Patterns) -> list[str] | None:
    if value is None:
        return None
    return [value] if isinstance(value, str) else list(value)


def _choose(
    model: nn.Module,
    convs: Layers,
    method: Method,
    include: list[str] | None,
    exclude: list[str] | None,
) -> tuple[Layers, dict[str, str]]:
    """The selected convolutions that can be converted, and a reason for each of the others."""
    for argument, patterns in (("include", include), ("exclude", exclude)):
        for pattern in patterns or []:
            if not any(fnmatchcase(name, pattern) for name, _ in convs):
                raise ValueError(f"{argument} has {pattern!r}, which matches no nn.Conv2d")
    selected = [
        (name, conv)
        for name, conv in convs
        if (include is None or any(fnmatchcase(name, p) for p in include))
        and not any(fnmatchcase(name, p) for p in exclude or [])
    ]
    left = {
        **obstacles(model, selected, method.layer),
        **_partly_selected(convs, selected),
    }
    for pattern in include or []:
        named = [name for name, _ in selected if fnmatchcase(name, pattern)]
        if named and all(name in left for name in named):
            reasons = grouped({name: left[name] for name in named})
            raise ValueError(f"include has {pattern!r}, but convert_ leaves alone {reasons}")
    chosen = [(name, conv) for name, conv in selected if name not in left]
    if not chosen:
        why = f": {grouped(left)}" if left else ""
        raise ValueError(f"model ({type(model).__name__}) has no nn.Conv2d to convert{why}")
    return chosen, left
