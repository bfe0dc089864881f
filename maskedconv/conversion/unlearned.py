"""Warns about converted layers that learn nothing."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

from maskedconv.methods import Method
from maskedconv.nn.partly_learned import PartlyLearned

Layers = Sequence[tuple[str, PartlyLearned]]


def warn_of_none_learned(layers: Layers, methods: Mapping[str, Method], stacklevel: int) -> None:
    """Warns once about all layers that learn nothing because of their method's settings.

    Args:
        methods: of each of the ``layers``, by its name.
    """
    distinct = {id(method): method for method in methods.values()}.values()
    messages = [
        method.unlearned([(name, one) for name, one in layers if methods[name] is method])
        for method in distinct
    ]
    if found := [message for message in messages if message]:
        warnings.warn("; ".join(found), stacklevel=stacklevel)


def warn_of_all_frozen(layers: Layers, stacklevel: int) -> None:
    """Warns if the ``layers`` have parameters, and none of them requires a gradient."""
    parameters = [p for _, layer in layers for p in layer.parameters()]
    if parameters and not any(p.requires_grad for p in parameters):
        warnings.warn(
            "no converted layer learns anything, as requires_grad was False before and stays so; "
            "call requires_grad_(True) on the layers that are to learn",
            stacklevel=stacklevel,
        )
