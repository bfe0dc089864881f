"""Several threads that use the same tasks."""

from __future__ import annotations

import copy
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
import torch
from task_networks import images, two_tasks
from torch.utils.checkpoint import checkpoint

BATCHES = [["a"] * 6, ["b"] * 6, ["b", "a", "a", "b", "a", "b"]]


def rows(tasks, x, ids):
    return tasks(x, task_ids=ids)


def state(tasks, x, ids):
    return tasks.state_dict()[f"tasks.{ids[0]}.3.learned"]


@pytest.mark.parametrize("act", [rows, state])
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


def test_using_is_for_one_thread(tmp_path):
    tasks = two_tasks("slice")
    tasks.save("a", tmp_path / "file")
    tasks.set("b")
    with ThreadPoolExecutor(1) as pool:
        with tasks.using("a"), tasks.using("a"):
            acts = {
                "using": lambda: tasks.using("b").__enter__(),
                "set": lambda: tasks.set("b"),
                "add": lambda: tasks.add("c"),
                "load": lambda: tasks.load("c", tmp_path / "file"),
            }
            for act in acts.values():
                with pytest.raises(RuntimeError, match="another thread is within using"):
                    pool.submit(act).result(timeout=60)
            assert tasks.active == "a"
        pool.submit(tasks.set, "a").result(timeout=60)
    assert tasks.active == "a"


def test_threads_within_using_have_its_task():
    tasks, x = two_tasks("slice"), images(6)
    with torch.inference_mode():
        expected = rows(tasks, x, ["a"] * 6)
        with tasks.using("a"), ThreadPoolExecutor(2) as pool:
            found = [pool.submit(torch.inference_mode()(tasks), x) for _ in range(4)]
            for one in found:
                torch.testing.assert_close(one.result(timeout=60), expected)


def test_a_backward_pass_waits_for_a_batch_of_several_tasks():
    tasks, x = two_tasks("slice"), images(6)
    before = {name: value.clone() for name, value in tasks.state_dict().items()}
    with tasks.using("a"):
        loss = tasks(x).sum()
    emptied, go_on = Event(), Event()

    def pause(*_):
        emptied.set()
        assert go_on.wait(60)

    with ThreadPoolExecutor(2) as pool:
        # The values of the tasks are out of the model while it runs for several.
        hook = tasks.model[2].register_forward_hook(pause)
        batch = pool.submit(torch.inference_mode()(rows), tasks, x, BATCHES[2])
        assert emptied.wait(60)
        hook.remove()
        backward = pool.submit(loss.backward)
        with pytest.raises(TimeoutError):
            backward.result(timeout=0.1)
        go_on.set()
        batch.result(timeout=60)
        backward.result(timeout=60)
    after = tasks.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize("copied", [copy.deepcopy, pickle.dumps])
def test_a_copy_waits_for_a_batch_of_several_tasks(copied):
    tasks, x = two_tasks("slice"), images(6)
    expected = [tasks.state_dict(), tasks.model.state_dict()]
    emptied, go_on = Event(), Event()

    def pause(*_):
        emptied.set()
        assert go_on.wait(60)

    hook = tasks.model[2].register_forward_hook(pause)
    with ThreadPoolExecutor(2) as pool:
        batch = pool.submit(torch.inference_mode()(rows), tasks, x, BATCHES[2])
        assert emptied.wait(60)
        # A hook of this test cannot be pickled.
        hook.remove()
        found = pool.submit(copied, tasks)
        time.sleep(0.1)
        go_on.set()
        batch.result(timeout=60)
        other = found.result(timeout=60)
    other = pickle.loads(other) if copied is pickle.dumps else other
    for one, before in zip((other, other.model), expected, strict=True):
        state = one.state_dict()
        assert state.keys() == before.keys()
        assert all(torch.equal(value, before[key]) for key, value in state.items())


def test_no_copy_is_made_within_a_batch_of_several_tasks():
    tasks, x = two_tasks("slice"), images(6)
    errors = []

    def copied(*_):
        try:
            copy.deepcopy(tasks)
        except RuntimeError as error:
            errors.append(str(error))

    hook = tasks.model[2].register_forward_hook(copied)
    with torch.inference_mode():
        rows(tasks, x, BATCHES[2])
    hook.remove()
    assert errors
    assert "a batch of several tasks runs; expected a copy after it" in errors[0]


def test_a_backward_pass_in_another_thread_does_not_wait():
    tasks, x = two_tasks("slice").train(), images(6).requires_grad_()

    def forward(one):
        return tasks(one, task_ids=BATCHES[2])

    with tasks.using("a"), ThreadPoolExecutor(1) as pool:
        # As on a GPU, where backward has a thread of its own.
        loss = checkpoint(forward, x, use_reentrant=False).sum()
        pool.submit(loss.backward).result(timeout=60)
    assert x.grad is not None
