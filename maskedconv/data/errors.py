"""Errors in datasets, and the optional packages that reading them needs."""

from __future__ import annotations

import importlib
from typing import Any

from maskedconv import console


class DataError(ValueError):
    """Data that cannot be used as it is; the message names the file or argument and the remedy."""


class MissingDataError(DataError, FileNotFoundError):
    """Data that is not where it was looked for; the message holds the command that helps."""


def optional_import(module: str) -> Any:
    """Import a package of the ``reproduce`` extra; ImportError says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{module.partition('.')[0]} cannot be imported ({error}), and this dataset needs it: "
            "pip install 'maskedconv[reproduce]'"
        ) from error


def say(message: str) -> None:
    """Tell the user something about the data; stdout belongs to results."""
    console.say(f"data: {message}")


def say_once(message: str) -> None:
    """As :func:`say`, the first time that ``message`` comes in this process; nothing if empty."""
    if message and message not in _said:
        _said.add(message)
        say(message)


_said: set[str] = set()
