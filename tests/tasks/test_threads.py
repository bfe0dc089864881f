"""Several threads that use the same tasks."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from task_networks import images, two_tasks
from torch.utils.checkpoint import checkpoint

BATCHES = [["a"] * 6, ["b"] * 6, ["b", "a", "a", "b", "a", "b"]]


def rows(tasks, x, ids):
    return tasks(x, task_ids=ids)


def one(tasks, x, ids):
    with tasks.using(ids[0]):
        return tasks.model(x)


def state(tasks, x, ids):
    return tasks.state_dict()[f"tasks.{ids[0]}.3.learned"]


@pytest.mark.parametrize("act", [rows, one, state])
def test_one_at_a_time(act):
    tasks, x = two_tasks("slice"), images(6)
    with torch.inference_mode():
        for ids in BATCHES:
            rows(tasks, x, ids)
        expected = [act(tasks, x, ids).clone() for ids in BATCHES]
        # Within a pass, other threads get their turn.
        tasks.model[2].register_forward_hook(lambda *_: time.sleep(0.01))

    @torch.inference_mode()
    def work(index):
        found = [act(tasks, x, BATCHES[index]) for _ in range(5)]
        rows(tasks, x, BATCHES[2])
        return all(torch.allclose(one, expected[index], atol=1e-5) for one in found)

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(work, range(3))) == [True] * 3
    assert tasks.active == "b"


def test_a_backward_pass_in_another_thread_does_not_wait():
    tasks, x = two_tasks("slice").train(), images(6).requires_grad_()

    def forward(one):
        return tasks(one, task_ids=BATCHES[2])

    with tasks.using("a"), ThreadPoolExecutor(1) as pool:
        # As on a GPU, where backward has a thread of its own.
        loss = checkpoint(forward, x, use_reentrant=False).sum()
        pool.submit(loss.backward).result(timeout=60)
    assert x.grad is not None
