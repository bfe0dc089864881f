"""BipropConv2d and BipropLinear: supermasks over binary weights."""

from __future__ import annotations

from maskedconv.nn.supermask import SupermaskConv2d, SupermaskLinear
from maskedconv.nn.supermask_embedding import SupermaskEmbedding


class BipropConv2d(SupermaskConv2d):
    """A supermask over the signs of a frozen random weight.

    Forward uses ``sign(W) * alpha * mask``, with the mean magnitude ``alpha`` of the kept weights
    of the layer (0 if it keeps none). The gradient of the mask, times ``|W|``, goes to the scores.
    Everything else is as in :class:`SupermaskConv2d`.

    Source: Diffenderfer & Kailkhura 2021, *Multi-Prize Lottery Ticket Hypothesis*
    (arXiv 2103.09377), algorithm 1.
    """

    method = "biprop"
    binary = True
    default_weights = "kaiming"


class BipropLinear(SupermaskLinear):
    """A fully connected layer with a supermask over the signs of a frozen random weight.

    As :class:`BipropConv2d`; arguments and errors are those of :class:`SupermaskLinear`. Input
    ``[..., in_features]``, output ``[..., out_features]``. ``coats`` must be 1.
    """

    method = "biprop"
    binary = True
    default_weights = "kaiming"


class BipropEmbedding(SupermaskEmbedding):
    """The embedding that belongs to :class:`BipropConv2d`."""

    method = "biprop"
    binary = True
    default_weights = "kaiming"
