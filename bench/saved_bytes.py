"""Bytes that autograd saves for backward, in our networks and in plain PyTorch.

``python -m bench.saved_bytes`` prints a table. It counts unique storages without parameters and
buffers, so the figures do not depend on the device and are proportional to the batch size.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.plain_networks import PLAIN, plain_forward
from maskedconv.nn.saved_storages import saved_storages

MEMORY_FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


def saved_bytes(forward: Callable[[], Tensor], own: Iterable[Tensor]) -> int:
    """Bytes of the storages that ``forward`` saves for backward, except those of ``own``."""
    saved: list[int] = []
    with saved_storages(own, lambda tensor: saved.append(tensor.untyped_storage().nbytes())):
        forward()
    return sum(saved)


def of_network(
    network: nn.Module, images: Tensor, run: Callable[[nn.Module, Tensor], Tensor]
) -> int:
    """Saved bytes of one forward pass in training mode, ``run(network, images)`` and the loss."""

    def forward() -> Tensor:
        labels = torch.zeros(images.size(0), dtype=torch.long, device=images.device)
        return F.cross_entropy(run(network, images), labels)

    network.train()
    return saved_bytes(forward, [*network.parameters(), *network.buffers()])


def compare(
    name: str, batch: int, learned: float, frozen: str, memory_format: torch.memory_format
) -> tuple[int, int]:
    """Saved bytes at 32×32 of the plain network and of ours.

    The plain network learns every filter, or none if ours learns none.
    """
    from maskedconv import merge_, models

    images = torch.randn(batch, 3, 32, 32).to(memory_format=memory_format)
    ours = models.create(name, learned=learned, frozen=frozen, seed=0)
    ours = ours.to(memory_format=memory_format)
    kept = of_network(ours, images, lambda network, x: network(x))
    plain = merge_(ours)
    for module in plain.modules():
        if isinstance(module, nn.Conv2d):
            module.requires_grad_(learned > 0)
    return of_network(plain, images, plain_forward(name)), kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--learned", type=float, nargs="+", default=[0.1, 1.0])
    parser.add_argument("--networks", nargs="+", default=list(PLAIN))
    parser.add_argument("--memory-format", choices=MEMORY_FORMATS, default="channels_last")
    arguments = parser.parse_args()
    memory_format = MEMORY_FORMATS[arguments.memory_format]
    print(f"torch {torch.__version__}, float32, {arguments.memory_format}, MiB")
    print(
        f"{'network':20} {'batch':>5} {'p':>4} {'frozen':>6} {'plain':>8} {'ours':>8} {'ratio':>6}"
    )
    for name in arguments.networks:
        for learned in arguments.learned:
            for frozen in ("random", "zero") if 0 < learned < 1 else ("random",):
                plain, ours = compare(name, arguments.batch, learned, frozen, memory_format)
                print(
                    f"{name:20} {arguments.batch:5} {learned:4} {frozen:>6} "
                    f"{plain / 2**20:8.1f} {ours / 2**20:8.1f} {ours / plain:6.3f}"
                )


if __name__ == "__main__":
    main()
