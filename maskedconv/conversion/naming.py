"""Names of layers: patterns that choose them, and lists of them in messages."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn

# As many names as one line bears.
_NAMED = 4
Layers = list[tuple[str, nn.Module]]
Patterns = str | Sequence[str] | None


def patterns_of(argument: str, value: Patterns) -> tuple[str, ...] | None:
    """Shell patterns of names; TypeError unless they are strings."""
    if value is None:
        return None
    patterns = (value,) if isinstance(value, str) else tuple(value)
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(
                f"{argument} has {pattern!r} ({type(pattern).__name__}); expected a pattern of "
                "module names"
            )
    return patterns


def matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def remedy(pattern: str, names: Iterable[str]) -> str:
    """The end of an error about a pattern that matches none of ``names``.

    It says how the layers of a module are named if the pattern is the name of one.
    """
    if any(name.startswith(f"{pattern}.") for name in names):
        return f"; {f'{pattern}.*'!r} matches those in {pattern}"
    return ""


def grouped(reasons: Mapping[str, str]) -> str:
    """``reasons`` in one line: each reason once, with the names of some layers that have it."""
    names: defaultdict[str, list[str]] = defaultdict(list)
    for name, reason in reasons.items():
        names[reason].append(name)
    return "; ".join(f"{shortened(layers)}: {reason}" for reason, layers in names.items())


def shortened(names: Iterable[str]) -> str:
    """The first of ``names``, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return ", ".join(listed[:_NAMED]) + more
