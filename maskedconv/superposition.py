"""Infers the task of an input by one gradient step over the mixture of all tasks.

Source: Wortsman et al. 2020, *Supermasks in Superposition* (arXiv 2006.14769), section 3.2. The
mask is there a sum of the tasks' masks with coefficients α, at first all equal. The task
is the one whose coefficient lowers the entropy of the output the most as it grows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_map_only

from maskedconv.conversion.convert import merge_
from maskedconv.nn.global_threshold import update_thresholds
from maskedconv.nn.partly_learned import PartlyLearned

Plain = Callable[[], nn.Module]


def merged(model: nn.Module) -> nn.Module:
    """A copy of ``model`` in evaluation mode; its layers are plain, with the present weights.

    Raises:
        ValueError: a layer cannot be merged.
    """
    plain = copy.deepcopy(model)
    update_thresholds(plain)
    merge_(plain)
    for name, module in plain.named_modules():
        if isinstance(module, PartlyLearned):
            raise ValueError(f"{name} cannot be merged; expected layers without hooks of their own")
    return plain.eval()


@torch.inference_mode(False)
def infer(tasks: Mapping[str, Plain], *arguments: Any) -> str:
    """The task whose coefficient lowers the entropy the most; see :func:`entropy_gradient`.

    ``torch.inference_mode`` and tensors made in it are no obstacle.
    """
    # Autograd takes no tensors of inference mode.
    arguments = tree_map_only(Tensor, torch.clone, arguments)
    gradient = entropy_gradient(list(tasks.values()), *arguments)
    return list(tasks)[int(gradient.argmin())]


def entropy_gradient(tasks: Sequence[Plain], *arguments: Any) -> Tensor:
    """The gradient of the entropy of the output by the coefficient of each task, ``[tasks]``.

    Each weight is the mean of the tasks' weights: for supermasks, the frozen weight times the mean
    of the masks. So is every other floating-point value; the gradient by running statistics is
    left out. The entropy is the mean over the batch, of the softmax over the last dimension.

    Args:
        tasks: give the merged model of each task. They are called twice, so that two models exist
            at a time.
        arguments: of the model.

    Raises:
        ValueError: values of the tasks differ in shape, as in heads of different sizes.
    """
    mean = _mean(tasks)
    model = tasks[0]()
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    leaves = [mean[name].requires_grad_() for name in names]
    with torch.enable_grad():
        output = functional_call(model, mean, arguments, tie_weights=False)
        entropy = -(output.softmax(-1) * output.log_softmax(-1)).sum(-1).mean()
        gradients = torch.autograd.grad(entropy, leaves, allow_unused=True)
    found = []
    for task in tasks:
        state = task().state_dict()
        products = [
            (g * state[n]).sum() for n, g in zip(names, gradients, strict=True) if g is not None
        ]
        found.append(torch.stack(products).sum())
    return torch.stack(found)


@torch.no_grad()
def _mean(tasks: Sequence[Plain]) -> dict[str, Tensor]:
    """The mean of all floating-point values."""
    total: dict[str, Tensor] = {}
    for task in tasks:
        for key, tensor in task().state_dict().items():
            if tensor.is_floating_point():
                part = tensor / len(tasks)
                _check_shape(key, part, total.get(key, part))
                total[key] = total[key] + part if key in total else part
    return total


def _check_shape(key: str, one: Tensor, other: Tensor) -> None:
    if one.shape != other.shape:
        raise ValueError(
            f"{key} is {list(one.shape)} in one task and {list(other.shape)} in another; expected "
            "one size, as the tasks are mixed"
        )
