"""Finds the convolutions of a model that are converted, convertible, or skipped."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from maskedconv.conversion.sharing import shared_parts
from maskedconv.convertible import fresh, further_attributes, obstacle
from maskedconv.nn import MaskedConv2d

# As many names as one line bears.
_NAMED = 4


@dataclass(frozen=True)
class ConversionReport:
    """Every ``nn.Conv2d`` of a model, subclasses included, by the name of the module.

    Attributes:
        converted: those that are a :class:`MaskedConv2d`.
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
    plain = plain_convolutions(model)
    left = obstacles(model, plain, nn.Conv2d, MaskedConv2d)
    return ConversionReport(
        tuple(name for name, _ in masked_layers(model)),
        tuple(name for name, _ in plain if name not in left),
        left,
    )


def plain_convolutions(model: nn.Module) -> list[tuple[str, nn.Conv2d]]:
    """Every ``nn.Conv2d`` that is no MaskedConv2d, under each of its names."""
    return [pair for pair in _convolutions(model) if not isinstance(pair[1], MaskedConv2d)]


def masked_layers(model: nn.Module) -> list[tuple[str, MaskedConv2d]]:
    """Every :class:`MaskedConv2d` under each of its names."""
    return [(name, conv) for name, conv in _convolutions(model) if isinstance(conv, MaskedConv2d)]


def _convolutions(model: nn.Module) -> list[tuple[str, nn.Conv2d]]:
    modules = model.named_modules(remove_duplicate=False)
    return [(name, module) for name, module in modules if isinstance(module, nn.Conv2d)]


def obstacles(
    model: nn.Module,
    layers: Sequence[tuple[str, nn.Conv2d]],
    kind: type[nn.Conv2d],
    replacement: type[nn.Conv2d],
) -> dict[str, str]:
    """Reasons why layers of type ``kind`` cannot become a ``replacement``, by layer name."""
    shared = shared_parts(model, (layer for _, layer in layers))
    reasons = {
        name: obstacle(layer, kind) or shared.get(id(layer)) or _conflict(layer, kind, replacement)
        for name, layer in layers
    }
    return {name: reason for name, reason in reasons.items() if reason is not None}


def _conflict(layer: nn.Conv2d, kind: type[nn.Conv2d], replacement: type[nn.Conv2d]) -> str | None:
    for name in further_attributes(layer, kind):
        if hasattr(fresh(replacement), name):
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
