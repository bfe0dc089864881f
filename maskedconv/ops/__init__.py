"""The operators of the layers: one folder for each, with its reference and backends."""

from maskedconv.ops.pack_filters import pack_filters
from maskedconv.ops.weight_grad import WeightGradProblem, input_to_save, weight_grad

__all__ = [
    "WeightGradProblem",
    "input_to_save",
    "pack_filters",
    "weight_grad",
]
