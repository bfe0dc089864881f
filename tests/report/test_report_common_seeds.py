"""A verdict and its evidence are over the seeds that its settings have in common."""

from __future__ import annotations

import pytest
from report_samples import config, results_of

from maskedconv.papers.shen2021.runs import UNTRAINED_LR
from maskedconv.report.claims import judge
from maskedconv.runs.config import RunConfig

# Settings that a claim compares, the better one first.
_SIGNED, _KAIMING = ((("k", 0.5), ("weights", name)) for name in ("signed_constant", "kaiming"))
_HALF = (("k", 0.5),)
_SHARED = {"method": "supermask", "method_options": _HALF, "options": (("fold", True),)}
_BINARY = {"method": "biprop", "method_options": _HALF, "options": (("activation", "sign"),)}
COMPARED = {
    "filters-best": ("fig2", [config(learned=0.1, slice_dim=dim) for dim in (0, 1)]),
    "bn-networks": ("fig1", [config(model, learned=0.1) for model in ("wrn_10_1", "alexnet")]),
    "tiny-imagenet": ("table3", [config("wrn_10_1", learned=p) for p in (0.4, 0.1)]),
    "block-beats-fc": ("table1", [config(trained=part) for part in ("block2", "fc")]),
    "bn-above-random-positions": (
        "bnonly",
        [
            config("resnet_14", method="norm_only"),
            config("resnet_14", method="random_positions", method_options=(("count", 1_120),)),
        ],
    ),
    "signed-constant": (
        "supermask",
        [config("conv2", method="supermask", method_options=o) for o in (_SIGNED, _KAIMING)],
    ),
    "middle-fraction": (
        "supermask",
        [
            config("conv2", method="supermask", method_options=(("k", k), *_SIGNED[1:]))
            for k in (0.5, 0.3, 0.7)
        ],
    ),
    "learned-norm": (
        "biprop",
        [
            config("resnet18", method="biprop", method_options=(*_HALF, ("norm_learned", True))),
            config("resnet18", method="biprop", method_options=_HALF),
        ],
    ),
    "one-layer-learns": (
        "onelayer",
        [config("transformer", **_SHARED), config("transformer", **_SHARED, lr=UNTRAINED_LR)],
    ),
    "one-layer-near-trained": (
        "onelayer",
        [config("transformer", **_SHARED), config("transformer")],
    ),
    "one-layer-suffices": (
        "onelayer",
        [
            config("transformer", **_SHARED),
            config("transformer", method="supermask", method_options=_HALF),
        ],
    ),
    "binary-activations": (
        "biprop",
        [config("resnet18"), config("resnet18", **_BINARY)],
    ),
}


@pytest.mark.parametrize("claim", sorted(COMPARED))
@pytest.mark.parametrize("common", [True, False])
def test_the_evidence_has_the_seeds_that_were_compared(tmp_path, claim, common):
    """Seed 1 of the better setting brings its mean below the other one's."""
    item, (more, *less) = COMPARED[claim]
    runs = [more, more.with_seed(1), *(run.with_seed(0 if common else 2) for run in less)]
    tops = {more.key: 60.0, more.with_seed(1).key: 20.0}
    results = results_of(tmp_path, {item: runs}, lambda run: tops.get(run.key, 50.0))
    (verdict,) = [one for one in judge(results) if one.claim.id == claim]
    found = next(case for case in verdict.cases if "50.00 %" in case.evidence)
    assert ("60.00 %" in found.evidence, "40.00 %" in found.evidence) == (common, not common)
    if not common:
        assert found.holds is None
        assert "inf" not in found.evidence


def test_differences_that_are_compared_have_the_same_seeds(tmp_path):
    """Seed 1 was run at p = 0.1 and width 0.5 only, where it differs much."""
    runs = [
        config("wrn_10_1", learned=learned, frozen=frozen, seed=seed, bn_learned=bn)
        for learned, seeds in ((0.1, (0, 1)), (1, (0,)), (0.4, (0,)))
        for seed in seeds
        for frozen in ("random", "zero")
        for bn in (True, False)
    ]

    def top1(run: RunConfig) -> float:
        lost = 10.0 if run.seed == 0 else 30.0
        worse = run.frozen == "zero" or run.method == "supermask"
        return 80.0 - lost * worse - 0.5 * lost * (not run.bn_learned)

    masks = {"method": "supermask", "method_options": _SIGNED}
    wide = [
        config("conv2", seed=seed, options=(("width", width),), **fields)
        for width, seeds in ((0.5, (0, 1)), (2.0, (0,)))
        for seed in seeds
        for fields in ({}, masks)
    ]
    learned = [run for run in runs if run.bn_learned]
    results = results_of(tmp_path, {"fig1": learned, "fig4": runs, "supermask": wide}, top1)
    evidence = {v.claim.id: v.cases[0].evidence for v in judge(results) if v.cases}
    assert evidence["width-closes-the-gap"] == (
        "learned minus supermask: +10.0 points at width 0.5, +10.0 at width 2"
    )
    assert evidence["random-beats-zero"] == "mean +10.0 points (p = 0.1: +10.0, k = 1: +10.0)"
    assert evidence["gap-closes"] == "+10.0 points at p = 0.1, +10.0 at p = 0.4"
    assert "15.0" not in evidence["bn-helps"]
    assert evidence["bn-helps"].startswith("mean +5.0 points")
