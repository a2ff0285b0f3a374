"""Schedules of heads that differ, as one schedule: a kernel launch over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .runs import Runs
from .schedule import BlockGrid, Group, TileSchedule


def stack(parts: Sequence[tuple[TileSchedule, int]]) -> TileSchedule:
    """One schedule from schedules of the same sequence in the same tiles, each with the number of heads that share it.

    Its block grid is that of the mean head.

    >>> from simattn.workloads import schedule
    >>> dense, causal = schedule("dense", seq_q=512), schedule("causal", seq_q=512)
    >>> both = stack([(dense, 1), (causal, 3)])
    >>> both.visited == dense.visited + 3 * causal.visited, both.copies
    (True, 4)
    """
    schedules = [schedule for schedule, _ in parts]
    if len(parts) == 1:
        return schedules[0].with_copies(parts[0][1])
    longest = max(schedules, key=lambda s: s.buffers[-1].start + s.buffers[-1].tokens)
    first = np.cumsum([0, *(len(s.row_live) for s in schedules)]).tolist()
    keys = [s.row_keys for s in schedules]
    return replace(
        longest,
        row_live=np.concatenate([s.row_live for s in schedules]),
        runs=Runs.stack([s.runs for s in schedules]),
        groups=tuple(
            Group(begin + g.first_row, g.rows, g.copies * heads)
            for begin, (s, heads) in zip(first, parts, strict=False)
            for g in s.groups
        ),
        pairs_per_copy=tuple(pairs for s in schedules for pairs in s.pairs_per_copy),
        aligned=all(s.aligned for s in schedules),
        mask_free=all(s.mask_free for s in schedules),
        mask_axes=max(s.mask_axes for s in schedules),
        row_keys=None if any(k is None for k in keys) else np.concatenate([k for k in keys if k is not None]),
        blocks=_mean_grid(parts),
    )


def _mean_grid(parts: Sequence[tuple[TileSchedule, int]]) -> BlockGrid | None:
    """The blocks of the mean head, where all heads have blocks of one size."""
    grids = [(s.blocks, heads) for s, heads in parts if s.blocks]
    if len(grids) < len(parts) or len({(grid.size, grid.total) for grid, _ in grids}) > 1:
        return None
    heads = sum(n for _, n in grids)
    return grids[0][0]._replace(active=round(sum(grid.active * n for grid, n in grids) / heads))
