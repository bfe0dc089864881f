"""Table 4's ensembles: names, better optimizer, size on disk, and gain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import fmean

from maskedconv.report.claims import Case
from maskedconv.report.measured import (
    UNKNOWN,
    Measured,
    all_of,
    exceeds,
    is_finished,
    measured,
    over_common_seeds,
)
from maskedconv.report.results import SeedGroup, signed
from maskedconv.report.tables import datasets, named, networks_at_any_rate
from maskedconv.runs.config import RunConfig


@dataclass(frozen=True)
class Stored:
    """The size of an ensemble on disk in bytes, averaged over seeds."""

    shared: float
    members: float

    @property
    def total(self) -> float:
        return self.shared + self.members


def kind(config: RunConfig) -> str:
    """The paper's name for the shared part of an ensemble: FC, share 0.9 and so on, or full."""
    if config.trained != "all":
        return config.trained.upper()
    if isinstance(config.learned, int):
        return f"k = {config.learned}"
    return "full" if config.learned == 1.0 else f"share {1 - config.learned:g}"


def better(settings: list[SeedGroup]) -> dict[str, SeedGroup]:
    """The better ensemble of each kind, without kinds that have no finished run."""
    found: dict[str, SeedGroup] = {}
    for setting in settings:
        name = kind(setting.config)
        if setting.ensemble is None:
            continue
        rival = found.get(name)
        if rival is None or rival.ensemble is None or setting.ensemble.mean > rival.ensemble.mean:
            found[name] = setting
    return found


def stored(setting: SeedGroup) -> Stored | None:
    """Bytes on disk; the start's file counts only if members use a part of it."""
    sizes = [row["stored_bytes"] for row in setting.rows if row.get("stored_bytes")]
    if not sizes:
        return None
    shares = kind(setting.config) != "full"
    return Stored(
        fmean(size["shared"] for size in sizes) if shares else 0.0,
        fmean(sum(size["members"]) for size in sizes),
    )


def all_parameters(setting: SeedGroup) -> int | None:
    """Parameters of all members plus their shared part, which the paper does not count."""
    learned, total = setting.learned_parameters, setting.total_parameters
    if learned is None or total is None:
        return None
    return learned + total - learned // setting.config.members


def sharing_keeps_gain(settings: list[SeedGroup]) -> Iterator[Case]:
    found = [setting for setting in settings if setting.config.members]
    # The learning rates of Adam and SGD differ.
    for group in networks_at_any_rate(found).values():
        for here in datasets(group).values():
            shared, whole = (
                _gain([s for s in here if kind(s.config) == name]) for name in ("share 0.6", "full")
            )
            if shared is not None and whole is not None:
                shared, whole = over_common_seeds(shared, whole)
                yield Case(
                    named(here[0].config),
                    all_of(exceeds(whole), exceeds(shared - whole / 2)),
                    f"sharing 60 % gains {signed(shared.value, 2)} points, sharing nothing "
                    f"{signed(whole.value, 2)}",
                )


def _gain(rivals: list[SeedGroup]) -> Measured | None:
    """The gain of the better ensemble of one kind; unknown until every optimizer has run."""
    if not all(is_finished(setting) for setting in rivals):
        return UNKNOWN
    setting = next(iter(better(rivals).values()), None)
    if setting is None or setting.ensemble is None or setting.last is None:
        return None
    # Members and ensemble see the same test images: one error, not two.
    gain = measured(setting.ensemble, setting).over(setting.last.mean)
    by_seed = {
        run.config.seed: joint - last
        for run in setting.runs
        if run.row is not None and run.done
        if (joint := run.row.get("ensemble_top1")) is not None
        if (last := run.row["last_top1"]) is not None
    }
    return replace(gain, by_seed=by_seed)
