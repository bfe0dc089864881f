"""Keep less for backward in a torchvision network, and see what a training step costs.

Needs torchvision. Random images serve, as the costs do not depend on them.
"""

from __future__ import annotations

import torch
import torchvision

import maskedconv


def main() -> None:
    torch.manual_seed(0)
    # The kernels need channels_last.
    images = torch.randn(4, 3, 64, 64).to(memory_format=torch.channels_last)
    model = torchvision.models.mobilenet_v2(num_classes=10)
    model = model.to(memory_format=torch.channels_last)
    fused = maskedconv.fuse_(model, images)
    print(fused)
    maskedconv.convert_(model, learned=0.1, rest="freeze", head="classifier")
    costs = maskedconv.summary(model, images)
    print(costs.trainable)
    share = costs.total.optimizer / costs.full.optimizer
    print(f"bytes of the optimizer's state, relative to full training: {share:.2f}")


if __name__ == "__main__":
    main()
