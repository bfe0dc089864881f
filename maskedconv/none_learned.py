"""A fraction that rounds down to no filter at all is said once, for all layers together."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from maskedconv.nn import MaskedConv2d


def warn_of_none_learned(
    layers: Iterable[tuple[str, MaskedConv2d]], learned: float | int, stacklevel: int
) -> None:
    """Warns when a positive fraction ``learned`` learns nothing in some of the named ``layers``."""
    if not learned:
        return
    none = [f"{name} ({layer.weight_shape[0]})" for name, layer in layers if not layer.num_learned]
    if none:
        warnings.warn(
            f"learned={learned} learns no filter of these convolutions, which have too few "
            f"(the number of filters in parentheses): {', '.join(none)}",
            stacklevel=stacklevel,
        )
