"""Criteria that full runs and ensembles decide: figure 5 and tables 2 to 4."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from maskedconv.report import ensembles, paper
from maskedconv.report.criteria.case import (
    CLEAR,
    Case,
    by_network,
    named,
    with_rest,
)
from maskedconv.report.criteria.measured import (
    Measured,
    accuracy,
    all_of,
    exceeds,
    measured,
)
from maskedconv.report.results import Setting, dataset_title, signed


def one_filter_full(settings: list[Setting]) -> Iterator[Case]:
    for group in by_network(settings, ("densenet", "wrn")):
        setting = with_rest(group, "random").get("k = 1")
        top1 = accuracy(setting)
        if setting is None or top1 is None:
            continue
        for (model, dataset), printed in paper.ONE_FILTER.items():
            if paper.comparable("fig5", setting, model, dataset):
                yield Case(named(setting.config), _near(top1, printed), _beside(top1, printed))


def tenth_full(settings: list[Setting]) -> Iterator[Case]:
    for group in by_network(settings, ("densenet", "wrn")):
        tenths = [with_rest(group, frozen).get("p = 0.1") for frozen in ("random", "zero")]
        random, zero = (accuracy(setting) for setting in tenths)
        for model, numbers in paper.TABLE2.items():
            same = all(s and paper.comparable("table2", s, model, "cifar10") for s in tenths)
            if same and random is not None and zero is not None:
                theirs = [numbers[0.1, frozen] for frozen in ("random", "zero")]
                yield Case(
                    named(group[0].config),
                    all_of(
                        exceeds(random - zero), _near(random, theirs[0]), _near(zero, theirs[1])
                    ),
                    f"random {_beside(random, theirs[0])}; zeroed {_beside(zero, theirs[1])}",
                )


def _near(ours: Measured, printed: float) -> bool | None:
    off = abs(ours.value - printed)
    return exceeds(Measured(CLEAR - off, ours.spread))


def _beside(ours: Measured, printed: float) -> str:
    return f"{ours} against the printed {printed:g} % ({signed(ours.value - printed)})"


def rises_with_fraction(settings: list[Setting]) -> Iterator[Case]:
    for group in by_network(settings, ("wrn",)):
        known = {
            setting.config.learned: top1
            for setting in group
            if isinstance(setting.config.learned, float) and (top1 := accuracy(setting)) is not None
        }
        for small, large in pairwise(sorted(known)):
            less, more = known[small], known[large]
            yield Case(
                f"{named(group[0].config)}, {100 * small:g} % to {100 * large:g} %",
                exceeds(more - less),
                f"{less} and {more}",
            )


def sharing_keeps_gain(settings: list[Setting]) -> Iterator[Case]:
    found = [setting for setting in settings if setting.config.members]
    for name, group in ensembles.by_network(found).items():
        for dataset in dict.fromkeys(setting.config.dataset for setting in group):
            chosen = ensembles.better([s for s in group if s.config.dataset == dataset])
            shared, whole = (_gain(chosen.get(kind)) for kind in ("share 0.6", "full"))
            if shared is not None and whole is not None:
                yield Case(
                    f"{name}, {dataset_title(dataset)}",
                    all_of(exceeds(whole), exceeds(shared - whole / 2)),
                    f"sharing 60 % gains {signed(shared.value, 2)} points, sharing nothing "
                    f"{signed(whole.value, 2)}",
                )


def _gain(setting: Setting | None) -> Measured | None:
    if setting is None or setting.ensemble is None or setting.last is None:
        return None
    # The members answer the same images as they do together: one error, not two.
    ensemble = measured(setting.ensemble, setting)
    return ensemble.over(setting.last.mean)
