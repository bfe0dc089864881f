"""The compiled module ``maskedconv._C``, or the reason why it is not there."""

from __future__ import annotations

from types import ModuleType

_C: ModuleType | None
try:
    from maskedconv import _C
except ImportError as error:
    _C = None
    if isinstance(error, ModuleNotFoundError) or "cannot import name" in str(error):
        REASON = (
            "maskedconv._C is not installed: no C++ compiler was found when maskedconv was "
            "installed, or MASKEDCONV_NATIVE=0 was set"
        )
    else:
        REASON = f"maskedconv._C does not load: {error}"
else:
    REASON = ""


def module() -> ModuleType | None:
    """The compiled module, or None; :data:`REASON` then says why."""
    return _C
