"""The report of `fuse_`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from maskedconv.conversion.naming import grouped
from maskedconv.conversion.outside import NORMS
from maskedconv.fusion.checking import CheckingSession, is_within

_NAMED = 5
_NORMS = (*NORMS, nn.LocalResponseNorm)
_WRONG = "its result, or one that is computed from it, differs when it is computed again"


@dataclass(frozen=True)
class FusionReport:
    """The bytes that a model keeps for backward before and after :func:`maskedconv.fuse_`.

    Bytes are those of one forward pass in training with the given input, parameters and buffers
    not included.

    Attributes:
        fused: norms whose results are computed again, by the name of the module.
        left_alone: the other modules that are not computed again, each with the reason; the name
            of the model itself is empty.
        kept_before: bytes that the plain model keeps.
        kept_after: bytes that are kept now.
        kept: these bytes by the module that keeps them, the largest first.
    """

    fused: tuple[str, ...]
    left_alone: Mapping[str, str]
    kept_before: int
    kept_after: int
    kept: Mapping[str, int]

    def __str__(self) -> str:
        share = self.kept_after / max(1, self.kept_before)
        lines = [
            f"kept for backward: {_mib(self.kept_before)} before, {_mib(self.kept_after)} after "
            f"({share:.2f}); {len(self.fused)} norms are computed again",
            *(f"left alone: {name or 'the model'}: {why}" for name, why in self.left_alone.items()),
        ]
        largest = [f"{name or 'the model'} {_mib(kept)}" for name, kept in self.kept.items()]
        if largest:
            lines.append(f"most is kept by {', '.join(largest[:_NAMED])}")
        return "\n".join(lines)

    def warning(self) -> str:
        """One line that names what is left alone; empty if nothing is."""
        left = {name or "the model": why for name, why in self.left_alone.items()}
        return f"fuse_ left alone {grouped(left)}" if left else ""


def left_alone(model: nn.Module, session: CheckingSession, wrong: frozenset[str]) -> dict[str, str]:
    """Reasons why modules are not computed again.

    Args:
        session: of a pass in training.
        wrong: modules that are excluded, because their results differ when they are computed again.
    """
    reasons = dict.fromkeys(sorted(wrong), _WRONG)
    for name, module in model.named_modules():
        if is_norm(module) and not is_within(name, wrong):
            why = _reason(name, module, session)
            reasons.update({name: why} if why else {})
    return reasons


def is_norm(module: nn.Module) -> bool:
    """Whether ``module`` is a norm, by its class or by the name of its class."""
    named_so = "Norm" in type(module).__name__ and not any(True for _ in module.children())
    return isinstance(module, _NORMS) or named_so


def _reason(name: str, module: nn.Module, session: CheckingSession) -> str:
    """Why the result of a norm is not computed again; empty if it is, or another layer does so."""
    recorded = session.norms.get(name)
    if recorded:
        return ""
    if recorded is False:
        return "autograd does not keep its input, so that its result cannot be computed again"
    if name not in session.called:
        return ""
    return f"{type(module).__name__} does not compute by a norm of torch.nn.functional"


def _mib(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"
