"""Complete training steps and their memory, for plain networks, peers and ours.

``python -m bench.steps`` measures forward, backward and a step of SGD with momentum. The peers
replace every convolution of the plain network. All settings of a network share the same rounds, so
that all are compared with the same times of the plain network, eager and under ``torch.compile``.
Ours is compiled in the first setting. Peak memory is measured in separate processes; compiled code
has none, as the compiler's own memory would count. ``--dtype bfloat16`` computes under autocast,
``--peers`` selects them, and ``--brief`` leaves out peak memory and all settings but the first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import results
from bench.peaks import median_peak
from bench.peers import IMPLEMENTATIONS, ZEROED
from bench.plain_networks import PLAIN, plain_forward
from bench.results import Row, row
from bench.saved_bytes import of_network
from bench.timing import release_freed_memory, time_together
from maskedconv import count_parameters, merge_, models
from maskedconv.runs.peak_memory import peak_resident

BATCH = {"cpu": 32, "cuda": 128}
SETTINGS = ((0.1, "random"), (0.4, "random"), (0.1, "zero"), (1.0, "random"))
COMPILED, OURS_COMPILED = "conv2d compiled", "maskedconv compiled"
BY_COMPILER = (COMPILED, OURS_COMPILED)
# They learn everything in every setting.
INDEPENDENT = ("conv2d", COMPILED)
PARTLY = tuple(name for name in IMPLEMENTATIONS if name not in ("maskedconv", "conv2d"))
PEERS = (*PARTLY, *ZEROED, *BY_COMPILER)
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


class Run(NamedTuple):
    """An implementation in a setting."""

    name: str
    setting: Setting

    def __str__(self) -> str:
        return f"{self.name}, {self.setting.learned} {self.setting.frozen}"


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
    peer = {**IMPLEMENTATIONS, **ZEROED}[implementation]
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
    """Peak bytes of a few training steps, minus those before: the median of several processes."""
    return median_peak(_peak_bytes, implementation, setting)


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


def saved(implementation: str, setting: Setting) -> int:
    """Bytes that autograd saves for backward."""
    model, run = make(implementation, *setting[:4])
    with setting.autocast():
        found = of_network(model, images_and_labels(setting.device)[0], run)
    # The next network needs the memory, and the compiler refers to a compiled one.
    del model, run
    torch.compiler.reset()
    release_freed_memory()
    return found


def measure(
    device: str, dtype: torch.dtype, rounds: int, peers: tuple[str, ...], brief: bool
) -> list[Row]:
    """A row for each network and setting."""
    parts = SETTINGS[:1] if brief else SETTINGS
    settings = [Setting(network, *part, device, dtype) for network in PLAIN for part in parts]
    return measure_settings({one: _measured_in(one, peers) for one in settings}, rounds, brief)


def _measured_in(setting: Setting, peers: tuple[str, ...]) -> tuple[str, ...]:
    """The implementations that are measured in a setting: ours, the plain network, and peers."""
    partly = () if setting.learned == 1.0 else ZEROED if setting.frozen == "zero" else PARTLY
    first = setting[1:3] == SETTINGS[0]
    compiled = (COMPILED, OURS_COMPILED) if first else (COMPILED,)
    chosen = (name for name in (*partly, *compiled) if name in peers)
    return ("maskedconv", "conv2d", *chosen)


def measure_settings(
    settings: dict[Setting, tuple[str, ...]], rounds: int, brief: bool
) -> list[Row]:
    """A row for each setting, with the implementations named: first all times, then all memory.

    The settings of a network share the rounds, and each implementation is measured once if the
    setting does not change it.
    """
    runs = list(dict.fromkeys(_run(name, one) for one, names in settings.items() for name in names))
    samples: dict[Run, list[float]] = {}
    for network in dict.fromkeys(run.setting.network for run in runs):
        samples |= _times([run for run in runs if run.setting.network == network], rounds)
        print(f"{network}: times measured", flush=True)
    saved_bytes = {run: saved(*run) for run in runs}
    eager = [run for run in runs if run.name not in BY_COMPILER]
    peaks = {} if brief else {run: peak_bytes(*run) for run in eager}
    return [
        row(
            "training step", f"{setting.network}, batch {BATCH[setting.device]}",
            setting.learned, setting.frozen, None, _named(samples, setting, names),
            peak_bytes=_named(peaks, setting, names),
            saved_bytes=_named(saved_bytes, setting, names),
            parameters=parameters(*setting[:3]),
        )
        for setting, names in settings.items()
    ]  # fmt: skip


def _run(name: str, setting: Setting) -> Run:
    learned, frozen = SETTINGS[0] if name in INDEPENDENT else setting[1:3]
    return Run(name, setting._replace(learned=learned, frozen=frozen))


def _times(runs: list[Run], rounds: int) -> dict[Run, list[float]]:
    """Milliseconds of the training steps, round by round."""
    steps = {str(run): training_step(*run) for run in runs}
    samples = time_together(steps, runs[0].setting.device, rounds, with_python=True)
    # Their memory is needed by the next network; the compiler refers to the compiled ones.
    del steps
    torch.compiler.reset()
    release_freed_memory()
    return {run: samples[str(run)] for run in runs}


def _named(values: dict[Run, Any], setting: Setting, names: tuple[str, ...]) -> dict[str, Any]:
    runs = {name: _run(name, setting) for name in names}
    return {name: values[run] for name, run in runs.items() if run in values}


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
    parser.add_argument(
        "--peers", nargs="*", choices=PEERS, default=PEERS, help="beside conv2d; default: all"
    )
    parser.add_argument("--brief", action="store_true", help="the first setting, and no peaks")
    arguments = parser.parse_args()
    dtype = results.dtype_of(arguments)
    peers = tuple(arguments.peers)
    rows = measure(arguments.device, dtype, arguments.rounds, peers, arguments.brief)
    results.write(arguments.device, dtype, "steps", rows, memory_table(rows))


if __name__ == "__main__":
    main()
