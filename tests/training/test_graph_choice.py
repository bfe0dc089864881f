"""The choice of ``--graph``, and the reasons why a step is not captured."""

from __future__ import annotations

import pytest

from maskedconv.optim import CAPTURABLE, OPTIMIZERS
from maskedconv.training.graph import check_graph


def test_the_others_are_capturable():
    assert set(OPTIMIZERS) - set(CAPTURABLE) == {"yellowfin"}


def test_reasons():
    assert check_graph("auto", "cuda", ["sgd", "adam"]) == []
    (reason,) = check_graph("auto", "cuda", ["sgd", "yellowfin", "yellowfin"])
    assert reason == "yellowfin computes some numbers of its step on the host"
    assert len(check_graph("off", "cpu", ["sgd", "yellowfin"])) == 1
    with pytest.raises(ValueError, match="graph is 'on', but yellowfin computes"):
        check_graph("on", "cuda", ["sgd", "yellowfin"])
    with pytest.raises(ValueError, match="graph is 'yes'; expected one of auto, on, off"):
        check_graph("yes", "cuda", [])
