"""Whole models: nn.Conv2d to MaskedConv2d and back, in place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Literal, TypeVar

from torch import nn

from maskedconv import slices
from maskedconv.nn import MaskedConv2d

Model = TypeVar("Model", bound=nn.Module)
Patterns = str | Sequence[str] | None


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

    Device, dtype and memory format stay. An optimiser made before must be made anew. A layer that
    appears twice in the model is replaced by one layer.

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
            also when ``model`` is itself a convolution, when nothing matches, or for a pattern
            that matches nothing.
    """
    if isinstance(model, nn.Conv2d):
        raise ValueError("model is a convolution itself; use MaskedConv2d.from_conv2d")
    chosen = _choose(model, _patterns(include), _patterns(exclude))
    slices.check_slice_dim(slice_dim)
    replacements: dict[int, MaskedConv2d] = {}
    for index, (name, conv) in enumerate(chosen):
        if id(conv) in replacements:
            continue
        try:
            replacements[id(conv)] = MaskedConv2d.from_conv2d(
                conv, learned=learned, slice_dim=slice_dim, frozen=frozen,
                seed=None if seed is None else seed + index,
            )  # fmt: skip
        except (ValueError, TypeError) as error:
            raise type(error)(f"{name}: {error}") from None
    for name, conv in chosen:
        model.set_submodule(name, replacements[id(conv)])
    return model


def merge_(model: Model) -> Model:
    """Replaces the model's :class:`MaskedConv2d` by plain ``nn.Conv2d`` with the same filters.

    Returns:
        ``model``, changed in place.

    Raises:
        ValueError: ``model`` is itself a convolution.
    """
    if isinstance(model, nn.Conv2d):
        raise ValueError("model is a convolution itself; use its to_conv2d()")
    merged: dict[int, nn.Conv2d] = {}
    layers = [(n, m) for n, m in _all_modules(model) if isinstance(m, MaskedConv2d)]
    for name, layer in layers:
        if id(layer) not in merged:
            merged[id(layer)] = layer.to_conv2d()
        model.set_submodule(name, merged[id(layer)])
    return model


def _all_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return model.named_modules(remove_duplicate=False)


def _patterns(value: Patterns) -> list[str] | None:
    if value is None:
        return None
    return [value] if isinstance(value, str) else list(value)


def _choose(
    model: nn.Module, include: list[str] | None, exclude: list[str] | None
) -> list[tuple[str, nn.Conv2d]]:
    """The plain convolutions that the patterns select, with their names."""
    convs = [
        (name, module)
        for name, module in _all_modules(model)
        if isinstance(module, nn.Conv2d) and not isinstance(module, MaskedConv2d)
    ]
    for argument, patterns in (("include", include), ("exclude", exclude)):
        for pattern in patterns or []:
            if not any(fnmatchcase(name, pattern) for name, _ in convs):
                raise ValueError(f"{argument} has {pattern!r}, which matches no nn.Conv2d")
    chosen = [
        (name, conv)
        for name, conv in convs
        if (include is None or any(fnmatchcase(name, p) for p in include))
        and not any(fnmatchcase(name, p) for p in exclude or [])
    ]
    if not chosen:
        raise ValueError(f"model ({type(model).__name__}) has no nn.Conv2d to convert")
    return chosen
