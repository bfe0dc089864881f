"""Checks of arguments that several parts of the package share. Free of torch."""

from __future__ import annotations


def check_choice(argument: str, value: str, choices: tuple[str, ...]) -> str:
    """Returns ``value``; ValueError unless it is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{argument} is {value!r}; expected one of {', '.join(choices)}")
    return value
