"""A training step that is captured once and replayed. The recorder of the graph is an argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from maskedconv.console import say
from maskedconv.training.eager_step import Step

# Eager steps before the capture, as in PyTorch's notes on CUDA graphs. They time and choose the
# kernels and create the optimizer's state.
WARM_UP = 3


class Recorder(Protocol):
    """Captures work of the device."""

    def warm_up(self, function: Callable[[], object]) -> str:
        """Runs ``function`` as before a capture; returns where it waited for the device, or ""."""

    def record(self, function: Callable[[], object]) -> Callable[[], None]:
        """Captures ``function`` without executing it; returns a function that replays it."""


class CapturedStep:
    """A step that replays its capture for batches of one size, and runs all others eagerly.

    The first ``WARM_UP`` batches of that size are eager steps of the training itself, and a capture
    executes nothing. Neither has an effect that an eager training does not have.

    The returned loss and logits are overwritten by the next step.

    Args:
        step: the eager step. A capture of it repeats its work on the device with the same host
            values.
        batch_size: the number of images that are captured.
        host_values: the host values that the capture depends on. A new capture is made if they
            change.
        recorder: captures and replays.
        required: whether a step that waits for the device is an error. Otherwise all steps of it
            are eager, and one line on stderr says so.

    Raises:
        RuntimeError: on call; the step cannot be captured.
    """

    def __init__(
        self,
        step: Step,
        batch_size: int,
        host_values: Callable[[], object],
        recorder: Recorder,
        required: bool,
    ) -> None:
        self._step, self._batch_size, self._host_values = step, batch_size, host_values
        self._recorder, self._required = recorder, required
        self._eager_steps_left, self._refused = WARM_UP, False
        self._inputs: tuple[Tensor, Tensor] | None = None
        self._outputs: tuple[Tensor, Tensor] | None = None
        self._replay: Callable[[], None] | None = None
        self._captured_with: object = None

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Trains on one batch; returns the detached loss [] and logits [B, classes]."""
        if len(images) != self._batch_size or self._refused:
            return self._step(images, labels)
        if self._eager_steps_left:
            return self._warm_up(images, labels)
        self._copy(images, labels)
        if self._replay is None or self._captured_with != self._host_values():
            self._capture()
        assert self._replay is not None
        self._replay()
        assert self._outputs is not None
        return self._outputs

    def tell_unused(self) -> None:
        """Says on stderr that nothing was captured, because there were too few full batches."""
        if self._replay is None and not self._refused:
            say(
                "note: no training step was captured in a CUDA graph: the first "
                f"{WARM_UP} batches of {self._batch_size} images are eager, and there were no more"
            )

    def _warm_up(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        outputs = []
        waited = self._recorder.warm_up(lambda: outputs.append(self._step(images, labels)))
        self._eager_steps_left -= 1
        # The steps before the last one wait while kernels are timed.
        if waited and not self._eager_steps_left:
            self._refuse(f"the step waits for the device at {waited}")
        return outputs[0]

    def _refuse(self, reason: str) -> None:
        if self._required:
            raise RuntimeError(f"graph is 'on', but {reason}; expected auto or off")
        say(f"note: the training steps are not captured in a CUDA graph: {reason}")
        self._refused = True

    def _copy(self, images: Tensor, labels: Tensor) -> None:
        if self._inputs is None:
            self._inputs = images.clone(), labels.clone()
            return
        for kept, new in zip(self._inputs, (images, labels), strict=True):
            kept.copy_(new)

    def _capture(self) -> None:
        # The memory of the last capture is free for the next one.
        self._replay = self._outputs = None
        self._captured_with = self._host_values()
        try:
            self._replay = self._recorder.record(self._step_on_kept_inputs)
        except RuntimeError as error:
            raise RuntimeError(
                f"the training step cannot be captured in a CUDA graph "
                f"({error.__context__ or error}); expected graph 'off'"
            ) from error

    def _step_on_kept_inputs(self) -> None:
        assert self._inputs is not None
        self._outputs = self._step(*self._inputs)
