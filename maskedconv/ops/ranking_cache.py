"""Cache of rankings: a JSON file for each GPU, driver and build of the kernels.

No process waits for another one's measurement, because ranks of data-parallel training also wait
for each other on their GPUs. Processes that start together all measure, and then use the ranking
that was stored first.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import hashlib
import importlib
import json
import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import torch

from maskedconv.io import replace_file
from maskedconv.ops import native

VARIABLE = "MASKEDCONV_CACHE_DIR"
LOCK_SECONDS = 1.0  # for another process that writes the file
_MOST_BYTES = 16 << 20  # a larger file is damaged


class Ranking(NamedTuple):
    """Backends, from the fastest to one that takes every problem, and the reason for the order."""

    names: tuple[str, ...]
    reason: str


def folder() -> Path:
    """The folder in :data:`VARIABLE`, else the user's cache folder."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    with suppress(ImportError):
        return Path(importlib.import_module("platformdirs").user_cache_dir("maskedconv"))
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "maskedconv"


class RankingCache:
    """The rankings of one environment.

    An unreadable file counts as empty.
    """

    def __init__(self, path: Path, environment: dict[str, str]) -> None:
        self._path, self._environment = path, environment

    def find(self, key: str, backends: Collection[str]) -> Ranking | None:
        """The cached ranking for ``key``, if it has only these backends and the reference."""
        try:
            names, reason = self._read()[key]
            known = "reference" in names and len(set(names)) == len(names)
            if known and set(names) <= set(backends) and isinstance(reason, str):
                return Ranking(tuple(names), reason)
        except (KeyError, TypeError, ValueError):
            pass
        return None

    def add(self, key: str, ranking: Ranking, backends: Collection[str]) -> Ranking:
        """Stores the ranking, unless another process has stored one meanwhile.

        Returns:
            The stored ranking; ``ranking`` with the reason added if it cannot be stored.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._locked():
                found = self.find(key, backends)
                if found is None:
                    self._write({**self._read(), key: [list(ranking.names), ranking.reason]})
        except OSError as error:
            return ranking._replace(reason=f"{ranking.reason}; not cached on disk: {error}")
        return found or ranking

    def _write(self, rankings: dict[str, Any]) -> None:
        content = {"environment": self._environment, "rankings": rankings}
        replace_file(self._path, json.dumps(content, indent=1).encode())

    def _read(self) -> dict[str, Any]:
        with suppress(OSError, ValueError, RecursionError):
            if self._path.stat().st_size > _MOST_BYTES:
                return {}
            content = json.loads(self._path.read_text(encoding="utf-8"))
            if isinstance(content, dict) and content.get("environment") == self._environment:
                rankings = content.get("rankings")
                return rankings if isinstance(rankings, dict) else {}
        return {}

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Context in which no other process writes the file.

        Continues without the lock after :data:`LOCK_SECONDS` or if files cannot be locked.
        """
        handle = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o666)
        try:
            until = time.monotonic() + LOCK_SECONDS
            while not _lock(handle) and time.monotonic() < until:
                time.sleep(0.02)
            yield
        finally:
            os.close(handle)


def _lock(handle: int) -> bool:
    """Whether to go on: the file is locked now, or cannot be."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


@functools.cache
def cache_for(device: torch.device) -> RankingCache:
    """The cache for one CUDA device; its folder is determined once."""
    environment = describe(device)
    digest = hashlib.sha256(json.dumps(environment, sort_keys=True).encode()).hexdigest()[:16]
    return RankingCache(folder() / f"rankings-{digest}.json", environment)


def describe(device: torch.device) -> dict[str, str]:
    """Everything that rankings depend on besides the problem."""
    versions = {}
    for package in ("maskedconv", "torch", "triton"):
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    properties = torch.cuda.get_device_properties(device)
    return {
        **versions,
        "gpu": f"{properties.name}, {properties.multi_processor_count} multiprocessors, "
        f"capability {properties.major}.{properties.minor}",
        "driver": driver_version(),
        "cudnn": str(torch.backends.cudnn.version()),
        "kernels": kernels_digest(),
    }


def driver_version() -> str:
    """The version of NVIDIA's driver, or an empty string."""
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL("libnvidia-ml.so.1")
        text = ctypes.create_string_buffer(96)
        if library.nvmlInit_v2() == 0 and library.nvmlSystemGetDriverVersion(text, 96) == 0:
            return text.value.decode(errors="replace")
    return ""


@functools.cache
def kernels_digest() -> str:
    """Hash of the kernels, because rebuilt kernels must be checked again."""
    digest = hashlib.sha256()
    files = sorted(Path(__file__).parent.rglob("*.py"))
    module = native.module()
    if module is not None and module.__file__:
        files.append(Path(module.__file__))
    for file in files:
        with suppress(OSError):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
