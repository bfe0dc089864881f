"""The paper's figures and tables, each as the runs it is made of. Free of torch itself; listing
runs asks the models for their recipes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from maskedconv.experiments.presets import Network, Settings
from maskedconv.runs.config import RunConfig

FROZEN = ("random", "zero")
ALL_WEIGHTS = 1.0
TABLE2_FRACTIONS = (0.1, 0.4)
_OF_RECIPES = ("lr", "momentum", "weight_decay", "milestones", "gamma", "nesterov", "schedule")
# Table 3's, with the authors' YellowFin: its momentum starts at 0.
TINY_EPOCHS, TINY_MILESTONES = 45, (15, 30)
TINY_RECIPE = MappingProxyType({"optimizer": "yellowfin", "lr": 0.1, "momentum": 0.0, "gamma": 0.1})
ADAM_LR = 1e-3


@dataclass(frozen=True)
class Experiment:
    """A figure or table of Rosenfeld & Tsotsos 2018.

    Attributes:
        id: as on the command line.
        title: what it shows.
        reference: where in the paper.
        runs: its runs under the settings of a preset; those that another one starts from first.
    """

    id: str
    title: str
    reference: str
    runs: Callable[[Settings], list[RunConfig]]


def _run(
    settings: Settings,
    experiment: str,
    network: Network,
    learned: float | int = ALL_WEIGHTS,
    **fields: Any,
) -> RunConfig:
    """A run by the recipe of its network; ``fields`` go before the recipe's."""
    from maskedconv.models import recipe

    found = recipe(network.model)
    recipe_fields = {
        "batch_size": settings.batch_size or found.batch_size,
        "epochs": settings.epochs.get(experiment, found.epochs),
        "subset": settings.subset,
        "amp": settings.amp,
        **{name: getattr(found, name) for name in _OF_RECIPES},
    }
    return RunConfig(
        model=network.model,
        learned=learned,
        options=network.options,
        **{**recipe_fields, **fields},
    )


def _milestones(milestones: Sequence[int], full_epochs: int, epochs: int) -> tuple[int, ...]:
    """``milestones`` of a full run, moved in proportion to one of ``epochs``."""
    return tuple(max(1, round(epoch * epochs / full_epochs)) for epoch in milestones)


def _splits(shares: Sequence[float | int]) -> list[tuple[float | int, str]]:
    return [(share, frozen) for share in shares for frozen in FROZEN]


def _fig1(settings: Settings) -> list[RunConfig]:
    # The reference with every weight learned, beside the paper's settings.
    splits = [*_splits([*settings.fractions, *settings.counts]), (ALL_WEIGHTS, "random")]
    return [
        _run(settings, "fig1", network, learned, frozen=frozen, dataset=dataset, seed=seed, **rate)
        for seed in range(settings.seeds)
        for dataset in settings.datasets
        for network in settings.networks
        for rate in ([{"lr": lr} for lr in network.lrs] or [{}])
        for learned, frozen in splits
    ]


def _fig2(settings: Settings) -> list[RunConfig]:
    return [
        _run(
            settings,
            "fig2",
            settings.densenet,
            learned,
            slice_dim=slice_dim,
            frozen=frozen,
            # The paper's figure 2 is on CIFAR-10 alone: the first of the data sets.
            dataset=settings.datasets[0],
            seed=seed,
        )
        for seed in range(settings.seeds)
        for slice_dim in range(4)
        for learned, frozen in _splits([*settings.slice_fractions, *settings.slice_counts])
    ]


def _fig4(settings: Settings) -> list[RunConfig]:
    """Figure 1's runs of two networks, and each but the reference again with fixed BatchNorm."""
    models = (settings.densenet.model, settings.wrn.model)
    with_bn = [run for run in _fig1(settings) if run.model in models]
    without_bn = [replace(run, bn_learned=False) for run in with_bn if not run.learns_all_slices]
    return [*with_bn, *without_bn]


def _fig5(settings: Settings) -> list[RunConfig]:
    return [
        run
        for seed in range(settings.seeds)
        for dataset in settings.datasets
        for network in (settings.wide, settings.densenet)
        for run in _full_runs(settings, network, dataset, seed)
    ]


def _full_runs(
    settings: Settings, network: Network, dataset: str, seed: int
) -> Iterator[RunConfig]:
    from maskedconv.models import recipe

    found = recipe(network.model)
    epochs = settings.epochs.get("fig5", found.epochs)
    fields: dict[str, Any] = {
        "dataset": dataset,
        "seed": seed,
        "milestones": _milestones(found.milestones, found.epochs, epochs),
    }
    for learned, frozen in _splits([*settings.full_fractions, *settings.full_counts]):
        yield _run(settings, "fig5", network, learned, frozen=frozen, **fields)
    # Dropout was the authors' for the plain network alone.
    yield _run(settings, "fig5", network, dropout=found.dropout, **fields)


def _table1(settings: Settings) -> list[RunConfig]:
    return [
        _run(settings, "table1", network, trained=trained, dataset=dataset, seed=seed)
        for seed in range(settings.seeds)
        for dataset in settings.datasets
        for network in (settings.densenet, settings.wrn)
        for trained in ("bn", "conv1", "block1", "block2", "block3", "fc")
    ]


def _table2(settings: Settings) -> list[RunConfig]:
    """Those of figure 5's runs that the paper prints: on CIFAR-10, the first of the data sets."""
    return [
        run
        for run in _fig5(settings)
        if run.dataset == settings.datasets[0]
        and (run.learned in TABLE2_FRACTIONS or run.learns_all_slices)
    ]


def _table3(settings: Settings) -> list[RunConfig]:
    epochs = settings.epochs["table3"]
    return [
        _run(
            settings,
            "table3",
            settings.wrn,
            learned,
            dataset=settings.tiny_dataset,
            subset=settings.tiny_subset,
            milestones=_milestones(TINY_MILESTONES, TINY_EPOCHS, epochs),
            keep=True,
            seed=seed,
            **TINY_RECIPE,
        )
        for seed in range(settings.seeds)
        for learned in settings.tiny_fractions
    ]


def _table4(settings: Settings) -> list[RunConfig]:
    """For every seed the network that all start from, then ensembles of each kind."""
    return [
        run
        for seed in range(settings.seeds)
        for run in _ensembles(settings, {"dataset": settings.datasets[0], "seed": seed})
    ]


def _ensembles(settings: Settings, fields: dict[str, Any]) -> Iterator[RunConfig]:
    start = _run(settings, "table4", settings.densenet, keep=True, **fields)
    yield start
    kinds: list[dict[str, Any]] = [{"trained": "fc"}]
    kinds += [{"learned": fraction} for fraction in settings.ensemble_fractions]
    optimizers: list[dict[str, Any]] = [{}, {"optimizer": "adam", "lr": ADAM_LR}]
    for kind in kinds:
        for optimizer in optimizers:
            yield _run(
                settings,
                "table4",
                settings.densenet,
                start=start.key,
                members=settings.ensemble_members,
                **kind,
                **optimizer,
                **fields,
            )


_LISTED = (
    Experiment(
        "fig1", "Accuracy when a part of each layer's filters is learned", "Figure 1", _fig1
    ),
    Experiment("fig2", "Which dimension of the filter banks is sliced", "Figure 2", _fig2),
    Experiment("fig3", "Accuracy against the logarithm of learned parameters", "Figure 3", _fig1),
    Experiment("fig4", "BatchNorm learned or not", "Figure 4", _fig4),
    Experiment("fig5", "Full training runs", "Figure 5", _fig5),
    Experiment("fig6", "Magnitudes of learned and fixed weights per layer", "Figure 6", _table3),
    Experiment("table1", "Only one part of the network is learned", "Table 1", _table1),
    Experiment("table2", "Random against zeroed weights, full runs", "Table 2", _table2),
    Experiment("table3", "Tiny-ImageNet", "Table 3", _table3),
    Experiment("table4", "Ensembles that share weights", "Table 4", _table4),
)
EXPERIMENTS: Mapping[str, Experiment] = MappingProxyType({item.id: item for item in _LISTED})


def select(ids: Iterable[str]) -> list[Experiment]:
    """The experiments named, in the paper's order; none or "all" means all.

    Raises:
        ValueError: an unknown id; the message lists those that there are.
    """
    wanted = set(ids) or {"all"}
    if unknown := sorted(wanted - set(EXPERIMENTS) - {"all"}):
        raise ValueError(
            f"unknown experiment {', '.join(unknown)}; expected {', '.join(EXPERIMENTS)} or all"
        )
    return [item for item in _LISTED if item.id in wanted or "all" in wanted]
