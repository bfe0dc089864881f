"""Parameters outside the converted layers: of norms, of the head, and of the rest."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from maskedconv.checks import check_choice
from maskedconv.conversion.naming import Layers, matches, shortened
from maskedconv.nn.frozen_statistics import (
    FrozenStatistics,
    freeze_statistics_,
    unfreeze_statistics_,
)
from maskedconv.nn.partly_learned import PartlyLearned

Norm = Literal["learned", "fixed", "frozen statistics", "frozen"]
Rest = Literal["learn", "freeze"]
NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_FIXED_AFFINE = ("fixed", "frozen")
_FIXED_STATISTICS = ("frozen statistics", "frozen")


class ParameterRef(NamedTuple):
    """A parameter, by the module that registers it and its name there."""

    owner: nn.Module
    attribute: str

    @property
    def parameter(self) -> nn.Parameter:
        found = self.owner._parameters[self.attribute]
        assert found is not None
        return found


@dataclass(frozen=True)
class Outside:
    """How ``convert_`` treats the layers that it does not convert.

    Attributes:
        norm, rest: as of ``convert_``.
        head: patterns of names.
    """

    norm: Norm = "learned"
    head: tuple[str, ...] = ()
    rest: Rest | None = None

    def __post_init__(self) -> None:
        check_choice("norm", self.norm, ("learned", "fixed", "frozen statistics", "frozen"))
        if self.rest is not None:
            check_choice("rest", self.rest, ("learn", "freeze"))

    def in_head(self, name: str) -> bool:
        """Whether ``name`` is a module of the head, or inside one."""
        parts = name.split(".")
        return any(matches(".".join(parts[: i + 1]), self.head) for i in range(len(parts)))

    def modules_of_head(self, model: nn.Module) -> dict[str, nn.Module]:
        """By name; a module that stands in several places may be of the head under any name."""
        named = model.named_modules(remove_duplicate=False)
        return {name: module for name, module in named if self.in_head(name)}

    def freezes(self, module: nn.Module) -> bool:
        """Whether the own parameters of ``module``, which is not of the head, are frozen."""
        if isinstance(module, NORMS):
            return self.norm in _FIXED_AFFINE
        return self.rest == "freeze"


class Plan:
    """Changes outside the layers that are converted, found before any is made.

    Args:
        chosen: layers that are about to be converted.

    Raises:
        ValueError: a pattern of the head matches nothing that could be learned, or a converted
            layer; or there are no statistics that could be frozen.
    """

    def __init__(self, model: nn.Module, chosen: Layers, outside: Outside) -> None:
        _check_head(model, outside)
        skip = {id(layer) for _, layer in chosen}
        heads = {id(module) for module in outside.modules_of_head(model).values()}
        self.head: list[ParameterRef] = []
        self.freeze: list[ParameterRef] = []
        self.learn: list[ParameterRef] = []
        for module in model.modules():
            if id(module) in skip or isinstance(module, PartlyLearned):
                continue
            if id(module) in heads:
                self.head += _places(module)
            else:
                (self.freeze if outside.freezes(module) else self.learn).extend(_places(module))
        # A parameter that is learned under another name, too, stays learned.
        learned = {id(place.parameter) for place in (*self.head, *self.learn)}
        self.freeze = [place for place in self.freeze if id(place.parameter) not in learned]
        self.statistics = _statistics(model, outside)

    def apply(self) -> None:
        for place in self.freeze:
            # An optimizer moves what has a gradient, be it an old one.
            place.parameter.requires_grad_(False).grad = None
        for place in self.head:
            if place.parameter.is_floating_point():
                place.parameter.requires_grad_(True)
        for norm in self.statistics:
            freeze_statistics_(norm)

    def learned_rest(self) -> Iterator[ParameterRef]:
        """Learned parameters that are neither of converted layers, nor of norms, nor of a head."""
        for place in self.learn:
            if place.parameter.requires_grad and not isinstance(place.owner, NORMS):
                yield place


def warn_of_learned_rest(
    plan: Plan, layers: Iterable[PartlyLearned], by_fraction: bool, stacklevel: int
) -> None:
    """Warns if ``rest`` leaves more values learned than the converted ``layers`` learn.

    Not if a fraction or count leaves nothing to learn: that was asked for, or has another warning.
    """
    parameters = [p for layer in layers for p in layer.parameters()]
    inside = sum(p.numel() for p in parameters if p.requires_grad)
    places = {id(place.parameter): place for place in plan.learned_rest()}.values()
    outside = sum(_size(place.parameter) for place in places)
    if outside > inside and (parameters or not by_fraction):
        kinds = shortened(sorted({type(place.owner).__name__ for place in places}))
        warnings.warn(
            f"layers that convert_ did not convert learn {outside:,} values ({kinds}), more than "
            f"the {inside:,} of the converted ones. rest='freeze' freezes them, except those that "
            "head names; rest='learn' states that they are to learn. "
            "maskedconv.conversion_report(model) lists them",
            stacklevel=stacklevel + 1,
        )


def unfreeze_all_statistics_(model: nn.Module) -> None:
    """Undoes "frozen statistics" in the whole model."""
    for module in model.modules():
        if isinstance(module, FrozenStatistics):
            unfreeze_statistics_(module)


def _size(parameter: nn.Parameter) -> int:
    return 0 if nn.parameter.is_lazy(parameter) else parameter.numel()


def _places(module: nn.Module) -> list[ParameterRef]:
    own = module._parameters.items()
    return [ParameterRef(module, name) for name, parameter in own if parameter is not None]


def _check_head(model: nn.Module, outside: Outside) -> None:
    for pattern in outside.head:
        found = Outside(head=(pattern,)).modules_of_head(model)
        if converted := [name for name, one in found.items() if isinstance(one, PartlyLearned)]:
            raise ValueError(
                f"head has {pattern!r}, but {shortened(converted)} is converted already; merge_ "
                "makes it plain again"
            )
        if not any(_places(module) for module in found.values()):
            raise ValueError(
                f"head has {pattern!r}, which matches no module with parameters; the model's "
                f"modules are {shortened(name for name, _ in model.named_children())}"
            )


def _statistics(model: nn.Module, outside: Outside) -> list[nn.Module]:
    """Norms whose statistics become frozen."""
    if outside.norm not in _FIXED_STATISTICS:
        return []
    heads = {id(module) for module in outside.modules_of_head(model).values()}
    norms = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, _NormBase) and id(module) not in heads
    ]
    if without := [name for name, norm in norms if not _has_statistics(norm)]:
        raise ValueError(
            f"norm is {outside.norm!r}, but {shortened(without)} has no running statistics"
        )
    if not norms:
        raise ValueError(
            f"norm is {outside.norm!r}, but model ({type(model).__name__}) has no norm with "
            "running statistics"
        )
    return [norm for _, norm in norms]


def _has_statistics(norm: _NormBase) -> bool:
    """Whether there are running statistics; a lazy norm has none before its first input."""
    return norm.running_mean is not None and not nn.parameter.is_lazy(norm.running_mean)
