"""Results on disk: killed writers, parallel writers, unusable folders."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import report_samples as samples

from maskedconv.runs import Store, StoreError


def run(name):
    """A run with this name: its key, and a configuration with the name as its model."""
    config = samples.config(name)
    return {"key": config.key, "config": config.to_json()}


def row(name, status="done", **more):
    numbers = {"best_top1": 50.0, "last_top1": 50.0, "history": []}
    sizes = {"learned_parameters": 1, "total_parameters": 2}
    error = None if status == "done" else "no reason"
    return {**run(name), "status": status, **numbers, **sizes, "error": error, **more}


def key(name):
    return run(name)["key"]


def names(loaded):
    return [row["config"]["model"] for row in loaded.rows.values()]


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "runs")
    store.prepare()
    return store


def test_rows_come_back(store):
    store.append(row("a", seconds=1.5))
    store.append(row("b"))
    loaded = store.load()
    assert loaded.problems == []
    assert names(loaded) == ["a", "b"]
    assert loaded.rows[key("a")] == {"schema": 1, **row("a", seconds=1.5)}
    assert store.results.read_bytes().count(b"\n") == 2


def test_nothing_there_yet(tmp_path):
    loaded = Store(tmp_path / "none").load()
    assert (loaded.rows, loaded.problems) == ({}, [])
    assert not (tmp_path / "none").exists()


def test_half_written_line_is_reported_kept_and_survived(store):
    store.append(row("a"))
    store.append(row("b"))
    text = store.results.read_bytes()
    store.results.write_bytes(text[:-20])
    loaded = store.load()
    assert names(loaded) == ["a"]
    assert len(loaded.problems) == 1
    assert "results.jsonl line 2: not valid JSON" in loaded.problems[0]
    store.append(row("c"))
    assert names(store.load()) == ["a", "c"]
    assert store.results.read_bytes().startswith(text[:-20] + b"\n")


def test_complete_row_without_its_newline_is_a_row(store):
    store.append(row("a"))
    store.results.write_bytes(store.results.read_bytes().rstrip(b"\n"))
    assert names(store.load()) == ["a"]
    store.append(row("b"))
    assert (names(store.load()), store.load().problems) == (["a", "b"], [])


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe\x00",
        b"[1, 2]",
        b"17",
        b'{"schema": 2, "key": "x", "status": "done"}',
        b'{"schema": 1, "status": "done"}',
        b'{"schema": 1, "key": "x", "status": "perhaps"}',
    ],
)
def test_foreign_lines_are_reported(store, line):
    store.results.write_bytes(line + b"\n\n")
    store.append(row("a"))
    loaded = store.load()
    assert names(loaded) == ["a"]
    assert len(loaded.problems) == 1
    assert "line 1" in loaded.problems[0]


def test_first_finished_row_of_a_key_counts(store):
    store.append(row("a", "failed", error="first"))
    store.append(row("a", "failed", error="second"))
    assert store.load().rows[key("a")]["error"] == "second"
    store.append(row("a", seconds=1))
    store.append(row("a", seconds=2))
    store.append(row("a", "failed", error="third"))
    assert store.load().rows[key("a")]["seconds"] == 1


def test_which_runs_need_not_be_repeated(store):
    store.append(row("done"))
    store.append(row("diverged", "failed", error_type="Diverged"))
    store.append(row("memory", "failed", error_type="OutOfMemoryError"))
    loaded = store.load()
    assert loaded.finished(key("done"))
    assert loaded.finished(key("diverged"))
    assert loaded.finished(key("memory")) is None
    assert loaded.finished(key("unknown")) is None


def test_numbers_that_json_lacks_become_null(store):
    epoch = {"epoch": 1, "test_top1": 10.0}
    losses = {"test_loss": float("inf"), "train_loss": float("nan")}
    store.append(row("a", history=[{**epoch, **losses}]))
    expected = {**epoch, "test_loss": None, "train_loss": None}
    assert store.load().rows[key("a")]["history"] == [expected]
    json.loads(store.results.read_text(), parse_constant=pytest.fail)


def _append_many(out, name, count):
    store = Store(out)
    for number in range(count):
        store.append(row(f"{name}-{number}", device="x" * 5000))


def test_writers_at_once_do_not_mix_their_rows(store):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_append_many, args=(store.out, name, 25)) for name in "abcd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    loaded = store.load()
    assert loaded.problems == []
    assert len(loaded.rows) == 100


def test_writers_and_readers_wait_for_each_other(store):
    """A slow machine cannot make it fail: nobody is done while the lock is held."""
    with ThreadPoolExecutor(1) as pool:
        with store._locked(fcntl.LOCK_SH):
            written = pool.submit(store.append, row("a"))
            time.sleep(0.2)
            assert not written.done()
            assert store.results.read_bytes() == b""
        written.result(timeout=600)
        with store._locked(fcntl.LOCK_EX):
            read = pool.submit(store.load)
            time.sleep(0.2)
            assert not read.done()
        assert names(read.result(timeout=600)) == ["a"]


def _hold(out, ready):
    with Store(out).claim("a") as mine:
        ready.put(mine)
        time.sleep(60)


def test_claim_is_exclusive_and_ends_with_a_killed_holder(store):
    context = multiprocessing.get_context("fork")
    ready = context.Queue()
    holder = context.Process(target=_hold, args=(store.out, ready))
    holder.start()
    assert ready.get(timeout=600)
    with store.claim("a") as mine, store.claim("b") as other:
        assert not mine
        assert other
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with store.claim("a") as mine:
        assert mine
    with store.claim("a") as mine:
        assert mine


def test_plans_are_merged_by_experiment(store):
    assert store.read_plan() is None
    one, other, empty = {"runs": [run("a")]}, {"runs": [run("b")]}, {"runs": []}
    plan = {"preset": "quick", "dataset": "digits"}
    store.change_plan(lambda old: {**plan, "experiments": {"fig1": one, "fig2": empty}})
    store.change_plan(lambda old: {**plan, "experiments": {"fig1": other}})
    plan = store.read_plan()
    assert plan["experiments"] == {"fig1": other, "fig2": empty}
    assert plan["schema"] == 1
    assert [path.name for path in store.out.iterdir() if path.name.startswith(".plan")] == []


@pytest.mark.parametrize("text", ["{", '{"schema": 7}', "[]"])
def test_damaged_plan_is_named(store, text):
    store.plan.write_text(text)
    with pytest.raises(StoreError, match=r"plan\.json: .*; remove the file"):
        store.read_plan()


def test_folders_that_cannot_be_used(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    for out in (file, file / "below", "/proc/nothing/here"):
        with pytest.raises(StoreError, match="cannot be used"):
            Store(out).prepare()
    (tmp_path / "odd" / "results.jsonl").mkdir(parents=True)
    with pytest.raises(StoreError, match=r"results\.jsonl"):
        Store(tmp_path / "odd").prepare()


def test_full_disk_is_told(store):
    """Writing to /dev/full always fails."""
    store.results = type(store.results)("/dev/full")
    with pytest.raises(StoreError, match="No space left"):
        store.append(row("a"))


def test_reading_leaves_no_trace(store):
    store.append(row("a"))
    (store.out / ".lock").unlink()
    before = sorted(store.out.iterdir())
    assert names(store.load()) == ["a"]
    assert sorted(store.out.iterdir()) == before
