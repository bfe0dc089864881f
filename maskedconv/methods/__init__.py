"""Methods: which values of a layer are learned. One file per method.

``maskedconv.convert_`` and ``maskedconv.models.create`` take a method, and checkpoints name the
method of each layer.
"""

from __future__ import annotations

import inspect
from typing import Any

from maskedconv.checks import check_choice
from maskedconv.methods.biprop import Biprop as biprop
from maskedconv.methods.method import Configuration, LayerFactory, Method
from maskedconv.methods.norm_only import NormOnly as norm_only
from maskedconv.methods.random_positions import RandomPositions as random_positions
from maskedconv.methods.slice import Slice as slice
from maskedconv.methods.supermask import Supermask as supermask

METHODS: dict[str, type[Method]] = {
    method.name: method for method in (slice, norm_only, random_positions, supermask, biprop)
}

__all__ = [
    "METHODS",
    "Configuration",
    "LayerFactory",
    "Method",
    "biprop",
    "check_method",
    "make",
    "method_of",
    "norm_only",
    "random_positions",
    "slice",
    "supermask",
]


def method_of(configuration: Configuration) -> type[Method]:
    """The method of a layer; files of earlier versions do not name it, and have slices alone."""
    return METHODS[configuration.get("method", slice.name)]


def check_method(method: object) -> Method:
    """``method`` itself.

    Raises:
        TypeError: it is no instance of a method, but perhaps a class or a name of one.
    """
    if isinstance(method, Method):
        return method
    name = getattr(method, "name", method)
    named = isinstance(name, str) and name in METHODS
    call = f"methods.{name}(...)" if named else f"one of {', '.join(METHODS)}"
    raise TypeError(f"method is {method!r}; expected an instance, such as {call}")


def make(name: str, **options: Any) -> Method:
    """The method ``name`` with its settings.

    Raises:
        ValueError: there is no such method, or it has no such setting; the message names those
            that exist.
        TypeError, ValueError: as the method raises them; a setting is missing.
    """
    check_choice("method", name, tuple(METHODS))
    known = inspect.signature(METHODS[name]).parameters
    if unknown := sorted(options.keys() - known):
        listed = ", ".join(known) or "none"
        raise ValueError(f"method {name} has no option {unknown[0]!r}; expected some of: {listed}")
    missing = [n for n, p in known.items() if p.default is p.empty and n not in options]
    if missing:
        raise TypeError(f"method {name} lacks the option {missing[0]!r}")
    return METHODS[name](**options)
