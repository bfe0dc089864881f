"""The report of a conversion: converted layers, and what all others learn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import nn

from maskedconv.conversion.convolutions import obstacles, partly_learned_layers, plain_layers
from maskedconv.conversion.naming import shortened
from maskedconv.conversion.outside import NORMS
from maskedconv.methods import METHODS
from maskedconv.nn.partly_learned import PartlyLearned


class OtherModule(NamedTuple):
    """A module with parameters that is not converted.

    Attributes:
        kind: name of its class.
        learned, frozen: how many scalars of its own parameters require a gradient, or do not.
    """

    kind: str
    learned: int
    frozen: int


@dataclass(frozen=True)
class ConversionReport:
    """The modules of a model that have parameters, by their names.

    ``converted``, ``convertible`` and ``left_alone`` name every ``nn.Conv2d``, subclasses included,
    and every converted layer of another type. ``others`` and ``norms`` list the modules with
    parameters that are not converted; a plain convolution is therefore in ``others``, too.

    Attributes:
        converted: layers that learn only part of their values, such as :class:`MaskedConv2d`.
        convertible: plain ones, which :func:`maskedconv.convert_` can replace.
        left_alone: those that it leaves alone, each with the reason.
        learned: how many scalars the converted layers learn.
        others: modules with parameters that are neither converted nor norms, such as
            ``nn.Linear``, ``nn.Conv1d``, ``nn.ConvTranspose2d``, and modules that hold a parameter
            themselves.
        norms: the same of norms.
        which: the learned indices of each converted layer that does not learn the first ones.
    """

    converted: tuple[str, ...]
    convertible: tuple[str, ...]
    left_alone: Mapping[str, str]
    learned: int
    others: Mapping[str, OtherModule]
    norms: Mapping[str, OtherModule]
    which: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __str__(self) -> str:
        counts = (
            f"{len(self.converted)} converted, {len(self.convertible)} convertible, "
            f"{len(self.left_alone)} left alone"
        )
        lines = [counts, *(f"{name}: {reason}" for name, reason in self.left_alone.items())]
        lines.append(f"converted: {self.learned:,} values learned")
        if self.which:
            lines.append(f"converted, not the first indices learned: {shortened(self.which)}")
        lines += _lines("norms", self.norms) + _lines("not converted", self.others)
        return "\n".join(lines)


def conversion_report(model: nn.Module) -> ConversionReport:
    """Lists what :func:`maskedconv.convert_` converted, could convert, and skips.

    It also lists what every other module with parameters learns.
    """
    plain = plain_layers(model, (nn.Conv2d,))
    left = obstacles(model, plain, METHODS["slice"].layers())
    converted = partly_learned_layers(model)
    parameters = {id(p): p for _, layer in converted for p in layer.parameters()}
    others = _others(model)
    norms = {name for name, module in model.named_modules() if isinstance(module, NORMS)}
    return ConversionReport(
        converted=tuple(name for name, _ in converted),
        convertible=tuple(name for name, _ in plain if name not in left),
        left_alone=left,
        learned=sum(p.numel() for p in parameters.values() if p.requires_grad),
        others={name: one for name, one in others.items() if name not in norms},
        norms={name: one for name, one in others.items() if name in norms},
        which={
            name: tuple(which)
            for name, layer in converted
            if (which := layer.configuration().get("which"))
        },
    )


def _others(model: nn.Module) -> dict[str, OtherModule]:
    """Each module with parameters of its own that is not converted; shared parameters once."""
    found, seen = {}, set[int]()
    for name, module in model.named_modules():
        own = [p for p in module._parameters.values() if p is not None and id(p) not in seen]
        seen |= {id(p) for p in own}
        if own and not isinstance(module, PartlyLearned):
            found[name] = _other(module, own)
    return found


def _other(module: nn.Module, own: Iterable[nn.Parameter]) -> OtherModule:
    sizes = {True: 0, False: 0}
    for parameter in own:
        lazy = nn.parameter.is_lazy(parameter)
        sizes[parameter.requires_grad] += 0 if lazy else parameter.numel()
    return OtherModule(type(module).__name__, sizes[True], sizes[False])


def _lines(title: str, modules: Mapping[str, OtherModule]) -> list[str]:
    """A line for each class of ``modules`` and what they learn."""
    groups: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for name, one in modules.items():
        groups[_state(one), one.kind].append(name)
    return [
        f"{title}, {state}: {len(names)} {kind} ({shortened(names)}), "
        f"{sum(modules[name].learned for name in names):,} values learned, "
        f"{sum(modules[name].frozen for name in names):,} frozen"
        for (state, kind), names in groups.items()
    ]


def _state(module: OtherModule) -> str:
    if module.learned and module.frozen:
        return "learned in part"
    return "learned" if module.learned else "frozen"
