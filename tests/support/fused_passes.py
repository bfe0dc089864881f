"""A training pass of a model, and the bytes that it keeps for backward."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from bench.saved_bytes import saved_bytes


class Pass(NamedTuple):
    output: Tensor
    gradients: dict[str, Tensor]
    buffers: dict[str, Tensor]
    kept: int


def run_pass(model: nn.Module, images: Tensor) -> Pass:
    """Output, gradients of parameters and images, buffers afterwards, and kept bytes.

    The buffers are restored.
    """
    torch.manual_seed(1)
    before = {name: one.clone() for name, one in model.named_buffers()}
    model.zero_grad()
    images = images.detach().clone().requires_grad_()
    outputs = []

    def forward() -> Tensor:
        outputs.append(model(images))
        return outputs[0]

    kept = saved_bytes(forward, [*model.parameters(), *model.buffers()])
    (output,) = outputs
    (output * torch.randn_like(output)).sum().backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    gradients["images"] = images.grad
    buffers = {name: one.clone() for name, one in model.named_buffers()}
    with torch.no_grad():
        for name, one in model.named_buffers():
            one.copy_(before[name])
    return Pass(output.detach(), gradients, buffers, kept)


def assert_same(ours: Pass, plain: Pass) -> None:
    """All bits are equal."""
    assert torch.equal(ours.output, plain.output)
    for mine, others in ((ours.gradients, plain.gradients), (ours.buffers, plain.buffers)):
        assert mine.keys() == others.keys()
        for name, value in mine.items():
            assert torch.equal(value, others[name]), name
