"""SupermaskEmbedding: a learned mask keeps a part of a random embedding."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskedconv import slices
from maskedconv.nn.mask_settings import MaskSettings
from maskedconv.nn.scored import ScoredLayer
from maskedconv.tracing import check_not_proxy


class SupermaskEmbedding(ScoredLayer):
    """An embedding that uses only the fraction ``k`` of a frozen random weight.

    A score for each weight is learned instead of the weight, as in
    :class:`maskedconv.nn.SupermaskLinear`, which describes the settings. The weight is
    ``[num_embeddings, embedding_dim]``. A decoder reads it for its output embedding too, which then
    has the same frozen values and scores.

    Source: Shen et al. 2021, *What's Hidden in a One-layer Randomly Weighted Transformer?*
    (arXiv 2109.03939), section 3.

    Input int64 of any shape ``[...]``, output ``[..., embedding_dim]``.

    Raises:
        TypeError, ValueError: an argument is invalid.
    """

    method = "supermask"

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        k: float = 0.5,
        weights: str | None = None,
        scale: bool = True,
        threshold: str = "layer",
        coats: int = 1,
        rerandomise_every: int = 0,
        rerandomise_fraction: float = 0.1,
        seed: int | None = None,
        frozen: Tensor | None = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        slices.check_seed(seed)
        settings = MaskSettings(
            k, weights or self.default_weights, scale, threshold,
            coats, rerandomise_every, rerandomise_fraction,
        )  # fmt: skip
        super().__init__()
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        shape = num_embeddings, embedding_dim
        self._set_up(shape, settings, seed, frozen, device, dtype)

    def forward(self, input: Tensor) -> Tensor:
        check_not_proxy(self, input)
        return F.embedding(input, self.weight)

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}, {self._kept_repr()}"

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(2, 2, device="meta"),)

    def _like(self, **options: Any) -> Self:
        options = {**self.settings._asdict(), "dtype": self.dtype, **options}
        return type(self)(self.num_embeddings, self.embedding_dim, **options)

    def to_plain(self) -> nn.Module:
        size = self.num_embeddings, self.embedding_dim
        return self._fill(nn.Embedding(*size, device="meta", dtype=self.dtype))
