"""Visits: the kv tiles of every row, one by one, for those who must see each of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from .schedule import Kind, TileSchedule


class Visits(NamedTuple):
    """The visits of a schedule's rows, in ascending order of keys.

    Attributes
    ----------
    row_first : int64 array [rows + 1]
        First visit of each row.
    tile : int32 array [visits]
        Tile of the key address space (the one that the visit starts in, where visits lie on no grid).
    kind : int8 array [visits]
        `Kind`; FULL where all of the tile lies in one FULL run.
    """

    row_first: NDArray[np.int64]
    tile: NDArray[np.int32]
    kind: NDArray[np.int8]


def visits(schedule: TileSchedule) -> Visits:
    """Every visit of one copy of a schedule's rows.

    >>> from simattn.workloads import schedule
    >>> found = visits(schedule("causal", seq_q=256, q_tile=128, kv_tile=128))
    >>> found.row_first.tolist(), found.tile.tolist(), found.kind.tolist()
    ([0, 1, 3], [0, 0, 1], [1, 0, 1])
    """
    counts, runs = schedule.counts, schedule.runs
    most = int((counts.visited + counts.qk_only + counts.skipped).sum())
    row_first = np.zeros(len(counts.visited) + 1, np.int64)
    tile, kind = np.empty(most, np.int32), np.empty(most, np.int8)
    _write(runs.indptr, runs.start, runs.stop, runs.kind, schedule.kv_tile, schedule.aligned, tile, kind, row_first)
    return Visits(row_first, tile[: row_first[-1]], kind[: row_first[-1]])


_FULL, _PARTIAL = int(Kind.FULL), int(Kind.PARTIAL)


@njit(cache=True)
def _write(
    indptr: Any, start: Any, stop: Any, run_kind: Any, width: int, aligned: bool, tile: Any, kind: Any, row_first: Any
) -> None:
    """Fill in tiles, kinds and the first visit of each row."""
    at = 0
    for row in range(len(indptr) - 1):
        first_of_row, origin, end = at, 0, -1
        for run in range(indptr[row], indptr[row + 1]):
            # Without a grid, runs that touch each other are cut from the first key on.
            if not aligned and start[run] != end:
                origin = start[run]
            end = stop[run]
            for cut in range((start[run] - origin) // width, (end - origin - 1) // width + 1):
                begin = origin + cut * width
                found: Any = np.int64(run_kind[run])
                if found == _FULL and not (start[run] <= begin and begin + width <= end):
                    found = _PARTIAL
                if start[run] > begin and at > first_of_row and tile[at - 1] == begin // width:
                    # Two runs share a tile: it is computed if one of them is, and then needs a mask.
                    kind[at - 1] = max(_PARTIAL, min(kind[at - 1], found))
                else:
                    tile[at] = begin // width
                    kind[at] = found
                    at += 1
        row_first[row + 1] = at
