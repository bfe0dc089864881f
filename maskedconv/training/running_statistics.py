"""The running statistics of a network's norms, which each of several processes computes itself."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def running_statistics(model: nn.Module, *, training: bool = False) -> dict[str, Tensor]:
    """Means and variances of the norms of a network, by name.

    Args:
        training: whether norms in eval mode are left out.
    """
    return {
        f"{name}.{key}": getattr(norm, key)
        for name, norm in model.named_modules()
        if isinstance(norm, _BatchNorm) and norm.running_mean is not None
        if norm.training or not training
        for key in ("running_mean", "running_var")
    }
