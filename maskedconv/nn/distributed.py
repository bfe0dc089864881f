"""DistributedDataParallel sends the frozen filters once, when it is made, and not at every step.

It broadcasts all buffers before each forward pass, and asks no layer which of its buffers change.
So it is told by name (``parameters_to_ignore``), in the moment before its first forward pass: by
then it has made the processes' filters equal.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch._compile import _disable_dynamo
from torch.nn.modules.module import register_module_module_registration_hook
from torch.nn.parallel import DistributedDataParallel

from maskedconv.nn.own_hooks import owners
from maskedconv.nn.partly_learned import PartlyLearned
from maskedconv.nn.remembered import is_recorded, record_values

_HANDLE = "_frozen_filters_handle"


def is_sharded(tensor: Tensor) -> bool:
    """Whether it is a DTensor, as under FSDP2; this process then holds its shard alone."""
    # An import of the class would take time, and most users of the layers do not need it.
    return hasattr(tensor, "full_tensor")


def _frozen_names(module: nn.Module) -> set[str]:
    """The names of all buffers of the partly learned layers in ``module``.

    A layer that stands in several places has several names.
    """
    return {
        f"{prefix}.{name}".lstrip(".")
        for prefix, layer in module.named_modules(remove_duplicate=False)
        if isinstance(layer, PartlyLearned)
        for name in layer._buffers
    }


@_disable_dynamo  # torch.compiler.disable would import the compiler, which takes seconds.
def _leave_out_frozen(parallel: DistributedDataParallel, arguments: Any) -> None:
    """Before the first forward pass, and then no more."""
    vars(parallel).pop(_HANDLE).remove()
    parallel.parameters_to_ignore |= _frozen_names(parallel.module)
    parallel._assign_modules_buffers()
    # All values are now those of the first process.
    for layer in parallel.module.modules():
        if isinstance(layer, PartlyLearned):
            layer.values_replaced()
    for buffer in parallel.module.buffers():
        if is_recorded(buffer):
            record_values(buffer)


def _on_registration(owner: nn.Module, name: str, module: nn.Module | None) -> None:
    """PyTorch calls this for every submodule that any module gets."""
    if isinstance(owner, DistributedDataParallel) and name == "module" and module is not None:
        _check_whole(module)
        vars(owner)[_HANDLE] = owner.register_forward_pre_hook(_leave_out_frozen)


def _check_whole(module: nn.Module) -> None:
    """ValueError for a model without the module that exchanges its parameters.

    DistributedDataParallel would synchronise the gradients of the present ones alone.
    """
    inside = {id(one) for one in module.modules()}
    for name, other in owners(module):
        if id(other) not in inside:
            kind = type(other).__name__
            raise ValueError(
                f"{name or 'model'} has the values of one task of a {kind}, the only ones that "
                f"DistributedDataParallel would synchronise; expected the {kind} itself: "
                "DistributedDataParallel(tasks)"
            )


register_module_module_registration_hook(_on_registration)
