"""Bars: what the scoreboard has to reach, held against what it reached."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from ..kernels.band import size_class
from .compare import Row, is_dense
from .protocol import Bar, Subject, protocol
from .scores import FORWARD, score


class Reached(NamedTuple):
    """A bar and what each table reached, as fractions; of published runs there is one value, over all of them."""

    bar: Bar
    values: dict[str, float]

    @property
    def met(self) -> int:
        """Tables that reached the bar."""
        return sum(100 * value <= self.bar.limit for value in self.values.values())


def reached(rows: Iterable[Row]) -> list[Reached]:
    """Every bar of the protocol that there are rows for."""
    done = [row for row in rows if row.error is not None]
    found = [Reached(bar, _values(bar, done)) for bar in protocol().bar]
    return [r for r in found if r.values]


def _values(bar: Bar, rows: list[Row]) -> dict[str, float]:
    subjects = {(part, f"aiconfigurator/{s.table}", s.kernel): s for part, s in _subjects()}
    tables: dict[str, list[Row]] = {}
    for row in rows:
        subject = subjects.get((row.part, row.table, row.kernel))
        if _counts(bar, row, subject):
            tables.setdefault(row.gpu if subject else "all", []).append(row)
    values = {name: _statistic(bar.statistic)(members) for name, members in tables.items()}
    return {name: value for name, value in values.items() if value is not None}


def _subjects() -> Iterable[tuple[str, Subject]]:
    rules = protocol()
    for part, subjects in (("A", rules.unseen), ("B", rules.calibrated), ("D", rules.scored)):
        yield from ((part, subject) for subject in subjects)


def _counts(bar: Bar, row: Row, subject: Subject | None) -> bool:
    if row.part != bar.part or (bar.size and size_class(row.tokens) != bar.size):
        return False
    if subject is not None and (subject.power_limited != bar.power_limited or (bar.step and subject.step != bar.step)):
        return False
    if bar.rows == "decode":
        return row.phase == "decode"
    if row.phase not in FORWARD or is_dense(row) != (bar.rows == "dense"):
        return False
    return bar.part == "C" or (row.head_dim == 128) == (bar.head_dims == "128")


def _statistic(name: str) -> Callable[[list[Row]], float | None]:
    if name == "speedup":
        return _speedup
    return lambda rows: abs(float(getattr(score([row.error or 0.0 for row in rows]), name)))


def _speedup(rows: list[Row]) -> float | None:
    errors = [row.speedup_error for row in rows if row.speedup_error is not None]
    if not errors:
        return None
    return score(errors).median if rows[0].part == "C" else score(errors).mape
