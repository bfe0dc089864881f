"""Runs of another method than ``slice``."""

from __future__ import annotations

import json
from dataclasses import replace

import killed_runs
import pytest
import torch
from report_samples import config
from scale_method import Scale, ScaledConv2d

from maskedconv import count_parameters
from maskedconv.methods import METHODS
from maskedconv.runs import RunConfig, same
from maskedconv.runs.execute import build_model, execute
from maskedconv.runs.same import learned_fraction, trained_for
from maskedconv.runs.store import Loaded

SCALE = replace(
    killed_runs.SMALL, learned=1.0, keep=False, method="scale", method_options=(("start", 0.5),)
)


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(METHODS, "scale", Scale)


def test_the_network_is_of_the_method():
    model = build_model(SCALE, 2, (1, 8, 8))
    assert model.conv1.scale.detach().unique().tolist() == [0.5]
    only_fc = build_model(replace(SCALE, trained="fc", bn_learned=False), 2, (1, 8, 8))
    assert count_parameters(only_fc).learned == sum(p.numel() for p in only_fc.fc.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "scales"}, "method is 'scales'; expected one of slice, "),
        ({"method_options": (("end", 1),)}, "method scale has no option 'end'"),
    ],
)
def test_an_unknown_method_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        build_model(replace(SCALE, **changes), 2, (1, 8, 8))


def test_it_is_trained_and_its_row_reads_back(tmp_path):
    row = execute(SCALE, killed_runs.small_dataset(), folder=tmp_path)
    assert row["status"] == "done", row["error"]
    layers = [m for m in build_model(SCALE, 2, (1, 8, 8)).modules() if isinstance(m, ScaledConv2d)]
    filters = sum(layer.scale.numel() for layer in layers)
    assert row["total_parameters"] - row["learned_parameters"] == (
        sum(layer.directions.numel() for layer in layers) - filters
    )
    assert RunConfig.from_json(json.loads(json.dumps(row["config"]))) == SCALE


def test_it_equals_no_other_run():
    plain = config(learned=1.0)
    runs = [plain, replace(plain, method="scale"), replace(plain, method="norm_only")]
    runs.append(replace(plain, method="scale", method_options=(("start", 0.5),)))
    trained = trained_for(runs, Loaded())
    assert [trained[run.key] for run in runs] == runs


def test_fraction_of_a_method():
    run = config("wrn_10_1", learned=1.0, method="scale")
    shapes = same._weight_shapes("wrn_10_1", run.options, 1)
    filters, weights = sum(s[0] for s in shapes), sum(torch.Size(s).numel() for s in shapes)
    assert learned_fraction(run) == filters / weights
    assert learned_fraction(replace(run, method="slice")) == 1.0
