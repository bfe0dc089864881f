"""The tables of the report, and how settings are grouped and numbers written in them."""

from __future__ import annotations

from collections.abc import Iterable

from maskedconv.report import paper
from maskedconv.report.document import Block, Table, Text
from maskedconv.report.fits import fit_settings
from maskedconv.report.results import (
    Setting,
    Stat,
    dataset_title,
    family,
    is_reference,
    network_label,
    sentence,
    setting_label,
    setting_order,
    signed,
)
from maskedconv.slices import SLICE_DIMS

NOTHING = "–"


def networks(settings: Iterable[Setting]) -> dict[str, list[Setting]]:
    """Settings by network, with the learning rate in the name where there are several."""
    found = list(settings)
    rates: dict[str, set[float]] = {}
    for setting in found:
        rates.setdefault(network_label(setting.config), set()).add(setting.config.lr)
    grouped: dict[str, list[Setting]] = {}
    for setting in found:
        name = network_label(setting.config)
        if len(rates[name]) > 1:
            name += f", lr {setting.config.lr:g}"
        grouped.setdefault(name, []).append(setting)
    return grouped


def datasets(settings: Iterable[Setting]) -> dict[str, list[Setting]]:
    """Settings by the data set's name."""
    grouped: dict[str, list[Setting]] = {}
    for setting in settings:
        grouped.setdefault(setting.config.dataset, []).append(setting)
    return grouped


def file_name(*parts: str) -> str:
    """A file name of letters, digits, dots, dashes and underscores."""
    text = "-".join(parts).replace(", ", "-").replace(" ", "-")
    return "".join(letter for letter in text if letter.isalnum() or letter in "-_.")


def cell(setting: Setting | None, stat: Stat | None) -> str:
    """A number for a table, or why there is none."""
    if setting is None or not any(run.row for run in setting.runs):
        return NOTHING
    if stat is None:
        return "diverged" if _diverged(setting) else "failed"
    failed = len(setting.failures)
    return f"{stat} ({failed} of {len(setting.runs)} failed)" if failed else str(stat)


def _diverged(setting: Setting) -> bool:
    return all((run.row or {}).get("error_type") == "Diverged" for run in setting.failures)


def best(setting: Setting | None) -> str:
    return cell(setting, setting.best if setting else None)


def _last(setting: Setting | None) -> str:
    return cell(setting, setting.last if setting else None)


def _count(number: int | None) -> str:
    return NOTHING if number is None else f"{number:,}"


def _share(setting: Setting) -> str:
    learned, total = setting.learned_parameters, setting.total_parameters
    return f"{100 * learned / total:.1f}" if learned is not None and total else NOTHING


def _order(setting: Setting) -> tuple[int, bool, float | int]:
    return setting.config.slice_dim, *setting_order(setting.config)


def _pairs(settings: list[Setting]) -> list[tuple[Setting | None, Setting | None]]:
    """Each setting with random and with zeroed frozen weights; None where one is not planned."""
    pairs: dict[tuple[str, int], dict[str, Setting]] = {}
    for setting in settings:
        config = setting.config
        pairs.setdefault((setting_label(config), config.slice_dim), {})[config.frozen] = setting
    return [(pair.get("random"), pair.get("zero")) for pair in pairs.values()]


def fig1_table(settings: list[Setting]) -> Table:
    """Every setting of one data set, random beside zeroed."""
    rows = []
    for name, group in networks(settings).items():
        for random, zero in _pairs(sorted(group, key=_order)):
            one = random or zero
            assert one is not None
            rows.append(
                [
                    name,
                    setting_label(one.config),
                    _count(one.learned_parameters),
                    _share(one),
                    best(random),
                    _last(random),
                    *_zeroed(one, zero),
                ]
            )
    columns = ("network", "learned", "parameters", "share, %", "random, best", "random, last")
    return Table(
        f"{sentence(dataset_title(settings[0].config.dataset))}: top-1, %",
        (*columns, "zeroed, best", "zeroed, last"),
        rows,
        frozenset(range(2, 8)),
        grouped=True,
    )


def _zeroed(one: Setting, zero: Setting | None) -> tuple[str, str]:
    # With every weight learned there is nothing left to be zeroed.
    return ("", "") if zero is None and is_reference(one.config) else (best(zero), _last(zero))


def fig2_table(settings: list[Setting]) -> Table:
    """Every slice of one network, beside what the authors stored for theirs."""
    theirs = {
        (run.learned, isinstance(run.learned, int), run.slice_dim, run.frozen): f"{run.top1:.2f}"
        for run in paper.author_runs()
        if run.run == "1 epoch"
    }
    first = settings[0].config
    same = paper.same_network(first) and first.dataset == "cifar10" and first.epochs == 1
    other = "" if same else " (other network)"
    rows = []
    for random, zero in _pairs(sorted(settings, key=_order)):
        one = random or zero
        assert one is not None
        config = one.config
        split = (config.learned, isinstance(config.learned, int), config.slice_dim)
        rows.append(
            [
                f"{SLICE_DIMS[config.slice_dim]} ({config.slice_dim})",
                setting_label(config),
                _count(one.learned_parameters),
                best(random),
                best(zero),
                theirs.get((*split, "random"), NOTHING),
                theirs.get((*split, "zero"), NOTHING),
            ]
        )
    columns = ["slice", "learned", "parameters", "random", "zeroed"]
    return Table(
        "Top-1, %, best epoch. The authors' numbers: DenseNet-BC-100-12, CIFAR-10, 1 epoch.",
        [*columns, f"authors{other}, random", f"authors{other}, zeroed"],
        rows,
        frozenset(range(2, 7)),
        grouped=True,
    )


def fits_table(label: str, settings: list[Setting]) -> Table:
    """The fitted lines of one data set."""
    rows = []
    for name, group in networks(settings).items():
        for frozen in ("random", "zero"):
            fit = fit_settings([s for s in group if s.config.frozen == frozen])
            if fit is not None:
                rows.append(
                    [
                        name,
                        "zeroed" if frozen == "zero" else frozen,
                        str(fit.n),
                        signed(fit.slope),
                        f"{signed(fit.low)} to {signed(fit.high)}",
                        f"{fit.r2:.2f}",
                    ]
                )
    return Table(
        f"{sentence(label)}: points of accuracy for ten times as many learned parameters",
        ("network", "rest", "settings", "slope", "95 % interval", "R²"),
        rows,
        frozenset(range(2, 6)),
        grouped=True,
    )


def comparable(setting: Setting) -> bool:
    """Whether the paper's table 1 has this network, data set and length of training."""
    config = setting.config
    return (
        paper.same_network(config)
        and (config.model, config.dataset) in paper.TABLE1
        and config.epochs == paper.TABLE1_EPOCHS
    )


def printed(setting: Setting) -> tuple[str, str, float] | None:
    """The paper's network, data set and number that come closest to a setting of table 1."""
    config = setting.config
    dataset = "cifar100" if config.dataset == "cifar100" else "cifar10"
    for (model, data), numbers in paper.TABLE1.items():
        if family(model) == family(config.model) and data == dataset and config.trained in numbers:
            return model, dataset_title(data), numbers[config.trained]
    return None


def table1_table(settings: list[Setting], same: bool, caption: str) -> Table:
    """Learned parts; with the difference to the paper if ``same``, else with what it is of."""
    rows = []
    for setting in settings:
        closest = printed(setting)
        if closest is None:
            continue
        model, dataset, number = closest
        if same:
            gap = signed(setting.best.mean - number, 2) if setting.best else NOTHING
        else:
            gap = f"{model}, {dataset}"
        rows.append(
            [
                network_label(setting.config),
                dataset_title(setting.config.dataset),
                setting_label(setting.config),
                _count(setting.learned_parameters),
                best(setting),
                _last(setting),
                f"{number:.2f}",
                gap,
            ]
        )
    columns = ("network", "data", "learned", "parameters", "best", "last")
    theirs = ("paper", "difference") if same else ("paper (other network)", "of")
    return Table(
        caption,
        (*columns, *theirs),
        rows,
        frozenset(range(3, 8)) if same else frozenset({3, 4, 5, 6}),
        grouped=True,
    )


def comparison(settings: list[Setting]) -> list[Block]:
    """Our settings beside the same runs of the authors, or a line saying that there are none."""
    pairs = paper.compare(settings)
    if not pairs:
        return [
            Text(
                "None of these runs has the network, data set, split and length of training of one "
                "that the authors stored, so no difference to theirs is given."
            )
        ]
    rows = [
        [
            network_label(pair.setting.config),
            dataset_title(pair.setting.config.dataset),
            f"{setting_label(pair.setting.config)} of {SLICE_DIMS[pair.setting.config.slice_dim]}",
            "zeroed" if pair.theirs.frozen == "zero" else "random",
            pair.theirs.run,
            str(pair.ours),
            f"{pair.theirs.top1:.2f}",
            signed(pair.ours.mean - pair.theirs.top1, 2),
        ]
        for pair in pairs
    ]
    columns = ("network", "data", "learned", "rest", "their run", "ours", "authors", "difference")
    return [
        Table(
            "Beside the runs that the authors stored with their code: top-1, %. Their single "
            "epochs are set against the first epoch of ours.",
            columns,
            rows,
            frozenset({5, 6, 7}),
            grouped=True,
        )
    ]
