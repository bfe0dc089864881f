"""The compiled module's functions of masked_weight refuse invalid arguments."""

from __future__ import annotations

import pytest
import torch

from maskedconv.ops import native

pytestmark = pytest.mark.skipif(native.module() is None, reason=native.REASON)

FLOATS, INDEX = torch.ones(64), torch.zeros((), dtype=torch.int64)
AT = FLOATS.data_ptr()
COMMON = {"value": FLOATS[63:].data_ptr(), "first": INDEX.data_ptr()}
FIND = {"score": AT, "elements": 8, "num_kept": 3, **COMMON, "threads": 1}
MASK = {
    "type": "float32", "weight": AT, "score": AT, "elements": 8, **COMMON, "binary": True,
    "scale": 1.0, "out": AT + 128, "threads": 1,
}  # fmt: skip
GRAD = {
    "type": "float32", "grad": AT, "weight": AT, "score": AT, "elements": 8, "binary": False,
    "scale": 1.0, "out": AT + 128, "threads": 1,
}  # fmt: skip
CASES = [
    ("find_threshold", FIND, {"score": 0}, "score is a null pointer; expected 8 elements"),
    ("find_threshold", FIND, {"num_kept": 9}, "num_kept is 9; expected 1 to 8"),
    ("find_threshold", FIND, {"num_kept": 0}, "num_kept is 0; expected 1 to 8"),
    ("find_threshold", FIND, {"elements": -1}, "elements is -1; expected 0 to"),
    ("find_threshold", FIND, {"elements": 2**40}, "elements is 1099511627776; expected 0 to"),
    ("find_threshold", FIND, {"value": 0}, "value is a null pointer"),
    ("find_threshold", FIND, {"first": 0}, "first is a null pointer"),
    ("find_threshold", FIND, {"threads": 0}, "threads is 0; expected 1 to"),
    ("masked_weight", MASK, {"type": "int8"}, "type is int8; expected float32, bfloat16 or"),
    ("masked_weight", MASK, {"weight": 0}, "weight is a null pointer; expected 8 elements"),
    ("masked_weight", MASK, {"score": 0}, "score is a null pointer; expected 8 elements"),
    ("masked_weight", MASK, {"value": 0}, "value is a null pointer"),
    ("masked_weight", MASK, {"first": 0}, "first is a null pointer"),
    ("masked_weight", MASK, {"out": 0}, "out is a null pointer; expected 8 elements"),
    ("masked_weight", MASK, {"threads": -2}, "threads is -2; expected 1 to"),
    ("score_grad", GRAD, {"type": "float64"}, "type is float64; expected float32, bfloat16 or"),
    ("score_grad", GRAD, {"grad": 0}, "grad is a null pointer; expected 8 elements"),
    ("score_grad", GRAD, {"weight": 0}, "weight is a null pointer; expected 8 elements"),
    ("score_grad", GRAD, {"score": 0}, "score is a null pointer; expected 8 elements"),
    ("score_grad", GRAD, {"out": 0}, "out is a null pointer; expected 8 elements"),
    ("score_grad", GRAD, {"elements": -8}, "elements is -8; expected 0 to"),
]


@pytest.mark.parametrize(("name", "arguments", "changes", "message"), CASES)
def test_refuses(name, arguments, changes, message):
    call = getattr(native.module(), name)
    call(*arguments.values())
    with pytest.raises(ValueError, match=f"^{name}: {message}"):
        call(*{**arguments, **changes}.values())
