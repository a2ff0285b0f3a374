"""Causes: what is known about why predictions miss, for the worst rows of the scoreboard."""

from __future__ import annotations

import tomllib
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from .compare import Row

UNKNOWN = "not known"


class Cause(Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of `causes.toml`; a field that is not given holds for all."""

    why: str
    table: str = "*"
    gpu: str = "*"
    kernel: str = "*"
    phase: str = "*"
    head_dim: int = 0
    fewest_tokens: int = 0
    most_tokens: int = 2**62
    sign: Literal[-1, 0, 1] = 0

    def holds(self, row: Row) -> bool:
        """Whether it may be the cause of a row's error."""
        names = ((row.table, self.table), (row.gpu, self.gpu), (row.kernel, self.kernel), (row.phase, self.phase))
        return (
            all(fnmatchcase(*pair) for pair in names)
            and self.head_dim in (0, row.head_dim)
            and self.fewest_tokens <= row.tokens <= self.most_tokens
            and (row.error or 0.0) * self.sign >= 0
        )


@cache
def causes() -> tuple[Cause, ...]:
    """All of them, in the order of the file."""
    text = (Path(__file__).parent / "causes.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text)["cause"], tuple[Cause, ...])


def cause_of(row: Row) -> str:
    """Why a prediction misses, or that it is not known.

    >>> cause_of(Row("x", "h100-sxm", "flex", "causal", 1.0, predicted_ms=0.7))[:30]
    'probably the score function an'
    >>> cause_of(Row("x", "h100-sxm", "flex", "causal", 1.0, predicted_ms=1.7))
    'not known'
    """
    return next((cause.why for cause in causes() if cause.holds(row)), UNKNOWN)
