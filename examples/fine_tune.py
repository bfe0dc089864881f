"""Learn a tenth of a ResNet's filters, save only those, and merge.

Needs torchvision and scikit-learn. Trains on scikit-learn's digits, or on other images in memory:
``--dataset mnist5k``, or ``--dataset folder --data-dir DIR`` with images in ``train/<class>/`` and
``test/<class>/``. The frozen filters are random; examples/pretrained.py takes pretrained ones.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

import maskedconv

EPOCHS, BATCH = 3, 20


def backbone(num_classes: int) -> nn.Module:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=num_classes)
    return model.to(memory_format=torch.channels_last)


def resized(images: Tensor) -> Tensor:
    """Images [N, 1 or 3, H, W] as [N, 3, 32, 32], in channels_last: the kernels need it."""
    larger = F.interpolate(images, (32, 32)).expand(-1, 3, -1, -1)
    return larger.contiguous(memory_format=torch.channels_last)


def train(model: nn.Module, data: maskedconv.data.Dataset) -> None:
    # After convert_, which makes new parameters.
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learned, lr=0.01, momentum=0.9, weight_decay=5e-4)
    for epoch in range(EPOCHS):
        for images, labels in maskedconv.data.train_batches(data, BATCH, seed=0, epoch=epoch):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(resized(images)), labels)
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: loss of the last batch {loss.item():.2f}")


@torch.inference_mode()
def accuracy(model: nn.Module, data: maskedconv.data.Dataset) -> float:
    batches = maskedconv.data.test_batches(data, BATCH)
    right = [(model(resized(images)).argmax(1) == labels).float() for images, labels in batches]
    return torch.cat(right).mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--data-dir")
    parser.add_argument("--subset", type=int, default=60, help="training images per class")
    asked = parser.parse_args()
    data = maskedconv.data.load(asked.dataset, asked.data_dir, subset=asked.subset)
    model = maskedconv.convert_(backbone(data.num_classes), learned=0.1)
    print(maskedconv.count_parameters(model))
    train(model, data)
    reached = accuracy(model.eval(), data)
    print(f"test accuracy {reached:.1%}")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "task.safetensors"
        maskedconv.save(model, path)
        print(f"checkpoint: {path.stat().st_size / 2**20:.1f} MiB")
        served = backbone(data.num_classes)  # the same seed, so the same frozen filters
        maskedconv.load(served, path)  # converts first
    served = maskedconv.merge_(served).eval()  # plain nn.Conv2d again
    print(f"loaded and merged: {accuracy(served, data):.1%}")


if __name__ == "__main__":
    main()
