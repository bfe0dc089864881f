"""The operators under the layer: one file each, with its reference and its backends."""

from maskedconv.ops.pack_filters import pack_filters
from maskedconv.ops.weight_grad import keep_for_weight_grad, weight_grad

__all__ = ["keep_for_weight_grad", "pack_filters", "weight_grad"]
