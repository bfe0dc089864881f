"""One training step, operator by operator."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

from maskedconv.training.evaluation import autocast

# Images [B, C, H, W] and labels [B] to the detached loss [] and logits [B, classes].
Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class EagerStep:
    """Forward pass, loss, backward pass and optimizer step.

    Args:
        forward: images to logits; the network, or the network under ``torch.compile``.
        amp: whether forward pass and loss run under autocast to bfloat16.
        loss: outputs and targets to the mean loss [].
    """

    def __init__(
        self,
        forward: Callable[[Tensor], Tensor],
        optimizer: Optimizer,
        amp: bool,
        loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    ) -> None:
        self._forward, self._optimizer, self._amp, self._loss = forward, optimizer, amp, loss

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Trains on one batch; returns the detached loss [] and logits [B, classes]."""
        with autocast(images.device, self._amp):
            logits = self._forward(images)
            loss = self._loss(logits, labels)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        return loss.detach(), logits.detach()
