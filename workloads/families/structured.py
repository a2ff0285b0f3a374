"""Batches of small dense attentions over parts of a grid: windows, axes, sets, proxies, and the two stages of Monarch attention.

No kernel skips anything here. The grid is cut into boxes, and each box is an attention of its own, often of so few tokens that
most of a tile is padding.
"""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Annotated, NamedTuple

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from ...facts import UserError
from ..layout import Tiling, TokenLayout
from ..runs import Runs
from ..schedule import Buffer, Group, Kind, TileSchedule, tile_rows
from .band import Band

Ints = NDArray[np.int64]
Side = Annotated[int, Meta(ge=0)]
PerAxis = Side | tuple[Side, ...]


class Structured(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Each box of queries sees all of a box of keys.

    Parameters
    ----------
    box : int or tuple of int
        Queries of a box along each axis; 0 for the whole axis. A grid that is no multiple of it is padded, and the padding
        computed.
    keys : int or tuple of int, optional
        Keys of a box along each axis, centred on the queries (windows with a halo, cut at the border but computed whole); 0 for
        the whole axis. As `box` by default. One number, where the grid has several axes: so many keys, which another
        kernel has copied together.
    shift : int or tuple of int
        Cyclic shift of the boxes. Those that wrap around hold tokens of two borders, which do not see each other.
    thin_q, thin_k : int or tuple of int
        Only one token of a box of this size takes part, among the queries or among the keys (proxies).
    repeat : int
        Times that each box of queries is attended, each with keys and a softmax of its own; 0: once for each frame.

    Examples
    --------
    >>> swin = Structured(box=7)
    >>> s = swin.schedule(TokenLayout(grid=(56, 56)), Tiling(q=(64,), kv=(64,)))
    >>> s.visited, s.pairs == 64 * 49 * 49
    (64, True)
    """

    box: PerAxis
    keys: PerAxis | None = None
    shift: PerAxis = 0
    thin_q: PerAxis = 1
    thin_k: PerAxis = 1
    repeat: Side = 1

    def mask_class(self) -> str:
        return "varlen"

    def without_pattern(self) -> Band:
        return Band()

    def schedule(self, layout: TokenLayout, tiling: Tiling) -> TileSchedule:
        tiling.require_flat("a batch of small attentions")
        if tiling.pack != 1 or layout.queries or layout.text:
            raise UserError("a batch of small attentions takes neither packed GQA heads, nor fewer queries than keys, nor text")
        grid = layout.grid
        copied = self.keys if isinstance(self.keys, int) and self.keys and len(grid) > 1 else 0
        box, shift, thin_q, thin_k = (_spread(n, grid) for n in (self.box, self.shift, self.thin_q, self.thin_k))
        keys = box if self.keys is None or copied else _spread(self.keys, grid)
        axes = [_axis(n, *sides) for n, *sides in zip(grid, box, keys, shift, thin_q, thin_k, strict=True)]
        repeat = self.repeat or grid[0]
        parts = [_part(kinds, copied, tiling) for kinds in product(*axes)]
        first = np.cumsum([0, *(len(p.live) for p in parts)]).tolist()
        longest = max(p.keys for p in parts)
        return TileSchedule(
            q_tile=tiling.q_rows,
            kv_tile=tiling.kv_rows,
            seq_q=layout.tokens,
            seq_kv=layout.tokens,
            row_live=np.concatenate([p.live for p in parts]),
            row_keys=np.concatenate([np.full(len(p.live), p.keys) for p in parts]),
            runs=Runs.stack([p.runs for p in parts]),
            groups=tuple(Group(f, len(p.live), p.number * repeat) for f, p in zip(first, parts, strict=False)),
            buffers=(Buffer("kv", 0, longest),),
            pairs_per_copy=tuple(p.pairs for p in parts),
            mask_free=all((p.runs.kind == Kind.FULL).all() for p in parts),
        )


class _Kind(NamedTuple):
    """Boxes along one axis that are alike."""

    number: int
    queries: int
    """Computed, padding included."""
    keys: int
    live_queries: int
    pairs: int
    """Live pairs along the axis."""


class _Part(NamedTuple):
    """Boxes of the grid that are alike: one of them as rows, and how many there are."""

    live: Ints
    runs: Runs
    keys: int
    number: int
    pairs: int


def _axis(length: int, box: int, keys: int, shift: int, thin_q: int, thin_k: int) -> list[_Kind]:
    """Kinds of boxes along one axis."""
    queries, all_keys = (-(-length // max(thin, 1)) for thin in (thin_q, thin_k))
    box = min(box, queries) or queries
    begin = np.arange(0, queries, box)
    live = np.minimum(box, queries - begin)
    if not keys or (box == queries and keys == box and not shift):
        keys, pairs = all_keys, live * all_keys
    else:
        halo, odd = divmod(keys - box, 2)
        if thin_q > 1 or thin_k > 1:
            raise UserError("tokens are thinned out only where a box sees all keys of an axis")
        if keys < box or odd:
            raise UserError(f"keys must reach as far on both sides of a box, got {keys} keys around {box} queries")
        if shift and (halo or shift >= box or length % box):
            raise UserError(f"shifted boxes need a grid of whole boxes and no halo, got shift {shift} of {box} on {length}")
        pairs = live * (np.minimum(begin + box + halo, length) - np.maximum(begin - halo, 0))
        if shift:
            pairs[-1] = shift**2 + (box - shift) ** 2
    return [
        _Kind(int(n), box, keys, int(q), int(p))
        for (q, p), n in zip(*np.unique(np.stack([live, pairs], 1), axis=0, return_counts=True), strict=True)
    ]


def _part(kinds: tuple[_Kind, ...], copied: int, tiling: Tiling) -> _Part:
    """One box: its owner tiles, which all read all of its keys."""
    queries, keys = prod(k.queries for k in kinds), copied or prod(k.keys for k in kinds)
    live_queries = prod(k.live_queries for k in kinds)
    pairs = live_queries * copied or prod(k.pairs for k in kinds)
    live = np.maximum(np.minimum(tile_rows(queries, tiling.q_rows), live_queries - np.arange(0, queries, tiling.q_rows)), 0)
    rows = np.arange(len(live))
    kind = Kind.FULL if pairs == live_queries * keys else Kind.PARTIAL
    runs = Runs(rows, np.zeros_like(rows), np.full(len(rows), keys), np.full(len(rows), kind, np.uint8), len(rows))
    return _Part(live, runs, keys, prod(k.number for k in kinds), pairs)


def _spread(value: PerAxis, grid: tuple[int, ...]) -> tuple[int, ...]:
    """One number per axis."""
    if not isinstance(value, tuple):
        return (value,) * len(grid)
    if len(value) != len(grid):
        raise UserError(f"a box has one number or one per axis of the grid {grid}, got {value}")
    return value
