"""A kernel that runs out of memory on one of its threads raises MemoryError."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from maskedconv.ops import native

pytestmark = [
    pytest.mark.skipif(native.module() is None, reason=native.REASON),
    pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS limits memory on Linux alone"),
]

# The sums of so many rows of filters take 20 MB a thread, and 40 MB more from the 8192nd pixel on,
# which the threads themselves allocate. Only one row of taps meets the images, so there is little
# to compute. The limit rises until the memory suffices: it is reached in front of the threads
# first, then on both threads, then on one of them.
WEIGHT_GRAD = """
import resource
import torch
from maskedconv.ops import native

THREADS, COLUMNS, ROWS, CHANNELS = 2, 8192, 20001, 16
images = torch.ones(THREADS, 1, COLUMNS, CHANNELS)
out = torch.empty(CHANNELS, ROWS, 1, CHANNELS)
image = COLUMNS * CHANNELS
operand = images.data_ptr(), (THREADS, CHANNELS, 1, COLUMNS), (image, 1, image, CHANNELS)


def run(rows):
    native.module().weight_grad(
        "float32", *operand, *operand, (CHANNELS, CHANNELS, rows, 1),
        (1, 1), (rows // 2, 0), (1, 1), 0, 0, out.data_ptr(), THREADS,
    )


run(1)  # The threads exist from here on.
in_use = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
hard = resource.getrlimit(resource.RLIMIT_AS)[1]
for more in range(2**24, 2**30, 2**24):
    resource.setrlimit(resource.RLIMIT_AS, (in_use + more, hard))
    try:
        run(ROWS)
        break
    except MemoryError:
        failed = more
resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
assert failed > THREADS * out.nbytes, failed  # on the threads
expected = torch.zeros_like(out)
expected[:, ROWS // 2] = THREADS * COLUMNS
assert torch.equal(out, expected)
"""


def test_the_weight_gradient_where_its_threads_lack_memory():
    done = subprocess.run(
        [sys.executable, "-c", WEIGHT_GRAD], capture_output=True, text=True, check=False,
        env={**os.environ, "MALLOC_ARENA_MAX": "1"},  # no thread has reserved memory of its own
        timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, (done.returncode, done.stderr)
