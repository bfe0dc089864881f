"""Three members over one frozen random network, on scikit-learn's digits. Needs scikit-learn."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch.nn import functional as F

import maskedconv
from maskedconv import models

EPOCHS, BATCH, MEMBERS = 3, 50, 3


def train(member: torch.nn.Module, digits: maskedconv.data.Dataset, seed: int) -> None:
    learned = [p for p in member.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learned, lr=0.1, momentum=0.9)
    for epoch in range(EPOCHS):
        for images, labels in maskedconv.data.train_batches(digits, BATCH, seed, epoch):
            optimizer.zero_grad()
            F.cross_entropy(member(images), labels).backward()
            optimizer.step()


def main() -> None:
    digits = maskedconv.data.load("digits", subset=60)
    model = models.create(
        "wrn_10_1", learned=0.1, num_classes=10, in_channels=1, image_size=8, seed=0
    )
    ensemble = maskedconv.Ensemble(model, MEMBERS, seed=1)
    for seed, member in enumerate(ensemble.members):
        train(member.train(), digits, seed)

    ensemble.eval()
    with torch.inference_mode():
        batches = maskedconv.data.test_batches(digits, 100)
        images, labels = map(torch.cat, zip(*batches, strict=True))
        for index, logits in enumerate(ensemble(images)):
            print(f"member {index}: {(logits.argmax(1) == labels).float().mean():.1%}")
        together = ensemble.probabilities(images).argmax(1)
        print(f"ensemble: {(together == labels).float().mean():.1%}")
        print(f"pairs of members that disagree: {ensemble.disagreement(images).mean():.1%}")

    with tempfile.TemporaryDirectory() as folder:
        ensemble.save(folder)
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
        print(f"on disk {size / 1024:.0f} KiB for {MEMBERS} members")


if __name__ == "__main__":
    main()
