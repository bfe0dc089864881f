"""Simplifies a failing case."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, replace

from tests.fuzz.cases import Case


def shrink(case: Case, fails: Callable[[Case], bool]) -> Case:
    """``case`` with all fields reset to defaults that the failure does not need."""
    again = True
    while again:
        again = False
        for field in fields(Case):
            if field.name in ("seed", "kind") or getattr(case, field.name) == field.default:
                continue
            plainer = replace(case, **{field.name: field.default})
            with suppress(ValueError):  # one default may not go with another field
                if fails(plainer):
                    case, again = plainer, True
    return case
