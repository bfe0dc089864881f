"""The paper's figures and tables, each as the runs it is made of. Free of torch itself; listing
runs asks the models for their recipes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from maskedconv.experiments.config import RunConfig
from maskedconv.experiments.presets import Network, Settings

FROZEN = ("random", "zero")
ALL_WEIGHTS = 1.0


@dataclass(frozen=True)
class Experiment:
    """A figure or table of Rosenfeld & Tsotsos 2018.

    Attributes:
        id: as on the command line.
        title: what it shows.
        reference: where in the paper.
        build: makes its runs; None if this version cannot.
    """

    id: str
    title: str
    reference: str
    build: Callable[[Settings], list[RunConfig]] | None = None

    @property
    def built(self) -> bool:
        """Whether this version can run it."""
        return self.build is not None

    def runs(self, settings: Settings) -> list[RunConfig]:
        """Its runs under ``settings``; ValueError if it is not built."""
        if self.build is None:
            raise ValueError(f"{self.id} is not built yet; built: {', '.join(built_ids())}")
        return self.build(settings)


def _run(
    settings: Settings,
    experiment: str,
    network: Network,
    learned: float | int = ALL_WEIGHTS,
    lr: float | None = None,
    **fields: Any,
) -> RunConfig:
    from maskedconv.models import recipe

    recipe_ = recipe(network.model)
    return RunConfig(
        model=network.model,
        learned=learned,
        epochs=settings.epochs[experiment],
        batch_size=settings.batch_size or recipe_.batch_size,
        lr=recipe_.lr if lr is None else lr,
        momentum=recipe_.momentum,
        weight_decay=recipe_.weight_decay,
        milestones=recipe_.milestones,
        gamma=recipe_.gamma,
        nesterov=recipe_.nesterov,
        schedule=recipe_.schedule,
        subset=settings.subset,
        options=network.options,
        **fields,
    )


def _fig1(settings: Settings) -> list[RunConfig]:
    shares = [*settings.fractions, *settings.counts]
    settings_of_a_network = [(share, frozen) for share in shares for frozen in FROZEN]
    # The reference with every weight learned, beside the paper's settings.
    settings_of_a_network.append((ALL_WEIGHTS, "random"))
    return [
        _run(settings, "fig1", network, learned, lr, frozen=frozen, dataset=dataset, seed=seed)
        for seed in range(settings.seeds)
        for dataset in settings.datasets
        for network in settings.networks
        for lr in network.lrs or (None,)
        for learned, frozen in settings_of_a_network
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
        for learned in (*settings.slice_fractions, *settings.slice_counts)
        for frozen in FROZEN
    ]


def _table1(settings: Settings) -> list[RunConfig]:
    return [
        _run(settings, "table1", network, trained=trained, dataset=dataset, seed=seed)
        for seed in range(settings.seeds)
        for dataset in settings.datasets
        for network in (settings.densenet, settings.wrn)
        for trained in ("bn", "conv1", "block1", "block2", "block3", "fc")
    ]


_LISTED = (
    Experiment(
        "fig1", "Accuracy when a part of each layer's filters is learned", "Figure 1", _fig1
    ),
    Experiment("fig2", "Which dimension of the filter banks is sliced", "Figure 2", _fig2),
    Experiment("fig3", "Accuracy against the logarithm of learned parameters", "Figure 3", _fig1),
    Experiment("fig4", "BatchNorm learned or not", "Figure 4"),
    Experiment("fig5", "Full training runs", "Figure 5"),
    Experiment("fig6", "Magnitudes of learned and fixed weights per layer", "Figure 6"),
    Experiment("table1", "Only one part of the network is learned", "Table 1", _table1),
    Experiment("table2", "Random against zeroed weights, full runs", "Table 2"),
    Experiment("table3", "Tiny-ImageNet", "Table 3"),
    Experiment("table4", "Ensembles that share weights", "Table 4"),
)
EXPERIMENTS: Mapping[str, Experiment] = MappingProxyType({item.id: item for item in _LISTED})


def built_ids() -> list[str]:
    """Ids of the experiments that this version can run, in the paper's order."""
    return [item.id for item in _LISTED if item.built]


def select(ids: Iterable[str]) -> list[Experiment]:
    """The experiments named, in the paper's order; none or "all" means all that are built.

    Raises:
        ValueError: an unknown id, or one that is not built; the message lists those that are.
    """
    wanted = set(ids) or {"all"}
    if unknown := sorted(wanted - set(EXPERIMENTS) - {"all"}):
        raise ValueError(
            f"unknown experiment {', '.join(unknown)}; expected {', '.join(EXPERIMENTS)} or all"
        )
    if missing := [id_ for id_ in EXPERIMENTS if id_ in wanted and not EXPERIMENTS[id_].built]:
        raise ValueError(f"{', '.join(missing)}: not built yet; built: {', '.join(built_ids())}")
    return [item for item in _LISTED if item.id in wanted or ("all" in wanted and item.built)]
