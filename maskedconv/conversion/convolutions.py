"""Finds the layers of a model that are converted, convertible, or skipped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import nn

from maskedconv.conversion.naming import Layers
from maskedconv.conversion.sharing import shared_parts
from maskedconv.methods import METHODS
from maskedconv.nn.convertible import examples, further_attributes, obstacle
from maskedconv.nn.partly_learned import PartlyLearned


def plain_layers(model: nn.Module, kinds: Iterable[type[nn.Module]]) -> Layers:
    """Every layer of these ``kinds`` that is not converted, under each of its names."""
    types = tuple(kinds)
    return [
        (name, module)
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, types) and not isinstance(module, PartlyLearned)
    ]


def partly_learned_layers(model: nn.Module) -> list[tuple[str, PartlyLearned]]:
    """Every :class:`PartlyLearned` layer under each of its names."""
    modules = model.named_modules(remove_duplicate=False)
    return [(name, module) for name, module in modules if isinstance(module, PartlyLearned)]


def obstacles(
    model: nn.Module,
    layers: Sequence[tuple[str, nn.Module]],
    replacements: Mapping[type[nn.Module], type[nn.Module]],
) -> dict[str, str]:
    """Reasons why layers cannot be replaced, by layer name.

    Args:
        replacements: by the type that a layer must be of exactly.
    """
    shared = shared_parts(model, (layer for _, layer in layers))
    reasons: dict[str, str | None] = {}
    for name, layer in layers:
        kind = _expected_type(layer, replacements)
        if kind is None:
            reasons[name] = f"no method has layers of its type, {type(layer).__name__}"
        else:
            reasons[name] = (
                obstacle(layer, kind)
                or shared.get(id(layer))
                or _conflict(layer, kind, replacements[kind])
            )
    return {name: reason for name, reason in reasons.items() if reason is not None}


def plain_types() -> dict[type[nn.Module], type[nn.Module]]:
    """The plain type of each type of layers of the methods."""
    methods = METHODS.values()
    return {own: plain for method in methods for plain, own in method.layers().items()}


def _expected_type(layer: nn.Module, kinds: Iterable[type[nn.Module]]) -> type[nn.Module] | None:
    """The type among ``kinds`` that the layer is an instance of, the most special one."""
    kinds = list(kinds)
    return next((kind for kind in type(layer).__mro__ if kind in kinds), None)


def _conflict(layer: nn.Module, kind: type[nn.Module], replacement: type[nn.Module]) -> str | None:
    for name in further_attributes(layer, kind):
        if any(hasattr(example, name) for example in examples(replacement)):
            return f"its attribute {name} means something else in {replacement.__name__}"
    return None
