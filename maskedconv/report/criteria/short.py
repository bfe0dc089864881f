"""Criteria that the short runs decide: figures 1 to 4."""

from __future__ import annotations

from collections.abc import Iterator

from maskedconv.report.criteria.case import (
    CLEAR,
    FAR,
    LINEAR_R2,
    SMALL,
    WITH_BN,
    Case,
    by_network,
    learns_little,
    named,
    with_rest,
)
from maskedconv.report.criteria.measured import Measured, accuracy, all_of, exceeds, mean
from maskedconv.report.fits import fit_settings
from maskedconv.report.results import Setting, is_reference, setting_label, signed


def one_filter(settings: list[Setting]) -> Iterator[Case]:
    for group in by_network(settings, ("densenet", "wrn")):
        setting = with_rest(group, "random").get("k = 1")
        top1 = accuracy(setting)
        if setting is not None and setting.chance is not None and top1 is not None:
            yield Case(
                named(setting.config),
                exceeds(top1.over(FAR * setting.chance)),
                f"{top1} against {setting.chance:g} % by chance",
            )


def _gaps(group: list[Setting]) -> dict[str, tuple[Setting, Measured]]:
    """Random minus zeroed, in points, for every setting that was run both ways."""
    zeroed = with_rest(group, "zero")
    gaps: dict[str, tuple[Setting, Measured]] = {}
    for label, setting in with_rest(group, "random").items():
        random, zero = accuracy(setting), accuracy(zeroed.get(label))
        if random is not None and zero is not None and not is_reference(setting.config):
            gaps[str(label)] = (setting, random - zero)
    return gaps


def random_beats_zero(settings: list[Setting]) -> Iterator[Case]:
    for group in by_network(settings, WITH_BN):
        gaps = {name: gap for name, (s, gap) in _gaps(group).items() if learns_little(s.config)}
        if gaps:
            yield _on_average(group[0], gaps)


def _on_average(setting: Setting, gaps: dict[str, Measured]) -> Case:
    found = mean(list(gaps.values()))
    each = ", ".join(f"{name}: {signed(gap.value)}" for name, gap in gaps.items())
    evidence = f"mean {signed(found.value)} points ({each})"
    return Case(named(setting.config), exceeds(found, CLEAR), evidence)


def gap_closes(settings: list[Setting]) -> Iterator[Case]:
    for group in by_network(settings, WITH_BN):
        found = _gaps(group).values()
        gaps = {s.config.learned: gap for s, gap in found if isinstance(s.config.learned, float)}
        if len(gaps) < 2 or min(gaps) > SMALL or max(gaps) < 0.4:
            continue
        small, large = min(gaps), max(gaps)
        gap, rest = gaps[small], gaps[large]
        yield Case(
            named(group[0].config),
            all_of(exceeds(gap), exceeds(gap / 2 - rest)),
            f"{signed(gap.value)} points at p = {small:g}, {signed(rest.value)} at p = {large:g}",
        )


def filters_beat_channels(settings: list[Setting]) -> Iterator[Case]:
    for group in by_network(settings, ("densenet",)):
        random = [s for s in group if s.config.frozen == "random" and learns_little(s.config)]
        channels = {setting_label(s.config): s for s in random if s.config.slice_dim == 1}
        for setting in random:
            label = setting_label(setting.config)
            ours, theirs = accuracy(setting), accuracy(channels.get(label))
            if setting.config.slice_dim == 0 and ours is not None and theirs is not None:
                yield Case(
                    f"{named(setting.config)}, {label}",
                    exceeds(ours - theirs, CLEAR),
                    f"filters {ours}, input channels {theirs}",
                )


def log_linear(settings: list[Setting]) -> Iterator[Case]:
    for group in by_network(settings, WITH_BN):
        fit = fit_settings([s for s in group if s.config.frozen == "random"])
        if fit is not None and fit.n >= 4:
            yield Case(
                named(group[0].config),
                fit.low > 0 and fit.r2 >= LINEAR_R2,
                f"{signed(fit.slope)} points a tenfold (95 %: {signed(fit.low)} to "
                f"{signed(fit.high)}), R² {fit.r2:.2f}, {fit.n} settings",
            )


def bn_helps(settings: list[Setting]) -> Iterator[Case]:
    for group in by_network(settings, ("densenet", "wrn")):
        found: dict[tuple[str, str], dict[bool, Measured]] = {}
        for setting in group:
            config, top1 = setting.config, accuracy(setting)
            if top1 is not None and learns_little(config):
                rest = "zeroed" if config.frozen == "zero" else config.frozen
                found.setdefault((setting_label(config), rest), {})[config.bn_learned] = top1
        gains = {
            " ".join(split): top1[True] - top1[False]
            for split, top1 in found.items()
            if len(top1) == 2
        }
        if gains:
            yield _on_average(group[0], gains)
