"""The content of a file under the names that a model has, which are others in old files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from maskedconv.checkpoint.file import Content
from maskedconv.checkpoint.whole_model import names_left_out, own_names, under_all_names


def under_names_of(model: nn.Module, content: Content) -> Content:
    """``content`` by the names of ``model``, as far as it is of such a model."""
    return _under_all_names(_without_prefix(content, own_names(model).values()), model)


def _under_all_names(content: Content, model: nn.Module) -> Content:
    """``content`` with each layer under all names that it has in ``model``."""
    left_out = names_left_out(model, content.layers)
    return content._replace(
        layers=content.layers | {name: content.layers[one] for name, one in left_out.items()},
        frozen=under_all_names(content.frozen, left_out),
        tensors=under_all_names(content.tensors, left_out),
    )


def _without_prefix(content: Content, state: Iterable[str]) -> Content:
    """``content`` without the ``module.`` of data parallel training, which old files keep."""
    prefix = "module."
    names = content.tensors.keys() | content.frozen.keys()
    if not all(name.startswith(prefix) for name in names) or any(
        name.startswith(prefix) for name in state
    ):
        return content

    def stripped(part: dict[str, Any]) -> dict[str, Any]:
        return {name.removeprefix(prefix): value for name, value in part.items()}

    return content._replace(
        layers=stripped(content.layers),
        frozen=stripped(content.frozen),
        tensors=stripped(content.tensors),
        frozen_statistics=tuple(one.removeprefix(prefix) for one in content.frozen_statistics),
    )
