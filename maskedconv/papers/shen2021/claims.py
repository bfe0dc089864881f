"""The claims of one-layer lottery tickets and hidden-fold networks, and their criteria.

The thresholds were fixed before the first runs.
"""

from __future__ import annotations

from collections.abc import Iterator

from maskedconv.papers.shen2021.presets import KEPT
from maskedconv.papers.shen2021.printed import OF_TRAINED
from maskedconv.papers.shen2021.runs import OWN, SHARED, TRAINED, UNTRAINED, kept, kind, translates
from maskedconv.report.claims import Case, Claim
from maskedconv.report.measured import (
    Measured,
    accuracy,
    all_of,
    at_most,
    exceeds,
    over_common_seeds,
)
from maskedconv.report.results import SeedGroup, dataset_title, signed
from maskedconv.report.tables import count
from maskedconv.runs.row import InferenceBytes

FAR = 30.0  # points above the untrained network
NEAR = 5.0  # points that sharing may cost


def by_network(settings: list[SeedGroup]) -> dict[str, dict[str, SeedGroup]]:
    """The settings at ``KEPT`` of each network and data set, by kind."""
    grouped: dict[str, dict[str, SeedGroup]] = {}
    for setting in settings:
        config = setting.config
        if kept(config) in (KEPT, 1.0):
            name = f"{config.model}, {dataset_title(config.dataset)}"
            grouped.setdefault(name, {})[kind(config)] = setting
    return grouped


def _pairs(
    settings: list[SeedGroup], first: str, second: str, translating: bool
) -> Iterator[tuple[str, Measured, Measured, tuple[SeedGroup, SeedGroup]]]:
    """Networks with finished runs of two kinds: name, their accuracies, and the settings.

    The accuracies are over the seeds that both have.
    """
    for name, found in by_network(settings).items():
        if first in found and second in found:
            both = found[first], found[second]
            ours, theirs = map(accuracy, both)
            if translates(both[0].config) == translating and ours and theirs:
                ours, theirs = over_common_seeds(ours, theirs)
                yield name, ours, theirs, both


def learns(settings: list[SeedGroup]) -> Iterator[Case]:
    for name, shared, floor, _ in _pairs(settings, SHARED, UNTRAINED, True):
        evidence = f"{shared} against {floor} with nothing learned"
        yield Case(name, exceeds(shared - floor, FAR), evidence)


def near_trained(settings: list[SeedGroup]) -> Iterator[Case]:
    for name, shared, trained, _ in _pairs(settings, SHARED, TRAINED, True):
        evidence = f"{shared} against {trained} with trained weights"
        yield Case(name, exceeds(shared / OF_TRAINED - trained), evidence)


def _sharing(settings: list[SeedGroup], translating: bool) -> Iterator[Case]:
    for name, shared, own, both in _pairs(settings, SHARED, OWN, translating):
        less, more = (setting.inference_bytes for setting in both)
        if less is not None and more is not None:
            smaller = less["in_memory"] < more["in_memory"]
        elif shared.known and own.known:
            continue
        else:
            smaller = None
        evidence = (
            f"{shared} against {own} ({signed(shared.value - own.value)}), "
            f"{_memory(less)} against {_memory(more)} bytes in memory"
        )
        yield Case(name, all_of(smaller, at_most(own - shared, NEAR)), evidence)


def _memory(sizes: InferenceBytes | None) -> str:
    return count(sizes["in_memory"] if sizes else None)


def one_layer_suffices(settings: list[SeedGroup]) -> Iterator[Case]:
    return _sharing(settings, translating=True)


def folding_suffices(settings: list[SeedGroup]) -> Iterator[Case]:
    return _sharing(settings, translating=False)


_PAPER = "abstract"
CLAIMS = (
    Claim(
        "one-layer-learns",
        "A one-layer randomly weighted Transformer translates without any weight being learned.",
        _PAPER,
        f"Exact matches of the shared ticket that keeps {KEPT:g} of the weights exceed those of "
        f"the same network with nothing learned by at least {FAR:g} points.",
        learns,
    ),
    Claim(
        "one-layer-near-trained",
        "It comes near the trained Transformer of its size.",
        _PAPER,
        f"Exact matches are at least {100 * OF_TRAINED:.1f} % of the trained Transformer's, the "
        "paper's own ratio of BLEU on IWSLT14.",
        near_trained,
    ),
    Claim(
        "one-layer-suffices",
        "One layer of weights for all layers does as well as weights of each layer's own, and "
        "needs less memory.",
        "section 3",
        f"The shared ticket has at most {NEAR:g} points fewer exact matches than masks over "
        "weights of each layer's own, and fewer bytes in memory.",
        one_layer_suffices,
    ),
    Claim(
        "hidden-fold",
        "The blocks of a ResNet's stage can share one frozen weight (hidden-fold networks).",
        "López García-Arias et al. 2021",
        f"The folded ResNet has at most {NEAR:g} points less top-1 than masks over weights of each "
        "layer's own, and fewer bytes in memory.",
        folding_suffices,
    ),
)
