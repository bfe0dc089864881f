"""The item ``biprop``: binary subnetworks by kept fraction, threshold, norm and activation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maskedconv.papers.diffenderfer2021.claims import CLAIMS
from maskedconv.papers.diffenderfer2021.presets import ITEM_ID, BipropPreset
from maskedconv.papers.diffenderfer2021.printed import (
    EPOCHS,
    activation_of,
    learns_norm,
    printed_tables,
)
from maskedconv.report.document import Block, Figure, Picture, Table, Text
from maskedconv.report.drawing import PointStyle, draw, top_of
from maskedconv.report.item import Item
from maskedconv.report.masks import (
    kept_fraction,
    kept_table,
    layer_table,
    method_option,
    points_panel,
)
from maskedconv.report.results import (
    SeedGroup,
    dataset_title,
    is_reference,
    network_label,
    sentence,
)
from maskedconv.report.short_tables import one, pivot
from maskedconv.report.style import BLUE, GREEN, ORANGE, PINK, RED, SKY
from maskedconv.report.tables import (
    best,
    datasets,
    epochs_text,
    file_name,
    networks_at_any_rate,
)
from maskedconv.runs.config import Option, RunConfig
from maskedconv.runs.experiment import recipe_run
from maskedconv.runs.preset import Network

LEARNED = "weights"
STYLES = {
    "biprop": PointStyle(BLUE, "o", "biprop"),
    "biprop, one threshold": PointStyle(GREEN, "^", "one threshold"),
    "biprop, BatchNorm learned": PointStyle(RED, "D", "BatchNorm learned"),
    "edge-popup": PointStyle(ORANGE, "s", "edge-popup"),
    "biprop, binary activations": PointStyle(PINK, "v", "binary activations"),
    "biprop, binary activations, BatchNorm learned": PointStyle(
        SKY, "X", "binary activations, BatchNorm learned"
    ),
}


def runs(preset: BipropPreset) -> list[RunConfig]:
    """Kept fractions, the variants at one fraction, and learned weights."""
    return [
        run
        for seed in range(preset.seeds)
        for dataset in preset.datasets
        for run in _runs_on(preset, {"dataset": dataset, "seed": seed})
    ]


def _runs_on(preset: BipropPreset, fields: dict[str, Any]) -> Iterator[RunConfig]:
    k = preset.compared
    for network in preset.networks:
        for fraction in preset.fractions:
            yield _run(preset, network, (("k", fraction),), **fields)
        for option in (("norm_learned", True), ("threshold", "global")):
            yield _run(preset, network, (("k", k), option), **fields)
        yield _run(preset, network, (("k", k),), method="supermask", **fields)
        yield recipe_run(preset, ITEM_ID, network, **fields)
    for network in preset.binary:
        adam = {"optimizer": "adam", "lr": preset.binary_lrs[network.model], **fields}
        options: tuple[tuple[str, Option], ...] = (("k", preset.binary_fraction),)
        yield _run(preset, network, options, **adam)
        yield _run(preset, network, (*options, ("norm_learned", True)), **adam)


def _run(
    preset: BipropPreset,
    network: Network,
    options: tuple[tuple[str, Option], ...],
    method: str = "biprop",
    **fields: Any,
) -> RunConfig:
    return recipe_run(preset, ITEM_ID, network, method=method, method_options=options, **fields)


def kind(config: RunConfig) -> str:
    """The variant of a run, as text."""
    if is_reference(config):
        return LEARNED
    if config.method == "supermask":
        return "edge-popup"
    parts = ["biprop"]
    parts += ["binary activations"] if activation_of(config) == "sign" else []
    parts += ["one threshold"] if method_option(config, "threshold") == "global" else []
    parts += ["BatchNorm learned"] if learns_norm(config) else []
    return ", ".join(parts)


def build(settings: list[SeedGroup], folder: Path) -> list[Block]:
    """A figure and tables for each data set, and the printed numbers."""
    blocks: list[Block] = [
        Text(
            "Subnetworks of networks with random weights, as with edge-popup, but a kept weight is "
            "its sign times the mean magnitude of the layer's kept weights. The scores are "
            f"learned for {epochs_text(settings)}. The dashed line is the same network with "
            "learned weights. Accuracy of the best epoch."
        )
    ]
    for dataset, here in datasets(settings).items():
        title = sentence(dataset_title(dataset))
        blocks += [
            Figure(f"{title}: accuracy against the kept fraction", _pictures(folder, here)),
            kept_table(f"{title}: top-1, %", here, kind),
        ]
        shared = [s for s in here if method_option(s.config, "threshold") == "global"]
        caption = f"{title}: the part of each layer that one threshold for all layers keeps"
        if (table := layer_table(caption, shared)) is not None:
            blocks.append(table)
    return [*blocks, *printed_tables(settings)]


def _pictures(folder: Path, settings: list[SeedGroup]) -> list[Picture]:
    top, dataset = top_of(settings), settings[0].config.dataset
    pictures = []
    for name, group in networks_at_any_rate(settings).items():
        series = [
            (style, found)
            for label, style in STYLES.items()
            if (found := {kept_fraction(s.config): s for s in group if kind(s.config) == label})
        ]
        panel = points_panel(series, group, "kept fraction k", top)
        values = "; ".join(
            f"{kind(s.config)}, k = {kept_fraction(s.config):g} {best(s)}" for s in group
        )
        alt = f"{name} on {dataset_title(dataset)}, accuracy in percent: {values}."
        pictures.append(draw(folder, file_name(ITEM_ID, dataset, name), name, alt, panel))
    return pictures


def short_tables(settings: list[SeedGroup]) -> list[Table]:
    """A table for each data set, with networks and variants in rows, fractions in columns."""
    return [
        pivot(
            f"Biprop, {dataset_title(dataset)}",
            here,
            lambda setting: f"{network_label(setting.config)}: {kind(setting.config)}",
            lambda setting: _column(setting.config),
            lambda cell: one(cell[0]),
        )
        for dataset, here in datasets(settings).items()
    ]


def _column(config: RunConfig) -> str:
    return "all" if is_reference(config) else f"k = {kept_fraction(config):g}"


ITEM = Item(
    ITEM_ID,
    "Binary subnetworks of random networks (biprop)",
    "Experiments on CIFAR-10",
    runs,
    build,
    short_tables,
    claims=CLAIMS,
    printed_epochs=lambda config: EPOCHS,
)
