"""Old against new: what a change did to predictions, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from ..facts import UserError
from .compare import Row


class Change(NamedTuple):
    """A row whose prediction changed, or that was simulated only once; times in ms."""

    id: str
    measured_ms: float | None
    old_ms: float | None
    new_ms: float | None

    @property
    def closer(self) -> float | None:
        """By how much the error shrank, as a fraction of the measured time; negative where it grew."""
        if not self.measured_ms or self.old_ms is None or self.new_ms is None:
            return None
        return abs(self.old_ms / self.measured_ms - 1) - abs(self.new_ms / self.measured_ms - 1)

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return {**self._asdict(), "closer": self.closer}


class Difference(NamedTuple):
    """What changed; rows whose prediction moved most come first."""

    changes: list[Change]
    same: int
    gone: list[str]
    """Rows of the old file that are not compared any more."""

    def counts(self) -> tuple[int, int]:
        """Rows that came closer to the measured time, and rows that went away from it."""
        closer = [change.closer or 0.0 for change in self.changes]
        return sum(x > 0 for x in closer), sum(x < 0 for x in closer)


class _OldRow(Struct):
    id: str
    predicted_ms: float | None = None
    part: str = ""


class _Old(Struct):
    rows: list[_OldRow]


NOTICED = 1e-6
"""Relative difference from which on a prediction has changed."""


def difference(rows: Sequence[Row], old: Path) -> Difference:
    """Rows against those of an earlier `simattn validate --json`.

    Raises
    ------
    UserError
        The file cannot be read, or is none of that kind.
    """
    try:
        before = {(row.part, row.id): row.predicted_ms for row in msgspec.json.decode(old.read_bytes(), type=_Old).rows}
    except OSError as error:
        raise UserError(f"cannot read {old}: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise UserError(f"{old} is not what simattn validate --json prints: {error}") from None
    changes, same = [], 0
    for row in rows:
        was, now = before.pop((row.part, row.id), None), row.predicted_ms
        if was == now or (was and now and abs(now / was - 1) < NOTICED):
            same += 1
        else:
            changes.append(Change(row.id, row.measured_ms, was, now))
    moved = sorted(changes, key=lambda c: -abs((c.new_ms or 0.0) / c.old_ms - 1) if c.old_ms else -inf)
    return Difference(moved, same, sorted(name for _, name in before))
