"""Convolutions that train only part of their filters.

The other filters are frozen at their random initial values, or zero (Rosenfeld & Tsotsos 2018,
*Intriguing Properties of Randomly Weighted Networks*, arXiv 1802.00844).

Names are imported on first use. ``import maskedconv`` and ``--help`` of the commands do not import
torch.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from pkgutil import extend_path
from typing import TYPE_CHECKING, Any

# Started from the repository root after a plain `pip install .`, Python finds this source folder
# before the installed package; the compiled `_C` and `models` are then taken from the installation.
__path__ = extend_path(__path__, __name__)

__version__ = "0.1.0"

_HOMES = {
    "BNReLUConv2d": "nn",
    "FusionReport": "fusion.report",
    "Ensemble": "ensemble",
    "ConversionReport": "conversion.report",
    "KeptCount": "counting",
    "MaskedConv2d": "nn",
    "ParameterCount": "counting",
    "Tasks": "tasks",
    "TrainedRun": "runs.trained",
    "YellowFin": "optim.yellowfin",
    "conversion_report": "conversion.report",
    "convert_": "conversion.convert",
    "count_kept": "counting",
    "count_parameters": "counting",
    "erk": "conversion.fractions",
    "explain": "explanation",
    "fisher_information": "conversion.fisher",
    "fuse_": "fusion.fuse",
    "load": "checkpoint",
    "load_run": "runs.trained",
    "load_sharded": "checkpoint",
    "masked_conv2d": "functional",
    "merge_": "conversion.convert",
    "save": "checkpoint",
    "save_sharded": "checkpoint",
    "select_learned_": "selection",
    "unfuse_": "fusion.fuse",
    "summary": "analysis.summary",
    "thin": "thinning.thin",
}

# Submodules for users. The others can be imported, too, but are the package's own.
_NAMESPACES = ("data", "functional", "methods", "models", "nn", "optim", "supermasks")

__all__ = [
    "BNReLUConv2d",
    "ConversionReport",
    "Ensemble",
    "FusionReport",
    "KeptCount",
    "MaskedConv2d",
    "ParameterCount",
    "Tasks",
    "TrainedRun",
    "YellowFin",
    "conversion_report",
    "convert_",
    "count_kept",
    "count_parameters",
    "erk",
    "explain",
    "fisher_information",
    "fuse_",
    "load",
    "load_run",
    "load_sharded",
    "masked_conv2d",
    "merge_",
    "save",
    "save_sharded",
    "select_learned_",
    "summary",
    "thin",
    "unfuse_",
]

if TYPE_CHECKING:
    from maskedconv import data as data
    from maskedconv import functional as functional
    from maskedconv import models as models
    from maskedconv import nn as nn
    from maskedconv.analysis.summary import summary
    from maskedconv.checkpoint import load, load_sharded, save, save_sharded
    from maskedconv.conversion.convert import convert_, merge_
    from maskedconv.conversion.fisher import fisher_information
    from maskedconv.conversion.fractions import erk
    from maskedconv.conversion.report import ConversionReport, conversion_report
    from maskedconv.counting import KeptCount, ParameterCount, count_kept, count_parameters
    from maskedconv.ensemble import Ensemble
    from maskedconv.explanation import explain
    from maskedconv.functional import masked_conv2d
    from maskedconv.fusion.fuse import fuse_, unfuse_
    from maskedconv.fusion.report import FusionReport
    from maskedconv.nn import BNReLUConv2d, MaskedConv2d
    from maskedconv.optim.yellowfin import YellowFin
    from maskedconv.runs.trained import TrainedRun, load_run
    from maskedconv.selection import select_learned_
    from maskedconv.tasks import Tasks
    from maskedconv.thinning.thin import thin


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    # An editable installation maps `models` to another folder, which only find_spec knows.
    if name.isidentifier() and not name.startswith("_") and find_spec(f"{__name__}.{name}"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    special = (name for name in globals() if name.startswith("__"))
    return sorted({*special, *__all__, *_NAMESPACES})
