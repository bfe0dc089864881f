"""The settings of a supermask that the layers of a network share, and their checks."""

from __future__ import annotations

from typing import Any, NamedTuple

from maskedconv.checks import check_choice, check_flag, check_fraction, check_int
from maskedconv.nn.random_weights import WEIGHTS

THRESHOLDS = ("layer", "global")
MOST_COATS = 255  # the number of masks that keep a weight is stored in a byte

# Left out of files at their default, so that files of networks without them stay the same.
LATER_DEFAULTS: dict[str, Any] = {
    "coats": 1,
    "rerandomise_every": 0,
    "rerandomise_fraction": 0.1,
}


class MaskSettings(NamedTuple):
    """The settings of a supermask that the layers of a network share.

    Attributes:
        k: fraction of the weights that is kept, in [0, 1].
        weights: distribution of the frozen weights, see
            :func:`maskedconv.nn.random_weights.draw_weights_`.
        scale: whether the frozen weights are multiplied by 1 / √k.
        threshold: "layer" keeps the fraction ``k`` of each layer, "global" that of the network; see
            :mod:`maskedconv.nn.global_threshold`.
        coats: number of nested masks, see :func:`maskedconv.slices.nested_kept`.
        rerandomise_every: training steps between two draws of weights that the mask leaves out; 0
            for none. See :mod:`maskedconv.nn.rerandomise`.
        rerandomise_fraction: probability of each of these weights to be drawn anew.
    """

    k: float
    weights: str
    scale: bool
    threshold: str
    coats: int = 1
    rerandomise_every: int = 0
    rerandomise_fraction: float = 0.1

    def checked(self, *, binary: bool) -> MaskSettings:
        """The settings with floats as fractions; TypeError or ValueError if one is invalid."""
        check_flag("scale", self.scale)
        check_choice("weights", self.weights, WEIGHTS)
        check_choice("threshold", self.threshold, THRESHOLDS)
        self.check_options(binary=binary)
        return self._replace(
            k=check_fraction("k", self.k),
            rerandomise_fraction=check_fraction("rerandomise_fraction", self.rerandomise_fraction),
        )

    def check_options(self, *, binary: bool) -> None:
        """Checks ``coats`` and ``rerandomise_every``; ``weights`` may also be "keep".

        Args:
            binary: whether the weights are binary, as those of biprop.

        Raises:
            TypeError, ValueError: one is invalid, or does not fit the other settings.
        """
        check_int("coats", self.coats, 1, MOST_COATS)
        if self.coats > 1 and binary:
            raise ValueError(f"coats is {self.coats}; expected 1 for the binary weights of biprop")
        if self.coats > 1 and self.threshold != "layer":
            raise ValueError(f"coats is {self.coats}; expected 1 under threshold='global'")
        check_int("rerandomise_every", self.rerandomise_every, 0)
        if self.rerandomise_every and self.weights in ("network", "keep"):
            raise ValueError(
                f"rerandomise_every is {self.rerandomise_every}; expected 0 under "
                f"weights={self.weights!r}, as these weights have no distribution of the layer's"
            )

    def described(self) -> dict[str, Any]:
        """The settings by name, as a checkpoint has them."""
        return without_later_defaults(self._asdict())


def without_later_defaults(settings: dict[str, Any]) -> dict[str, Any]:
    """``settings`` without those of :data:`LATER_DEFAULTS` that are at their default."""
    return {
        name: value
        for name, value in settings.items()
        if name not in LATER_DEFAULTS or value != LATER_DEFAULTS[name]
    }
