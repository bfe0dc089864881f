"""Errors in datasets, and the optional packages that reading them needs."""

from __future__ import annotations

import importlib
from typing import Any

from maskedconv import console


class DataError(ValueError):
    """Data that cannot be used; the message names the file or argument and the remedy."""


class MissingDataError(DataError, FileNotFoundError):
    """Data that was not found; the message contains the command that helps."""


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
    """Prints a message about the data to stderr; stdout is for results."""
    console.say(f"data: {message}")


def say_once(message: str) -> None:
    """Like :func:`say`, but prints a message once in a process, and no empty one."""
    if message and message not in _said:
        _said.add(message)
        say(message)


_said: set[str] = set()
