"""The plan of a folder, to which several commands add."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import report_samples

from maskedconv import data, papers
from maskedconv.runs import RunConfig, Store
from maskedconv.runs.planning import all_runs, check_same_data, matching, trained_runs, write_plan
from maskedconv.runs.preset import Request
from maskedconv.runs.same import trained_for


def test_fewer_seeds_or_data_sets_later_keep_those_of_earlier_commands(tmp_path):
    store = Store(tmp_path)
    store.prepare()

    def planned(match, **fields):
        plan = papers.make_plan([papers.ITEMS["fig1"]], Request("paper", **fields))
        write_plan(store, matching(plan, [match]), plan, {}, "command")
        plan = store.read_plan()
        assert plan["dataset"] == "cifar10, cifar100"
        runs = [RunConfig.from_json(e["config"]) for e in plan["experiments"]["fig1"]["runs"]]
        return Counter((run.dataset, run.seed) for run in runs)

    first = planned("densenet_bc_100_12 k=1 random", seeds=2)
    assert first == {(d, seed): 1 for d in ("cifar10", "cifar100") for seed in (0, 1)}
    more = planned("densenet_bc_100_12 k=1 zero", dataset="cifar10")
    assert more == first + Counter({("cifar10", 0): 1})
    # Runs of other epochs are not of this plan.
    other = planned("densenet_bc_100_12 k=1 zero", dataset="cifar10", epochs=2)
    assert other == {("cifar10", 0): 1}


def test_commands_at_once_keep_the_plans_of_each_other(tmp_path):
    store = Store(tmp_path)
    store.prepare()
    plan = papers.make_plan([papers.ITEMS["fig1"]], Request("paper"))
    texts = [f"alexnet k={count} {frozen}" for count in (1, 5, 10) for frozen in ("random", "zero")]
    with ThreadPoolExecutor(len(texts)) as pool:
        for done in [
            pool.submit(write_plan, Store(tmp_path), matching(plan, [text]), plan, {}, "command")
            for text in texts
        ]:
            done.result()
    written = {e["key"] for e in store.read_plan()["experiments"]["fig1"]["runs"]}
    assert written == {run.key for run in all_runs(matching(plan, texts))}


def test_a_dry_run_counts_what_the_command_trains(tmp_path):
    """An earlier command has trained the same network under another name."""
    store, plan = Store(tmp_path), papers.make_plan([papers.ITEMS["fig2"]], Request("quick"))
    store.prepare()
    same = trained_for(all_runs(plan), store.load())
    run, trained = next((r, same[r.key]) for r in all_runs(plan) if same[r.key].key != r.key)
    first, second = matching(plan, [trained.label()]), matching(plan, [run.label()])
    assert trained.key not in {one.key for one in all_runs(second)}
    write_plan(store, first, plan, {}, "command")
    store.append(report_samples.row(trained, 50.0))
    before = store.read_plan()
    dry = trained_runs(store, second, plan, store.load())
    assert store.read_plan() == before
    assert dry == write_plan(store, second, plan, {}, "command")
    assert dry[run.key].key == trained.key


@pytest.mark.parametrize("digest", [None, "same", "other"])
def test_images_are_told_by_their_digest_and_else_by_their_note(digest, tmp_path):
    images = replace(data.load("digits", subset=5), note="image folder job_2")
    store, config = Store(tmp_path), report_samples.config(subset=5)
    store.prepare()
    digests = {} if digest is None else {"data_digest": {"same": images.digest}.get(digest, "0")}
    store.append(report_samples.row(config, 50.0, data_note="image folder job_1", **digests))
    datasets = {("digits", 5): images}
    if digest == "same":
        check_same_data(store, store.load(), datasets)
        return
    there = "image folder job_1" if digest is None else "0"
    with pytest.raises(ValueError, match=f"holds results of other data: '{there}', not"):
        check_same_data(store, store.load(), datasets)
