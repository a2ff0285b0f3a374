"""Neighborhoods in closed form: what windows, strides and tiles on a grid visit, without building a schedule.

Axes are independent, so the tiles that a launch visits are a product of sums along each axis (the rules are those of
`workloads.families.axis`). Strides that no tile can tell apart are one candidate: the smallest of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..workloads.families.axis import Axis
from .call import Tiles

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Some = range | tuple[int, ...]
"""Strides along one axis."""


class Strides(NamedTuple):
    """Strides along one axis that its tiles can tell apart, smallest first; arrays [strides]."""

    stride: Ints
    visited: Ints
    """KV tiles that all q tiles visit along the axis, over its dilation groups."""
    worst: Ints
    """Those of the worst q tile."""
    mask_free: Bools
    """The kernel can tell that no element mask is needed."""


@lru_cache(maxsize=4096)
def strides_of(axis: Axis, strides: Some, q_tile: int, kv_tile: int, dynamic_kv: bool) -> Strides:
    """What each of some strides makes the tiles of an axis visit; of several that come to the same, the smallest.

    >>> from simattn.workloads.families.axis import Axis
    >>> line = Axis(32768, 2048, 1, 1, False)
    >>> found = strides_of(line, range(1, 2049), 256, 128, False)
    >>> int(found.stride[found.mask_free][0])
    256
    """
    wanted = np.array(strides, np.int64)
    # The rule is plain integer arithmetic, so a column of strides gives a row of tiles for each.
    column: Any = wanted[:, None]
    rows = []
    for group in range(axis.dilation):
        cut = axis._replace(stride=column).cut(group, q_tile, kv_tile)
        first, last = (np.broadcast_to(edge, (len(wanted), len(cut.live))) for edge in (cut.first, cut.last))
        rows.append(cut.dynamic if dynamic_kv else last - first)
        rows += [] if dynamic_kv else [first]
    mask_free = np.array([axis._replace(stride=s).block_sparse(q_tile, kv_tile, dynamic_kv) for s in strides])
    seen = np.concatenate([*rows, mask_free[:, None]], axis=1)
    kept = np.sort(np.unique(seen, axis=0, return_index=True)[1])
    counts = np.concatenate(rows if dynamic_kv else rows[::2], axis=1)[kept]
    return Strides(wanted[kept], counts.sum(1), counts.max(1), mask_free[kept])


class Family(NamedTuple):
    """Every combination of strides under one window and one pair of tiles; flat arrays [combinations]."""

    window: tuple[int, ...]
    tiles: Tiles
    strides: Ints
    """[combinations, axes]"""
    visited: Ints
    """Visited kv tiles of a head."""
    worst: Ints
    mask_free: Bools
    rows: int
    """Q tiles of a head."""
    kv_tiles: int
    """KV tiles of the sequence."""

    @property
    def shared(self) -> Ints:
        """Queries that share one window."""
        return np.asarray(np.prod(self.strides, axis=1))


def family(axes: Sequence[Axis], strides: Sequence[Some], tiles: Tiles, *, text: int = 0, dynamic_kv: bool = False) -> Family:
    """Combine some strides of each axis.

    Parameters
    ----------
    axes : sequence of Axis
        Rule of each axis, but for its stride.
    strides : sequence of range or of tuple of int
        Strides to look at, of each axis.
    text : int
        Tokens behind the grid that every query sees.
    """
    q_tile, kv_tile = tiles
    found = [
        strides_of(a._replace(stride=1), own, tq, tk, dynamic_kv)
        for a, own, tq, tk in zip(axes, strides, q_tile, kv_tile, strict=True)
    ]
    text_tiles = -(-text // int(np.prod(kv_tile)))
    rows = int(np.prod([sum(-(-a.group_length(g) // t) for g in range(a.dilation)) for a, t in zip(axes, q_tile, strict=True)]))
    keys = int(np.prod([a.dilation * -(-a.length // (t * a.dilation)) for a, t in zip(axes, kv_tile, strict=True)]))
    grids = np.meshgrid(*(f.stride for f in found), indexing="ij")
    return Family(
        window=tuple(a.window for a in axes),
        tiles=tiles,
        strides=np.stack([g.ravel() for g in grids], axis=1),
        visited=_product([f.visited for f in found]) + rows * text_tiles,
        worst=_product([f.worst for f in found]) + text_tiles,
        mask_free=_product([f.mask_free for f in found]).astype(bool),
        rows=rows,
        kv_tiles=keys + text_tiles,
    )


def _product(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Products of every combination of entries, flat, last part fastest."""
    return np.asarray(reduce(np.multiply.outer, parts)).ravel()


def windows_of(axes: Sequence[Axis], text: int, share: tuple[float, float], most: int = 128) -> list[tuple[int, ...]]:
    """Windows whose share of the pairs of grid tokens lies in a range; along long axes, `most` evenly spaced lengths.

    >>> from simattn.workloads.families.axis import Axis
    >>> grid = [Axis(n, 1, 1, 1, False) for n in (30, 48, 80)]
    >>> (18, 24, 24) in windows_of(grid, 0, (0.0895, 0.0905))
    True
    """
    lengths = []
    for axis in axes:
        longest = axis.length // axis.dilation
        step = -(-longest // most)
        lengths.append(np.arange(step, longest + 1, step))
    tokens = int(np.prod([a.length for a in axes]))
    pairs = (_product(lengths) + text) / (tokens + text)
    chosen = np.flatnonzero((pairs >= share[0]) & (pairs <= share[1]))
    at = np.unravel_index(chosen, [len(n) for n in lengths])
    return [tuple(map(int, w)) for w in zip(*(n[i] for n, i in zip(lengths, at, strict=True)), strict=True)]
