"""Claims of a paper, each with the criterion by which our runs decide it.

A claim is decided case by case (a network on a data set, or one setting): it is reproduced if every
case holds, partly if some do and some do not, not if none does, and not run if there is no case. It
is undecided if the cases that our runs leave open could make it another of these. Accuracy is that
of the best test epoch, averaged over seeds; a run that diverged counts as chance. A case is open if
it hangs on a difference within the spread of seeds (``report.measured``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maskedconv.report.results import Results, SeedGroup


@dataclass(frozen=True)
class Case:
    """One instance of a claim; ``holds`` is None if our runs leave it open."""

    name: str
    holds: bool | None
    evidence: str

    @property
    def outcome(self) -> str:
        """``holds`` in words."""
        return {True: "holds", False: "does not hold", None: "undecided"}[self.holds]


@dataclass(frozen=True)
class Claim:
    """A claim of a paper.

    Attributes:
        cases: finds the cases in the runs of the claim's item.
        printed: whether the cases need a number that the paper prints: then only runs of its
            network, images and length of training make cases.
    """

    id: str
    text: str
    source: str
    criterion: str
    cases: Callable[[list[SeedGroup]], Iterator[Case]]
    printed: bool = False


@dataclass(frozen=True)
class Verdict:
    """The result for a claim: ``reproduced``, ``partly``, ``not``, ``undecided`` or ``not run``.

    Attributes:
        experiment: the item whose runs decide it.
    """

    claim: Claim
    experiment: str
    status: str
    cases: tuple[Case, ...]

    @property
    def summary(self) -> str:
        """The number of cases, or why there is none."""
        if not self.cases:
            needed = " has the network, images and epochs of the printed number"
            decides = needed if self.claim.printed else " decides it"
            return f"no finished run of {self.experiment}{decides}"
        held = f"{_count(self.cases, True)} of {len(self.cases)} cases hold"
        still_open = _count(self.cases, None)
        return f"{held}, {still_open} undecided" if still_open else held


def judge(results: Results) -> list[Verdict]:
    """Decides every claim of the papers in the plan from the runs that are there."""
    return [
        judge_one(claim, item.id, results.settings(item.id))
        for paper in results.papers
        for item, claim in paper.claims()
    ]


def judge_one(claim: Claim, experiment: str, settings: list[SeedGroup]) -> Verdict:
    """Decides one claim from the runs of its item."""
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
    return Verdict(claim, experiment, status, cases)


def _count(cases: tuple[Case, ...], holds: bool | None) -> int:
    return sum(case.holds is holds for case in cases)
