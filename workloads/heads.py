"""Heads that differ: how many of each kind, and their schedules as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..facts import UserError
from .runs import Runs
from .schedule import BlockGrid, TileSchedule


def heads_of_kinds(shares: Sequence[float], heads: int) -> list[int]:
    """Whole heads of each kind, by largest remainder; shares need not add up to 1.

    >>> heads_of_kinds([0.46, 0.27, 0.27], 8)
    [4, 2, 2]
    """
    total = sum(shares)
    if not total or min(shares) < 0:
        raise UserError(f"shares of heads must be positive, got {', '.join(map(str, shares))}")
    exact = [share / total * heads for share in shares]
    whole = [int(n + 1e-9) for n in exact]
    by_rest = sorted(range(len(exact)), key=lambda i: whole[i] - exact[i])
    for i in by_rest[: heads - sum(whole)]:
        whole[i] += 1
    return whole


def stack_heads(parts: Sequence[tuple[TileSchedule, int]]) -> TileSchedule:
    """Schedules of single heads, each as often as it comes with, as one; those that come 0 times are left out."""
    kept = [(schedule, copies) for schedule, copies in parts if copies]
    one = kept[0][0]
    first = np.cumsum([0, *(len(s.row_live) for s, _ in kept)]).tolist()
    groups = [
        g._replace(first_row=g.first_row + begin, copies=g.copies * copies)
        for begin, (schedule, copies) in zip(first, kept, strict=False)
        for g in schedule.groups
    ]
    heads = sum(g.copies for g in groups)
    grids = [(s.blocks, sum(g.copies for g in s.groups) * n) for s, n in kept]
    blocks = None
    if all(grid is not None for grid, _ in grids):
        active = round(sum(grid.active * n for grid, n in grids if grid) / heads)
        blocks = one.blocks and BlockGrid(one.blocks.size, active, one.blocks.total)
    keys = [s.row_keys for s, _ in kept]
    return replace(
        one,
        buffers=max((s.buffers for s, _ in kept), key=lambda buffers: buffers[-1].start + buffers[-1].tokens),
        row_keys=None if any(k is None for k in keys) else np.concatenate([k for k in keys if k is not None]),
        mask_axes=max(s.mask_axes for s, _ in kept),
        row_live=np.concatenate([s.row_live for s, _ in kept]),
        runs=Runs.stack([s.runs for s, _ in kept]),
        groups=tuple(groups),
        pairs_per_copy=tuple(p for s, _ in kept for p in s.pairs_per_copy),
        aligned=all(s.aligned for s, _ in kept),
        mask_free=all(s.mask_free for s, _ in kept),
        blocks=blocks,
    )
