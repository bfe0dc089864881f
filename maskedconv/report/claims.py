"""The paper's claims, each with the criterion by which our runs decide it.

The criteria and their thresholds were fixed before any run and are the same for every preset. A
claim is decided case by case (a network on a data set, or one setting): reproduced if every case
holds, partly if some do and some do not, not if none does, not run if there is no case; undecided
if the cases that our runs leave open could make it another of these. Accuracy is that of the best
test epoch, as in the paper, averaged over seeds; a run that diverged counts as chance. A case is
open where it hangs on a difference within the spread of seeds: see ``criteria.measured``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from maskedconv.report.criteria import full, networks, short
from maskedconv.report.criteria.case import CLEAR, FAR, HIGH_LR, LINEAR_R2, NEAR, SMALL, Case
from maskedconv.report.results import Results, Setting


@dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    Attributes:
        needs: the experiment whose runs decide it.
        cases: finds the cases.
        printed: whether they need a number that the paper prints: only runs of its network, images
            and length of training make cases then.
    """

    id: str
    text: str
    source: str
    criterion: str
    needs: str
    cases: Callable[[list[Setting]], Iterator[Case]]
    printed: bool = False


@dataclass(frozen=True)
class Verdict:
    """What became of a claim: ``reproduced``, ``partly``, ``not``, ``undecided`` or ``not run``."""

    claim: Claim
    status: str
    cases: tuple[Case, ...]

    @property
    def summary(self) -> str:
        if not self.cases:
            needed = " has the network, images and epochs of the printed number"
            decides = needed if self.claim.printed else " decides it"
            return f"no finished run of {self.claim.needs}{decides}"
        held = f"{_count(self.cases, True)} of {len(self.cases)} cases hold"
        still_open = _count(self.cases, None)
        return f"{held}, {still_open} undecided" if still_open else held


def judge(results: Results) -> list[Verdict]:
    """Decides every claim from the runs that are there."""
    return [_judge_one(claim, results.settings(claim.needs)) for claim in CLAIMS]


def _judge_one(claim: Claim, settings: list[Setting]) -> Verdict:
    cases = tuple(claim.cases(settings))
    held, fell = _count(cases, True), _count(cases, False)
    if not cases:
        status = "not run"
    elif held and fell:
        status = "partly"
    elif held + fell < len(cases):
        status = "undecided"
    else:
        status = "reproduced" if held else "not"
    return Verdict(claim, status, cases)


def _count(cases: tuple[Case, ...], holds: bool | None) -> int:
    return sum(case.holds is holds for case in cases)


CLAIMS = (
    Claim(
        "one-filter",
        "Learning a single filter in each layer already gives far more than chance.",
        "figure 1 and text",
        f"DenseNet and WRN, k = 1, the rest random: at least {FAR:g} times chance.",
        "fig1",
        short.one_filter,
    ),
    Claim(
        "random-beats-zero",
        "Where little is learned, random frozen filters are worth more than none (zeroed).",
        "figure 1 and text",
        f"Each network with BatchNorm, settings with p ≤ {SMALL:g} or a number of filters: random "
        f"minus zeroed, averaged over the settings, is at least {CLEAR:g} points.",
        "fig1",
        short.random_beats_zero,
    ),
    Claim(
        "gap-closes",
        "Where much is learned, it hardly matters whether the rest is random or zeroed.",
        "figure 1 and table 2",
        "Each network with BatchNorm: random minus zeroed at the largest fraction run (0.4 or "
        f"more) is under half of that at the smallest ({SMALL:g} or less), which is positive.",
        "fig1",
        short.gap_closes,
    ),
    Claim(
        "vgg-chance",
        "VGG-19 without BatchNorm stays at chance at learning rate 0.1.",
        "text",
        f"Each VGG-19 setting at learning rate {HIGH_LR:g}: at most {NEAR:g} times chance, or "
        "diverged.",
        "fig1",
        networks.stays_at_chance("vgg19", little=False),
    ),
    Claim(
        "alexnet-small",
        "AlexNet fails to learn where little of it is learned.",
        "text",
        f"Each AlexNet setting at learning rate {HIGH_LR:g} with p ≤ {SMALL:g} or a number of "
        f"filters: at most {NEAR:g} times chance, or diverged. (The authors' stored runs do not "
        "all meet this: one filter a layer reached 6.34 % on CIFAR-100 in 10 epochs.)",
        "fig1",
        networks.stays_at_chance("alexnet", little=True),
    ),
    Claim(
        "bn-networks",
        "Networks with BatchNorm do better than those without.",
        "figure 1",
        "Each setting with random frozen filters: the mean of the networks with BatchNorm exceeds "
        f"the best of VGG-19 and AlexNet, at any learning rate, by at least {CLEAR:g} points.",
        "fig1",
        networks.bn_networks_win,
    ),
    Claim(
        "filters-best",
        "Output filters are the dimension to learn a slice of: with few of them, better than "
        "input channels.",
        "figure 2",
        f"DenseNet, each setting with p ≤ {SMALL:g} or a number of slices, the rest random: "
        f"dimension 0 exceeds dimension 1 by at least {CLEAR:g} points.",
        "fig2",
        short.filters_beat_channels,
    ),
    Claim(
        "log-linear",
        "Accuracy grows about linearly with the logarithm of the number of learned parameters.",
        "figure 3",
        "Each network with BatchNorm, random frozen filters, at least four settings: the line's "
        f"slope is positive with 95 % confidence and R² is at least {LINEAR_R2:g}.",
        "fig3",
        short.log_linear,
    ),
    Claim(
        "bn-alone",
        "Learning nothing but BatchNorm's affine parameters gives far more than chance.",
        "table 1",
        f"DenseNet and WRN, BN only: at least {FAR:g} times chance.",
        "table1",
        networks.bn_alone,
    ),
    Claim(
        "block-beats-fc",
        "Learning a middle or late block does better than learning the classifier.",
        "table 1",
        f"DenseNet and WRN: the better of block2 and block3 exceeds fc by at least {CLEAR:g} "
        "points. (The paper's own table meets this in three of four columns: on CIFAR-100 "
        "DenseNet's fc is the best.)",
        "table1",
        networks.block_beats_fc,
    ),
    Claim(
        "bn-helps",
        "Learning BatchNorm's affine parameters as well adds accuracy, most where little is "
        "learned.",
        "figure 4",
        f"Settings with p ≤ {SMALL:g} or a number of filters: with minus without is at least "
        f"{CLEAR:g} points on average.",
        "fig4",
        short.bn_helps,
    ),
    Claim(
        "one-filter-full",
        "Fully trained, one filter a layer reaches 85 / 59.7 % (DenseNet) and 69 / 34.85 % (WRN) "
        "on CIFAR-10 / 100.",
        "text, figure 5",
        f"Full runs, k = 1: within {CLEAR:g} points of the printed number.",
        "fig5",
        full.one_filter_full,
        printed=True,
    ),
    Claim(
        "tenth-full",
        "Fully trained, a tenth of the filters comes within a few points of all weights, and "
        "random stays ahead of zeroed.",
        "table 2",
        "WRN-28-10 and DenseNet, p = 0.1: random exceeds zeroed, and each accuracy is within "
        f"{CLEAR:g} points of the printed one.",
        "table2",
        full.tenth_full,
        printed=True,
    ),
    Claim(
        "tiny-imagenet",
        "The same order holds on Tiny-ImageNet: 10 % < 40 % < 70 % < 100 % learned.",
        "table 3",
        "Accuracy rises from each fraction to the next, on the data set that was run.",
        "table3",
        full.rises_with_fraction,
    ),
    Claim(
        "ensembles",
        "Ensembles that share most of their convolution weights gain nearly as much as whole ones.",
        "table 4",
        "Sharing 60 %: the ensemble gains over its members at least half of what the unshared "
        "ensemble gains, which must gain something. Of Adam and SGD the better ensemble counts.",
        "table4",
        full.sharing_keeps_gain,
    ),
)
