"""Claims of a paper, each with the criterion that decides it from our runs.

A claim consists of cases (a network on a data set, or one setting). It is reproduced if all cases
hold, partly reproduced if some hold, not reproduced if none holds, and not run if it has no cases.
It is undecided if its undecided cases could change this. Accuracy is the top-1 of the best test
epoch, averaged over seeds; a diverged run counts as chance. A case is undecided if its difference
is within the spread of seeds (``report.measured``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maskedconv.report.item import Paper
    from maskedconv.report.results import Results, SeedGroup


@dataclass(frozen=True)
class Case:
    """One instance of a claim; ``holds`` is None if it is undecided."""

    name: str
    holds: bool | None
    evidence: str

    @property
    def outcome(self) -> str:
        """``holds`` as text."""
        return {True: "holds", False: "does not hold", None: "undecided"}[self.holds]


@dataclass(frozen=True)
class Claim:
    """A claim of a paper.

    Attributes:
        cases: finds the cases in the runs of the claim's item.
        printed: whether the cases compare with a printed number. Then only runs with the same
            network, images and epochs make cases.
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
        experiment: id of the item with the deciding runs.
    """

    claim: Claim
    experiment: str
    status: str
    cases: tuple[Case, ...]

    @property
    def summary(self) -> str:
        """The number of cases, or the reason if there are none."""
        if not self.cases:
            needed = " has the network, images and epochs of the printed number"
            decides = needed if self.claim.printed else " decides it"
            return f"no finished run of {self.experiment}{decides}"
        held = f"{_count(self.cases, True)} of {len(self.cases)} cases hold"
        still_open = _count(self.cases, None)
        return f"{held}, {still_open} undecided" if still_open else held


def judge(results: Results, paper: Paper[Any] | None = None) -> list[Verdict]:
    """Decides every claim of a paper, or of all papers in the plan, from the finished runs."""
    return [
        judge_one(claim, item.id, results.seed_groups(item.id))
        for one in ([paper] if paper else results.papers)
        for item, claim in one.claims()
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
