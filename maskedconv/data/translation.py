"""A translation task in memory: pairs of token sequences."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskedconv.data.batches import batch_bounds, generator_of
from maskedconv.data.digest import digest_of_tensors
from maskedconv.data.errors import DataError
from maskedconv.data.share import WHOLE, Share
from maskedconv.models.tokens import PAD


class Translator(Protocol):
    """A network that translates, such as ``transformer_2_64``."""

    def translate(self, source: Tensor, length: int) -> Tensor:
        """Source tokens [N, S] to tokens [N, length]."""


@dataclass(frozen=True, eq=False)
class TranslationSet:
    """Pairs as int64 [N, 2, L], and the tokens to predict as int64 [N, L]; all on one device.

    A pair is the source and the translation shifted right, as ``maskedconv.models.transformer``
    takes it. ``classes`` is the vocabulary. An example is right if every token is: by greedy
    decoding, or, which is the same, if each token is the most probable one behind those before it.
    """

    name: str
    train_pairs: Tensor
    train_targets: Tensor
    test_pairs: Tensor
    test_targets: Tensor
    classes: tuple[str, ...]
    note: str
    share: Share = WHOLE

    @cached_property
    def digest(self) -> str:
        """Sixteen hex digits that identify the pairs and their targets."""
        train, test = self.train_pairs, self.test_pairs
        return digest_of_tensors((train, self.train_targets, test, self.test_targets))

    @property
    def num_classes(self) -> int:
        """Size of the vocabulary."""
        return len(self.classes)

    @property
    def image_shape(self) -> tuple[int, int]:
        """(2, L) of every pair."""
        _, two, length = self.train_pairs.shape
        return two, length

    @property
    def train_size(self) -> int:
        """Number of training pairs."""
        return len(self.train_pairs)

    @property
    def test_size(self) -> int:
        """Number of test pairs."""
        return len(self.test_pairs)

    @property
    def device(self) -> torch.device:
        """The device of the tokens."""
        return self.train_pairs.device

    def to(self, device: str | torch.device) -> TranslationSet:
        """The same data on ``device``."""
        moved = {
            field: getattr(self, field).to(device)
            for field in ("train_pairs", "train_targets", "test_pairs", "test_targets")
        }
        return dataclasses.replace(self, **moved)

    def shared(self, share: Share) -> TranslationSet:
        """The same data; this process computes ``share`` of it."""
        return dataclasses.replace(self, share=share)

    @property
    def preprocessing(self) -> None:
        """None: the examples are no images."""

    def take_test(self, per_class: int, seed: int) -> TranslationSet:
        """Not possible: pairs have no classes.

        Raises:
            DataError: always.
        """
        raise DataError(f"test_subset is {per_class}; expected none, as {self.name} has no classes")

    def train_batches(
        self, batch_size: int, seed: int, epoch: int, first_batch: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Pairs [B, 2, L] and targets [B, L] in random order; see ``data.train_batches``."""
        bounds = batch_bounds(self.train_size, batch_size, self.share.count)[first_batch:]
        order = torch.randperm(self.train_size, generator=generator_of(seed, epoch))
        order = order.to(self.device)
        return (
            (
                self.train_pairs[order[slice(*self.share.inputs(start, stop))]],
                self.train_targets[order[start:stop]],
            )
            for start, stop in pairwise(bounds)
        )

    def test_batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The test pairs and targets in their order."""
        pairs, targets = self.test_pairs.split(batch_size), self.test_targets.split(batch_size)
        return self.share.dealt(zip(pairs, targets, strict=True))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy [] of all tokens; ``outputs`` [B, L, vocabulary]."""
        return F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), ignore_index=PAD)

    def terms(self, targets: Tensor) -> Tensor:
        """Number [] of tokens, without padding, that the loss averages."""
        return (targets != PAD).sum()

    def correct(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Number [] of translations without a wrong token."""
        return right_tokens(outputs.argmax(2), targets).all(1).sum()

    def measure(self, model: nn.Module) -> dict[str, float]:
        """Exact matches and right tokens of greedy decoding on the test pairs, in percent."""
        translations, targets = self.translations(model), self.test_targets
        right = right_tokens(translations, targets)
        counted = targets != PAD
        return {
            "exact_match": round(100 * right.all(1).double().mean().item(), 6),
            "token_accuracy": round(100 * right[counted].double().mean().item(), 6),
        }

    def translations(self, model: nn.Module, batch_size: int = 500) -> Tensor:
        """Greedy translations of the test pairs, [N, L]; leaves the model in eval mode."""
        translator, length = cast(Translator, model.eval()), self.test_targets.shape[1]
        return torch.cat(
            [
                translator.translate(pairs[:, 0], length)
                for pairs, _ in self.test_batches(batch_size)
            ]
        )


def right_tokens(tokens: Tensor, targets: Tensor) -> Tensor:
    """Bool [N, L]: which of ``tokens`` are those of ``targets``; padding is right."""
    return (tokens == targets) | (targets == PAD)
