"""Learn a tenth of a ResNet's filters on scikit-learn's digits, save only those, and merge.

Needs torchvision and scikit-learn. The frozen filters are random; examples/pretrained.py takes
pretrained ones.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

import maskedconv

EPOCHS, BATCH = 3, 20


def backbone() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=10)


def enlarged(images: Tensor) -> Tensor:
    """Digits [N, 1, 8, 8] as [N, 3, 32, 32], which the ResNet takes."""
    return F.interpolate(images, scale_factor=4.0).expand(-1, 3, -1, -1)


def train(model: nn.Module, digits: maskedconv.data.Dataset) -> None:
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learned, lr=0.01, momentum=0.9, weight_decay=5e-4)
    for epoch in range(EPOCHS):
        for images, labels in maskedconv.data.train_batches(digits, BATCH, seed=0, epoch=epoch):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(enlarged(images)), labels)
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: loss of the last batch {loss.item():.2f}")


@torch.inference_mode()
def accuracy(model: nn.Module, digits: maskedconv.data.Dataset) -> float:
    batches = maskedconv.data.test_batches(digits, BATCH)
    right = [(model(enlarged(images)).argmax(1) == labels).float() for images, labels in batches]
    return torch.cat(right).mean().item()


def main() -> None:
    digits = maskedconv.data.load("digits", subset=60)
    model = maskedconv.convert_(backbone(), learned=0.1)
    print(maskedconv.count_parameters(model))
    train(model, digits)
    reached = accuracy(model.eval(), digits)
    print(f"test accuracy {reached:.1%}")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.safetensors"
        maskedconv.save(model, path)
        print(f"checkpoint: {path.stat().st_size / 2**20:.1f} MiB")
        served = backbone()  # the same seed, so the same frozen filters
        maskedconv.load(served, path)  # converts first
    served = maskedconv.merge_(served).eval()  # plain nn.Conv2d again
    print(f"loaded and merged: {accuracy(served, digits):.1%}")


if __name__ == "__main__":
    main()
