"""Warns once about all layers that learn nothing although ``learned`` is positive."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

from maskedconv.nn import MaskedConv2d


def warn_of_none_learned(
    layers: Iterable[tuple[str, MaskedConv2d]], learned: float | int, stacklevel: int
) -> None:
    """Warns if a positive fraction ``learned`` selects no filter in some of ``layers``."""
    if not learned:
        return
    none = [f"{name} ({layer.weight_shape[0]})" for name, layer in layers if not layer.num_learned]
    if none:
        warnings.warn(
            f"learned={learned} learns no filter of these convolutions, which have too few "
            f"(the number of filters in parentheses): {', '.join(none)}",
            stacklevel=stacklevel,
        )


def warn_of_all_frozen(layers: Sequence[tuple[str, MaskedConv2d]], stacklevel: int) -> None:
    """Warns when all of the ``layers`` have parameters, and none that requires a gradient."""
    parameters = [p for _, layer in layers for p in layer.parameters()]
    if parameters and not any(p.requires_grad for p in parameters):
        warnings.warn(
            "no converted layer learns anything, as requires_grad was False before and stays so; "
            "call requires_grad_(True) on the layers that are to learn",
            stacklevel=stacklevel,
        )
