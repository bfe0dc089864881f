"""Finds the layers of a model that are converted, convertible, or skipped."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from maskedconv.conversion.sharing import shared_parts
from maskedconv.methods import METHODS
from maskedconv.nn.convertible import examples, further_attributes, obstacle
from maskedconv.nn.partly_learned import PartlyLearned

# As many names as one line bears.
_NAMED = 4
Layers = list[tuple[str, nn.Module]]


@dataclass(frozen=True)
class ConversionReport:
    """Every ``nn.Conv2d`` of a model, subclasses included, by the name of the module.

    Attributes:
        converted: those that learn only part of their values, such as :class:`MaskedConv2d`.
        convertible: plain ones, which :func:`maskedconv.convert_` can replace.
        left_alone: those that it leaves alone, each with the reason.
    """

    converted: tuple[str, ...]
    convertible: tuple[str, ...]
    left_alone: Mapping[str, str]

    def __str__(self) -> str:
        counts = (
            f"{len(self.converted)} converted, {len(self.convertible)} convertible, "
            f"{len(self.left_alone)} left alone"
        )
        return "\n".join([counts, *(f"{n}: {reason}" for n, reason in self.left_alone.items())])


def conversion_report(model: nn.Module) -> ConversionReport:
    """Lists what :func:`maskedconv.convert_` converted, could convert, and skips."""
    plain = plain_layers(model, (nn.Conv2d,))
    left = obstacles(model, plain, METHODS["slice"].layers())
    return ConversionReport(
        tuple(name for name, _ in partly_learned_layers(model)),
        tuple(name for name, _ in plain if name not in left),
        left,
    )


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
    reasons = {
        name: obstacle(layer, kind := _expected_type(layer, replacements))
        or shared.get(id(layer))
        or _conflict(layer, kind, replacements[kind])
        for name, layer in layers
    }
    return {name: reason for name, reason in reasons.items() if reason is not None}


def plain_types() -> dict[type[nn.Module], type[nn.Module]]:
    """The plain type of each type of layers of the methods."""
    methods = METHODS.values()
    return {own: plain for method in methods for plain, own in method.layers().items()}


def _expected_type(layer: nn.Module, kinds: Iterable[type[nn.Module]]) -> type[nn.Module]:
    """The type among ``kinds`` that the layer is an instance of, the most special one."""
    kinds = list(kinds)
    return next(kind for kind in type(layer).__mro__ if kind in kinds)


def _conflict(layer: nn.Module, kind: type[nn.Module], replacement: type[nn.Module]) -> str | None:
    for name in further_attributes(layer, kind):
        if any(hasattr(example, name) for example in examples(replacement)):
            return f"its attribute {name} means something else in {replacement.__name__}"
    return None


def grouped(reasons: Mapping[str, str]) -> str:
    """``reasons`` in one line: each reason once, with the names of some layers that have it."""
    names: defaultdict[str, list[str]] = defaultdict(list)
    for name, reason in reasons.items():
        names[reason].append(name)
    return "; ".join(f"{shortened(layers)}: {reason}" for reason, layers in names.items())


def shortened(names: Iterable[str]) -> str:
    """The first of ``names``, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return ", ".join(listed[:_NAMED]) + more
