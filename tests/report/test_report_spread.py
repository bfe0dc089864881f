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
from maskedconv.report.measured import Measured, accuracy, exceeds

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


def test_several_seeds_have_their_own_spread(tmp_path):
    """A third of a point decides if seeds differ by a tenth, but not if they differ by one."""
    for name, apart, status in (("a", 0.1, "reproduced"), ("b", 1.0, "undecided")):
        runs = [
            config("wrn_28_4", dataset="cifar10", learned=p, seed=seed, **YELLOWFIN)
            for p in (0.1, 0.4)
            for seed in (0, 1)
        ]
        tops = {run.key: 17.01 + (run.learned == 0.4) * 0.34 + apart * run.seed for run in runs}
        results = results_of(tmp_path / name, {"table3": runs}, lambda run, of=tops: of[run.key])
        assert verdicts(results)["tiny-imagenet"] == status


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
        ITEMS["fig1"].claims[0], cases=lambda _: iter([Case("one", holds, "") for holds in cases])
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
