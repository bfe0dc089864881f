"""Whole models: nn.Conv2d (and what else a method takes) to its layers and back, in place."""

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
    Layers,
    grouped,
    obstacles,
    partly_learned_layers,
    plain_layers,
    plain_types,
)
from maskedconv.conversion.stale_optimizers import warn_of_stale_optimizers
from maskedconv.conversion.unlearned import warn_of_all_frozen, warn_of_none_learned
from maskedconv.methods import Method
from maskedconv.nn.partly_learned import PartlyLearned

Model = TypeVar("Model", bound=nn.Module)
Patterns = str | Sequence[str] | None


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
        method: another method of :mod:`maskedconv.methods`, instead of these three. It may also
            replace other layers than ``nn.Conv2d``: supermasks replace ``nn.Linear`` too.
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
    method = _method(learned, slice_dim, frozen, method)
    _check_model(model, method.converted, "the from_conv2d() of MaskedConv2d")
    plain = plain_layers(model, method.converted)
    chosen, left = _choose(model, plain, method, _patterns(include), _patterns(exclude))
    layers = _converted(chosen, method, seed)
    _warn_of_left(left, len(plain), "convert_")
    named = [(name, layers[id(one)]) for name, one in chosen]
    warn_of_none_learned(named, method, 3)
    warn_of_all_frozen(named, 3)
    warn_of_stale_optimizers([one for _, one in chosen], "convert_")
    for one in {id(one): one for _, one in chosen}.values():
        carry_to_parts(one, layers[id(one)])
    for name, one in chosen:
        model.set_submodule(name, layers[id(one)])
    method.attach(model)
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
    _check_model(model, (nn.Conv2d,), "its to_plain()")
    masked = partly_learned_layers(model)
    left = obstacles(model, masked, plain_types())
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
    for index, (name, one) in enumerate(chosen):
        if id(one) not in layers:
            try:
                layers[id(one)] = method.convert(one, None if seed is None else seed + index)
            except (ValueError, TypeError) as error:
                raise type(error)(f"{name}: {error}") from None
    method.finish(list(layers.values()), seed)
    return layers


def _check_model(model: nn.Module, kinds: tuple[type[nn.Module], ...], instead: str) -> None:
    if isinstance(model, (*kinds, PartlyLearned)):
        what = "a convolution" if isinstance(model, nn.Conv2d) else f"a {type(model).__name__}"
        raise ValueError(f"model is {what} itself; use {instead}")
    for name, module in model.named_modules():
        if isinstance(module, DistributedDataParallel):
            raise ValueError(
                f"{name or 'model'} is a DistributedDataParallel, which keeps the old parameters; "
                "convert the model before it is wrapped"
            )


def _warn_of_left(left: Mapping[str, str], total: int, caller: str) -> None:
    if left:
        warnings.warn(
            f"{caller} left {len(left)} of {total} layers alone: {grouped(left)}. "
            "maskedconv.conversion_report(model) lists all of them",
            stacklevel=3,
        )


def _partly_selected(plain: Layers, selected: Layers) -> dict[str, str]:
    """Names of layers that the model also holds under an unselected name."""
    chosen = {name for name, _ in selected}
    others = {id(one): name for name, one in plain if name not in chosen}
    return {
        name: f"it is the same module as {others[id(one)]}, which is not selected"
        for name, one in selected
        if id(one) in others
    }


def _patterns(value: Patterns) -> list[str] | None:
    if value is None:
        return None
    return [value] if isinstance(value, str) else list(value)


def _choose(
    model: nn.Module,
    plain: Layers,
    method: Method,
    include: list[str] | None,
    exclude: list[str] | None,
) -> tuple[Layers, dict[str, str]]:
    """The selected layers that can be converted, and a reason for each of the others."""
    kinds = " or ".join(f"nn.{kind.__name__}" for kind in method.converted)
    for argument, patterns in (("include", include), ("exclude", exclude)):
        for pattern in patterns or []:
            if not any(fnmatchcase(name, pattern) for name, _ in plain):
                raise ValueError(f"{argument} has {pattern!r}, which matches no {kinds}")
    selected = [
        (name, one)
        for name, one in plain
        if (include is None or any(fnmatchcase(name, p) for p in include))
        and not any(fnmatchcase(name, p) for p in exclude or [])
    ]
    left = {
        **{name: why for name, one in selected if (why := method.obstacle(one))},
        **obstacles(model, selected, method.layers()),
        **_partly_selected(plain, selected),
    }
    for pattern in include or []:
        named = [name for name, _ in selected if fnmatchcase(name, pattern)]
        if named and all(name in left for name in named):
            reasons = grouped({name: left[name] for name in named})
            raise ValueError(f"include has {pattern!r}, but convert_ leaves alone {reasons}")
    chosen = [(name, one) for name, one in selected if name not in left]
    if not chosen:
        reasons = f": {grouped(left)}" if left else ""
        raise ValueError(f"model ({type(model).__name__}) has no {kinds} to convert{reasons}")
    return chosen, left
