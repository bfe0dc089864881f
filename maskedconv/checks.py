"""Checks of arguments that several parts of the package share. Free of torch."""

from __future__ import annotations

from numbers import Real


def check_choice(argument: str, value: str, choices: tuple[str, ...]) -> str:
    """Returns ``value``; ValueError unless it is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{argument} is {value!r}; expected one of {', '.join(choices)}")
    return value


def check_flag(argument: str, value: object) -> bool:
    """Returns ``value``; TypeError unless it is a bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{argument} is {value!r}; expected a bool")
    return value


def check_int(argument: str, value: object, smallest: int, largest: int | None = None) -> int:
    """Returns ``value``; TypeError unless it is an int, ValueError if it is out of the range."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{argument} is {value!r} ({type(value).__name__}); expected an int")
    if value < smallest:
        raise ValueError(f"{argument} is {value}; expected at least {smallest}")
    if largest is not None and value > largest:
        raise ValueError(f"{argument} is {value}; expected at most {largest}")
    return value


def check_number(argument: str, value: object) -> float:
    """Returns ``value`` as a float; an error unless it is a finite number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{argument} is {value!r} ({type(value).__name__}); expected a number")
    number = float(value)
    if not 0 <= number < float("inf"):
        raise ValueError(f"{argument} is {value}; expected a finite number >= 0")
    return number


def check_dropout(dropout: object) -> float:
    """Returns ``dropout`` as a float; an error unless it is a probability in [0, 1)."""
    if (probability := check_number("dropout", dropout)) >= 1:
        raise ValueError(f"dropout is {dropout}; expected a number below 1")
    return probability


def check_fraction(argument: str, value: object) -> float:
    """Returns ``value`` as a float; TypeError unless it is a number, ValueError outside [0, 1]."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"{argument} is {value!r} ({type(value).__name__}); expected a fraction in [0, 1]"
        )
    fraction = float(value)
    if not 0.0 <= fraction <= 1.0:
        raise ValueError(f"{argument} is {fraction}; expected a fraction in [0, 1]")
    return fraction
