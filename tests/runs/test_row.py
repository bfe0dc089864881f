"""The row of a run: what it says of the epochs."""

from __future__ import annotations

from maskedconv.runs.row import outcome
from maskedconv.training.history import Epoch, History


def test_a_row_has_the_last_and_the_first_best_epoch():
    tops = [10.0, 50.0, 50.0, 40.0]
    history = History([Epoch(n, 1.0, 1.0, 1.0, top, 1.0, 0.1) for n, top in enumerate(tops, 1)])
    found = outcome(history)
    assert (found["best_top1"], found["best_epoch"], found["last_top1"]) == (50.0, 2, 40.0)
    assert [epoch["test_top1"] for epoch in found["history"]] == tops


def test_a_row_without_an_epoch():
    assert outcome(History()) == {
        "history": [], "last_top1": None, "best_top1": None, "best_epoch": None
    }  # fmt: skip
