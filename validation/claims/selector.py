"""Selectors: which claims an entry of a data file is about, and what it reads in their words."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from functools import cache

from msgspec import Struct

from ...facts import UserError
from .claim import Claim


class Selector(Struct, frozen=True, kw_only=True):
    """Claims by system, and by regular expressions over their fields.

    Attributes
    ----------
    system : str
        May hold * and ?.
    where : dict
        Expressions by field, each to be found in it. Named groups are numbers for the entry's own use: `(?P<budget>\\d+)`.
    absent : tuple of str
        Fields that the claim must not have.
    """

    system: str = "*"
    where: dict[str, str] = {}
    absent: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in (*self.where, *self.absent):
            if name not in Claim.__struct_fields__:
                raise UserError(f"claims have no field {name!r}")

    def read(self, claim: Claim) -> dict[str, float] | None:
        """Numbers that it reads in a claim; None where it is not about the claim.

        >>> from .claim import Claim
        >>> one = Claim(system="X", claim="at budget 512", metric="latency ms", source="", source_kind="")
        >>> Selector(where={"claim": r"budget (?P<budget>\\d+)"}).read(one)
        {'budget': 512.0}
        """
        if not fnmatchcase(claim.system, self.system) or any(getattr(claim, name) is not None for name in self.absent):
            return None
        found: dict[str, float] = {}
        for name, expression in self.where.items():
            text = getattr(claim, name)
            match = None if text is None else _compiled(expression).search(str(text))
            if match is None:
                return None
            found |= {group: float(word) for group, word in match.groupdict().items() if word is not None}
        return found


@cache
def _compiled(expression: str) -> re.Pattern[str]:
    return re.compile(expression)
