"""The one error type that stands for a mistake of the user, not of the program."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """What the user gave cannot be used. The message is one line: what is wrong, what was got, what is allowed."""


MOST_NAMES, NEAREST = 60, 8
"""Names that one line lists, and how many it lists of more."""


def unknown_name(what: str, got: str, allowed: Iterable[str]) -> UserError:
    """The error for a name that is not on a list, with the nearest name that is, and the list (of a long one, the nearest).

    >>> str(unknown_name("GPU", "b2000", ["b200", "h100"]))
    "unknown GPU 'b2000'; did you mean 'b200'? known: b200, h100"
    """
    names = sorted(set(allowed))
    near = difflib.get_close_matches(got, names, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}? " if near else ""
    if len(names) <= MOST_NAMES:
        return UserError(f"unknown {what} {got!r}; {hint}known: {', '.join(names)}")
    nearest = difflib.get_close_matches(got, names, n=NEAREST, cutoff=0.0)
    return UserError(f"unknown {what} {got!r}; {hint}nearest of {len(names)}: {', '.join(nearest)}")
