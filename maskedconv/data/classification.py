"""Loss and accuracy of images with a label each."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


class Classification:
    """The part of a :class:`maskedconv.data.Task` that all images with labels share."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy [] of logits [B, classes] and labels [B]."""
        return F.cross_entropy(outputs, targets)

    def terms(self, targets: Tensor) -> int:
        """Number of images that the loss averages."""
        return len(targets)

    def correct(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Number [] of images whose label has the largest logit."""
        return (outputs.argmax(1) == targets).sum()
