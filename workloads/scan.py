"""Scan: the tiles that a kernel looks at only to find that it may pass them over."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .runs import Runs
from .schedule import Kind, TileSchedule

Array = NDArray[Any]


def scanned(schedule: TileSchedule) -> TileSchedule:
    """The same work for a kernel that tests every tile up to the last one it computes: those in between become SKIPPED.

    An index list leads from visit to visit; a byte mask, a bitmap or a dense mask has to be read for every tile.

    Examples
    --------
    >>> from simattn.workloads import schedule
    >>> sinks = schedule("streaming_llm", seq_q=1024, window=128, sinks=64, q_tile=64, kv_tile=64)
    >>> found = scanned(sinks)
    >>> found.visited == sinks.visited, int(found.counts.skipped.sum()), int(found.counts.skipped[-1])
    (True, 78, 12)
    """
    runs, tile = schedule.runs, schedule.kv_tile
    if not schedule.aligned or not len(runs.row):
        return schedule
    start, stop = runs.start // tile * tile, -(-runs.stop // tile) * tile
    before = np.where(np.r_[True, runs.row[1:] != runs.row[:-1]], 0, np.r_[0, stop[:-1]])
    gap = start > before
    # Each gap comes before the run behind it.
    at = np.arange(len(gap)) + np.cumsum(gap)

    def merged(of_runs: Array, of_gaps: Array | int) -> Array:
        both = np.empty(len(gap) + int(gap.sum()), of_runs.dtype)
        both[at], both[at[gap] - 1] = of_runs, of_gaps
        return both

    row, kind = merged(runs.row, runs.row[gap]), merged(runs.kind, int(Kind.SKIPPED))
    return replace(
        schedule,
        runs=Runs(row, merged(runs.start, before[gap]), merged(runs.length, (start - before)[gap]), kind, runs.rows),
    )
