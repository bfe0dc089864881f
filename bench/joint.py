"""Training steps of an ensemble's members, one by one and vmapped: ``python -m bench.joint``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional as F

from bench.timing import ratio, time_together
from maskedconv import Ensemble, models


def one_by_one(ensemble: Ensemble, images: Tensor, labels: Tensor) -> None:
    """Computes the gradients of all members, each by a forward and backward pass of its own."""
    ensemble.zero_grad()
    for member, own, right in zip(ensemble.members, images, labels, strict=True):
        F.cross_entropy(member(own), right).backward()


def vmapped(ensemble: Ensemble) -> Callable[[Tensor, Tensor], dict[str, Tensor]]:
    """The same gradients, of stacked learned values, in one call."""
    base = ensemble.members[0]
    learned = {n for n, p in base.named_parameters() if p.requires_grad}
    parameters, _ = stack_module_state(list(ensemble.members))
    stacked = {name: parameters[name].detach() for name in learned}

    def loss(own: dict[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(base, own, (images,)), labels)

    return lambda images, labels: vmap(grad(loss))(stacked, images, labels)


def check(ensemble: Ensemble, images: Tensor, labels: Tensor) -> None:
    """Compares the gradients of both ways in float64."""
    gradients = vmapped(ensemble)(images, labels)
    one_by_one(ensemble, images, labels)
    for index, member in enumerate(ensemble.members):
        for name, found in gradients.items():
            torch.testing.assert_close(found[index], member.get_parameter(name).grad)


def without_statistics(model: nn.Module) -> nn.Module:
    """BatchNorm normalises with the batch alone, as vmap cannot change running statistics."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats, module.num_batches_tracked = False, None
            module.running_mean = module.running_var = None
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="wrn_10_1")
    parser.add_argument("--learned", type=float, default=0.25)
    parser.add_argument("--members", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = models.create(arguments.model, learned=arguments.learned, seed=0)
    ensemble = Ensemble(without_statistics(model), arguments.members, seed=0)
    images = torch.randn(arguments.members, arguments.batch, 3, 32, 32)
    labels = torch.randint(10, images.shape[:2])
    check(ensemble.double(), images[:, :4].double(), labels[:, :4])
    step = vmapped(ensemble.float())
    runs = {
        "one by one": partial(one_by_one, ensemble, images, labels),
        "vmapped": partial(step, images, labels),
    }
    samples = time_together(runs, "cpu", arguments.rounds)
    times = ratio(samples, "vmapped", "one by one")
    print(f"{arguments.model}, batch {arguments.batch}: vmapped / one by one {times:.2f}")


if __name__ == "__main__":
    main()
