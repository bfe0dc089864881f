"""Table 4: ensembles with shared weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskedconv.papers.rosenfeld2018.ensembles import (
    all_parameters,
    better,
    kind,
    sharing_keeps_gain,
    stored,
)
from maskedconv.papers.rosenfeld2018.presets import RosenfeldPreset
from maskedconv.papers.rosenfeld2018.printed import always, comparable
from maskedconv.report.claims import Claim
from maskedconv.report.document import Block, Figure, Table, Text
from maskedconv.report.drawing import Draw, draw, legend
from maskedconv.report.item import Item
from maskedconv.report.results import SeedGroup, dataset_title, signed
from maskedconv.report.short_tables import short
from maskedconv.report.style import BLACK, BLUE, GREY, RED
from maskedconv.report.tables import (
    NOTHING,
    cell,
    count,
    datasets,
    difference,
    epochs_text,
    file_name,
    named,
    networks_at_any_rate,
)
from maskedconv.runs.config import RunConfig
from maskedconv.runs.experiment import recipe_run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.ticker import EngFormatter

# Table 4: five DenseNets on CIFAR-10 from one start: mean accuracy, accuracy of the ensemble, and
# number of learned parameters of all five.
TABLE4 = {
    "FC": (68.5, 70.25, 137_090),
    "share 0.9": (69.9, 71.14, 450_980),
    "share 0.6": (71.0, 73.54, 1_528_505),
    "share 0.3": (71.3, 75.47, 2_664_470),
    "full": (71.7, 76.35, 3_845_810),
}
# As in the authors' code, whose Adam has no weight decay.
ADAM = {"optimizer": "adam", "lr": 1e-3, "weight_decay": 0.0}
EPOCHS = 1  # epochs of the start, and further epochs of each member
MODEL, DATASET = "densenet_bc_100_12", "cifar10"
OPTIMIZERS = {"sgd": ("SGD", BLUE, "o"), "adam": ("Adam", RED, "s")}


def runs(preset: RosenfeldPreset) -> list[RunConfig]:
    """For every seed, the common start and then ensembles of each kind."""
    return [
        run
        for seed in range(preset.seeds)
        for run in _ensemble_runs(preset, {"dataset": preset.datasets[0], "seed": seed})
    ]


def _ensemble_runs(preset: RosenfeldPreset, fields: dict[str, Any]) -> Iterator[RunConfig]:
    start = recipe_run(preset, "table4", preset.densenet, keep=True, **fields)
    yield start
    kinds: list[dict[str, Any]] = [{"trained": "fc"}]
    kinds += [{"learned": fraction} for fraction in preset.ensemble_fractions]
    optimizers: list[dict[str, Any]] = [{}, ADAM]
    for learned in kinds:
        for optimizer in optimizers:
            yield recipe_run(
                preset,
                "table4",
                preset.densenet,
                start=start.key,
                members=preset.ensemble_members,
                **learned,
                **optimizer,
                **fields,
            )


def build(settings: list[SeedGroup], folder: Path) -> list[Block]:
    """Panels and a table for each data set, with the paper's numbers."""
    ensembles = [s for s in settings if s.config.members]
    starts = [s for s in settings if not s.config.members]
    members = " or ".join(str(n) for n in sorted({s.config.members for s in ensembles}))
    blocks: list[Block] = [
        Text(
            f"{members or 'Several'} copies of one network are trained further, each with its own "
            "order and augmentation of the images. They learn the classifier and BatchNorm (FC), "
            "the filters outside the shared fraction (share), or everything (full). The start was "
            f"trained for {epochs_text(starts)}, each member for {epochs_text(ensembles)} more. "
            "The prediction of the ensemble is the mean softmax of its members."
        ),
        Text(
            "The paper gives the better of Adam (0.001) and SGD (0.1) without naming it; here both "
            "are given, and the better ensemble is marked. The paper counts the learned parameters "
            "of the members without the shared weights; the count that includes them once is given "
            "as well. Stored bytes are the file of the start (if members still use part of it) and "
            "the members' own parts."
        ),
    ]
    for dataset, here in datasets(ensembles).items():
        for name, group in networks_at_any_rate(here).items():
            where = f"{name} on {dataset_title(dataset)}"
            start = next((s for s in starts if named(s.config) == named(group[0].config)), None)
            if start is not None and start.last is not None:
                blocks.append(Text(f"{where}: the start reached {start.last} %."))
            blocks += [_figure(group, where, dataset, folder), _table(group, where)]
    return blocks


def _figure(settings: list[SeedGroup], where: str, dataset: str, folder: Path) -> Figure:
    from matplotlib.ticker import EngFormatter

    values = "; ".join(
        f"{kind(s.config)} {s.config.optimizer} {s.ensemble}" for s in settings if s.ensemble
    )
    panels = (
        ("bytes", "stored", "stored bytes of the ensemble", "B"),
        ("parameters", "as the paper counts", "learned parameters of all members", ""),
    )
    pictures = []
    for name, title, label, unit in panels:
        xs = [_cost(setting, name) for setting in settings]
        panel = costs_panel(settings, xs, label, EngFormatter(unit, sep=" " if unit else ""))
        alt = f"{where}: accuracy of each ensemble in percent against {label}: {values}."
        file = file_name("table4", dataset, name)
        pictures.append(draw(folder, file, f"Ensembles, {title}", alt, panel))
    caption = "Filled: the ensemble; hollow: the mean of its members, after the last epoch."
    return Figure(f"{where}. {caption}", pictures)


def _cost(setting: SeedGroup, name: str) -> float | None:
    if name == "parameters":
        return setting.learned_parameters
    sizes = stored(setting)
    return sizes.total if sizes else None


def costs_panel(
    settings: list[SeedGroup], xs: list[float | None], label: str, formatter: EngFormatter
) -> Draw:
    """Accuracy of ensembles and their members against their cost."""
    from matplotlib.ticker import MaxNLocator

    def panel(axes: Axes) -> None:
        names: dict[str, float] = {}
        for setting, x in zip(settings, xs, strict=True):
            if x is None or setting.ensemble is None or setting.last is None:
                continue
            _, colour, marker = OPTIMIZERS[setting.config.optimizer]
            mean, top1 = setting.last.mean, setting.ensemble.mean
            axes.plot([x, x], [mean, top1], color="#c4c4c4", lw=2.5, zorder=1)
            axes.plot(x, mean, marker=marker, ms=6, color=colour, mfc="white")
            axes.plot(x, top1, marker=marker, ms=7, color=colour)
            names.setdefault(kind(setting.config), x)
        # Above the panel, so that they hide no point; the points of one kind share an abscissa.
        for name, x in names.items():
            axes.annotate(
                name,
                (x, 1),
                (0, 3),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                rotation=35,
                fontsize=9,
                color=BLACK,
            )
        axes.set_title(axes.get_title(loc="left"), pad=40)
        for name, colour, marker in OPTIMIZERS.values():
            axes.plot([], [], ls="", marker=marker, color=colour, label=name)
        axes.plot([], [], ls="", marker="o", color=GREY, mfc="white", label="mean member")
        axes.set_xlabel(label)
        axes.set_ylabel("test top-1, %")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(formatter)
        axes.margins(x=0.08, y=0.1)
        legend(axes)

    return panel


def _table(settings: list[SeedGroup], where: str) -> Table:
    chosen = set(map(id, better(settings).values()))
    same = all(comparable(setting, MODEL, DATASET, EPOCHS) for setting in settings)
    rows = []
    for setting in settings:
        best = id(setting) in chosen
        theirs = TABLE4.get(kind(setting.config)) if best else None
        gain = difference(setting.ensemble, setting.last.mean if setting.last else None)
        rows.append(
            [
                kind(setting.config),
                OPTIMIZERS[setting.config.optimizer][0] + (" (better)" if best else ""),
                count(setting.learned_parameters),
                count(all_parameters(setting)),
                _stored_text(setting),
                cell(setting, setting.last),
                cell(setting, setting.ensemble),
                gain,
                f"{theirs[0]:g} / {theirs[1]:g}" if theirs else "",
                *([_gaps(setting, theirs)] if same else []),
            ]
        )
    other = "" if same else " (DenseNet-BC-100-12, CIFAR-10)"
    columns = (
        "shared",
        "optimizer",
        "parameters, as the paper counts",
        "with shared weights",
        "stored",
        "mean member",
        "ensemble",
        "gain",
        f"paper{other}, mean / ensemble",
    )
    caption = f"{'' if same else 'not '}comparable with the paper's table 4"
    return Table(
        f"{where}: top-1, %, after the last epoch; {caption}",
        (*columns, "difference") if same else columns,
        rows,
        frozenset(range(2, 10)),
        grouped=True,
    )


def _gaps(setting: SeedGroup, theirs: tuple[float, float, int] | None) -> str:
    if theirs is None or setting.last is None or setting.ensemble is None:
        return ""
    mean, ensemble, _ = theirs
    return f"{signed(setting.last.mean - mean)} / {signed(setting.ensemble.mean - ensemble)}"


def _stored_text(setting: SeedGroup) -> str:
    sizes = stored(setting)
    return NOTHING if sizes is None else f"{sizes.total / 1e6:.2f} MB"


def short_tables(settings: list[SeedGroup]) -> list[Table]:
    """The tables for a README."""
    ensembles = [setting for setting in settings if setting.config.members]
    return [
        _short_table(f"Table 4, {name}, {dataset_title(dataset)}, better of SGD and Adam", group)
        for dataset, here in datasets(ensembles).items()
        for name, group in networks_at_any_rate(here).items()
    ]


def _short_table(caption: str, settings: list[SeedGroup]) -> Table:
    rows = []
    for shared, setting in better(settings).items():
        theirs = TABLE4.get(shared)
        stats = (setting.last, setting.ensemble)
        rows.append(
            [
                shared,
                " / ".join(cell(setting, stat, short) for stat in stats),
                f"{theirs[0]:g} / {theirs[1]:g}" if theirs else NOTHING,
                count(setting.learned_parameters),
                _stored_text(setting),
            ]
        )
    columns = ("shared", "mean / ensemble", "paper", "parameters", "stored")
    return Table(caption, columns, rows, frozenset(range(1, 5)))


CLAIMS = (
    Claim(
        "ensembles",
        "Ensembles that share most of their convolution weights gain nearly as much as full ones.",
        "table 4",
        "Sharing 60 %: the gain of the ensemble over its members is at least half the gain of the "
        "unshared ensemble, which must be positive. The better of Adam and SGD counts.",
        sharing_keeps_gain,
    ),
)


ITEM = Item(
    "table4",
    "Ensembles that share weights",
    "Table 4",
    runs,
    build,
    short_tables,
    claims=CLAIMS,
    printed_epochs=always(EPOCHS),
)
