"""The compiled module ``maskedconv._C``, or the reason why it is not there."""

from __future__ import annotations

import importlib
from types import ModuleType


def _load() -> tuple[ModuleType | None, str]:
    try:
        return importlib.import_module("maskedconv._C"), ""
    except ModuleNotFoundError:
        return None, (
            "maskedconv._C is not installed: no C++ compiler was found when maskedconv was "
            "installed, or MASKEDCONV_NATIVE=0 was set"
        )
    except ImportError as error:
        return None, f"maskedconv._C does not load: {error}"


_MODULE, REASON = _load()


def module() -> ModuleType | None:
    """The compiled module, or None; :data:`REASON` then says why."""
    return _MODULE
