"""Claims of a paper, each with the criterion that decides it from our runs.

A claim consists of cases (a network on a data set, or one setting). It is reproduced if all cases
hold, partly reproduced if some hold, not reproduced if none holds, and not run if no case can be
told from the finished runs. It is undecided if its undecided cases could change this. Accuracy is
the top-1 of the best test epoch, averaged over seeds; a diverged run counts as chance. A case is
undecided if its difference is within the spread of seeds (``report.measured``), or if a planned
setting that it compares has no finished run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from maskedconv.data.catalogue import JPEG_COPY
from maskedconv.report.copies import copied
from maskedconv.report.measured import NOT_RUN, is_finished
from maskedconv.report.results import SeedGroup, dataset_title, family

if TYPE_CHECKING:
    from maskedconv.report.item import Paper
    from maskedconv.report.results import Results


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
        cases: finds the cases in the settings of the claim's item. It is called with all of them
            (accuracies may be unknown), and with the finished ones alone.
        printed: whether the cases compare with a printed number. Then only runs with the same
            network, images and epochs make cases.
        named: the names of the cases that the text names. One that is not among the cases is an
            undecided case.
        families: the same for families of networks; any case of a family will do.
    """

    id: str
    text: str
    source: str
    criterion: str
    cases: Callable[[list[SeedGroup]], Iterator[Case]]
    printed: bool = False
    named: tuple[str, ...] = ()
    families: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """The result for a claim: ``reproduced``, ``partly``, ``not``, ``undecided`` or ``not run``.

    Attributes:
        experiment: id of the item with the deciding runs.
        data: titles of the data sets of its cases.
    """

    claim: Claim
    experiment: str
    status: str
    cases: tuple[Case, ...] = ()
    data: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """The number of cases and the data, or the reason if there are none."""
        if not self.cases:
            needed = " has the network, images and epochs of the printed number"
            decides = needed if self.claim.printed else " decides it"
            return f"no finished run of {self.experiment}{decides}"
        held = f"{_count(self.cases, True)} of {len(self.cases)} cases hold"
        held += f" on {' and '.join(self.data)}" if self.data else ""
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
    finished = [setting for setting in settings if is_finished(setting)]
    told = list(claim.cases(finished))
    if not told:
        return Verdict(claim, experiment, "not run")
    cases = tuple(_checked(case, told) for case in claim.cases(settings))
    if claim.printed:
        cases = tuple(_naming_copies(claim, cases, finished))
    cases += tuple(_not_planned(claim, cases))
    held, fell = _count(cases, True), _count(cases, False)
    if held and fell:
        status = "partly"
    elif held + fell < len(cases):
        status = "undecided"
    else:
        status = "reproduced" if held else "not"
    return Verdict(claim, experiment, status, cases, tuple(_data(claim, finished)))


def _naming_copies(
    claim: Claim, cases: tuple[Case, ...], finished: list[SeedGroup]
) -> Iterator[Case]:
    """The cases; the evidence of those from a JPEG copy of the data set says so."""
    names = copied(finished)
    of_copies = [setting for setting in finished if setting.config.dataset in names]
    found = {case.name for case in claim.cases(of_copies)}
    for case in cases:
        told = f"{case.evidence}; ours {JPEG_COPY}"
        yield replace(case, evidence=told) if case.name in found else case


def _not_planned(claim: Claim, cases: tuple[Case, ...]) -> Iterator[Case]:
    """The cases that the text names and no planned run makes."""
    names = {case.name for case in cases}
    families = {family(name) for name in names}
    missing = [name for name in claim.named if name not in names]
    missing += [name for name in claim.families if name not in families]
    why = "no comparable run is planned" if claim.printed else "no run is planned"
    yield from (Case(name, None, why) for name in missing)


def _data(claim: Claim, finished: list[SeedGroup]) -> Iterator[str]:
    """Titles of the data sets whose finished runs make cases."""
    for dataset in dict.fromkeys(setting.config.dataset for setting in finished):
        here = [setting for setting in finished if setting.config.dataset == dataset]
        if any(True for _ in claim.cases(here)):
            yield dataset_title(dataset)


def _checked(planned: Case, told: list[Case]) -> Case:
    """The case of all planned settings; undecided if the finished ones alone make another one."""
    if planned in told:
        return planned
    finished = next((case for case in told if case.name == planned.name), None)
    missing = f"{finished.evidence}; further runs: {NOT_RUN}" if finished else NOT_RUN
    return Case(planned.name, None, missing)


def _count(cases: tuple[Case, ...], holds: bool | None) -> int:
    return sum(case.holds is holds for case in cases)
