"""Whole models: nn.Conv2d to MaskedConv2d and back, in place."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Literal, TypeVar

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from maskedconv import slices
from maskedconv.conversion.carrying import carry_module, carry_parameter
from maskedconv.conversion.convolutions import grouped, masked_layers, obstacles, plain_convolutions
from maskedconv.conversion.none_learned import warn_of_all_frozen, warn_of_none_learned
from maskedconv.conversion.stale_optimizers import warn_of_stale_optimizers
from maskedconv.nn import MaskedConv2d

Model = TypeVar("Model", bound=nn.Module)
Patterns = str | Sequence[str] | None
Layers = list[tuple[str, nn.Conv2d]]


def convert_(
    model: Model,
    *,
    learned: float | int,
    slice_dim: int = 0,
    frozen: Literal["keep", "random", "zero"] = "keep",
    include: Patterns = None,
    exclude: Patterns = None,
    seed: int | None = None,
) -> Model:
    """Replaces the model's ``nn.Conv2d`` by :class:`MaskedConv2d`, in place.

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
        include, exclude: shell patterns of module names ("layer1.*", "*.conv2"); None includes
            every convolution and excludes none.
        seed: of the values drawn under ``"random"``; every layer gets its own from it.

    Returns:
        ``model``.

    Raises:
        ValueError, TypeError: as :class:`MaskedConv2d`, before anything is replaced; ValueError
            also when ``model`` is itself a convolution or holds a DistributedDataParallel, when no
            layer can be converted, and for a pattern that matches nothing or includes only layers
            that are left alone.
    """
    _check_model(model, "MaskedConv2d.from_conv2d")
    convs = plain_convolutions(model)
    chosen, left = _choose(model, convs, _patterns(include), _patterns(exclude))
    slices.check_slice_dim(slice_dim)
    layers: dict[int, MaskedConv2d] = {}
    for index, (name, conv) in enumerate(chosen):
        if id(conv) in layers:
            continue
        try:
            layers[id(conv)] = MaskedConv2d.from_conv2d(
                conv, learned=learned, slice_dim=slice_dim, frozen=frozen,
                seed=None if seed is None else seed + index,
            )  # fmt: skip
        except (ValueError, TypeError) as error:
            raise type(error)(f"{name}: {error}") from None
    _warn_of_left(left, len(convs), "convert_")
    named = [(name, layers[id(conv)]) for name, conv in chosen]
    warn_of_none_learned(named, learned, 3)
    warn_of_all_frozen(named, 3)
    warn_of_stale_optimizers([conv for _, conv in chosen], "convert_")
    for conv in {id(conv): conv for _, conv in chosen}.values():
        _carry_to_parts(conv, layers[id(conv)])
    for name, conv in chosen:
        model.set_submodule(name, layers[id(conv)])
    return model


def merge_(model: Model) -> Model:
    """Replaces the model's :class:`MaskedConv2d` by plain ``nn.Conv2d`` with the same filters.

    Keeps and skips the same things as :func:`convert_`. A merged weight requires a gradient unless
    the learned part had ``requires_grad=False``. It has a ``grad`` only if the whole layer was
    learned.

    Returns:
        ``model``, changed in place.

    Raises:
        ValueError: ``model`` is itself a convolution or holds a DistributedDataParallel, or it has
            masked layers and none can be merged.
    """
    _check_model(model, "its to_conv2d()")
    masked = masked_layers(model)
    left = obstacles(model, masked, MaskedConv2d, nn.Conv2d)
    chosen = [(name, layer) for name, layer in masked if name not in left]
    if masked and not chosen:
        raise ValueError(f"none of the model's MaskedConv2d can be merged: {grouped(left)}")
    convs = {id(layer): layer.to_conv2d() for _, layer in chosen}
    _warn_of_left(left, len(masked), "merge_")
    warn_of_stale_optimizers([layer for _, layer in chosen], "merge_")
    for layer in {id(layer): layer for _, layer in chosen}.values():
        _carry_to_whole(layer, convs[id(layer)])
    for name, layer in chosen:
        model.set_submodule(name, convs[id(layer)])
    return model


def _carry_to_parts(conv: nn.Conv2d, layer: MaskedConv2d) -> None:
    carry_module(conv, layer)
    carry_parameter(conv.weight, layer.learned, layer.slice_dim)
    carry_parameter(conv.bias, layer.bias_learned, 0)


def _carry_to_whole(layer: MaskedConv2d, conv: nn.Conv2d) -> None:
    carry_module(layer, conv)
    carry_parameter(layer.learned, conv.weight, layer.slice_dim)
    carry_parameter(layer.bias_learned, conv.bias, 0)


def _check_model(model: nn.Module, instead: str) -> None:
    if isinstance(model, nn.Conv2d):
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
    model: nn.Module, convs: Layers, include: list[str] | None, exclude: list[str] | None
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
        **obstacles(model, selected, nn.Conv2d, MaskedConv2d),
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
