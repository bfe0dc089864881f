"""The item ``supermask``: accuracy against the kept fraction and the width."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from maskedconv.papers.ramanujan2019.claims import CLAIMS
from maskedconv.papers.ramanujan2019.presets import ITEM_ID, SupermaskPreset
from maskedconv.papers.ramanujan2019.printed import (
    EPOCHS,
    IMAGENET_K,
    RELATIVES,
    imagenet_table,
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
    width_of,
)
from maskedconv.report.results import (
    SeedGroup,
    dataset_title,
    is_reference,
    network_label,
    sentence,
)
from maskedconv.report.short_tables import one, pivot
from maskedconv.report.style import BLACK, BLUE, ORANGE
from maskedconv.report.tables import (
    NOTHING,
    best,
    datasets,
    epochs_text,
    file_name,
    networks_at_any_rate,
)
from maskedconv.runs.config import RunConfig
from maskedconv.runs.experiment import recipe_run, scaled_schedule
from maskedconv.runs.preset import Network

# Without BatchNorm, learned weights need a smaller learning rate than scores.
_LEARNED_LR = dict.fromkeys(("conv2", "conv4", "conv6", "conv8", "fc_300_100"), 0.01)
# The paper also smooths the labels by 0.1.
_IMAGENET = {
    "batch_size": 256,
    "lr": 0.256,
    "momentum": 0.875,
    "weight_decay": 3.05e-5,
    "schedule": "cosine",
}
_IMAGENET_WARMUP = 5
# The authors' configuration of ResNet-50 with a signed constant that is scaled by 1 / √k. They take
# the rate above for the unscaled one, for Kaiming normal, and for learned weights.
_IMAGENET_SCALED_CONSTANT_LR = 0.1
_NAMES = {"signed_constant": "signed constant", "kaiming": "Kaiming normal"}
_STYLES = {
    "signed_constant": PointStyle(BLUE, "o", "signed constant"),
    "kaiming": PointStyle(ORANGE, "s", "Kaiming normal"),
}


def runs(preset: SupermaskPreset) -> list[RunConfig]:
    """Kept fractions, distributions and widths, each beside learned weights."""
    found = [
        run
        for seed in range(preset.seeds)
        for dataset in preset.datasets
        for run in _runs_on(preset, dataset, seed)
    ]
    return list({run.key: run for run in found}.values())


def _runs_on(preset: SupermaskPreset, dataset: str, seed: int) -> Iterator[RunConfig]:
    half = preset.compared
    own = preset.networks_of.get(dataset)
    for network in own or preset.networks:
        for k in preset.fractions:
            yield _masked(preset, network, k, dataset=dataset, seed=seed)
        # The paper's numbers on ImageNet have another k.
        for k in (half, IMAGENET_K) if _on_photographs(network) else (half,):
            yield _masked(preset, network, k, "kaiming", dataset=dataset, seed=seed)
        yield _learned(preset, network, dataset, seed)
    for width in () if own else preset.widths:
        options = (("width", width),) if width != 1 else ()
        network = Network(preset.wide, (), options)
        yield _masked(preset, network, half, dataset=dataset, seed=seed)
        yield _learned(preset, network, dataset, seed)


def _masked(
    preset: SupermaskPreset,
    network: Network,
    k: float,
    weights: str = "signed_constant",
    **fields: Any,
) -> RunConfig:
    options = (("k", k), ("weights", weights))
    fields = {**_recipe(preset, network), **fields}
    if _on_photographs(network) and weights == "signed_constant":
        fields["lr"] = _IMAGENET_SCALED_CONSTANT_LR
    return recipe_run(
        preset, ITEM_ID, network, method="supermask", method_options=options, **fields
    )


def _recipe(preset: SupermaskPreset, network: Network) -> dict[str, Any]:
    """The fields in which this paper trains ``network`` unlike the network's own source."""
    if not _on_photographs(network):
        return {}
    epochs = preset.epochs_of(ITEM_ID, EPOCHS)
    return {**_IMAGENET, "epochs": epochs, **scaled_schedule(EPOCHS, (), _IMAGENET_WARMUP, epochs)}


def _on_photographs(network: Network) -> bool:
    return network.model.startswith("imagenet")


def _learned(preset: SupermaskPreset, network: Network, dataset: str, seed: int) -> RunConfig:
    fields = _recipe(preset, network)
    run = recipe_run(preset, ITEM_ID, network, dataset=dataset, seed=seed, **fields)
    return replace(run, lr=_LEARNED_LR.get(network.model, run.lr))


def kind(config: RunConfig) -> str:
    """The learned values of a run, as text."""
    if is_reference(config):
        return "weights"
    return f"scores, {_NAMES[str(method_option(config, 'weights'))]}"


def build(settings: list[SeedGroup], folder: Path) -> list[Block]:
    """Figures and tables for each data set."""
    blocks: list[Block] = [
        Text(
            "Subnetworks of networks with random weights. A mask keeps the fraction k of each "
            "layer's weights, those with the largest scores; only the scores are learned, for "
            f"{epochs_text(settings)} (the paper: 100). The dashed line is the same network with "
            "learned weights. Accuracy of the best epoch."
        )
    ]
    for dataset, here in datasets(settings).items():
        title = sentence(dataset_title(dataset))
        blocks += [
            Figure(f"{title}: accuracy against the kept fraction", _by_fraction(folder, here)),
            Figure(f"{title}: accuracy against the width, k = 0.5", _by_width(folder, here)),
            kept_table(f"{title}: top-1, %", here, kind),
        ]
        halves = [s for s in here if kept_fraction(s.config) == 0.5 and not is_reference(s.config)]
        constants = [s for s in halves if method_option(s.config, "weights") == "signed_constant"]
        caption = (
            f"{title}: the part of each layer that is kept, k = 0.5, and the part that one "
            "threshold for the final scores of all layers would keep"
        )
        if (table := layer_table(caption, constants)) is not None:
            blocks.append(table)
    return [*blocks, relatives_table(settings), imagenet_table(settings)]


def _by_fraction(folder: Path, settings: list[SeedGroup]) -> list[Picture]:
    top, dataset = top_of(settings), settings[0].config.dataset
    pictures = []
    for name, group in networks_at_any_rate(settings).items():
        fractions = {kept_fraction(s.config) for s in group if not is_reference(s.config)}
        if len(fractions) < 2:
            continue
        series = [
            (style, {kept_fraction(s.config): s for s in group if _has(s.config, weights)})
            for weights, style in _STYLES.items()
        ]
        panel = points_panel(series, group, "kept fraction k", top)
        alt = f"{name} on {dataset_title(dataset)}, accuracy in percent: {_values(group)}."
        pictures.append(draw(folder, file_name(ITEM_ID, dataset, name), name, alt, panel))
    return pictures


def _by_width(folder: Path, settings: list[SeedGroup]) -> list[Picture]:
    top, dataset = top_of(settings), settings[0].config.dataset
    pictures = []
    for model, group in _by_model(settings).items():
        masked = {width_of(s.config): s for s in group if _is_half(s.config)}
        learned = {width_of(s.config): s for s in group if is_reference(s.config)}
        if len(masked) < 2:
            continue
        series = [
            (_STYLES["signed_constant"], masked),
            (PointStyle(BLACK, "D", "weights learned"), learned),
        ]
        panel = points_panel(series, group, "width (factor of the channels)", top)
        chosen = [*masked.values(), *learned.values()]
        alt = f"{model} on {dataset_title(dataset)}, accuracy in percent: {_values(chosen)}."
        pictures.append(
            draw(folder, file_name(ITEM_ID, dataset, model, "width"), model, alt, panel)
        )
    return pictures


def _by_model(settings: list[SeedGroup]) -> dict[str, list[SeedGroup]]:
    found: dict[str, list[SeedGroup]] = {}
    for setting in settings:
        found.setdefault(setting.config.model, []).append(setting)
    return found


def _has(config: RunConfig, weights: str) -> bool:
    return method_option(config, "weights") == weights


def _is_half(config: RunConfig) -> bool:
    return kept_fraction(config) == 0.5 and _has(config, "signed_constant")


def _column(config: RunConfig) -> str:
    if is_reference(config):
        return "learned"
    extra = ", Kaiming" if _has(config, "kaiming") else ""
    return f"k = {kept_fraction(config):g}{extra}"


def _values(settings: list[SeedGroup]) -> str:
    return "; ".join(
        f"width {width_of(s.config):g}, {_column(s.config)} {best(s)}" for s in settings
    )


def relatives_table(settings: list[SeedGroup]) -> Table:
    """Our accuracies on CIFAR-10 beside published supermasks of the same networks."""
    rows = []
    for model, numbers in RELATIVES.items():
        here = [
            s
            for s in settings
            if (s.config.model, s.config.dataset) == (model, "cifar10")
            and width_of(s.config) == 1
            and s.whole_data
        ]
        ours = next((s for s in here if _is_half(s.config)), None)
        learned = next((s for s in here if is_reference(s.config)), None)
        theirs = (NOTHING if number is None else f"{number:g}" for number in numbers)
        rows.append([model, best(ours), best(learned), *theirs])
    return Table(
        "CIFAR-10, top-1, %. The paper prints no numbers for these networks. Near relatives: Zhou "
        "et al. 2019 (supermasks, learned weights), and signed supermasks with 0.6 to 2.9 % of the "
        "weights kept",
        ("network", "ours, k = 0.5", "ours, learned", "Zhou", "Zhou, learned", "signed supermask"),
        rows,
        frozenset(range(1, 6)),
    )


def short_tables(settings: list[SeedGroup]) -> list[Table]:
    """A table for each data set, with networks in rows and kept fractions in columns."""
    return [
        pivot(
            f"Supermasks, {dataset_title(dataset)}",
            here,
            lambda setting: network_label(setting.config),
            lambda setting: _column(setting.config),
            lambda cell: one(cell[0]),
        )
        for dataset, here in datasets(settings).items()
    ]


def printed_epochs(config: RunConfig) -> int:
    """The paper's epochs; 0 for the WRN and the DenseNet, which it does not have."""
    return 0 if config.model.startswith(("wrn", "densenet")) else EPOCHS


ITEM = Item(
    ITEM_ID,
    "Supermasks of random networks (edge-popup)",
    "Experiments on CIFAR-10",
    runs,
    build,
    short_tables,
    claims=CLAIMS,
    printed_epochs=printed_epochs,
)
