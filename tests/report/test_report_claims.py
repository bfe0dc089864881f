"""The criteria of the claims, decided from synthetic rows."""

from __future__ import annotations

import json
from dataclasses import replace
from statistics import stdev

import pytest
from report_samples import (
    config,
    load,
    results_of,
    row,
    small_plan,
    small_top1,
    verdicts,
    write_folder,
)

from maskedconv.papers import ITEMS
from maskedconv.papers.rosenfeld2018 import PAPER, criteria
from maskedconv.report.measured import accuracy
from maskedconv.runs.config import RunConfig


def test_claims_hold_on_results_of_the_papers_shape(tmp_path):
    found = verdicts(results_of(tmp_path, small_plan(), small_top1))
    decided = {name for name, status in found.items() if status != "not run"}
    assert decided == {
        "one-filter", "random-beats-zero", "gap-closes", "vgg-chance", "bn-networks",
        "filters-best", "log-linear", "bn-alone", "block-beats-fc", "alexnet-small", "bn-helps",
        "tiny-imagenet", "ensembles",
    }  # fmt: skip
    assert {found[name] for name in decided} == {"reproduced"}


def test_claims_fall_on_results_of_the_opposite_shape(tmp_path):
    def top1(run: RunConfig) -> float:
        if run.model in ("vgg19", "alexnet"):
            return 80.0
        if run.optimizer == "yellowfin":
            return 90 - 50 * run.learned
        if run.trained != "all":
            return {"bn": 12.0, "fc": 90.0}.get(run.trained, 30.0)
        if run.learned == 1 and isinstance(run.learned, int) and run.slice_dim == 0:
            return 12.0
        few = run.learned == 0.1 or isinstance(run.learned, int)
        zeroed = 15 if run.frozen == "zero" else 0
        return 50.0 + zeroed + (20 if few and run.slice_dim else 0) - (0 if run.bn_learned else -9)

    plan = {name: runs for name, runs in small_plan(seeds=1).items() if name != "table4"}
    found = verdicts(results_of(tmp_path, plan, top1))
    decided = {name: status for name, status in found.items() if status != "not run"}
    assert len(decided) == 12
    assert set(decided.values()) == {"not"}


def test_a_claim_that_holds_in_some_cases_is_partly_reproduced(tmp_path):
    runs = [config(model, learned=1) for model in ("wrn_10_1", "densenet_bc_16_12")]
    results = results_of(
        tmp_path, {"fig1": runs}, lambda run: 20.0 if run.model == "wrn_10_1" else 40.0
    )
    assert verdicts(results)["one-filter"] == "partly"


@pytest.mark.parametrize(
    ("shared_gain", "whole_gain", "status"),
    [
        (4.0, 4.65, "reproduced"),
        (2.54, 4.65, "undecided"),
        (1.0, 4.65, "not"),
        (0.0, -1.0, "not"),
    ],
)
def test_ensembles_are_judged_by_the_better_optimizer(tmp_path, shared_gain, whole_gain, status):
    start = config(dataset="cifar10", keep=True)
    gains = {0.4: shared_gain, 1.0: whole_gain}
    rows = []
    for learned, gain in gains.items():
        for optimizer, lr in (("sgd", 0.1), ("adam", 0.001)):
            run = replace(
                start, keep=False, start=start.key, members=5, learned=learned, lr=lr,
                optimizer=optimizer,
            )  # fmt: skip
            worse = 0 if optimizer == "adam" else 5
            rows.append(row(run, 71.0, ensemble_top1=71.0 + gain - worse))
    runs = [RunConfig.from_json(one["config"]) for one in rows]
    out = write_folder(tmp_path, {"table4": runs}, small_top1)
    (out / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    assert verdicts(load(out))["ensembles"] == status


def test_bn_helps_needs_runs_of_both_kinds(tmp_path):
    runs = [config("wrn_10_1", learned=0.1, bn_learned=bn) for bn in (True, False)]
    both = results_of(tmp_path / "a", {"fig4": runs}, lambda run: 50.0 if run.bn_learned else 40.0)
    assert verdicts(both)["bn-helps"] == "reproduced"
    less = results_of(tmp_path / "b", {"fig4": runs}, lambda run: 50.0 if run.bn_learned else 60.0)
    assert verdicts(less)["bn-helps"] == "not"
    even = results_of(tmp_path / "d", {"fig4": runs}, lambda run: 50.0 if run.bn_learned else 48.1)
    assert verdicts(even)["bn-helps"] == "undecided"
    one = results_of(tmp_path / "c", {"fig4": runs[:1]}, lambda run: 50.0)
    assert verdicts(one)["bn-helps"] == "not run"


def test_divergence_counts_as_chance_and_other_failures_as_nothing(tmp_path):
    run = config("vgg19", learned=0.1)
    out = write_folder(tmp_path, {"fig1": [run]}, lambda run: None)
    assert verdicts(load(out))["vgg-chance"] == "reproduced"
    seeds = [run.with_seed(seed) for seed in range(3)]
    out = write_folder(
        tmp_path / "seeds", {"fig1": seeds}, lambda run: 14.0 if run.seed == 2 else None
    )
    [setting] = load(out).seed_groups("fig1")
    found = accuracy(setting)
    assert found is not None
    assert found.value == pytest.approx((10 + 10 + 14) / 3)
    assert found.spread == pytest.approx(stdev((10, 10, 14)))
    failed = row(run, None, error="out of memory", error_type="OutOfMemoryError")
    (out / "results.jsonl").write_text(json.dumps(failed) + "\n")
    assert verdicts(load(out))["vgg-chance"] == "not run"


def test_chance_depends_on_the_number_of_classes(tmp_path):
    run = config("wrn_28_4", dataset="cifar100", learned=1)
    low = results_of(tmp_path / "a", {"fig1": [run]}, lambda run: 5.0)
    assert verdicts(low)["one-filter"] == "reproduced"
    unknown = results_of(
        tmp_path / "b", {"fig1": [replace(run, dataset="folder")]}, lambda run: 90.0
    )
    assert verdicts(unknown)["one-filter"] == "not run"


def test_every_claim_names_its_experiment_and_criterion():
    claims = [claim for item in ITEMS.values() for claim in item.claims]
    assert len({claim.id for claim in claims}) == len(claims)
    assert {item.id for item in PAPER.items if not item.claims} == {"fig6"}
    assert sorted(PAPER.scorecard) == sorted(item.id for item in PAPER.items if item.claims)
    for claim in claims:
        assert claim.criterion.endswith((".", ".)"))
    assert criteria.FAR > criteria.NEAR > 1
