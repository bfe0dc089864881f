"""Arguments that give each layer a value of its own: by patterns of names, or by a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import nn

from maskedconv.conversion.naming import Layers, matches, remedy, shortened

Value = TypeVar("Value")
Check = Callable[[Any], Value]
"""Returns a value in a form that can be compared; TypeError or ValueError for a wrong one."""

ByLayer = Mapping[str, Any] | Callable[[nn.Module, str], Any]
"""The first pattern that matches a name gives its value; or a function ``(module, name)``."""


def values_by_layer(
    argument: str, given: ByLayer, check: Check[Value], chosen: Layers
) -> dict[str, Value]:
    """The value of each of the ``chosen`` layers, by its name.

    Args:
        argument: its name, for errors.

    Raises:
        TypeError, ValueError: ``given`` does not give every layer a value that passes the check,
            gives one layer two, or has a pattern that matches none of them.
    """
    if isinstance(given, Mapping):
        found = _by_pattern(argument, given, check, chosen)
    else:
        found = {
            name: _checked(given(layer, name), f"{argument}(module, {name!r})", check)
            for name, layer in chosen
        }
    _check_one_each(argument, found, chosen)
    return found


def _by_pattern(
    argument: str, given: Mapping[str, Any], check: Check[Value], chosen: Layers
) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for pattern, value in given.items():
        checked = _checked(value, f"{argument}[{pattern!r}]", check)
        named = [name for name, _ in chosen if matches(name, [pattern])]
        if not named:
            raise ValueError(
                f"{argument} has {pattern!r}, which matches no layer that is converted"
                + remedy(pattern, (name for name, _ in chosen))
            )
        for name in named:
            found.setdefault(name, checked)
    if missing := [name for name, _ in chosen if name not in found]:
        raise ValueError(
            f"{argument} has no pattern for {shortened(missing)}; expected one for every layer "
            "that is converted, such as '*' at the end"
        )
    return found


def _checked(value: Any, described: str, check: Check[Value]) -> Value:
    try:
        return check(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{described}: {error}") from None


def _check_one_each(argument: str, found: Mapping[str, Value], chosen: Layers) -> None:
    first: dict[int, str] = {}
    for name, layer in chosen:
        other = first.setdefault(id(layer), name)
        if found[name] != found[other]:
            raise ValueError(
                f"{argument} gives {found[other]} for {other} and {found[name]} for {name}, which "
                "are the same module"
            )
