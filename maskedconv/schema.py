"""Checks JSON values against a schema; an error names the file and the place in it.

A schema is a function that takes a value and raises :class:`Misfit`. The functions below are
schemas or create them. Does not import torch.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, NotRequired, get_args, get_origin, get_type_hints, is_typeddict

Schema = Callable[[Any], None]

# Larger integers are neither sizes nor seeds, and the largest would overflow a float.
LARGEST_INT = 2**63


class SchemaError(ValueError):
    """A file with unexpected content; names the file, the place and the value."""


class Misfit(ValueError):
    """A value that does not match its schema. Callers prepend the place to the message."""

    def __init__(self, message: str, place: str = "") -> None:
        super().__init__(f"{place or 'the value'} {message}")
        self.message = message
        self.place = place

    def below(self, key: str | int) -> Misfit:
        """The same error, relative to the object or list with the value at ``key``."""
        step = f"[{key}]" if isinstance(key, int) else _name(key)
        dot = "." if self.place and not self.place.startswith("[") else ""
        return Misfit(self.message, f"{step}{dot}{self.place}")


def read_json(content: bytes | str, schema: Schema, file: object) -> Any:
    """The JSON value in ``content``, checked.

    Args:
        file: name of the file in errors.

    Raises:
        SchemaError: the content is not JSON, is nested too deeply, contains NaN, or does not match
            ``schema``.
    """
    try:
        value = json.loads(content, parse_constant=_refuse_constant)
    except RecursionError:
        raise SchemaError(f"{file}: the JSON is nested too deeply") from None
    except ValueError as error:
        raise SchemaError(f"{file}: not valid JSON, perhaps truncated ({error})") from None
    return checked(value, schema, file)


def checked(value: Any, schema: Schema, file: object) -> Any:
    """``value`` itself; SchemaError, which names ``file``, if it does not match ``schema``."""
    try:
        schema(value)
    except Misfit as error:
        raise SchemaError(f"{file}: {error}") from None
    return value


def text(value: Any) -> None:
    """A string that can be written as UTF-8."""
    if not isinstance(value, str):
        raise _misfit(value, "a string")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _misfit(value, "a valid Unicode string") from None


def flag(value: Any) -> None:
    """true or false."""
    if not isinstance(value, bool):
        raise _misfit(value, "true or false")


def number(value: Any) -> None:
    """A finite number."""
    if isinstance(value, float):
        if math.isfinite(value):
            return
    elif isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2 * LARGEST_INT:
        return
    raise _misfit(value, "a finite number")


def scalar(value: Any) -> None:
    """A string, a finite number, true or false."""
    if not isinstance(value, bool):
        (text if isinstance(value, str) else number)(value)


def count(value: Any) -> None:
    """An integer from 0 to 2^63."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST_INT:
        raise _misfit(value, "an integer of at least 0")


def seed(value: Any) -> None:
    """An integer that torch accepts as a seed: 64 bits, signed or unsigned."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or not -LARGEST_INT <= value < 2 * LARGEST_INT
    ):
        raise _misfit(value, "a 64-bit integer")


def one_of(*values: Any) -> Schema:
    """One of ``values``, with the same type: 1, 1.0 and true differ."""

    def check(value: Any) -> None:
        if not any(type(value) is type(known) and value == known for known in values):
            raise _misfit(value, " or ".join(map(repr, values)))

    return check


def optional(schema: Schema) -> Schema:
    """null, or a value that matches ``schema``."""

    def check(value: Any) -> None:
        if value is not None:
            schema(value)

    return check


def list_of(schema: Schema, length: int | None = None) -> Schema:
    """A list of items that match ``schema``, of the given ``length`` if any."""

    def check(value: Any) -> None:
        if not isinstance(value, list):
            raise _misfit(value, "a list")
        if length is not None and len(value) != length:
            raise _misfit(value, f"a list of {length}")
        for index, item in enumerate(value):
            try:
                schema(item)
            except Misfit as error:
                raise error.below(index) from None

    return check


def mapping_of(schema: Schema) -> Schema:
    """An object with any keys, whose values match ``schema``."""

    def check(value: Any) -> None:
        for key, item in _entries(value).items():
            text(key)
            _check_entry(key, item, schema)

    return check


def record(
    required: Mapping[str, Schema] | None = None, others: Mapping[str, Schema] | None = None
) -> Schema:
    """An object with every key of ``required``; ``others`` are checked if present.

    Unknown keys are accepted, because a later version may have written them. A key in both has the
    schema of ``required``.
    """
    required = required or {}
    known = {**(others or {}), **required}

    def check(value: Any) -> None:
        entries = _entries(value)
        for key in required:
            if key not in entries:
                raise Misfit("is missing", key)
        for key, schema in known.items():
            if key in entries:
                _check_entry(key, entries[key], schema)

    return check


_OF_SCALARS: dict[Any, Schema] = {
    str: text,
    bool: flag,
    int: count,
    float: number,
    float | int: number,
}


def schema_of(kind: Any, own: Mapping[Any, Schema]) -> Schema:
    """The schema of a type: a scalar, ``X | None``, a list, a dict, a TypedDict, or one of ``own``.

    An ``int`` is a :func:`count`; a ``tuple[X, ...]`` is a list in JSON.
    """
    if kind in own or kind in _OF_SCALARS:
        return own[kind] if kind in own else _OF_SCALARS[kind]
    if is_typeddict(kind):
        fields = fields_of(kind, own)
        hints = get_type_hints(kind, include_extras=True)
        needed = [name for name in fields if get_origin(hints[name]) is not NotRequired]
        return record({name: fields[name] for name in needed}, fields)
    arguments = get_args(kind)
    if type(None) in arguments:
        (other,) = (one for one in arguments if one is not type(None))
        return optional(schema_of(other, own))
    if get_origin(kind) is dict:
        return mapping_of(schema_of(arguments[1], own))
    assert get_origin(kind) in (list, tuple), kind
    return list_of(schema_of(arguments[0], own))


def fields_of(kind: type, own: Mapping[Any, Schema]) -> dict[str, Schema]:
    """The schema of each annotated field of a class, as :func:`schema_of`."""
    return {name: schema_of(hint, own) for name, hint in get_type_hints(kind).items()}


def _check_entry(key: str, value: Any, schema: Schema) -> None:
    try:
        schema(value)
    except Misfit as error:
        raise error.below(key) from None


def _entries(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _misfit(value, "an object")
    return value


def _name(key: str) -> str:
    return key if len(key) <= 100 and key.isprintable() else reprlib.repr(key)


def _misfit(value: Any, expected: str) -> Misfit:
    # reprlib: a damaged value may be of any size and depth.
    return Misfit(f"is {reprlib.repr(value)}; expected {expected}")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
