"""The choice of ``--graph``, and the reasons why a step is not captured."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from maskedconv.data.share import WHOLE
from maskedconv.optim import CAPTURABLE, OPTIMIZERS
from maskedconv.training.config import TrainingConfig
from maskedconv.training.graph import check_graph
from maskedconv.training.loop import train


def test_the_others_are_capturable():
    assert set(OPTIMIZERS) - set(CAPTURABLE) == {"yellowfin"}


def test_reasons():
    assert check_graph("auto", "cuda", ["sgd", "adam"]) == []
    (reason,) = check_graph("auto", "cuda", ["sgd", "yellowfin", "yellowfin"])
    assert reason == "yellowfin computes some numbers of its step on the host"
    assert len(check_graph("off", "cpu", ["sgd", "yellowfin"])) == 1
    with pytest.raises(ValueError, match="graph is 'on', but yellowfin computes"):
        check_graph("on", "cuda", ["sgd", "yellowfin"])
    with pytest.raises(ValueError, match="graph is 'on', but a step of several processes is eager"):
        check_graph("on", "cuda", ["sgd"], processes=2)
    with pytest.raises(ValueError, match="graph is 'yes'; expected one of auto, on, off"):
        check_graph("yes", "cuda", [])


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        ("sgd", "graph is 'on', but a CUDA graph needs the device cuda, not cpu; expected auto or"),
        ("yellowfin", "graph is 'on', but a CUDA graph needs the device cuda, not cpu"),
    ],
)
def test_on_without_cuda_is_an_error_before_any_work(optimizer, words):
    class Untouched:
        def parameters(self):
            raise AssertionError

    dataset = SimpleNamespace(device=torch.device("cpu"), share=WHOLE)
    config = TrainingConfig(
        epochs=1, batch_size=8, lr=0.1, momentum=0.9, weight_decay=0.0, milestones=(), gamma=0.1,
        optimizer=optimizer,
    )  # fmt: skip
    with pytest.raises(ValueError, match=words):
        train(Untouched(), dataset, config, graph="on")
