"""Bytes that autograd keeps for backward: ours beside the same networks in plain PyTorch.

``python -m bench.saved_bytes`` prints a table. Counted are unique storages, with parameters and
buffers left out; so the figures do not depend on the device, and scale with the batch.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MEMORY_FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


def saved_bytes(forward: Callable[[], Tensor], own: Iterable[Tensor]) -> int:
    """Bytes of the storages that ``forward`` saves for backward, without those of ``own``."""
    known = {tensor.untyped_storage().data_ptr() for tensor in own}
    # The tensors are held, so that no address is given away twice.
    saved: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        saved.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    kept = (tensor for pointer, tensor in saved.items() if pointer not in known)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept)


def of_network(
    network: nn.Module, images: Tensor, run: Callable[[nn.Module, Tensor], Tensor]
) -> int:
    """Saved bytes of one forward pass in training, ``run(network, images)``, up to the loss."""

    def forward() -> Tensor:
        labels = torch.zeros(images.size(0), dtype=torch.long, device=images.device)
        return F.cross_entropy(run(network, images), labels)

    network.train()
    return saved_bytes(forward, [*network.parameters(), *network.buffers()])


def _relu(bn: nn.Module, x: Tensor) -> Tensor:
    return F.relu(bn(x), inplace=True)


def plain_wrn(network: nn.Module, x: Tensor) -> Tensor:
    """A WideResNet as it is usually written, from the modules of ``network``."""
    x = network.conv1(x)
    for block in (*network.block1, *network.block2, *network.block3):
        out = _relu(block.bn1, x)
        shortcut = x if block.shortcut is None else block.shortcut(out)
        x = shortcut + block.conv2(_relu(block.bn2, block.conv1(out)))
    return network.fc(_relu(network.bn, x).mean((2, 3)))


def plain_densenet(network: nn.Module, x: Tensor) -> Tensor:
    """A DenseNet-BC as it is usually written, from the modules of ``network``."""

    def dense_block(block: nn.Module, x: Tensor) -> Tensor:
        for layer in block:
            new = layer.conv2(_relu(layer.bn2, layer.conv1(_relu(layer.bn1, x))))
            x = torch.cat((x, new), 1)
        return x

    def transition(layer: nn.Module, x: Tensor) -> Tensor:
        return F.avg_pool2d(layer.conv(_relu(layer.bn, x)), 2)

    x = transition(network.transition1, dense_block(network.block1, network.conv1(x)))
    x = transition(network.transition2, dense_block(network.block2, x))
    return network.fc(_relu(network.bn, dense_block(network.block3, x)).mean((2, 3)))


PLAIN = {"wrn_28_4": plain_wrn, "densenet_bc_100_12": plain_densenet}


def compare(
    name: str, batch: int, learned: float, frozen: str, memory_format: torch.memory_format
) -> tuple[int, int]:
    """Bytes at 32×32 of the plain network, with every filter learned, and of ours."""
    from maskedconv import merge_, models

    images = torch.randn(batch, 3, 32, 32).to(memory_format=memory_format)
    ours = models.create(name, learned=learned, frozen=frozen, seed=0)
    ours = ours.to(memory_format=memory_format)
    kept = of_network(ours, images, lambda network, x: network(x))
    return of_network(merge_(ours), images, PLAIN[name]), kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--learned", type=float, nargs="+", default=[0.1, 1.0])
    parser.add_argument("--memory-format", choices=MEMORY_FORMATS, default="channels_last")
    arguments = parser.parse_args()
    memory_format = MEMORY_FORMATS[arguments.memory_format]
    print(f"torch {torch.__version__}, float32, {arguments.memory_format}, MiB")
    print(
        f"{'network':20} {'batch':>5} {'p':>4} {'frozen':>6} {'plain':>8} {'ours':>8} {'ratio':>6}"
    )
    for name in PLAIN:
        for learned in arguments.learned:
            for frozen in ("random", "zero") if learned < 1 else ("random",):
                plain, ours = compare(name, arguments.batch, learned, frozen, memory_format)
                print(
                    f"{name:20} {arguments.batch:5} {learned:4} {frozen:>6} "
                    f"{plain / 2**20:8.1f} {ours / 2**20:8.1f} {ours / plain:6.3f}"
                )


if __name__ == "__main__":
    main()
