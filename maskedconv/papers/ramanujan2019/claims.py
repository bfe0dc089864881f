"""The paper's claims and their criteria, whose thresholds were fixed before the first runs."""

from __future__ import annotations

from collections.abc import Iterator

from maskedconv.report.claims import Case, Claim
from maskedconv.report.masks import kept_fraction, method_option, width_of
from maskedconv.report.measured import (
    Measured,
    accuracy,
    all_of,
    at_most,
    exceeds,
    over_common_seeds,
)
from maskedconv.report.results import SeedGroup, dataset_title, is_reference, signed
from maskedconv.report.tables import datasets, named, networks_at_any_rate

FAR = 3.0  # times chance: far above chance
CLEAR = 2.0  # points by which one accuracy must exceed another
HALF = 0.5


def _groups(settings: list[SeedGroup]) -> Iterator[tuple[str, dict[str, dict[float, SeedGroup]]]]:
    """Name, and settings by distribution and kept fraction, of each network and data set.

    Networks whose weights are learned are under "learned", with the fraction 1.
    """
    for here in datasets(settings).values():
        for group in networks_at_any_rate(here).values():
            kinds: dict[str, dict[float, SeedGroup]] = {}
            for setting in group:
                learned = is_reference(setting.config)
                kind = "learned" if learned else str(method_option(setting.config, "weights"))
                kinds.setdefault(kind, {})[kept_fraction(setting.config)] = setting
            yield named(group[0].config), kinds


def untrained(settings: list[SeedGroup]) -> Iterator[Case]:
    for name, kinds in _groups(settings):
        setting = kinds.get("signed_constant", {}).get(HALF)
        top1 = accuracy(setting)
        if setting is not None and top1 is not None and setting.chance is not None:
            bound = FAR * setting.chance
            yield Case(name, exceeds(top1.over(bound)), f"{top1} against a chance of "
                       f"{setting.chance:g} %")  # fmt: skip


def middle(settings: list[SeedGroup]) -> Iterator[Case]:
    for name, kinds in _groups(settings):
        found = {
            k: one for k, s in kinds.get("signed_constant", {}).items() if (one := accuracy(s))
        }
        if len(found) < 3 or HALF not in found:
            continue
        low, high = min(found), max(found)
        half, *ends = over_common_seeds(found[HALF], found[low], found[high])
        evidence = f"k = {HALF}: {half}; k = {low:g}: {ends[0]}; k = {high:g}: {ends[1]}"
        yield Case(name, all_of(*(exceeds(half - end) for end in ends)), evidence)


def constant(settings: list[SeedGroup]) -> Iterator[Case]:
    for name, kinds in _groups(settings):
        constants, normals = kinds.get("signed_constant", {}), kinds.get("kaiming", {})
        for k in sorted(constants.keys() & normals.keys()):
            ours, other = accuracy(constants[k]), accuracy(normals[k])
            if ours is not None and other is not None:
                ours, other = over_common_seeds(ours, other)
                evidence = f"signed constant {ours}, Kaiming normal {other}"
                yield Case(f"{name}, k = {k:g}", exceeds(ours - other), evidence)


def _gaps(settings: list[SeedGroup]) -> Iterator[tuple[str, dict[float, Measured]]]:
    """Learned weights minus supermask with k = 0.5, by width, for networks of several widths."""
    for dataset, here in datasets(settings).items():
        by_model: dict[str, dict[float, dict[bool, Measured]]] = {}
        for setting in here:
            config = setting.config
            chosen = kept_fraction(config) == HALF and (
                method_option(config, "weights") == "signed_constant"
            )
            if (is_reference(config) or chosen) and (found := accuracy(setting)):
                widths = by_model.setdefault(config.model, {})
                widths.setdefault(width_of(config), {})[is_reference(config)] = found
        for model, widths in by_model.items():
            gaps = {w: pair[True] - pair[False] for w, pair in widths.items() if len(pair) == 2}
            if len(gaps) > 1:
                yield f"{model}, {dataset_title(dataset)}", gaps


def width(settings: list[SeedGroup]) -> Iterator[Case]:
    for name, gaps in _gaps(settings):
        low, high = min(gaps), max(gaps)
        narrow, wide = over_common_seeds(gaps[low], gaps[high])
        evidence = (
            f"learned minus supermask: {signed(narrow.value)} points at width {low:g}, "
            f"{signed(wide.value)} at width {high:g}"
        )
        yield Case(name, exceeds(narrow - wide), evidence)


def matches(settings: list[SeedGroup]) -> Iterator[Case]:
    for name, gaps in _gaps(settings):
        high = max(gaps)
        gap = gaps[high]
        evidence = f"learned minus supermask: {signed(gap.value)} points at width {high:g}"
        yield Case(name, at_most(gap, CLEAR), evidence)


CLAIMS = (
    Claim(
        "untrained-subnetworks",
        "Randomly weighted networks contain subnetworks that perform well without any training of "
        "weights.",
        "abstract; experiments on CIFAR-10",
        f"k = 0.5, signed constant: at least {FAR:g} times chance.",
        untrained,
    ),
    Claim(
        "middle-fraction",
        "Accuracy is highest for subnetworks of about half of the weights, and falls towards both "
        "ends.",
        "experiments on CIFAR-10, percentage of weights",
        "Signed constant: k = 0.5 exceeds the smallest and the largest k that were run.",
        middle,
    ),
    Claim(
        "signed-constant",
        "Weights with a signed constant give better subnetworks than normal weights.",
        "experiments on CIFAR-10, distribution of weights",
        "Each k that was run with both: signed constant exceeds Kaiming normal.",
        constant,
    ),
    Claim(
        "width-closes-the-gap",
        "The wider the network, the closer its subnetworks come to the network with learned "
        "weights.",
        "experiments on CIFAR-10, width",
        "k = 0.5, signed constant: the gap to learned weights is smaller at the largest width than "
        "at the smallest.",
        width,
    ),
    Claim(
        "matches-learned",
        "Subnetworks of wide enough networks match the accuracy of learned weights.",
        "experiments on CIFAR-10, width",
        f"k = 0.5, signed constant, largest width: less than {CLEAR:g} points below learned "
        "weights.",
        matches,
    ),
)
