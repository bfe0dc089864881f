"""How our runs decide the paper's claims: one function for each criterion, and its thresholds.

Accuracy is that of the best test epoch, as in the paper, averaged over seeds; a run that diverged
counts as chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import fmean

from maskedconv.experiments.config import RunConfig
from maskedconv.report.fits import fit_settings
from maskedconv.report.results import (
    Setting,
    dataset_title,
    family,
    is_reference,
    network_label,
    setting_label,
    signed,
)

FAR = 3.0  # times chance: far above it
NEAR = 1.5  # times chance: still at it
CLEAR = 2.0  # points by which one accuracy must exceed another
SMALL = 0.1  # largest fraction that counts as learning little
LINEAR_R2 = 0.8
WITH_BN = ("densenet", "wrn", "vgg19_bn")
WITHOUT_BN = ("vgg19", "alexnet")
HIGH_LR = 0.1


@dataclass(frozen=True)
class Case:
    """One instance of a claim that our runs decide."""

    name: str
    holds: bool
    evidence: str


def _top1(setting: Setting | None) -> float | None:
    """Mean accuracy of the best epochs; chance if every run diverged; None if none was run."""
    if setting is None:
        return None
    if setting.best is not None:
        return setting.best.mean
    diverged = any((run.row or {}).get("error_type") == "Diverged" for run in setting.failures)
    return setting.chance if diverged else None


def _where(config: RunConfig) -> str:
    return f"{network_label(config)}, {dataset_title(config.dataset)}"


def _networks(settings: list[Setting], families: tuple[str, ...]) -> Iterator[list[Setting]]:
    """The settings of each network, data set and learning rate, in order of appearance."""
    grouped: dict[tuple[str, str, float], list[Setting]] = {}
    for setting in settings:
        if family(setting.config.model) in families:
            config = setting.config
            where = (network_label(config), config.dataset, config.lr)
            grouped.setdefault(where, []).append(setting)
    yield from grouped.values()


def _little(config: RunConfig) -> bool:
    return isinstance(config.learned, int) or config.learned <= SMALL


def _of(settings: list[Setting], frozen: str) -> dict[float | int | str, Setting]:
    """Settings with one kind of frozen filters by their label (1 and 1.0 are two labels)."""
    return {setting_label(s.config): s for s in settings if s.config.frozen == frozen}


def one_filter(settings: list[Setting]) -> Iterator[Case]:
    for group in _networks(settings, ("densenet", "wrn")):
        setting = _of(group, "random").get("k = 1")
        top1 = _top1(setting)
        if setting is not None and setting.chance is not None and top1 is not None:
            yield Case(
                _where(setting.config),
                top1 >= FAR * setting.chance,
                f"{top1:.2f} % against {setting.chance:g} % by chance",
            )


def _gaps(group: list[Setting]) -> dict[str, tuple[Setting, float]]:
    """Random minus zeroed, in points, for every setting that was run both ways."""
    zeroed = _of(group, "zero")
    gaps: dict[str, tuple[Setting, float]] = {}
    for label, setting in _of(group, "random").items():
        random, zero = _top1(setting), _top1(zeroed.get(label))
        if random is not None and zero is not None and not is_reference(setting.config):
            gaps[str(label)] = (setting, random - zero)
    return gaps


def random_beats_zero(settings: list[Setting]) -> Iterator[Case]:
    for group in _networks(settings, WITH_BN):
        gaps = {name: gap for name, (s, gap) in _gaps(group).items() if _little(s.config)}
        if gaps:
            mean = fmean(gaps.values())
            each = ", ".join(f"{name}: {signed(gap)}" for name, gap in gaps.items())
            yield Case(
                _where(group[0].config), mean >= CLEAR, f"mean {signed(mean)} points ({each})"
            )


def gap_closes(settings: list[Setting]) -> Iterator[Case]:
    for group in _networks(settings, WITH_BN):
        fractions = sorted(
            (s.config.learned, gap)
            for s, gap in _gaps(group).values()
            if isinstance(s.config.learned, float)
        )
        if len(fractions) < 2 or fractions[0][0] > SMALL or fractions[-1][0] < 0.4:
            continue
        (small, gap), (large, rest) = fractions[0], fractions[-1]
        yield Case(
            _where(group[0].config),
            gap > 0 and rest < gap / 2,
            f"{signed(gap)} points at p = {small:g}, {signed(rest)} at p = {large:g}",
        )


def filters_beat_channels(settings: list[Setting]) -> Iterator[Case]:
    for group in _networks(settings, ("densenet",)):
        random = [s for s in group if s.config.frozen == "random" and _little(s.config)]
        channels = {setting_label(s.config): s for s in random if s.config.slice_dim == 1}
        for setting in random:
            label = setting_label(setting.config)
            ours, theirs = _top1(setting), _top1(channels.get(label))
            if setting.config.slice_dim == 0 and ours is not None and theirs is not None:
                yield Case(
                    f"{_where(setting.config)}, {label}",
                    ours - theirs >= CLEAR,
                    f"filters {ours:.2f} %, input channels {theirs:.2f} %",
                )


def log_linear(settings: list[Setting]) -> Iterator[Case]:
    for group in _networks(settings, WITH_BN):
        fit = fit_settings([s for s in group if s.config.frozen == "random"])
        if fit is not None and fit.n >= 4:
            yield Case(
                _where(group[0].config),
                fit.low > 0 and fit.r2 >= LINEAR_R2,
                f"{signed(fit.slope)} points a tenfold (95 %: {signed(fit.low)} to "
                f"{signed(fit.high)}), R² {fit.r2:.2f}, {fit.n} settings",
            )


def stays_at_chance(name: str, little: bool) -> Callable[[list[Setting]], Iterator[Case]]:
    def cases(settings: list[Setting]) -> Iterator[Case]:
        for group in _networks(settings, (name,)):
            whole = _top1(next((s for s in group if is_reference(s.config)), None))
            # At chance with every weight learned, too little learned is not what ails it.
            context = "" if whole is None else f"; with all weights {whole:.2f} %"
            for setting in group:
                config, top1, chance = setting.config, _top1(setting), setting.chance
                if config.lr != HIGH_LR or (little and not _little(config)):
                    continue
                if top1 is None or chance is None or (little and is_reference(config)):
                    continue
                yield Case(
                    f"{_where(config)}, {setting_label(config)} {config.frozen}",
                    top1 <= NEAR * chance,
                    f"{top1:.2f} % against {chance:g} % by chance{context}",
                )

    return cases


def bn_networks_win(settings: list[Setting]) -> Iterator[Case]:
    plain: dict[tuple[str, str], float] = {}
    with_bn: dict[tuple[str, str], list[float]] = {}
    for setting in settings:
        config, top1 = setting.config, _top1(setting)
        if top1 is None or config.frozen != "random" or is_reference(config):
            continue
        where = (dataset_title(config.dataset), setting_label(config))
        if family(config.model) in WITHOUT_BN:
            plain[where] = max(top1, plain.get(where, 0.0))
        elif family(config.model) in WITH_BN:
            with_bn.setdefault(where, []).append(top1)
    for where, accuracies in with_bn.items():
        if where in plain:
            yield Case(
                ", ".join(where),
                fmean(accuracies) - plain[where] >= CLEAR,
                f"with BatchNorm {fmean(accuracies):.2f} % on average, without at best "
                f"{plain[where]:.2f} %",
            )


def _parts(settings: list[Setting]) -> Iterator[tuple[Setting, dict[str, float]]]:
    for group in _networks(settings, ("densenet", "wrn")):
        accuracies = {s.config.trained: top1 for s in group if (top1 := _top1(s)) is not None}
        yield group[0], accuracies


def bn_alone(settings: list[Setting]) -> Iterator[Case]:
    for setting, top1 in _parts(settings):
        if "bn" in top1 and setting.chance is not None:
            yield Case(
                _where(setting.config),
                top1["bn"] >= FAR * setting.chance,
                f"{top1['bn']:.2f} % against {setting.chance:g} % by chance",
            )


def block_beats_fc(settings: list[Setting]) -> Iterator[Case]:
    for setting, top1 in _parts(settings):
        blocks = {part: top1[part] for part in ("block2", "block3") if part in top1}
        if "fc" in top1 and blocks:
            part = max(blocks, key=lambda name: blocks[name])
            yield Case(
                _where(setting.config),
                blocks[part] - top1["fc"] >= CLEAR,
                f"{part} {blocks[part]:.2f} %, fc {top1['fc']:.2f} %",
            )
