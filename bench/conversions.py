"""Converts published networks by every method, and compares them with the originals.

``python -m bench.conversions --out bench/results/conversions.md`` writes the tables, in some
minutes on one core. Names on the command line choose networks.
"""

from __future__ import annotations

import argparse
import copy
import math
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.published import BUILDERS, build, example, output
from maskedconv import conversion_report, convert_, count_parameters, merge_, methods
from maskedconv.conversion.report import ConversionReport
from maskedconv.methods import Method
from maskedconv.nn.partly_learned import PartlyLearned
from maskedconv.nn.positions import AtPositions
from maskedconv.nn.scored import ScoredLayer

METHODS: dict[str, Method] = {
    "slice": methods.slice(0.1),
    "slice, slice_dim=1": methods.slice(0.1, slice_dim=1),
    "norm_only": methods.norm_only(),
    "random_positions": methods.random_positions(100),
    # All weights are kept, as they were, so that the output equals the original's.
    "supermask": methods.supermask(1.0, weights="keep", scale=False),
    "biprop": methods.biprop(0.5),
}


@dataclass(frozen=True)
class Converted:
    """A converted network beside the original.

    Attributes:
        report: of the converted network; None if the method refuses the network.
        refusal: the reason, or an empty string.
        share: learned fraction of all parameters, in [0, 1].
        same_output: whether no bit of the output changed.
        gradient_error: the largest ``|g - g'| / |g'|`` of a layer, of its learned values and those
            of the original (L2 norms).
        merged: whether ``merge_`` restores the keys, the values and the output.
    """

    report: ConversionReport | None
    refusal: str = ""
    share: float = 0.0
    same_output: bool = False
    gradient_error: float = 0.0
    merged: bool = False


def compare(name: str, method: Method) -> Converted:
    """Converts the network by ``method``, and compares it with the original.

    Biprop's original is the merged network, because its conversion replaces the weights.
    """
    torch.manual_seed(1)
    # This memory format has compiled gradients.
    original = build(name).to(memory_format=torch.channels_last)
    # In this format, PyTorch's GroupNorm crashes if the gradient of its input is not asked for.
    x = example(name).to(memory_format=torch.channels_last).requires_grad_()
    model = copy.deepcopy(original)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            convert_(model, method=method, rest="learn")
        except ValueError as error:
            return Converted(None, str(error))
    if isinstance(method, methods.biprop):
        original = merge_(copy.deepcopy(model))
    expected, got = output(original, x), output(model, x)
    direction = torch.randn_like(expected)
    expected.backward(direction)
    got.backward(direction)
    report, share = conversion_report(model), count_parameters(model).fraction
    error = max(_gradient_errors(model, original), default=0.0)
    merged = _restored(merge_(model), original, x)
    return Converted(report, "", share, torch.equal(got, expected), error, merged)


def _gradient_errors(model: nn.Module, original: nn.Module) -> Iterator[float]:
    for name, layer in model.named_modules():
        if isinstance(layer, PartlyLearned):
            plain = original.get_submodule(name)
            for own, reference in _gradients(layer, plain):
                error, scale = float((own - reference).norm()), float(reference.norm())
                # A gradient that is not finite is no evidence.
                yield (error / scale if scale else error) if math.isfinite(scale) else math.inf


def _gradients(layer: PartlyLearned, plain: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    """Gradients of learned values, and the same from the original's gradients."""
    if isinstance(layer, AtPositions) and layer.values is not None:
        assert layer.positions is not None
        yield _grad(layer.values), _grad(plain.weight).flatten()[layer.positions]
    if isinstance(layer, ScoredLayer):
        signs = layer.scores.detach().sign()
        yield _grad(layer.scores), _grad(plain.weight) * layer.frozen * signs
    for part in layer.learned_parts():
        if part.tensor is not None and part.tensor.requires_grad:
            whole = _grad(getattr(plain, part.plain))
            yield _grad(part.tensor), whole.narrow(part.dim, 0, part.tensor.size(part.dim))


def _grad(value: object) -> Tensor:
    """The gradient; zeros for a parameter that the output does not depend on."""
    assert isinstance(value, Tensor)
    return torch.zeros_like(value) if value.grad is None else value.grad


@torch.no_grad()
def _restored(merged: nn.Module, original: nn.Module, x: Tensor) -> bool:
    state, before = merged.state_dict(), original.state_dict()
    types = [type(one) for one in merged.modules()] == [type(one) for one in original.modules()]
    same = list(state) == list(before) and all(
        torch.equal(state[key], before[key]) for key in state
    )
    return types and same and torch.equal(output(merged, x), output(original, x))


def other_kinds(report: ConversionReport) -> str:
    """The layers that are left as they are, by their types: ``2 Linear``."""
    kinds = [one.kind for one in report.others.values()]
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))


def _row(name: str, one: Converted) -> str:
    if one.report is None:
        return f"| {name} | 0 | all: {one.refusal.rpartition(': ')[2]} | | | | |"
    others = other_kinds(one.report)
    shown = others if len(others) <= 60 else others[:60].rpartition(",")[0] + ", …"
    return (
        f"| {name} | {len(one.report.converted)} | {shown} | {one.share:.1%} | "
        f"{_word(one.same_output)} | {one.gradient_error:.0e} | {_word(one.merged)} |"
    )


def _word(value: bool) -> str:
    return "yes" if value else "NO"


def _summary(method: str, results: Iterable[Converted]) -> str:
    results = list(results)
    taken = [one for one in results if one.report is not None]
    worst = max((one.gradient_error for one in taken), default=0.0)
    same = sum(one.same_output for one in taken)
    merged = sum(one.merged for one in taken)
    refused = len(results) - len(taken)
    return f"| {method} | {len(taken)} | {refused} | {same} | {worst:.0e} | {merged} |"


def tables(names: Iterable[str]) -> str:
    """Both tables, in Markdown."""
    names = list(names)
    found = {
        method: {name: compare(name, value) for name in names} for method, value in METHODS.items()
    }
    sliced = [_row(name, one) for name, one in found["slice"].items()]
    return "\n".join([
        "# Converted networks beside the originals", "",
        f"`python -m bench.conversions`: {len(names)} networks of timm and torchvision, random",
        "weights, channels_last, CPU.",
        "Gradient: largest relative L2 difference of a layer to the original's slice.", "",
        "## learned=0.1", "",
        "| network | converted | left as they are | learned | same output | gradient | merged |",
        "|---|--:|---|--:|---|--:|---|", *sliced, "",
        "## Other methods: number of networks", "",
        "| method | converted | refused | same output | gradient | merged |",
        "|---|--:|--:|--:|--:|--:|",
        *(_summary(method, results.values()) for method, results in found.items()), "",
        "The supermask keeps all weights (k=1). Biprop binarises them: it is compared with what",
        "merge_ makes of it. Refused: all layers are subclasses or, for these two, have a bias.",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", help="names; all by default")
    parser.add_argument("--out", type=Path, help="file for the tables, besides the terminal")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.networks if name not in BUILDERS]:
        parser.error(f"no network {unknown[0]!r}; expected some of {', '.join(BUILDERS)}")
    text = tables(arguments.networks or BUILDERS)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
