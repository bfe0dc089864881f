"""The paper's claims and their criteria, whose thresholds were fixed before the first runs."""

from __future__ import annotations

from collections.abc import Iterator

from maskedconv.papers.diffenderfer2021.printed import (
    CIFAR10,
    EPOCHS,
    activation_of,
    learns_norm,
    run_of,
)
from maskedconv.report.claims import Case, Claim
from maskedconv.report.masks import kept_fraction, method_option
from maskedconv.report.measured import (
    Measured,
    accuracy,
    at_most,
    beside_printed,
    exceeds,
    near,
    over_common_seeds,
)
from maskedconv.report.results import (
    SeedGroup,
    dataset_title,
    is_reference,
    network_label,
    signed,
)

CLEAR = 2.0  # points by which one accuracy must exceed another


def _named(setting: SeedGroup) -> str:
    config = setting.config
    activation = ", binary activations" if activation_of(config) == "sign" else ""
    return f"{network_label(config)}{activation}, {dataset_title(config.dataset)}"


def _best_of_each(
    settings: list[SeedGroup], activation: str
) -> Iterator[tuple[str, Measured, SeedGroup]]:
    """Name, accuracy of the best binary subnetwork, and its run, of each network and data set."""
    found: dict[str, tuple[Measured, SeedGroup]] = {}
    for setting in settings:
        if setting.config.method != "biprop" or activation_of(setting.config) != activation:
            continue
        top1, name = accuracy(setting), _named(setting)
        if top1 and (name not in found or top1.value > found[name][0].value):
            found[name] = top1, setting
    yield from ((name, *pair) for name, pair in found.items())


def close_to_learned(settings: list[SeedGroup]) -> Iterator[Case]:
    learned = {_named(s): accuracy(s) for s in settings if is_reference(s.config)}
    for name, top1, setting in _best_of_each(settings, "relu"):
        if (reference := learned.get(name)) is not None:
            gap = reference - top1
            evidence = (
                f"learned minus binary: {signed(gap.value)} points at "
                f"k = {kept_fraction(setting.config):g}"
            )
            yield Case(name, at_most(gap, CLEAR), evidence)


def binary_activations(settings: list[SeedGroup]) -> Iterator[Case]:
    learned: dict[tuple[str, str], Measured] = {}
    for one in settings:
        top1, where = accuracy(one), (one.config.model, one.config.dataset)
        if is_reference(one.config) and top1 is not None:
            learned[where] = max(top1, learned.get(where, top1), key=lambda found: found.value)
    for name, top1, setting in _best_of_each(settings, "sign"):
        where = setting.config.model, setting.config.dataset
        if (reference := learned.get(where)) is not None:
            ours, reference = over_common_seeds(top1, reference)
            gap = reference - ours
            evidence = f"{ours}, learned weights {reference}: {signed(gap.value)} points"
            yield Case(name, at_most(gap, CLEAR), evidence)


def learned_norm(settings: list[SeedGroup]) -> Iterator[Case]:
    pairs: dict[tuple[str, float], dict[bool, Measured]] = {}
    for setting in settings:
        config, top1 = setting.config, accuracy(setting)
        layerwise = method_option(config, "threshold") in (None, "layer")
        if config.method == "biprop" and layerwise and top1 is not None:
            key = _named(setting), kept_fraction(config)
            pairs.setdefault(key, {})[learns_norm(config)] = top1
    for (name, k), pair in pairs.items():
        if len(pair) == 2:
            learned, fixed = over_common_seeds(pair[True], pair[False])
            evidence = f"learned {learned}, fixed {fixed}"
            yield Case(f"{name}, k = {k:g}", exceeds(learned - fixed), evidence)


def printed(settings: list[SeedGroup]) -> Iterator[Case]:
    for number in CIFAR10:
        setting = run_of(number, settings)
        top1 = accuracy(setting)
        if top1 is not None:
            holds = near(top1, number.top1, CLEAR)
            yield Case(number.network, holds, beside_printed(top1, number.top1))


CLAIMS = (
    Claim(
        "binary-subnetworks",
        "A random network contains a binary subnetwork with the accuracy of the network with "
        "learned weights.",
        "prize 1, prize 2",
        f"The best k: less than {CLEAR:g} points below learned weights.",
        close_to_learned,
    ),
    Claim(
        "binary-activations",
        "There are such subnetworks even if the activations are binary too.",
        "prize 3",
        f"The best run with binary activations: less than {CLEAR:g} points below the same "
        "architecture with learned weights and ReLU, at any width.",
        binary_activations,
    ),
    Claim(
        "learned-norm",
        "Learning BatchNorm's affine parameters as well raises the accuracy.",
        "MPT + BN",
        "The same network and k: learned exceeds fixed.",
        learned_norm,
    ),
    Claim(
        "printed-accuracy",
        "VGG-Small and ResNet-18 reach the printed accuracies on CIFAR-10.",
        "tables of CIFAR-10",
        f"{EPOCHS} epochs: within {CLEAR:g} points of the printed number.",
        printed,
        printed=True,
        named=tuple(number.network for number in CIFAR10),
    ),
)
