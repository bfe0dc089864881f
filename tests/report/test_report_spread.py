"""A claim is decided only by differences beyond the spread of seeds."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from report_samples import config, load, results_of, row, verdicts, write_folder

from maskedconv.papers import ITEMS
from maskedconv.report import write
from maskedconv.report.claims import Case, judge, judge_one
from maskedconv.report.measured import UNKNOWN, Measured, accuracy, exceeds, mean, pooled_sd
from maskedconv.runs.config import RunConfig

YELLOWFIN = {"optimizer": "yellowfin", "momentum": 0.0}


@pytest.mark.parametrize(
    ("tops", "status"),
    [
        ((17.01, 17.35), "undecided"),
        ((17.35, 17.01), "undecided"),
        ((17.01, 19.0), "reproduced"),
        ((19.0, 17.01), "not"),
    ],
)
def test_a_difference_within_the_spread_of_seeds_decides_nothing(tops, status, tmp_path):
    """For 10,000 images at 17 %, one seed has a spread of .63 points, a difference of .89."""
    less, more = (config("wrn_28_4", dataset="cifar10", learned=p, **YELLOWFIN) for p in (0.1, 0.4))
    plan = {"table3": [less, more]}
    of = {less.key: tops[0], more.key: tops[1]}
    results = results_of(tmp_path, plan, lambda run: of[run.key])
    (verdict,) = [one for one in judge(results) if one.claim.id == "tiny-imagenet"]
    assert verdict.status == status
    assert ("1 undecided" in verdict.summary) is (status == "undecided")
    page = write(tmp_path / "out").with_suffix(".md").read_text()
    assert ("**undecided**" in page) is (status == "undecided")


@pytest.mark.parametrize(
    ("gap", "apart", "status"),
    [
        (0.34, 0.0, "undecided"),
        (0.34, 1.0, "undecided"),
        (1.5, 0.0, "reproduced"),
        (1.5, 3.0, "undecided"),
    ],
)
def test_several_seeds_have_at_least_the_spread_of_one(tmp_path, gap, apart, status):
    """Two seeds that agree by chance do not make a third of a point certain."""
    runs = [
        config("wrn_28_4", dataset="cifar10", learned=p, seed=seed, **YELLOWFIN)
        for p in (0.1, 0.4)
        for seed in (0, 1)
    ]
    results = results_of(
        tmp_path,
        {"table3": runs},
        lambda run: 17.01 + gap * (run.learned == 0.4) + apart * run.seed,
    )
    assert verdicts(results)["tiny-imagenet"] == status


def test_one_seed_spreads_as_much_as_the_other_settings_do(tmp_path):
    """Pooled over two settings of two seeds (3 points apart) and three (0): √(4.5 / 3) points."""
    one = config("wrn_28_4", dataset="cifar10", learned=0.1)
    two = [config("wrn_10_1", dataset="cifar10", seed=seed) for seed in range(2)]
    three = [config("wrn_10_2", dataset="cifar10", seed=seed) for seed in range(3)]
    results = results_of(
        tmp_path,
        {"fig1": [one, *two, *three], "fig3": two},
        lambda run: 50.0 + 3 * run.seed * (run.model == "wrn_10_1"),
    )
    setting = results.seed_groups("fig1")[0]
    assert setting.pooled_sd == pytest.approx(math.sqrt(1.5))
    assert accuracy(setting).spread == pytest.approx(math.sqrt(0.25 + 1.5))
    page = write(tmp_path / "out").with_suffix(".md").read_text()
    assert "1.22 points between seeds (at least 0.5;" in page


def test_a_shared_network_counts_once_in_the_pooled_spread(tmp_path):
    """A tenth of three kernel rows is one row, as are two fifths of them."""
    runs = [config(learned=p, slice_dim=2, seed=seed) for p in (0.1, 0.4) for seed in (0, 1)]
    runs += [config("wrn_10_1", seed=seed) for seed in (0, 1)]
    results = results_of(tmp_path, {"fig2": runs}, lambda r: 50.0 + r.seed * (1 + 3 * r.slice_dim))
    one, same, other = results.seed_groups("fig2")
    shared = tuple(
        replace(run, trained=first.trained) for run, first in zip(same.runs, one.runs, strict=True)
    )
    expected = math.sqrt((7**2 / 2 + 1 / 2) / 2)
    assert pooled_sd([one, replace(same, runs=shared), other]) == pytest.approx(expected)


def test_settings_are_compared_over_the_seeds_that_both_have():
    both = Measured(50.0, 3.0, 1.0, {0: 48.0, 1: 52.0})
    first = Measured(40.0, 1.0, 1.0, {0: 40.0})
    second = Measured(45.0, 1.0, 1.0, {1: 45.0})
    found = both - first
    assert (found.value, found.by_seed) == (8.0, {0: 8.0})
    # Not 3: that is the deviation between seeds 0 and 1.
    assert found.spread == found.one_run == pytest.approx(math.sqrt(2))
    assert (both - second).value == 7.0
    assert not (first - second).known
    same = both - both
    assert (same.value, same.spread) == (0.0, pytest.approx(math.sqrt(18)))
    assert (both.over(30.0) / 2).by_seed == {0: 9.0, 1: 11.0}
    assert (both.over(30.0) / 2).spread == 1.5
    assert abs(first - both).by_seed == {0: 8.0}
    assert (Measured(60.0) - both).by_seed == {0: 12.0, 1: 8.0}


def test_the_mean_of_settings_spreads_as_one_does():
    gaps = [Measured(2.0 + n, 1.5, 0.5, {0: 1.0 + n, 1: 3.0}) for n in range(3)]
    found = mean(gaps)
    assert (found.value, found.spread, found.one_run) == (3.0, 1.5, 0.5)
    assert found.by_seed == {0: 2.0, 1: 3.0}
    assert mean(gaps, independent=True).spread == pytest.approx(1.5 / math.sqrt(3))
    assert not mean([*gaps, UNKNOWN]).known


def test_translations_of_one_number_are_one_test(tmp_path):
    run = config("transformer_2_64", dataset="number-words-1000")
    (setting,) = results_of(tmp_path, {"onelayer": [run]}, lambda run: 50.0).seed_groups("onelayer")
    assert (setting.test_images, setting.independent_tests) == (1080, 180)
    assert accuracy(setting).spread == pytest.approx(math.sqrt(2500 / 180 + 0.25))


def two_networks() -> list[RunConfig]:
    """Figure 1's runs of two networks."""
    return [
        config(model, dataset="cifar10", learned=learned, frozen=frozen)
        for model in ("wrn_28_4", "densenet_bc_100_12")
        for learned in (1, 0.1, 0.4, 0.7)
        for frozen in ("random", "zero")
    ]


def test_a_planned_run_that_is_missing_leaves_a_claim_open(tmp_path):
    runs = two_networks()
    out = write_folder(tmp_path, {"fig1": runs}, lambda run: 60.0, skip=len(runs) - 1)
    found = {verdict.claim.id: verdict for verdict in judge(load(out))}
    one = found["one-filter"]
    assert one.status == "undecided"
    assert [(case.holds, case.evidence) for case in one.cases] == [
        (True, "60.00 % against 10 % by chance"),
        (None, "not run, or failed"),
    ]
    assert one.summary == "1 of 2 cases hold on CIFAR-10, 1 undecided"
    assert found["random-beats-zero"].status == found["gap-closes"].status == "not run"


def test_a_mean_of_settings_is_open_until_each_is_run(tmp_path):
    runs = two_networks()
    out = write_folder(tmp_path / "out", {"fig1": runs}, lambda run: 60.0)
    lines = [row(run, 60.0 - 30 * (run.frozen == "zero")) for run in runs[:6]]
    (out / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = {verdict.claim.id: verdict for verdict in judge(load(out))}
    wrn, densenet = found["random-beats-zero"].cases
    assert (wrn.holds, densenet.evidence) == (True, "not run, or failed")
    wrn, _ = found["gap-closes"].cases
    assert wrn.holds is None
    assert wrn.evidence.endswith("; further runs: not run, or failed")


def test_a_network_that_the_text_names_but_nobody_planned_leaves_it_open(tmp_path):
    run = config("wrn_28_4", dataset="cifar10", learned=1)
    (verdict,) = [
        one
        for one in judge(results_of(tmp_path, {"fig1": [run]}, lambda run: 60.0))
        if one.claim.id == "one-filter"
    ]
    assert verdict.status == "undecided"
    assert verdict.cases[-1] == Case("densenet", None, "no run is planned")


@pytest.mark.parametrize(
    ("cases", "status"),
    [
        ((True, True), "reproduced"),
        ((False, False), "not"),
        ((True, False, None), "partly"),
        ((True, None), "undecided"),
        ((False, None), "undecided"),
        ((None,), "undecided"),
        ((), "not run"),
    ],
)
def test_open_cases_leave_a_claim_open_unless_the_others_differ(cases, status):
    claim = replace(
        ITEMS["fig1"].claims[0],
        cases=lambda _: iter([Case(str(i), holds, "") for i, holds in enumerate(cases)]),
        families=(),
    )
    assert judge_one(claim, "fig1", []).status == status


@pytest.mark.parametrize(
    ("difference", "spread", "by", "outcome"),
    [
        (3.0, 0.5, 2.0, True),
        (2.4, 0.5, 2.0, None),
        (1.6, 0.5, 2.0, None),
        (1.0, 0.5, 2.0, False),
        (0.34, 0.5, 2.0, None),
        (-3.0, 0.5, 2.0, False),
        (0.0, 0.0, 0.0, None),
        (1e-9, 0.0, 0.0, True),
    ],
)
def test_what_a_difference_decides(difference, spread, by, outcome):
    assert exceeds(Measured(difference, spread), by) is outcome


def test_the_spread_of_one_seed(tmp_path):
    """The binomial error of the test images used, and half a point."""
    run = config("wrn_10_1", dataset="cifar10", learned=1)
    for note, images in (("", 10_000), ("CIFAR-10; 2,000 of 10,000 test images", 2_000)):
        out = write_folder(tmp_path / str(images), {"fig1": [run]}, lambda run: 50.0)
        (out / "results.jsonl").write_text(json.dumps(row(run, 50.0, data_note=note)) + "\n")
        (setting,) = load(out).seed_groups("fig1")
        assert setting.test_images == images
        assert accuracy(setting).spread == pytest.approx(math.sqrt(2500 / images + 0.25))


def test_a_mean_of_settings_is_over_the_seeds_that_all_of_them_have():
    """Seeds 1 and 2 of the first setting are much better than the seed that both have."""
    first = Measured(40.0, 26.0, 1.0, {0: 10.0, 1: 50.0, 2: 60.0})
    second = Measured(20.0, 1.0, 1.0, {0: 20.0})
    found = mean([first, second])
    assert (found.value, found.spread, found.by_seed) == (15.0, 1.0, {0: 15.0})
    assert (found - second).value == -5.0
    assert not mean([second, Measured(20.0, 1.0, 1.0, {1: 20.0})]).known
