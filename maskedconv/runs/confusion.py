"""The confusion matrix of a trained network on the test images."""

from __future__ import annotations

import torch
from torch import nn

from maskedconv.data import Task
from maskedconv.training.evaluation import answers

# With more classes, a row of results would be mostly this matrix, and no figure could show it.
MOST_CLASSES = 100


def confusion(model: nn.Module, dataset: Task, *, amp: bool = False) -> list[list[int]] | None:
    """Test images ``[C, C]`` by true class (rows) and predicted class; None without such classes.

    Leaves the model in eval mode. There is none for sequences, and for over ``MOST_CLASSES``
    classes.
    """
    classes = dataset.num_classes
    if classes > MOST_CLASSES or dataset.preprocessing is None:
        return None
    counts = torch.zeros(classes * classes, dtype=torch.int64, device=dataset.device)
    for logits, labels in answers(model, dataset, amp=amp):
        pairs = labels * classes + logits.argmax(1)
        counts += torch.bincount(pairs, minlength=len(counts))
    return counts.view(classes, classes).tolist()
