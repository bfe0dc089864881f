"""Loss and right answers of a process's share of each batch."""

from __future__ import annotations

from torch import Tensor

from maskedconv.data import Task


class BatchLoss:
    """The loss of a batch, computed by all processes that share it.

    Outputs are of the share's examples, targets of the full batch.
    """

    def __init__(self, dataset: Task) -> None:
        self._dataset = dataset

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """A value []; its mean over the processes is the mean loss of the batch.

        DistributedDataParallel computes this mean of the gradients.
        """
        share, count = self._dataset.share, len(targets)
        if share.count == 1:
            return self._dataset.loss(outputs, targets)
        first, end = share.inputs(0, count)
        own = targets[first:end]
        loss = self._dataset.loss(outputs, own)
        counted = self._dataset.terms(targets[slice(*share.bounds(0, count))])
        return loss * (share.count * counted / self._dataset.terms(targets))

    def correct(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Number [] of the share's examples that are right."""
        own = targets[slice(*self._dataset.share.bounds(0, len(targets)))]
        return self._dataset.correct(outputs[: len(own)], own)

    def count(self, targets: Tensor) -> float:
        """This process's part of the number of examples."""
        return len(targets) / self._dataset.share.count

    def terms(self, targets: Tensor) -> Tensor | float:
        """This process's part of the number of terms, with which ``loss`` is summed."""
        return self._dataset.terms(targets) / self._dataset.share.count
