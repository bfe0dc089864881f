"""The paper's claims and their criteria, whose thresholds were fixed before the first runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from maskedconv.papers.frankle2020.printed import comparable
from maskedconv.papers.frankle2020.scales import scales
from maskedconv.papers.frankle2020.settings import BN, RANDOM, by_depth, by_width, setting_of
from maskedconv.report.claims import Case, Claim
from maskedconv.report.measured import (
    UNKNOWN,
    Measured,
    accuracy,
    all_of,
    at_most,
    beside_printed,
    binomial,
    exceeds,
    is_finished,
    near,
    over_common_seeds,
)
from maskedconv.report.results import SeedGroup, dataset_title, network_label, signed
from maskedconv.report.tables import datasets, named

FAR = 3.0  # times chance: far above chance; times the number before training: many more
CLEAR = 2.0  # points by which one accuracy must exceed another
DEEPEST, TOP1 = "resnet_866", 82.0  # the abstract
THIRD = (25.0, 42.0)  # percent that count as about a third


def _only_bn(groups: list[SeedGroup]) -> Iterator[tuple[SeedGroup, Measured]]:
    for group in groups:
        top1 = accuracy(group)
        if setting_of(group.config).name == BN and top1 is not None:
            yield group, top1


def above_chance(groups: list[SeedGroup]) -> Iterator[Case]:
    for group, top1 in _only_bn(groups):
        if group.chance is not None:
            evidence = f"{top1} against {group.chance:g} % by chance"
            yield Case(named(group.config), exceeds(top1.over(FAR * group.chance)), evidence)


def above_random(groups: list[SeedGroup]) -> Iterator[Case]:
    control = {
        named(group.config): accuracy(group)
        for group in groups
        if setting_of(group.config).name == RANDOM
    }
    for group, top1 in _only_bn(groups):
        other = control.get(named(group.config))
        if other is not None:
            ours, other = over_common_seeds(top1, other)
            evidence = f"BN {ours}, random positions {other}"
            yield Case(named(group.config), exceeds(ours - other, CLEAR), evidence)


def deeper(groups: list[SeedGroup]) -> Iterator[Case]:
    for dataset, here in datasets(groups).items():
        yield from _last_and_first(dataset, by_depth(here).get(BN, {}))


def wider(groups: list[SeedGroup]) -> Iterator[Case]:
    for dataset, here in datasets(groups).items():
        yield from _last_and_first(dataset, by_width(here).get(BN, {}))


def _last_and_first(dataset: str, series: dict[float, SeedGroup]) -> Iterator[Case]:
    measured = [(group, top1) for group in series.values() if (top1 := accuracy(group)) is not None]
    if len(measured) > 1:
        (first, low), (last, high) = measured[0], measured[-1]
        gain = high - low
        names = (network_label(group.config) for group in (last, first))
        evidence = f"{' minus '.join(names)}: {signed(gain.value)} points"
        yield Case(dataset_title(dataset), exceeds(gain, CLEAR), evidence)


def disables(groups: list[SeedGroup]) -> Iterator[Case]:
    for group, _ in _only_bn(groups):
        before, after = _small(group, "before"), _small(group, "after")
        if before is not None and after is not None:
            many = Measured(FAR * before.value, FAR * before.spread)
            evidence = f"{after} after training, {before} before"
            yield Case(named(group.config), exceeds(after - many), evidence)


def a_third(groups: list[SeedGroup]) -> Iterator[Case]:
    for group in _deepest(groups):
        if (share := _small(group, "after")) is not None:
            low, high = THIRD
            inside = exceeds(share.over(low)), at_most(share, high)
            yield Case(named(group.config), all_of(*inside), str(share))


def _small(group: SeedGroup, when: Literal["before", "after"]) -> Measured | None:
    """The percentage of γ below .01 with its binomial error; None if a finished run has none."""
    found = scales(group, when)
    if found is None:
        return None if is_finished(group) else UNKNOWN
    share = 100 * found.fraction_small
    return Measured(share, binomial(share, max(1, sum(found.counts))))


def printed_accuracy(groups: list[SeedGroup]) -> Iterator[Case]:
    for group in _deepest(groups):
        if (top1 := accuracy(group)) is not None:
            holds = near(top1, TOP1, CLEAR)
            yield Case(named(group.config), holds, beside_printed(top1, TOP1))


def _deepest(groups: list[SeedGroup]) -> Iterator[SeedGroup]:
    for group in groups:
        config = group.config
        if config.model == DEEPEST and setting_of(config).name == BN and comparable(group):
            yield group


CLAIMS = (
    Claim(
        "bn-far-above-chance",
        "Learning only BatchNorm's γ and β, in a network with random weights, gives far more than "
        "chance.",
        "abstract",
        f"Every network, BN only: at least {FAR:g} times chance.",
        above_chance,
    ),
    Claim(
        "bn-above-random-positions",
        "It is far better than learning as many weights at random positions.",
        "abstract",
        f"Every network: BN only exceeds random positions by at least {CLEAR:g} points.",
        above_random,
    ),
    Claim(
        "bn-deeper",
        "With BN only, deeper networks are better.",
        "abstract",
        f"BN only: the deepest network exceeds the shallowest by at least {CLEAR:g} points.",
        deeper,
    ),
    Claim(
        "bn-wider",
        "With BN only, wider networks are better.",
        "figures",
        f"BN only: the widest network exceeds the one of plain width by at least {CLEAR:g} points.",
        wider,
    ),
    Claim(
        "bn-disables",
        "Learning BatchNorm alone disables features.",
        "abstract",
        f"Every network, BN only: |γ| < .01 is at least {FAR:g} times as frequent after training "
        "as before it. The spread is the binomial error of both numbers of γ.",
        disables,
    ),
    Claim(
        "bn-a-third",
        "It disables about a third of the features (|γ| < .01).",
        "abstract",
        f"ResNet-866 on CIFAR-10, BN only: {THIRD[0]:g} to {THIRD[1]:g} % of γ, by more than the "
        "binomial error.",
        a_third,
        printed=True,
    ),
    Claim(
        "bn-82",
        f"ResNet-866 reaches {TOP1:g} % on CIFAR-10 with BN only.",
        "abstract",
        f"Within {CLEAR:g} points of the printed accuracy.",
        printed_accuracy,
        printed=True,
    ),
)
