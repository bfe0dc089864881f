"""Replaces plain layers by those that a checkpoint describes; a load that fails puts them back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from maskedconv.conversion.carrying import carry_to_parts
from maskedconv.conversion.convolutions import obstacles
from maskedconv.conversion.naming import Layers
from maskedconv.conversion.stale_optimizers import warn_of_stale_optimizers
from maskedconv.methods import Configuration, method_of
from maskedconv.nn.global_threshold import unshare_threshold
from maskedconv.nn.partly_learned import PartlyLearned


class Restored:
    """Replaces plain layers of ``model``, in place, by layers of the given configurations.

    Frozen values, hooks and attributes are kept, as by :func:`maskedconv.convert_`.

    Args:
        configurations: by the name of the layer in ``model``.

    Attributes:
        names: of the replaced layers, under each of their names.

    Raises:
        ValueError: a layer is no plain one of the type that its configuration is for, or it cannot
            be replaced without a loss. Nothing has been replaced then.
    """

    def __init__(self, model: nn.Module, configurations: Mapping[str, Configuration]) -> None:
        self._model = model
        plain = {name: model.get_submodule(name) for name in configurations}
        _check(model, list(plain.items()), configurations)
        # Some layers draw values that the file replaces. They can be trained in any case.
        with torch.random.fork_rng([]), torch.inference_mode(False):
            new = {id(one): _make(name, one, configurations[name]) for name, one in plain.items()}
        everywhere = model.named_modules(remove_duplicate=False)
        self._before = [(name, one) for name, one in everywhere if id(one) in new]
        if plain:
            warn_of_stale_optimizers(list(plain.values()), "load")
        for one in plain.values():
            carry_to_parts(one, new[id(one)])
        for name, one in self._before:
            model.set_submodule(name, new[id(one)])
        for configuration in configurations.values():
            method_of(configuration).attach_restored(model, configuration)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self._before)

    def undo(self) -> None:
        """Puts the plain layers back."""
        for name, one in self._before:
            self._model.set_submodule(name, one)
        unshare_threshold(self._model)


def _check(model: nn.Module, layers: Layers, configurations: Mapping[str, Configuration]) -> None:
    """ValueError for the first layer that cannot be replaced."""
    for name, one in layers:
        if not name:
            raise ValueError(
                f"the model is a {type(one).__name__} itself; put it into an nn.Sequential"
            )
        method = method_of(configurations[name])
        if not isinstance(one, tuple(method.layers())):
            kinds = " or ".join(f"nn.{kind.__name__}" for kind in method.layers())
            raise ValueError(
                f"{name} is a {type(one).__name__} in the model; expected {kinds}, as it is a "
                f"layer of the method {method.name} in the file"
            )
        if reason := obstacles(model, [(name, one)], method.layers()).get(name):
            raise ValueError(f"{name} cannot be converted: {reason}")


def _make(name: str, plain: nn.Module, configuration: Configuration) -> PartlyLearned:
    try:
        return method_of(configuration).restored(plain, configuration)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name} cannot be converted: {error}") from None
