"""Executes one run: from its configuration to its row."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from maskedconv import env, methods, models
from maskedconv.counting import count_inference_bytes, count_parameters
from maskedconv.data import Dataset, Task
from maskedconv.data.share import WHOLE, Share
from maskedconv.runs.checkpoints import checkpoint_path
from maskedconv.runs.config import LATER_FIELDS, RunConfig
from maskedconv.runs.ensemble import Fit, freeze_unlearned_, member_epochs, train_members
from maskedconv.runs.masks import describe_masks
from maskedconv.runs.norms import describe_norms, norms_row
from maskedconv.runs.parts import SLICE
from maskedconv.runs.peak_memory import forgetting_the_first_peak, peak, reset_peak
from maskedconv.runs.row import InferenceBytes, Row, begin_row, fail, outcome
from maskedconv.runs.store import StoreError
from maskedconv.runs.weights import keep_weights, start_from, weights_path
from maskedconv.seeds import Purpose, mixed_seed
from maskedconv.selection import select_learned_
from maskedconv.training.checkpoint import Checkpoint
from maskedconv.training.evaluation import autocast
from maskedconv.training.graph import check_graph
from maskedconv.training.history import Diverged, Epoch, History
from maskedconv.training.loop import train
from maskedconv.training.ranks import LostProcess


def build_model(config: RunConfig, num_classes: int, image_shape: tuple[int, ...]) -> nn.Module:
    """The network of ``config`` for examples of ``image_shape``, such as (C, H, W), on the CPU.

    Raises:
        ValueError, TypeError: as ``maskedconv.models.create`` and ``select_learned_``; a setting
            has no effect on this network.
    """
    _check_init(config)
    options: dict[str, Any] = {**_method_arguments(config), **dict(config.options)}
    if config.dropout:
        options["dropout"] = config.dropout
    model = models.create(
        config.model,
        num_classes=num_classes,
        seed=config.seed,
        in_channels=image_shape[0],
        image_size=image_shape[1],
        init=config.init,
        bn_learned=config.bn_learned,
        **options,
    )
    named = "bn_learned is False" if not config.bn_learned else f"trained is {config.trained!r}"
    about_bn = not config.bn_learned or "bn" in config.trained_parts
    if about_bn and not any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        raise ValueError(f"{named}, but {config.model} has no BatchNorm")
    if config.trained != "all":
        select_learned_(model, config.trained_parts, bn_learned=config.bn_learned)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"{config.label()} learns nothing; expected a parameter to learn")
    return model


def _method_arguments(config: RunConfig) -> dict[str, Any]:
    """The arguments of ``models.create`` that say what is learned of each layer."""
    if config.method == SLICE:
        return {name: getattr(config, name) for name in ("learned", "slice_dim", "frozen")}
    return {"method": methods.make(config.method, **dict(config.method_options))}


def _check_init(config: RunConfig) -> None:
    split = not config.learns_all_slices
    if config.init != "he" and models.resolve_init(config.model, config.init, split=split) == "he":
        raise ValueError(
            f"init is {config.init!r}, but {config.label()} starts from the same values with 'he'"
        )


def follow(config: RunConfig, dataset: Task, graph: str) -> None:
    """The part in a run of all processes except the first one, which calls :func:`execute`.

    Raises:
        Exception: any error of the training.
    """
    _check_share(config, dataset.share)
    # Each process has its own dropout.
    torch.manual_seed(mixed_seed(config.seed, dataset.share.index, Purpose.PROCESS))
    model = build_model(config, dataset.num_classes, dataset.image_shape)
    train(model, dataset, config, graph=graph)


def _check_share(config: RunConfig, share: Share) -> None:
    if share.count != config.processes:
        raise ValueError(
            f"processes is {config.processes}; expected {share.count}, as the dataset is shared"
        )


class _Told:
    """Calls ``on_epoch``; keeps its ``error``, which is that of the caller and not of the run."""

    def __init__(self, on_epoch: Callable[[Epoch], None] | None) -> None:
        self._on_epoch = on_epoch
        self.error: Exception | None = None

    def __call__(self, epoch: Epoch) -> None:
        try:
            if self._on_epoch is not None:
                self._on_epoch(epoch)
        except Exception as error:
            self.error = error
            raise


def execute(
    config: RunConfig,
    dataset: Task,
    on_epoch: Callable[[Epoch], None] | None = None,
    *,
    folder: Path | None = None,
    checkpoint_seconds: float = 120.0,
    graph: str = "off",
) -> Row:
    """Executes the run on the device of ``dataset``; returns its row, "done" or "failed".

    The row records any error of the run. Interrupts, and errors of ``on_epoch``, propagate; the
    last checkpoint stays.

    Args:
        on_epoch: called with the result of each epoch, for each member of an ensemble in turn,
            including epochs from before an interruption.
        folder: the output folder for weights and checkpoints, from which an interrupted run
            resumes. Call ``remove_checkpoint`` when the row is on disk.
        checkpoint_seconds: time between two checkpoints.
        graph: "auto", "on" or "off", see :func:`maskedconv.training.loop.train`.

    Raises:
        ValueError: the run needs a folder, and there is none; ``graph`` is "on", and the device or
            the optimizer prevents it.
        StoreError: a checkpoint or the weights cannot be written.
        LostProcess: ``dataset`` is one of several shares, and the process of another one ended.
    """
    if folder is None and (config.keep or config.start):
        raise ValueError(f"folder is None; expected a folder for the weights of {config.label()}")
    _check_share(config, dataset.share)
    check_graph(graph, dataset.device.type, [config.optimizer], config.processes)
    row = begin_row(config)
    start = time.perf_counter()
    reset_peak(dataset.device)
    told = _Told(on_epoch)
    checkpoint = (
        None if folder is None else _checkpoint(config, dataset, folder, checkpoint_seconds)
    )
    try:
        if config.members and checkpoint is not None:
            for epoch in member_epochs(checkpoint):
                told(epoch)
        fit = _training_of(config, dataset, told, checkpoint, graph)
        _do(config, dataset, fit, folder, checkpoint, row)
        row.update({"status": "done", "error": None, "error_type": None})
    except (StoreError, LostProcess):
        raise
    except Exception as error:
        if error is told.error:
            raise
        history = error.history if isinstance(error, Diverged) else History()
        name = type(error).__name__
        fail(row, str(error) or name, name, history)
    seconds = time.perf_counter() - start if checkpoint is None else checkpoint.seconds
    spans = None if checkpoint is None else checkpoint.spans
    if spans is not None and len(spans) > 1:
        row["spans"] = spans
    row.update(
        {
            "seconds": round(seconds, 3),
            "peak_memory_bytes": peak(dataset.device),
            "device": describe_device(dataset.device),
            "versions": versions(),
            "data_note": dataset.note,
            "data_digest": dataset.digest,
        }
    )
    return row


def _do(
    config: RunConfig,
    dataset: Task,
    fit: Fit,
    folder: Path | None,
    checkpoint: Checkpoint | None,
    row: Row,
) -> None:
    """Trains, and adds the results to ``row``; parameter counts are added before training."""
    # Weights, order and augmentation have their own generators; dropout uses this one.
    torch.manual_seed(config.seed)
    model = build_model(config, dataset.num_classes, dataset.image_shape)
    if config.start and folder is not None:
        start_from(model, folder, config.start)
    counts = count_parameters(model)
    row["learned_parameters"] = counts.learned * max(1, config.members)
    row["total_parameters"] = counts.total
    row["inference_bytes"] = cast(InferenceBytes, count_inference_bytes(model)._asdict())

    if config.members and folder is not None and checkpoint is not None:
        if not isinstance(dataset, Dataset):
            raise ValueError(f"members is {config.members}; expected 0 with {config.dataset}")
        freeze_unlearned_(model)
        row.update(cast(Row, train_members(model, config, dataset, fit, checkpoint)))
        row["stored_bytes"]["shared"] = weights_path(folder, config.start).stat().st_size
        return
    norms = describe_norms(model)
    row.update(cast(Row, outcome(fit(model, config.seed))))
    if described := norms_row(norms, describe_norms(model)):
        row["norms"] = described
    if masks := describe_masks(model):
        row["masks"] = masks
    # Other processes have ended their part.
    whole = dataset.shared(WHOLE)
    with autocast(dataset.device, config.amp == "bf16"):
        measured = whole.measure(model)
    if measured:
        row["measured"] = measured
    if config.keep and folder is not None:
        row.update(cast(Row, keep_weights(model, folder, config, whole)))


def _training_of(
    config: RunConfig,
    dataset: Task,
    on_epoch: Callable[[Epoch], None],
    checkpoint: Checkpoint | None,
    graph: str,
) -> Fit:
    """Trains a network as ``config`` says, with a given seed."""

    def fit(network: nn.Module, seed: int) -> History:
        if config.compile:
            # Code compiled for earlier runs counts towards torch.compile's limit.
            torch.compiler.reset()
        stored = 0 if checkpoint is None else checkpoint.stored_epochs
        told = forgetting_the_first_peak(on_epoch, dataset.device, stored, config.epochs)
        chosen = replace(config, seed=seed)
        return train(network, dataset, chosen, graph=graph, on_epoch=told, checkpoint=checkpoint)

    return fit


def _checkpoint(config: RunConfig, dataset: Task, folder: Path, every: float) -> Checkpoint:
    size = dataset.train_size, *dataset.image_shape, dataset.test_size, dataset.num_classes
    described = config.to_json()
    # At their default they are left out, so that checkpoints without them stay valid.
    for name in LATER_FIELDS:
        if getattr(config, name) == getattr(RunConfig, name):
            del described[name]
    identity = {
        "config": described,
        "images": list(size),
        "data": dataset.digest,
        "device": dataset.device.type,
    }
    return Checkpoint(checkpoint_path(folder, config), identity, every, later=("data",))


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that affect results."""
    found = env.collect()
    return {"python": found["python"], **{k: v for k, v in found["versions"].items() if v}}


def describe_device(device: torch.device) -> str:
    """Description of the device, such as ``cpu (2 threads)``."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    threads = torch.get_num_threads()
    return f"{device.type} ({threads} thread{'s' if threads > 1 else ''})"
