"""Failing cases of a step, for the tests of bench.gpu_check."""

from __future__ import annotations

import os
import signal
import time

from bench.gpu_check.record import NotHere


def run(case, device, options):
    case = case.partition(" | ")[0]
    if case == "raises":
        raise ValueError("three channels, not four")
    if case == "crashes":
        os.kill(os.getpid(), signal.SIGSEGV)
    if case == "hangs":
        time.sleep(600)
    if case == "loses the GPU":
        device.queue.synchronize = _lost
        _lost()
    if case == "has no tool":
        raise NotHere("ncu is not installed")
    return {"status": "wrong"} if case == "is wrong" else {"error_of": float("nan"), "n": 3}


def _lost():
    raise RuntimeError("CUDA error: an illegal memory access was encountered")
