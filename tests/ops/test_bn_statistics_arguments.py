"""The compiled module's functions of bn_statistics refuse invalid arguments."""

from __future__ import annotations

import pytest
from test_checked_arguments import AT, HUGE, refused

from maskedconv.ops import native

pytestmark = pytest.mark.skipif(native.module() is None, reason=native.REASON)

STATISTICS = {
    "type": "float32", "x": (AT, 8), "pixels": 20, "channels": 5, "summand": (AT, 5),
    "total": (AT + 8192, 5), "state": (AT, AT, AT + 4096, AT + 4160, 0), "momentum": 0.1,
    "eps": 1e-3, "table": (AT + 6144, 5), "threads": 1,
}  # fmt: skip
OF_MOMENTS = {
    name: STATISTICS[name] for name in ("pixels", "channels", "state", "momentum", "eps", "table")
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "float64"}, "type is float64; expected float32, bfloat16 or float16"),
        ({"x": (0, 8)}, "x is a null pointer; expected 100 elements"),
        ({"x": (AT, 4)}, "x_pixel is 4; expected at least 5"),
        ({"x": (AT, HUGE)}, "x is larger than memory"),
        ({"summand": (AT, 4)}, "summand_pixel is 4; expected at least 5"),
        ({"total": (0, 5)}, "total is a null pointer; expected 100 elements"),
        ({"threads": 0}, "threads is 0; expected 1"),
    ],
    ids=["type", "null", "pitch", "size", "summand", "total", "threads"],
)
def test_bn_statistics_refuses(changes, message):
    refused("bn_statistics", STATISTICS, changes, message)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("bn_statistics", STATISTICS), ("bn_statistics_of_moments", OF_MOMENTS)],
)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pixels": 1}, "pixels is 1; expected 2"),
        ({"channels": -1}, "channels is -1; expected 0"),
        ({"table": (0, 5)}, "table is a null pointer; expected 25 elements"),
        ({"state": (AT, AT, AT, 0, 0)}, "running mean and variance: one is null"),
        ({"momentum": -1.0}, "batches is null; expected their number"),
    ],
    ids=["pixels", "channels", "table", "running", "batches"],
)
def test_the_statistics_of_moments_refuse(name, arguments, changes, message):
    refused(name, arguments, changes, message)
