"""The engine of runs: processes of this machine, or tasks of a Ray cluster.

Imports neither torch nor ray.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.util import find_spec

from maskedconv.checks import check_choice

ENGINES = ("processes", "ray")
LOCAL = "local"


@dataclass(frozen=True)
class Engine:
    """An engine and its options.

    Attributes:
        name: "processes" or "ray".
        address: for Ray: "local" starts a cluster on this machine for the command alone, "auto"
            joins the one that runs here (or that ``RAY_ADDRESS`` names), and ``host:port`` another.
        gpus_per_run: for Ray: the share of a GPU, such as .25, or a whole number of GPUs that a
            run takes; 0 executes the runs on CPUs.

    Raises:
        ValueError: an option is invalid, or belongs to another engine.
        ImportError: the engine is Ray, which is not installed.
    """

    name: str = "processes"
    address: str | None = None
    gpus_per_run: float | None = None

    def __post_init__(self) -> None:
        check_choice("engine", self.name, ENGINES)
        if not self.is_ray:
            for name in ("address", "gpus_per_run"):
                if (value := getattr(self, name)) is not None:
                    raise ValueError(f"{name} is {value!r}; expected --engine ray with it")
            return
        gpus = self.gpus_per_run or 0
        if not (0 <= gpus < math.inf and (gpus < 1 or gpus == int(gpus))):
            raise ValueError(f"gpus_per_run is {gpus}; expected 0 to 1, or a whole number")
        if self.address not in (None, "local", "auto") and ":" not in (self.address or ""):
            raise ValueError(f"address is {self.address!r}; expected local, auto or host:port")
        if find_spec("ray") is None:
            raise ImportError("engine ray needs the package ray: pip install 'maskedconv[ray]'")

    @property
    def is_ray(self) -> bool:
        return self.name == "ray"

    def device(self, asked: str) -> str:
        """The type of device of the runs for the option ``device``, or ``asked`` without Ray.

        Raises:
            ValueError: the option contradicts ``gpus_per_run``.
        """
        if not self.is_ray:
            return asked
        found = "cuda" if self.gpus_per_run else "cpu"
        if asked not in ("auto", found):
            expected = "--gpus-per-run with it" if asked == "cuda" else "cuda or auto"
            raise ValueError(
                f"device is {asked!r} and gpus_per_run {self.gpus_per_run}; expected {expected}"
            )
        return found
