"""A model that keeps less for backward: results of norms and activations are computed again."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from maskedconv.fusion.attached import attach, detach
from maskedconv.fusion.checking import CheckingSession
from maskedconv.fusion.report import FusionReport, left_alone
from maskedconv.fusion.trial import Trial, difference, try_model
from maskedconv.nn.as_before import modes_restored, uncompiled

Model = TypeVar("Model", bound=nn.Module)
# Excluding modules may show that further ones differ.
_ATTEMPTS = 4


def fuse_(model: nn.Module, *inputs: Any) -> FusionReport:
    """Recomputes norms and activations in backward instead of saving their results, in place.

    In a chain such as convolution, norm, ReLU, convolution, plain PyTorch saves the norm's input
    and the ReLU's result. A fused model saves only the first, and backward recomputes the second.
    The same holds for every element-wise activation, for gates of squeeze-and-excitation, for
    residual sums, and for the concatenations of a DenseNet. Chains are found in the functions that
    the forward pass calls, whatever modules call them, so that hooks, subclasses, and shared
    modules stay as they are. Modules, parameters and keys of the state dict do not change either,
    and :func:`maskedconv.convert_`, ``merge_``, ``save`` and ``load`` work before and after.

    The model runs with ``inputs`` in training and in evaluation mode, plain and fused. Each tensor
    that is computed again is compared with that of the forward pass. Modules for which they differ
    are left alone, and so is the model if outputs, gradients or buffers differ. One warning names
    what is left. These passes keep what the plain model keeps, so ``inputs`` should be small. They
    change neither buffers, nor ``grad``, nor the state of random numbers.

    Only a call of ``model`` itself keeps less, and not one of a part (``model.features(x)``) or of
    ``model.forward(x)``: modules that are called by themselves are fused by themselves.

    Without gradients, under ``torch.compile`` (which decides itself what to compute again),
    ``torch.func``, export, and tracing, the model runs as before. ``torch.jit.script`` needs
    :func:`unfuse_` first. Copies and pickled models stay fused.

    Args:
        inputs: arguments of the model, for example images ``[N, C, H, W]``.

    Returns:
        A report; its ``str`` is for reading.

    Raises:
        ValueError: no input is given; no output depends on a parameter that is learned; or the
            model is wrapped for several processes or devices.
    """
    _check(model, inputs)
    unfuse_(model)
    # Under the compiler, functions are not seen one by one.
    with modes_restored(model), uncompiled(model):
        report = _fused(model, inputs)
    if report.left_alone:
        warnings.warn(report.warning(), stacklevel=2)
    return report


def unfuse_(model: Model) -> Model:
    """Undoes :func:`fuse_`.

    Returns:
        ``model``.
    """
    detach(model)
    return model


def _check(model: nn.Module, inputs: Sequence[Any]) -> None:
    if not inputs:
        raise ValueError("inputs are missing; expected what the model is called with")
    for name, module in model.named_modules():
        if isinstance(module, DistributedDataParallel | DataParallel):
            raise ValueError(
                f"{name or 'model'} is a {type(module).__name__}; fuse the model before it is "
                "wrapped"
            )


def _fused(model: nn.Module, inputs: Sequence[Any]) -> FusionReport:
    """Fuses the model, unless it then differs or keeps as much as before."""
    plain = {mode: _run(model, inputs, mode, model) for mode in (True, False)}
    report, excluded = _examine(model, inputs, plain[True].kept)
    why = report.left_alone.get("", "nothing that it keeps can be computed again")
    if report.kept_after < report.kept_before:
        attach(model, excluded)
        why = _disagreement(model, inputs, plain)
    if not why:
        return report
    detach(model)
    return FusionReport((), {"": why}, report.kept_before, report.kept_before, {})


def _examine(
    model: nn.Module, inputs: Sequence[Any], kept_before: int
) -> tuple[FusionReport, frozenset[str]]:
    """The report, and the modules in which nothing is to be recorded."""
    excluded: frozenset[str] = frozenset()
    for _ in range(_ATTEMPTS):
        sessions = {mode: CheckingSession(model, excluded) for mode in (True, False)}
        kept = {
            mode: _run(model, inputs, mode, one.around(model)) for mode, one in sessions.items()
        }
        wrong = frozenset[str]().union(*(session.wrong for session in sessions.values()))
        if not wrong:
            break
        excluded |= wrong
    session = sessions[True]
    report = FusionReport(
        tuple(name for name, recorded in session.norms.items() if recorded),
        left_alone(model, session, excluded),
        kept_before,
        kept[True].kept,
        dict(session.kept.most_common()),
    )
    return report, excluded


def _disagreement(model: nn.Module, inputs: Sequence[Any], plain: Mapping[bool, Trial]) -> str:
    """The difference between the fused model and the plain one, as text; empty if none."""
    for training, expected in plain.items():
        try:
            fused = _run(model, inputs, training, model)
        except RuntimeError as error:
            return f"with tensors that are computed again, it raises: {error}"
        if part := difference(fused, expected):
            return f"its {part} differ with tensors that are computed again"
    return ""


def _run(model: nn.Module, inputs: Sequence[Any], training: bool, run: Callable[..., Any]) -> Trial:
    return try_model(model.train(training), inputs, run)
