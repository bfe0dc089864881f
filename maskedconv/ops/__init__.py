"""The operators under the layer: one folder each, with its reference and its backends."""

from maskedconv.ops.pack_filters import pack_filters
from maskedconv.ops.weight_grad import WeightGradProblem, keep_for_weight_grad, weight_grad

__all__ = [
    "WeightGradProblem",
    "keep_for_weight_grad",
    "pack_filters",
    "weight_grad",
]
