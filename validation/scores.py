"""Scores: what the errors of many rows come to, by group, for us and for the naive estimators on the same rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from ..kernels.band import size_class
from .compare import Row, is_dense, pattern_class
from .protocol import makes_bands
from .roofline import Roofline, fitted_roofline

ALL = "all"

RESAMPLES = 400
"""Bootstrap samples behind an interval."""

ENOUGH_FOR_INTERVAL = 5
"""Rows from which on an interval says something."""


class Score(NamedTuple):
    """Errors of one estimator over a group of rows, as fractions."""

    mape: float
    median: float
    p90: float
    max: float
    bias: float


class Interval(NamedTuple):
    """Bootstrap interval of a MAPE over the rows of a group: 95 %."""

    low: float
    high: float


class Group(NamedTuple):
    """Rows that are scored together; `all` where a field holds any value."""

    gpu: str
    kernel: str
    pattern: str
    size: str = ALL


class GroupScore(NamedTuple):
    """Scores of one group.

    Attributes
    ----------
    interval : Interval or None
        Of our MAPE; None where rows are too few.
    tau : float or None
        Kendall's tau: do predictions rank the patterns of a problem as measurements do? 1 where always, 0 where by chance. None
        where no two patterns share a problem.
    speedup : Score or None
        Of the speedup over the dense run at the same shape; None where no row has one.
    inside, inside_n : float, int
        Share of rows within their band, of those that did not make any, and how many these are.
    roofline : Score or None
        Of a roofline with three constants fitted to dense rows of the same table and kernel.
    """

    group: Group
    n: int
    simulated: Score
    interval: Interval | None
    tau: float | None
    speedup: Score | None
    inside: float | None
    inside_n: int
    flop_bound: Score
    tile_bound: Score
    roofline: Score | None

    def plain(self) -> dict[str, Any]:
        """The group as `simattn validate --json` prints it."""
        named = {
            name: value._asdict() if isinstance(value, (Score, Interval)) else value for name, value in self._asdict().items()
        }
        return {**named.pop("group")._asdict(), **named}


def score(errors: Iterable[float]) -> Score:
    """Summary of relative errors.

    >>> score([0.1, -0.1, 0.2]).mape.__round__(3)
    0.133
    """
    signed = np.array(list(errors))
    size = np.abs(signed)
    return Score(*(float(x) for x in (size.mean(), np.median(size), np.quantile(size, 0.9), size.max(), signed.mean())))


def interval(errors: Sequence[float]) -> Interval | None:
    """Bootstrap interval of the mean absolute error; the draws are the same each time."""
    size = np.abs(np.array(errors))
    if len(size) < ENOUGH_FOR_INTERVAL:
        return None
    means = np.random.default_rng(0).choice(size, (RESAMPLES, len(size))).mean(axis=1)
    return Interval(float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975)))


def ranking(rows: Iterable[Row]) -> float | None:
    """Kendall's tau of predicted and measured times, over pairs of runs that differ only in their pattern.

    The dense run that a sparse one is compared with is one of them.

    >>> row = Row("a", "g", "k", "dense", 2.0, predicted_ms=1.9, problem="p")
    >>> ranking([row, row._replace(measured_ms=1.0, predicted_ms=1.2)])
    1.0
    """
    problems: dict[str, list[Row]] = {}
    for row in rows:
        problems.setdefault(row.problem, []).append(row)
    signs = []
    for members in problems.values():
        times = {(row.measured_ms or 0.0, row.predicted_ms or 0.0) for row in members} | {
            r.dense_ms for r in members if r.dense_ms
        }
        signs += [np.sign(a[0] - b[0]) * np.sign(a[1] - b[1]) for a, b in combinations(sorted(times), 2)]
    return float(np.mean(signs)) if signs else None


def group_scores(
    rows: Iterable[Row], key: Callable[[Row], list[Group]] | None = None, roofline: Callable[[Row], Roofline | None] | None = None
) -> list[GroupScore]:
    """Scores of every group, that of all rows first.

    Parameters
    ----------
    key : callable, optional
        Groups of a row; by default all rows, (GPU, kernel, pattern class), and the same by size class.
    roofline : callable, optional
        The fitted roofline of a row; by default fitted to the dense rows of its table and kernel, of which there must be a few.
    """
    done = [row for row in rows if row.error is not None]
    naive = roofline or dense_rooflines(done)
    groups: dict[Group, list[Row]] = {}
    for row in done:
        for group in (key or usual_groups)(row):
            groups.setdefault(group, []).append(row)
    return [_scored(group, members, naive) for group, members in sorted(groups.items(), key=_place)]


def usual_groups(row: Row) -> list[Group]:
    """All rows; those of a GPU, kernel and pattern class; and these by size class."""
    own = Group(row.gpu, row.kernel, kind_of(row))
    return [Group(ALL, ALL, ALL), own, own._replace(size=size_class(row.tokens))]


def kind_of(row: Row) -> str:
    """Pattern class of a row, and its phase where that is not forward attention over a whole sequence.

    >>> kind_of(Row("x", "g", "k", "causal", 1.0, phase="train-bwd"))
    'causal, train-bwd'
    """
    return pattern_class(row) if row.phase in FORWARD else f"{pattern_class(row)}, {row.phase}"


FORWARD = ("", "prefill", "diffusion")
"""Phases of forward attention."""


def _place(item: tuple[Group, list[Row]]) -> tuple[bool, ...] | tuple[Any, ...]:
    group = item[0]
    return (group.gpu != ALL, group[:3], group.size != ALL, group.size)


def dense_rooflines(rows: Sequence[Row]) -> Callable[[Row], Roofline | None]:
    """Rooflines fitted to the dense rows of each table, kernel and phase."""
    dense: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if is_dense(row):
            dense.setdefault((row.table, row.gpu, row.kernel, row.phase), []).append(row)
    fitted = {name: fitted_roofline(members) for name, members in dense.items()}
    return lambda row: fitted.get((row.table, row.gpu, row.kernel, row.phase))


def _scored(group: Group, rows: list[Row], roofline: Callable[[Row], Roofline | None]) -> GroupScore:
    errors = [row.error or 0.0 for row in rows]
    naive = [(row, roofline(row)) for row in rows]
    fitted = [found.ms(row) / row.measured_ms - 1 for row, found in naive if found is not None and row.measured_ms]
    flop, tile = (
        score([getattr(row, name) / row.measured_ms - 1 for row in rows if row.measured_ms])
        for name in ("flop_bound_ms", "tile_bound_ms")
    )
    speedups = [row.speedup_error for row in rows if row.speedup_error is not None]
    inside = [row.inside for row in rows if not makes_bands(row.id)]
    return GroupScore(
        group,
        len(rows),
        score(errors),
        interval(errors),
        ranking(rows),
        score(speedups) if speedups else None,
        float(np.mean(inside)) if inside else None,
        len(inside),
        flop,
        tile,
        # The same rows, or none.
        score(fitted) if len(fitted) == len(rows) else None,
    )
