"""Options, exit codes and usage errors of the commands. Does not import torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from maskedconv.checks import check_choice, check_int
from maskedconv.console import say
from maskedconv.runs.parts import Option
from maskedconv.training.device import DEVICES
from maskedconv.training.graph import check_graph
from maskedconv.training.precision import is_slow, resolve_amp
from maskedconv.training.torchrun import started

if TYPE_CHECKING:
    import torch

SOME_FAILED, USAGE, INTERRUPTED = 1, 2, 130
AMP_HELP = "bf16: bfloat16 under autocast; off: float32; auto: bf16 on CUDA and on CPUs with AMX."
GRAPH_HELP = (
    "on: training steps are replayed as a CUDA graph; off: they are eager; auto: on where the "
    "device, optimizer and network allow it. The numbers do not depend on it."
)
COMPILE_HELP = "The network's training steps run under torch.compile, which changes rounding."


@contextmanager
def usage_errors(tell: Callable[[str], None] = say) -> Iterator[None]:
    """Context that turns a user's error before any run into its message and exit code 2.

    Args:
        tell: prints the message.
    """
    try:
        yield
    except KeyboardInterrupt:
        say("interrupted before anything was run")
        raise typer.Exit(INTERRUPTED) from None
    # The reader of stdout, such as head, has ended.
    except BrokenPipeError:
        raise
    # DataError is a ValueError; ImportError names a package of an extra that is not installed.
    except (OSError, ValueError, TypeError, ImportError) as error:
        tell(f"error: {error}")
        raise typer.Exit(USAGE) from error


def check_device(device: str, threads: int | None) -> None:
    """ValueError unless ``device`` is one of ``DEVICES`` and ``threads`` at least 1, or None."""
    check_choice("device", device, DEVICES)
    if threads is not None:
        check_int("threads", threads, 1)


def check_one_process() -> None:
    """ValueError under torchrun with several processes, which would all do the same runs."""
    count = started().count
    if count != 1:
        raise ValueError(
            f"torchrun started {count} processes; expected one (several runs at once: --parallel N "
            "or --engine ray; one network by several processes: python -m maskedconv.train)"
        )


def open_amp(asked: str, device: torch.device) -> str:
    """Resolves ``--amp`` on ``device`` to "bf16" or "off"; warns if that is slow.

    Raises:
        ValueError: ``asked`` is none of auto, bf16 and off.
    """
    amp = resolve_amp(asked, device.type)
    if is_slow(amp, device.type):
        say("note: this CPU has no bfloat16 instructions; --amp off is faster here")
    return amp


def open_graph(
    graph: str, device: torch.device, optimizers: Iterable[str], processes: int = 1
) -> str:
    """Returns ``graph``; notes which optimizers prevent a CUDA graph of "auto" on ``device``.

    Raises:
        ValueError: as :func:`maskedconv.training.graph.check_graph`.
    """
    reasons = check_graph(graph, device.type, optimizers, processes)
    if graph == "auto" and device.type == "cuda":
        for reason in reasons:
            say(f"note: training steps are not captured in a CUDA graph: {reason}")
    return graph


def parse_learned(text: str) -> float | int:
    """``"1"`` as the int 1 (one filter), ``"1.0"`` as the float 1.0 (all); ValueError otherwise."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise ValueError(f"learned is {text!r}; expected a fraction such as 0.1 or a count such as 5")


def parse_option(text: str) -> tuple[str, Option]:
    """``"width=0.125"`` as ("width", 0.125); values are ints, floats, true, false or text."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise ValueError(f"option is {text!r}; expected name=value, such as width=0.125")
    if value in ("true", "false"):
        return name, value == "true"
    try:
        return name, parse_learned(value)
    except ValueError:
        return name, value
