"""Chooses the training step of a configuration: eager, compiled, captured."""

from __future__ import annotations

from torch.optim import Optimizer

from maskedconv.data import Task
from maskedconv.training.batch_loss import BatchLoss
from maskedconv.training.captured_step import CapturedStep
from maskedconv.training.compiled import compiled
from maskedconv.training.config import TrainingConfig
from maskedconv.training.cuda_graphs import CudaGraphs
from maskedconv.training.eager_step import EagerStep, Step
from maskedconv.training.graph import check_graph
from maskedconv.training.ranks import ranks_of
from maskedconv.training.state import Position


def make_step(position: Position, config: TrainingConfig, graph: str, dataset: Task) -> Step:
    """The step that trains ``position.model``, with all processes that share ``dataset``.

    Args:
        graph: "auto", "on" or "off", see :func:`maskedconv.training.loop.train`.
    """
    optimizer, device, share = position.optimizer, position.device, dataset.share
    model = ranks_of(share).parallel(position.model)
    forward = compiled(model) if config.compile else model
    step = EagerStep(forward, optimizer, config.amp == "bf16", BatchLoss(dataset).loss)
    if graph == "off" or check_graph(graph, device.type, [config.optimizer], share.count):
        return step

    def host_values() -> object:
        # The peak memory of a run counts from the second epoch on (runs.execute). A replay
        # allocates nothing, so the peak must contain a capture.
        return _settings(optimizer), bool(position.history.epochs)

    return CapturedStep(step, config.batch_size, host_values, CudaGraphs(device), graph == "on")


def _settings(optimizer: Optimizer) -> list[dict[str, object]]:
    """The learning rate and the other settings of each group of parameters."""
    return [
        {name: value for name, value in group.items() if name != "params"}
        for group in optimizer.param_groups
    ]
