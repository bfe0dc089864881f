"""The criteria of the claims, decided from synthetic rows."""

from __future__ import annotations

import json
import math
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
from maskedconv.report.fits import fit_seed_groups
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
    # The digits have 360 test images, so the spread of an ensemble's gain is about two points.
    assert found["ensembles"] == "undecided"
    assert {found[name] for name in decided - {"ensembles"}} == {"reproduced"}


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


@pytest.mark.parametrize(
    ("few", "many", "status"),
    [
        (10.0, 1.0, "reproduced"),
        (-10.0, -20.0, "not"),
        (1.9, -9.0, "undecided"),
        (10.0, 9.9, "undecided"),
        (4.0, 30.0, "not"),
        (10.0, None, "not run"),
        (None, 1.0, "not run"),
    ],
)
def test_bn_helps_most_where_few_filters_are_learned(tmp_path, few, many, status):
    """``few`` and ``many`` are the gains at p = 0.1 and 0.7; None if BN fixed is not planned."""
    gains = {0.1: few, 0.7: many}
    runs = [
        config("wrn_10_1", dataset="cifar10", learned=p, bn_learned=bn)
        for p, gain in gains.items()
        for bn in ((True, False) if gain is not None else (True,))
    ]
    results = results_of(
        tmp_path, {"fig4": runs}, lambda run: 50.0 + (gains[run.learned] or 0) * run.bn_learned
    )
    assert verdicts(results)["bn-helps"] == status


@pytest.mark.parametrize(("many", "status"), [(1.0, "reproduced"), (10.0, "undecided")])
def test_bn_is_compared_at_the_largest_fraction_with_bn_learned_and_fixed(tmp_path, many, status):
    """At p = 0.7, BN fixed is not planned; ``many`` is the gain at p = 0.4."""
    gains = {0.1: 10.0, 0.4: many}
    runs = [
        config("wrn_10_1", dataset="cifar10", learned=p, bn_learned=bn)
        for p, bn in ((0.1, True), (0.1, False), (0.4, True), (0.4, False), (0.7, True))
    ]
    results = results_of(
        tmp_path, {"fig4": runs}, lambda run: 50.0 + gains.get(run.learned, 30.0) * run.bn_learned
    )
    assert verdicts(results)["bn-helps"] == status


@pytest.mark.parametrize(
    ("rest", "status"), [(1.0, "reproduced"), (-1.0, "reproduced"), (-50.0, "not"), (50.0, "not")]
)
def test_the_gap_closes_only_if_neither_rest_is_far_better(tmp_path, rest, status):
    """``rest`` is random minus zeroed at p = 0.7; at p = 0.1 it is 20 points."""
    gaps = {0.1: 20.0, 0.7: rest}
    runs = [
        config("wrn_10_1", dataset="cifar10", learned=p, frozen=frozen)
        for p in gaps
        for frozen in ("random", "zero")
    ]
    results = results_of(
        tmp_path, {"fig1": runs}, lambda run: 40.0 + gaps[run.learned] * (run.frozen == "random")
    )
    assert verdicts(results)["gap-closes"] == status


def test_a_diverged_run_is_a_point_of_the_log_linear_fit(tmp_path):
    """On one line without the diverged run at p = 0.7, which counts as chance."""
    runs = [config("wrn_10_1", learned=p, dataset="cifar10") for p in (0.05, 0.1, 0.2, 0.4, 0.7)]

    def top1(run: RunConfig) -> float | None:
        return 90.0 + 30 * math.log10(0.05 + 0.95 * run.learned) if run.learned < 0.7 else None

    results = results_of(tmp_path, {"fig3": runs}, top1)
    fit = fit_seed_groups(results.seed_groups("fig3"))
    assert fit is not None
    assert fit.n == 5
    assert verdicts(results)["log-linear"] == "not"
    kept = results_of(tmp_path / "kept", {"fig3": runs[:4]}, top1)
    assert verdicts(kept)["log-linear"] == "reproduced"


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
    models = ("wrn_28_4", "densenet_bc_100_12")
    runs = [config(model, dataset="cifar100", learned=1) for model in models]
    low = results_of(tmp_path / "a", {"fig1": runs}, lambda run: 5.0)
    assert verdicts(low)["one-filter"] == "reproduced"
    others = [replace(run, dataset="folder") for run in runs]
    unknown = results_of(tmp_path / "b", {"fig1": others}, lambda run: 90.0)
    assert verdicts(unknown)["one-filter"] == "not run"


def test_every_claim_names_its_experiment_and_criterion():
    claims = [claim for item in ITEMS.values() for claim in item.claims]
    assert len({claim.id for claim in claims}) == len(claims)
    assert {item.id for item in PAPER.items if not item.claims} == {"fig6"}
    assert sorted(PAPER.scorecard) == sorted(item.id for item in PAPER.items if item.claims)
    for claim in claims:
        assert claim.criterion.endswith((".", ".)"))
    assert criteria.FAR > criteria.NEAR > 1
