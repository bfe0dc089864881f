"""Chooses the layers of a model that convert_ replaces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import nn

from maskedconv.conversion.convolutions import obstacles, partly_learned_layers, plain_layers
from maskedconv.conversion.naming import Layers, grouped, matches, remedy
from maskedconv.conversion.outside import Outside
from maskedconv.methods import Method

FilterFn = Callable[[nn.Module, str], bool]
_CONVERTED = "it is converted already; merge_ makes it plain again"


class Selection(NamedTuple):
    """The user's selection of layers.

    Attributes:
        include, exclude: patterns of names; None includes every layer and excludes none.
        filter_fn: of a module and its name; None for no such filter.
    """

    include: tuple[str, ...] | None
    exclude: tuple[str, ...] | None
    filter_fn: FilterFn | None

    def names(self, name: str) -> bool:
        """Whether the patterns select ``name``."""
        included = self.include is None or matches(name, self.include)
        return included and not matches(name, self.exclude or ())

    def selects(self, name: str, layer: nn.Module) -> bool:
        return self.names(name) and (self.filter_fn is None or bool(self.filter_fn(layer, name)))

    def selects_again(self, name: str) -> bool:
        """Whether a converted layer is selected; a filter decides about plain layers alone."""
        return self.filter_fn is None and self.names(name)


class Choice(NamedTuple):
    """Layers that are converted, and the reasons why others are not.

    Attributes:
        chosen: layers that are converted.
        left: selected layers that are left alone, each with the reason.
        total: number of layers that were looked at.
    """

    chosen: Layers
    left: dict[str, str]
    total: int


def choose(model: nn.Module, method: Method, selection: Selection, outside: Outside) -> Choice:
    """The selected layers that ``method`` can convert.

    Raises:
        TypeError: the filter is no function.
        ValueError: there are none, or a pattern matches no layer or only such that are left alone.
    """
    if selection.filter_fn is not None and not callable(selection.filter_fn):
        raise TypeError(
            f"filter_fn is {selection.filter_fn!r} ({type(selection.filter_fn).__name__}); "
            "expected a function (module, name) -> bool"
        )
    plain = plain_layers(model, method.converted)
    converted = [name for name, _ in partly_learned_layers(model)]
    kinds = " or ".join(f"nn.{kind.__name__}" for kind in method.converted)
    _check_patterns(selection, [*(name for name, _ in plain), *converted], kinds)
    selected = [
        (name, layer)
        for name, layer in plain
        if not outside.in_head(name) and selection.selects(name, layer)
    ]
    left = {
        **{name: why for name, layer in selected if (why := method.obstacle(layer))},
        **obstacles(model, selected, method.layers()),
        **_partly_selected(plain, selected),
        **{name: _CONVERTED for name in converted if selection.selects_again(name)},
    }
    _check_included(selection, [name for name, _ in selected], left)
    chosen = [(name, layer) for name, layer in selected if name not in left]
    if not chosen:
        known = left or dict.fromkeys(converted, _CONVERTED)
        reasons = f": {grouped(known)}" if known else ""
        raise ValueError(f"model ({type(model).__name__}) has no {kinds} to convert{reasons}")
    return Choice(chosen, left, len(plain) + len(converted))


def _check_patterns(selection: Selection, known: Sequence[str], kinds: str) -> None:
    for argument in ("include", "exclude"):
        for pattern in getattr(selection, argument) or ():
            if not any(matches(name, [pattern]) for name in known):
                raise ValueError(
                    f"{argument} has {pattern!r}, which matches no {kinds}{remedy(pattern, known)}"
                )


def _check_included(selection: Selection, selected: list[str], left: dict[str, str]) -> None:
    """ValueError for a pattern that matches nothing but layers that are left alone."""
    for pattern in selection.include or ():
        named = [name for name in {**dict.fromkeys(selected), **left} if matches(name, [pattern])]
        if named and all(name in left for name in named):
            reasons = grouped({name: left[name] for name in named})
            raise ValueError(f"include has {pattern!r}, but convert_ leaves alone {reasons}")


def _partly_selected(plain: Layers, selected: Layers) -> dict[str, str]:
    """Names of layers that the model also holds under an unselected name."""
    chosen = {name for name, _ in selected}
    others = {id(one): name for name, one in plain if name not in chosen}
    return {
        name: f"it is the same module as {others[id(one)]}, which is not selected"
        for name, one in selected
        if id(one) in others
    }
