"""Attention and the layers of a Transformer (Vaswani et al. 2017, arXiv 1706.03762, section 3).

No layer has a bias, and LayerNorm has no affine parameters, as in Shen et al. 2021
(arXiv 2109.03939, section 3): each weight belongs to a projection.
"""

from __future__ import annotations

import math
from functools import lru_cache, partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskedconv.methods import LayerFactory
from maskedconv.models.initialisation import draw_weight_

# The feed-forward layers are this many times as wide as the others.
FEED_FORWARD = 4


class Attention(nn.Module):
    """Scaled dot-product attention of several heads.

    Args:
        make: creates the four projections, ``[dim, dim]``.
        dim: size of a token's vector, a multiple of ``heads``.
    """

    def __init__(self, make: LayerFactory, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = make.linear(dim, dim, bias=False)
        self.k = make.linear(dim, dim, bias=False)
        self.v = make.linear(dim, dim, bias=False)
        self.out = make.linear(dim, dim, bias=False)

    def forward(self, query: Tensor, memory: Tensor, visible: Tensor) -> Tensor:
        """Attends from ``query`` [B, T, dim] to ``memory`` [B, S, dim].

        Args:
            visible: bool, broadcast to [B, heads, T, S]; False hides a token of ``memory``.

        Returns:
            [B, T, dim].
        """
        q, k, v = (
            self._split(project(tokens))
            for project, tokens in ((self.q, query), (self.k, memory), (self.v, memory))
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def initialise_(self) -> None:
        """Xavier uniform; queries, keys and values with the gain 1 / √2 (Shen et al. 2021)."""
        for projection in (self.q, self.k, self.v):
            draw_weight_(projection, partial(nn.init.xavier_uniform_, gain=1 / math.sqrt(2)))
        draw_weight_(self.out, nn.init.xavier_uniform_)

    def _split(self, tokens: Tensor) -> Tensor:
        """[B, T, dim] to [B, heads, T, dim / heads]."""
        return tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """Two layers with a ReLU between them: [B, T, dim] to [B, T, dim]."""

    def __init__(self, make: LayerFactory, dim: int) -> None:
        super().__init__()
        self.fc1 = make.linear(dim, FEED_FORWARD * dim, bias=False)
        self.fc2 = make.linear(FEED_FORWARD * dim, dim, bias=False)

    def initialise_(self) -> None:
        """Kaiming uniform, for a ReLU (Shen et al. 2021)."""
        for layer in (self.fc1, self.fc2):
            draw_weight_(layer, nn.init.kaiming_uniform_)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(F.relu(self.fc1(tokens)))


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward part; LayerNorm after each sum."""

    def __init__(self, make: LayerFactory, dim: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(make, dim, heads)
        self.feed_forward = FeedForward(make, dim)

    def forward(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """[B, S, dim] to [B, S, dim]; ``visible`` as in :class:`Attention`."""
        tokens = normalise(tokens + self.attention(tokens, tokens, visible))
        return normalise(tokens + self.feed_forward(tokens))


class DecoderLayer(nn.Module):
    """Self-attention, attention to the encoder's output, and a feed-forward part."""

    def __init__(self, make: LayerFactory, dim: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(make, dim, heads)
        self.cross_attention = Attention(make, dim, heads)
        self.feed_forward = FeedForward(make, dim)

    def forward(self, tokens: Tensor, memory: Tensor, earlier: Tensor, visible: Tensor) -> Tensor:
        """[B, T, dim] to [B, T, dim].

        Args:
            memory: the encoder's output, [B, S, dim].
            earlier: bool [T, T], the tokens that each token may see.
            visible: bool [B, 1, 1, S], the tokens of ``memory``.
        """
        tokens = normalise(tokens + self.attention(tokens, tokens, earlier))
        tokens = normalise(tokens + self.cross_attention(tokens, memory, visible))
        return normalise(tokens + self.feed_forward(tokens))


def normalise(tokens: Tensor) -> Tensor:
    """LayerNorm without affine parameters over the last dimension."""
    return F.layer_norm(tokens, tokens.shape[-1:])


@lru_cache(maxsize=16)
def positions(length: int, dim: int, device: torch.device) -> Tensor:
    """Sinusoids of each position, [length, dim] (Vaswani et al. 2017, section 3.5)."""
    place = torch.arange(length, dtype=torch.float64)[:, None]
    wave = torch.arange((dim + 1) // 2, dtype=torch.float64)[None]
    angle = place / 10_000 ** (2 * wave / dim)
    both = torch.stack([angle.sin(), angle.cos()], 2).flatten(1)[:, :dim]
    return both.to(device, torch.float32)
