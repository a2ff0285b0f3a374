"""Counting: the visits of each row on a fixed grid of tiles, by kind, in one pass over its runs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True)
def count_visits(row: Any, start: Any, length: Any, kind: Any, rows: int, tile: int) -> Any:
    """Tiles of each row that are visited, covered by FULL runs, gathered, scored only, and skipped: int64 [5, rows].

    Parameters
    ----------
    row, start, length, kind : arrays [runs]
        Runs in the order of rows, and of keys in each; `Kind` is FULL, PARTIAL, GATHER, QK_ONLY or SKIPPED.
    """
    found = np.zeros((5, rows), np.int64)
    # Of each count, the row of its last run, and the end of that in tiles: a tile that two runs share counts once.
    of_row, end = np.full(5, -1), np.zeros(5, np.int64)
    for i in range(len(row)):
        r, k = row[i], kind[i]
        first, last = start[i] // tile, -(-(start[i] + length[i]) // tile)
        for count in range(5):
            # Gathered, scored only and skipped are the kinds 2, 3 and 4; all up to GATHER are visited; FULL is counted below.
            counts = (k <= 2) if count == 0 else False if count == 1 else k == count
            if counts:
                found[count, r] += last - first - (of_row[count] == r and first < end[count])
                of_row[count], end[count] = r, last
        if k == 0:
            found[1, r] += max((start[i] + length[i]) // tile - -(-start[i] // tile), 0)
    return found
