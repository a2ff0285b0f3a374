"""Boxes of keys under tiles of consecutive row-major tokens: what a kernel without token permutation visits."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...facts import UserError
from ..layout import Tiling, TokenLayout
from ..runs import Runs, paint
from ..schedule import TileSchedule, flat_schedule
from .axis import Axis

Ints = NDArray[np.int64]

PIECES_AT_A_TIME = 1 << 14
"""Intervals painted at once for flat tiles: few enough to stay in a cache."""


def flat_boxes(axes: list[Axis], layout: TokenLayout, tiling: Tiling) -> TileSchedule:
    """The schedule of boxes of keys, each query its own, under flat tiles."""
    if any(a.dilation > 1 for a in axes) or layout.text:
        raise UserError("gna under flat tiles takes no dilation and no text")
    tokens, line = layout.tokens, axes[-1].length
    rows = -(-tokens // tiling.q_rows)
    # Cut every tile into pieces of one line of the last axis: along a line the window moves monotonically.
    begin = np.unique(np.concatenate([np.arange(0, tokens, tiling.q_rows), np.arange(0, tokens, line)]))
    tile = begin // tiling.q_rows
    last = np.append(begin[1:], tokens) - 1
    lo_first, hi_first = axes[-1].window_of(begin % line)
    lo_last, hi_last = axes[-1].window_of(last % line)
    outer = _windows_of_lines(axes[:-1], begin // line)
    # Seen by some query of a tile: the union of what its pieces see. Seen by all: one box, the intersection.
    some = _Boxes(tile, [*outer, (lo_first, hi_last)])
    first_piece = np.flatnonzero(np.append(True, tile[1:] != tile[:-1]))
    shared = [
        (np.maximum.reduceat(lo, first_piece), np.minimum.reduceat(hi, first_piece)) for lo, hi in [*outer, (lo_last, hi_first)]
    ]
    every = _Boxes(np.arange(rows), shared)
    batch = max(1, PIECES_AT_A_TIME // max(1, prod(a.window for a in axes[:-1])))
    parts = []
    for low in range(0, rows, batch):
        high = min(low + batch, rows)
        some_row, some_start, some_stop = some.intervals(low, high, layout.grid)
        every_row, every_start, every_stop = every.intervals(low, high, layout.grid)
        parts.append(
            paint(
                high - low,
                np.concatenate([some_row, every_row]) - low,
                np.concatenate([some_start, every_start]),
                np.concatenate([some_stop, every_stop]),
                np.repeat([False, True], [len(some_row), len(every_row)]),
                None,
            )
        )
    return flat_schedule(
        Runs.stack(parts),
        q_tile=tiling.q_rows,
        kv_tile=tiling.kv_rows,
        seq_q=tokens,
        seq_kv=tokens,
        pairs=prod(a.pairs() for a in axes),
        mask_axes=len(axes),
        aligned=not tiling.dynamic_kv,
    )


class _Boxes(NamedTuple):
    """Boxes of keys of a row-major grid, each of one row: along every axis an interval [lo, hi)."""

    row: Ints
    """In rising order."""
    sides: list[tuple[Ints, Ints]]

    def intervals(self, low: int, high: int, grid: tuple[int, ...]) -> tuple[Ints, Ints, Ints]:
        """The boxes of rows low to high as intervals of consecutive keys: row, first key, end."""
        box = np.arange(np.searchsorted(self.row, low), np.searchsorted(self.row, high))
        line = np.zeros(len(box), np.int64)
        for length, (lo, hi) in zip(grid[:-1], self.sides[:-1], strict=True):
            parent, coordinate = spread_intervals(lo[box], np.maximum(hi[box], lo[box]))
            box, line = box[parent], line[parent] * length + coordinate
        first, last = self.sides[-1]
        return self.row[box], line * grid[-1] + first[box], line * grid[-1] + last[box]


def _windows_of_lines(axes: list[Axis], line: Ints) -> list[tuple[Ints, Ints]]:
    """Window along each of the outer axes, of lines given by their row-major number."""
    windows: list[tuple[Ints, Ints]] = []
    for axis in reversed(axes):
        windows.insert(0, axis.window_of(line % axis.length))
        line = line // axis.length
    return windows


def spread_intervals(lo: Ints, hi: Ints) -> tuple[Ints, Ints]:
    """All integers of intervals [lo, hi), as (interval number, integer)."""
    count = hi - lo
    parent = np.repeat(np.arange(len(lo)), count)
    return parent, np.arange(len(parent)) - np.repeat(np.cumsum(count) - count, count) + lo[parent]
