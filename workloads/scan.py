"""Scan: the tiles that a kernel looks at only to find that it may pass them over."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .runs import Runs, paint
from .schedule import Kind, TileSchedule


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
    every = np.ones(len(runs.row), bool)
    seen = paint(runs.rows, runs.row, runs.start // tile * tile, -(-runs.stop // tile) * tile, every, None)
    before = np.where(np.r_[True, seen.row[1:] != seen.row[:-1]], 0, np.r_[0, seen.stop[:-1]])
    gap = seen.start > before
    row = np.r_[runs.row, seen.row[gap]]
    start = np.r_[runs.start, before[gap]]
    length = np.r_[runs.length, (seen.start - before)[gap]]
    kind = np.r_[runs.kind, np.full(int(gap.sum()), Kind.SKIPPED, np.uint8)].astype(np.uint8)
    order = np.lexsort((start, row))
    return replace(schedule, runs=Runs(row[order], start[order], length[order], kind[order], runs.rows))
