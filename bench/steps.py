"""Complete training steps and their memory, for plain networks, peers and ours.

``python -m bench.steps`` measures forward, backward and a step of SGD with momentum. The peers
replace every convolution of the plain network. The plain network under ``torch.compile`` is one
more in the first setting. Peak memory is measured in a separate process; compiled code has none, as
the compiler's own memory would count.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import results
from bench.peers import IMPLEMENTATIONS
from bench.plain_networks import PLAIN, plain_forward
from bench.results import Row, row
from bench.saved_bytes import of_network
from bench.timing import release_freed_memory, time_together
from maskedconv import count_parameters, merge_, models
from maskedconv.training.memory import peak_resident

BATCH = {"cpu": 32, "cuda": 128}
SETTINGS = ((0.1, "random"), (0.4, "random"), (0.1, "zero"))
PEERS = tuple(name for name in IMPLEMENTATIONS if name != "maskedconv")
COMPILED = "conv2d compiled"
STEPS_FOR_PEAK = 3


def make(
    implementation: str, network: str, learned: float, frozen: str, device: str
) -> tuple[nn.Module, Callable[[nn.Module, Tensor], Tensor]]:
    """A network, and its forward pass on images ``[N, 3, 32, 32]``."""
    model = models.create(network, learned=learned, frozen=frozen, seed=0)
    if implementation == "maskedconv":
        return _on(model, device), lambda module, x: module(x)
    plain = _on(merge_(model), device)
    if implementation == COMPILED:
        return plain, torch.compile(plain_forward(network))
    peer = IMPLEMENTATIONS[implementation]
    for name, conv in list(plain.named_modules()):
        if isinstance(conv, nn.Conv2d):
            parent, _, child = name.rpartition(".")
            filters = int(conv.out_channels * learned + 1e-9)
            setattr(plain.get_submodule(parent), child, peer(conv, filters))
    return plain, plain_forward(network)


def _on(model: nn.Module, device: str) -> nn.Module:
    return model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def training_step(
    implementation: str, network: str, learned: float, frozen: str, device: str
) -> Callable[[], None]:
    """Forward, backward and optimizer step on one batch of noise."""
    model, run = make(implementation, network, learned, frozen, device)
    images, labels = _batch(device)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, weight_decay=5e-4)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = F.cross_entropy(run(model, images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def _batch(device: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(BATCH[device], 3, 32, 32, generator=generator).to(device)
    labels = torch.randint(10, (BATCH[device],), generator=generator).to(device)
    return images.to(memory_format=torch.channels_last), labels


def peak_bytes(*arguments: str | float) -> int:
    """Peak bytes of a few training steps, minus those before, in a separate process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_bytes, arguments)


def _peak_bytes(implementation: str, network: str, learned: float, frozen: str, device: str) -> int:
    if device == "cpu":
        before = peak_resident()
    step = training_step(implementation, network, learned, frozen, device)
    step()
    if device == "cuda":  # the first step also times kernels, which allocates extra memory
        torch.cuda.reset_peak_memory_stats()
    for _ in range(STEPS_FOR_PEAK):
        step()
    return torch.cuda.max_memory_allocated() if device == "cuda" else peak_resident() - before


def measure(device: str, rounds: int) -> list[Row]:
    """A row for each network and setting."""
    rows: list[Row] = []
    for network in PLAIN:
        for learned, frozen in SETTINGS:
            peers = PEERS if frozen == "random" else ("conv2d",)
            names = ("maskedconv", *peers)
            if (learned, frozen) == SETTINGS[0]:
                names = (*names, COMPILED)
            steps = {n: training_step(n, network, learned, frozen, device) for n in names}
            samples = time_together(steps, device, rounds, with_python=True)
            # The networks' memory is needed below; the compiler refers to the compiled one.
            del steps
            torch.compiler.reset()
            release_freed_memory()
            eager = (name for name in names if name != COMPILED)
            peaks = {n: peak_bytes(n, network, learned, frozen, device) for n in eager}
            rows.append(
                row(
                    "training step",
                    f"{network}, batch {BATCH[device]}",
                    learned,
                    frozen,
                    None,
                    samples,
                    peak_bytes=peaks,
                    saved_bytes={n: saved(n, network, learned, frozen, device) for n in names},
                    parameters=parameters(network, learned, frozen),
                )
            )
            print(".", end="", flush=True)
    print()
    return rows


def saved(implementation: str, network: str, learned: float, frozen: str, device: str) -> int:
    model, run = make(implementation, network, learned, frozen, device)
    return of_network(model, _batch(device)[0], run)


def parameters(network: str, learned: float, frozen: str) -> dict[str, int]:
    count = count_parameters(models.create(network, learned=learned, frozen=frozen, seed=0))
    return {"learned": count.learned, "total": count.total}


def memory_table(rows: list[Row]) -> str:
    """Markdown: MiB at the peak and saved for backward, for all implementations."""
    lines = ["\n### memory, MiB: peak of a process / saved for backward\n"]
    for row_ in rows:
        peaks = row_["peak_bytes"]
        cells = ", ".join(
            f"{name} {f'{peaks[name] / 2**20:.0f}' if name in peaks else '–'} / {saved / 2**20:.0f}"
            for name, saved in row_["saved_bytes"].items()
        )
        lines.append(f"- {row_['layer']}, {row_['learned']} {row_['frozen']}: {cells}")
    return "\n".join(lines)


def main() -> None:
    arguments = results.parse(__doc__)
    rows = measure(arguments.device, arguments.rounds)
    dtype = torch.bfloat16 if arguments.device == "cuda" else torch.float32
    results.write(arguments.device, dtype, "steps", rows, memory_table(rows))


if __name__ == "__main__":
    main()
