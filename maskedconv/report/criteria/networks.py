"""Criteria that compare networks, or the parts of one: figure 1 and table 1."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from maskedconv.report.criteria.case import (
    CLEAR,
    FAR,
    HIGH_LR,
    NEAR,
    WITH_BN,
    WITHOUT_BN,
    Case,
    by_network,
    learns_little,
    named,
)
from maskedconv.report.criteria.measured import Measured, accuracy, exceeds, mean
from maskedconv.report.results import (
    Setting,
    dataset_title,
    family,
    is_reference,
    setting_label,
)


def stays_at_chance(name: str, little: bool) -> Callable[[list[Setting]], Iterator[Case]]:
    def cases(settings: list[Setting]) -> Iterator[Case]:
        for group in by_network(settings, (name,)):
            whole = accuracy(next((s for s in group if is_reference(s.config)), None))
            # At chance with every weight learned, too little learned is not what ails it.
            context = "" if whole is None else f"; with all weights {whole}"
            for setting in group:
                config, top1, chance = setting.config, accuracy(setting), setting.chance
                if config.lr != HIGH_LR or (little and not learns_little(config)):
                    continue
                if top1 is None or chance is None or (little and is_reference(config)):
                    continue
                yield Case(
                    f"{named(config)}, {setting_label(config)} {config.frozen}",
                    exceeds(Measured(NEAR * chance) - top1),
                    f"{top1} against {chance:g} % by chance{context}",
                )

    return cases


def bn_networks_win(settings: list[Setting]) -> Iterator[Case]:
    plain: dict[tuple[str, str], Measured] = {}
    with_bn: dict[tuple[str, str], list[Measured]] = {}
    for setting in settings:
        config, top1 = setting.config, accuracy(setting)
        if top1 is None or config.frozen != "random" or is_reference(config):
            continue
        where = (dataset_title(config.dataset), setting_label(config))
        if family(config.model) in WITHOUT_BN:
            plain[where] = max(top1, plain.get(where, top1), key=lambda one: one.value)
        elif family(config.model) in WITH_BN:
            with_bn.setdefault(where, []).append(top1)
    for where, accuracies in with_bn.items():
        if where in plain:
            yield Case(
                ", ".join(where),
                exceeds(mean(accuracies) - plain[where], CLEAR),
                f"with BatchNorm {mean(accuracies)} on average, without at best {plain[where]}",
            )


def _parts(settings: list[Setting]) -> Iterator[tuple[Setting, dict[str, Measured]]]:
    for group in by_network(settings, ("densenet", "wrn")):
        accuracies = {s.config.trained: top1 for s in group if (top1 := accuracy(s)) is not None}
        yield group[0], accuracies


def bn_alone(settings: list[Setting]) -> Iterator[Case]:
    for setting, top1 in _parts(settings):
        if "bn" in top1 and setting.chance is not None:
            yield Case(
                named(setting.config),
                exceeds(top1["bn"].over(FAR * setting.chance)),
                f"{top1['bn']} against {setting.chance:g} % by chance",
            )


def block_beats_fc(settings: list[Setting]) -> Iterator[Case]:
    for setting, top1 in _parts(settings):
        blocks = {part: top1[part] for part in ("block2", "block3") if part in top1}
        if "fc" in top1 and blocks:
            part = max(blocks, key=lambda name: blocks[name].value)
            yield Case(
                named(setting.config),
                exceeds(blocks[part] - top1["fc"], CLEAR),
                f"{part} {blocks[part]}, fc {top1['fc']}",
            )
