"""Fine-tune a tenth of a ResNet's filters, save only those, and merge for serving.

Needs torchvision. Random images stand in for a data set, and random weights for a checkpoint.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
import torchvision
from torch.nn import functional as F

import maskedconv


def backbone() -> torch.nn.Module:
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=10)


def main() -> None:
    model = maskedconv.convert_(backbone(), learned=0.1, exclude="conv1")
    model.conv1.requires_grad_(False)
    count = maskedconv.count_parameters(model)
    print(f"learned {count.learned:,} of {count.total:,} parameters ({count.fraction:.1%})")

    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learned, lr=0.01, momentum=0.9, weight_decay=5e-4)
    images, labels = torch.randn(16, 3, 64, 64), torch.randint(10, (16,))
    for _ in range(3):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        print(f"loss {loss.item():.3f}")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "task.safetensors"
        maskedconv.save(model, path)
        print(f"checkpoint of this task: {path.stat().st_size / 2**20:.1f} MiB")
        served = maskedconv.convert_(backbone(), learned=0.1, exclude="conv1")
        maskedconv.load(served, path)
    served = maskedconv.merge_(served).eval()  # plain nn.Conv2d again
    torch.testing.assert_close(served(images), model.eval()(images))


if __name__ == "__main__":
    main()
