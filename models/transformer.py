"""An encoder-decoder Transformer for translation (Vaswani et al. 2017, arXiv 1706.03762).

Its projections and embeddings come from a ``LayerFactory``, so that it can be trained or masked.
With ``fold``, it is the one-layer network of Shen et al. 2021 (arXiv 2109.03939, section 3).
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskedconv.checks import check_flag
from maskedconv.methods import LayerFactory
from maskedconv.models.attention import (
    Attention,
    DecoderLayer,
    EncoderLayer,
    FeedForward,
    positions,
)
from maskedconv.models.data_shape import DataShape
from maskedconv.models.initialisation import draw_weight_
from maskedconv.models.recipe import Recipe
from maskedconv.models.tokens import BOS, EOS, PAD
from maskedconv.nn.folding import fold_

# The papers' networks are larger.
RECIPE = Recipe(
    epochs=40,
    batch_size=128,
    lr=1e-3,
    momentum=0.9,
    weight_decay=0.0,
    milestones=(),
    gamma=1.0,
    schedule="cosine",
    optimizer="adam",
)
HEAD_SIZE = 16


class Transformer(nn.Module):
    """Pairs of token sequences ``[N, 2, L]`` to logits of the next token, ``[N, L, num_classes]``.

    A pair is the source, and the translation so far, which starts with BOS. Both are padded with
    PAD (:mod:`maskedconv.models.tokens`). The decoder's input and output embeddings are one.

    Args:
        make: creates the projections and embeddings.
        data: ``num_classes`` is the size of the vocabulary; the other values have no effect.
        blocks: layers of the encoder, and layers of the decoder.
        dim: size of a token's vector, a multiple of 16.
        fold: whether the layers of the encoder share one frozen weight per role (q, k, v, out, fc1,
            fc2), and likewise those of the decoder.

    Raises:
        ValueError: ``dim`` is no multiple of 16; ``fold`` is True, and the layers have no frozen
            weight.
    """

    def __init__(
        self,
        make: LayerFactory,
        data: DataShape,
        *,
        blocks: int,
        dim: int,
        fold: bool = False,
    ) -> None:
        super().__init__()
        if dim % HEAD_SIZE:
            raise ValueError(f"dim is {dim}; expected a multiple of {HEAD_SIZE}")
        heads = dim // HEAD_SIZE
        self.encoder_embedding = make.embedding(data.num_classes, dim)
        self.decoder_embedding = make.embedding(data.num_classes, dim)
        self.encoder = nn.ModuleList(EncoderLayer(make, dim, heads) for _ in range(blocks))
        self.decoder = nn.ModuleList(DecoderLayer(make, dim, heads) for _ in range(blocks))
        self._initialise()
        if check_flag("fold", fold):
            fold_(self.encoder)
            fold_(self.decoder)

    def forward(self, pairs: Tensor) -> Tensor:
        if pairs.dim() != 3 or pairs.shape[1] != 2 or pairs.is_floating_point():
            raise ValueError(
                f"pairs is {list(pairs.shape)} of {pairs.dtype}; expected [N, 2, L] of tokens"
            )
        source, target = pairs.unbind(1)
        return self.decode(target, self.encode(source), visible_in(source))

    def encode(self, source: Tensor) -> Tensor:
        """Source tokens [N, S] to vectors [N, S, dim]."""
        tokens = self._embed(source, self.encoder_embedding.weight)
        visible = visible_in(source)
        for layer in self.encoder:
            tokens = layer(tokens, visible)
        return tokens

    def decode(self, target: Tensor, memory: Tensor, visible: Tensor) -> Tensor:
        """Logits [N, T, num_classes] of the token behind each of ``target`` [N, T].

        Args:
            memory: result of :meth:`encode`.
            visible: :func:`visible_in` of the source.
        """
        # Read once: a masked embedding computes it from its scores.
        embedding = self.decoder_embedding.weight
        tokens = self._embed(target, embedding)
        length = target.shape[1]
        earlier = torch.ones(length, length, dtype=torch.bool, device=target.device).tril()
        for layer in self.decoder:
            tokens = layer(tokens, memory, earlier, visible)
        return F.linear(tokens, embedding)

    @torch.no_grad()
    def translate(self, source: Tensor, length: int) -> Tensor:
        """Greedy decoding of ``source`` [N, S]: int64 [N, length], PAD behind each EOS."""
        memory, visible = self.encode(source), visible_in(source)
        target = source.new_full((len(source), 1), BOS)
        ended = torch.zeros_like(target[:, 0], dtype=torch.bool)
        for _ in range(length):
            token = self.decode(target, memory, visible)[:, -1].argmax(1)
            token = token.masked_fill(ended, PAD)
            ended = ended | (token == EOS)
            target = torch.cat([target, token[:, None]], 1)
        return target[:, 1:]

    def _initialise(self) -> None:
        """Draws embeddings from N(0, 1 / dim), and the projections of every layer."""
        for embedding in (self.encoder_embedding, self.decoder_embedding):
            std = 1 / math.sqrt(embedding.embedding_dim)
            draw_weight_(embedding, partial(nn.init.normal_, std=std))
        for module in self.modules():
            if isinstance(module, Attention | FeedForward):
                module.initialise_()

    def _embed(self, tokens: Tensor, embedding: Tensor) -> Tensor:
        dim = embedding.shape[1]
        place = positions(tokens.shape[1], dim, tokens.device)
        return math.sqrt(dim) * F.embedding(tokens, embedding) + place.to(embedding.dtype)


def visible_in(tokens: Tensor) -> Tensor:
    """Bool [N, 1, 1, S]: which of ``tokens`` [N, S] are no padding."""
    return (tokens != PAD)[:, None, None]
