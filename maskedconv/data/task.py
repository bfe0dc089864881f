"""The interface between a data set and the training: batches, loss and accuracy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, Self

import torch
from torch import Tensor, nn

from maskedconv.data.preprocessing import Preprocessing
from maskedconv.data.share import Share


class Task(Protocol):
    """A data set as training, evaluation and runs see it.

    An example has the shape ``image_shape``, such as (C, H, W). A network turns examples
    ``[B, *image_shape]`` into outputs, whose last dimension or second one is ``num_classes`` long.

    Attributes:
        name: as ``maskedconv.data.load`` takes it.
        classes: names of the outputs.
        note: describes the origin of the data.
        digest: identifies the examples and their order; equal on every device and for every share.
        share: the part of each batch that this process computes; all of it unless ``shared``.
    """

    @property
    def name(self) -> str: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def note(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def num_classes(self) -> int: ...
    @property
    def image_shape(self) -> tuple[int, ...]: ...
    @property
    def train_size(self) -> int: ...
    @property
    def test_size(self) -> int: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def share(self) -> Share: ...

    def to(self, device: str | torch.device) -> Self: ...
    def shared(self, share: Share) -> Self: ...

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How an image file becomes an example; None if the examples are no images."""

    def take_test(self, per_class: int, seed: int) -> Self:
        """The same data with ``per_class`` test examples of each class; DataError if too few."""

    def train_batches(
        self, batch_size: int, seed: int, epoch: int, first_batch: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of an epoch, in an order that depends on ``seed`` and ``epoch`` only.

        The examples are those of the share (``Share.inputs``), the targets those of all.
        """

    def test_batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The test examples in their order; the batches of the share (``Share.dealt``)."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss [] of a batch."""

    def terms(self, targets: Tensor) -> Tensor | int:
        """Number [] of terms of a batch that the loss averages."""

    def correct(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Number [] of examples of a batch that are right."""

    def measure(self, model: nn.Module) -> dict[str, float]:
        """Further results of a trained network, in percent, by name.

        Computed in the precision of the caller's autocast.
        """
