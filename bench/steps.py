"""Complete training steps and their memory, for plain networks, peers and ours.

``python -m bench.steps`` measures forward, backward and a step of SGD with momentum. The peers
replace every convolution of the plain network. The plain network and ours under ``torch.compile``
are two more in the first setting. Peak memory is measured in a separate process; compiled code has
none, as the compiler's own memory would count. ``--dtype bfloat16`` computes under autocast,
``--peers`` selects them, and ``--brief`` leaves out peak memory and all settings but the first.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import NamedTuple

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
SETTINGS = ((0.1, "random"), (0.4, "random"), (0.1, "zero"), (1.0, "random"))
COMPILED, OURS_COMPILED = "conv2d compiled", "maskedconv compiled"
BY_COMPILER = (COMPILED, OURS_COMPILED)
PEERS = (*(name for name in IMPLEMENTATIONS if name != "maskedconv"), *BY_COMPILER)
STEPS_FOR_PEAK = 3


class Setting(NamedTuple):
    """A network, the part of it that is learned, and where it is trained.

    Attributes:
        dtype: float32, or bfloat16 for autocast.
    """

    network: str
    learned: float
    frozen: str
    device: str
    dtype: torch.dtype

    def autocast(self) -> torch.autocast:
        """The context of a forward pass."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.dtype == torch.bfloat16)


def make(
    implementation: str, network: str, learned: float, frozen: str, device: str
) -> tuple[nn.Module, Callable[[nn.Module, Tensor], Tensor]]:
    """A network, and its forward pass on images ``[N, 3, 32, 32]``."""
    model = models.create(network, learned=learned, frozen=frozen, seed=0)
    if implementation == "maskedconv":
        return _on(model, device), lambda module, x: module(x)
    if implementation == OURS_COMPILED:
        return _on(model, device), torch.compile(lambda module, x: module(x))
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


def training_step(implementation: str, setting: Setting) -> Callable[[], None]:
    """Forward, backward and optimizer step on one batch of noise."""
    return step_of(*make(implementation, *setting[:4]), setting)


def step_of(
    model: nn.Module, run: Callable[[nn.Module, Tensor], Tensor], setting: Setting
) -> Callable[[], None]:
    """:func:`training_step` of a model and its forward pass."""
    images, labels = images_and_labels(setting.device)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, weight_decay=5e-4)

    def step() -> None:
        with setting.autocast():
            loss = F.cross_entropy(run(model, images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def images_and_labels(device: str) -> tuple[Tensor, Tensor]:
    """A batch of noise, ``[N, 3, 32, 32]`` and ``[N]``."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(BATCH[device], 3, 32, 32, generator=generator).to(device)
    labels = torch.randint(10, (BATCH[device],), generator=generator).to(device)
    return images.to(memory_format=torch.channels_last), labels


def peak_bytes(implementation: str, setting: Setting) -> int:
    """Peak bytes of a few training steps, minus those before, in a separate process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_bytes, (implementation, setting))


def _peak_bytes(implementation: str, setting: Setting) -> int:
    on_gpu = setting.device == "cuda"
    if not on_gpu:
        before = peak_resident()
    step = training_step(implementation, setting)
    step()
    if on_gpu:  # the first step also times kernels, which allocates extra memory
        torch.cuda.reset_peak_memory_stats()
    for _ in range(STEPS_FOR_PEAK):
        step()
    return torch.cuda.max_memory_allocated() if on_gpu else peak_resident() - before


def measure(
    device: str, dtype: torch.dtype, rounds: int, peers: tuple[str, ...], brief: bool
) -> list[Row]:
    """A row for each network and setting."""
    rows: list[Row] = []
    for network in PLAIN:
        for learned, frozen in SETTINGS[:1] if brief else SETTINGS:
            setting = Setting(network, learned, frozen, device, dtype)
            names = ("maskedconv", *_peers_in(setting, peers))
            measured = _row(setting, names, rounds)
            if not brief:
                eager = (name for name in names if name not in BY_COMPILER)
                measured["peak_bytes"] = {name: peak_bytes(name, setting) for name in eager}
            rows.append(measured)
            print(".", end="", flush=True)
    print()
    return rows


def _peers_in(setting: Setting, peers: tuple[str, ...]) -> tuple[str, ...]:
    """The peers that are measured in a setting."""
    if setting.frozen == "zero" or setting.learned == 1.0:
        return ("conv2d",)
    first = (setting.learned, setting.frozen) == SETTINGS[0]
    return tuple(name for name in peers if first or name not in BY_COMPILER)


def _row(setting: Setting, names: tuple[str, ...], rounds: int) -> Row:
    steps = {name: training_step(name, setting) for name in names}
    samples = time_together(steps, setting.device, rounds, with_python=True)
    # The networks' memory is needed below; the compiler refers to the compiled one.
    del steps
    torch.compiler.reset()
    release_freed_memory()
    network, learned, frozen, device, _ = setting
    return row(
        "training step", f"{network}, batch {BATCH[device]}", learned, frozen, None, samples,
        peak_bytes={},
        saved_bytes={name: saved(name, setting) for name in names},
        parameters=parameters(network, learned, frozen),
    )  # fmt: skip


def saved(implementation: str, setting: Setting) -> int:
    """Bytes that autograd saves for backward."""
    model, run = make(implementation, *setting[:4])
    with setting.autocast():
        return of_network(model, images_and_labels(setting.device)[0], run)


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
    parser = results.options(__doc__)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS)
    parser.add_argument("--brief", action="store_true", help="the first setting, and no peaks")
    arguments = parser.parse_args()
    dtype = results.dtype_of(arguments)
    peers = tuple(arguments.peers)
    rows = measure(arguments.device, dtype, arguments.rounds, peers, arguments.brief)
    results.write(arguments.device, dtype, "steps", rows, memory_table(rows))


if __name__ == "__main__":
    main()
