"""Schedules of tokens that lie in another order: which tiles are visited once the tokens are permuted.

Cost grows with the keys in the runs of a q tile (or in the boxes around its windows), never with N squared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..facts import UserError
from .bsr import from_bsr
from .schedule import Kind, TileSchedule

Ints = NDArray[np.int64]


def reordered(schedule: TileSchedule, order: Ints, q_tile: int, kv_tile: int) -> TileSchedule:
    """A schedule of a flat sequence whose tokens are put in another order, in tiles of any size.

    What a PARTIAL run leaves out is not known, so that all its keys count as seen when tiles are looked for.

    Parameters
    ----------
    order : int64 array [tokens]
        Token at each place.

    Examples
    --------
    >>> from simattn.workloads import schedule
    >>> s = schedule("causal", seq_q=512)
    >>> reordered(s, np.arange(512), 128, 128).visited == s.visited
    True
    """
    if len(schedule.groups) != 1 or not schedule.aligned or any(schedule.box) or (schedule.runs.kind > Kind.PARTIAL).any():
        raise UserError("only a schedule of one group of FULL and PARTIAL visits on a flat grid can be put in another order")
    runs = schedule.runs
    kernel = cast(Callable[..., Any], _of_runs)
    found = kernel(order, _places(order), runs.indptr, runs.start, runs.stop, runs.kind, schedule.q_tile, q_tile, kv_tile)
    made = _schedule(found, q_tile, kv_tile, schedule.seq_kv)
    return replace(made, pairs_per_copy=schedule.pairs_per_copy, mask_axes=schedule.mask_axes)


def boxes_in_order(low: list[Ints], high: list[Ints], order: Ints, q_tile: int, kv_tile: int) -> TileSchedule:
    """The schedule of queries that see boxes of a grid, whose tokens lie in an order of their own.

    Parameters
    ----------
    low, high : list of int64 array [tokens of the axis]
        Keys [low, high) along each axis that queries at each coordinate see.
    """
    axes = 3 - len(low)
    one = [np.zeros(1, np.int64)] * axes, [np.ones(1, np.int64)] * axes
    kernel = cast(Callable[..., Any], _of_boxes)
    found = kernel(order, _places(order), *one[0], *low, *one[1], *high, q_tile, kv_tile)
    return replace(_schedule(found, q_tile, kv_tile, len(order)), mask_axes=len(low), blocks=None)


def _places(order: Ints) -> Ints:
    """Place of each token."""
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    return places


def _schedule(found: tuple[Ints, Ints, Ints, int], q_tile: int, kv_tile: int, tokens: int) -> TileSchedule:
    indptr, tiles, kinds, pairs = found
    made = from_bsr(indptr, tiles, q_tile=q_tile, kv_tile=kv_tile, seq_q=tokens, seq_kv=tokens, kinds=kinds)
    return replace(made, pairs_per_copy=(int(pairs),))


@njit(cache=True)
def _listed(count: Any, touched: Any, n: int, queries: int, tokens: int, kv_tile: int, tiles: Any, kinds: Any) -> int:
    """Write the touched tiles of a row in order, and their kinds; the live pairs, with counts set back to 0."""
    pairs = 0
    chosen = np.sort(touched[:n])
    for i in range(n):
        tile = chosen[i]
        keys = min(kv_tile, tokens - tile * kv_tile)
        tiles.append(tile)
        kinds.append(0 if count[tile] == keys * queries else 1)
        pairs += count[tile]
        count[tile] = 0
    return pairs


@njit(cache=True)
def _of_runs(
    order: Any, place: Any, indptr: Any, start: Any, stop: Any, kind: Any, old_tile: int, q_tile: int, kv_tile: int
) -> tuple[Any, Any, Any, int]:
    tokens = len(order)
    rows = -(-tokens // q_tile)
    count = np.zeros(-(-tokens // kv_tile), np.int64)
    seen = np.zeros(len(count), np.bool_)
    touched = np.empty(len(count), np.int64)
    pointer = np.zeros(rows + 1, np.int64)
    tiles = [np.int64(0) for _ in range(0)]
    kinds = [np.int64(0) for _ in range(0)]
    pairs = 0
    for row in range(rows):
        first, last = row * q_tile, min((row + 1) * q_tile, tokens)
        owners = np.sort(order[first:last] // old_tile)
        n, at = 0, 0
        while at < len(owners):
            owner, queries = owners[at], 0
            while at < len(owners) and owners[at] == owner:
                queries += 1
                at += 1
            for run in range(indptr[owner], indptr[owner + 1]):
                # Keys of a PARTIAL run are seen by some of the queries only, so they never make a tile FULL.
                own = queries if kind[run] == 0 else 0
                for key in range(start[run], stop[run]):
                    tile = place[key] // kv_tile
                    if not seen[tile]:
                        seen[tile] = True
                        touched[n] = tile
                        n += 1
                    count[tile] += own
        for i in range(n):
            seen[touched[i]] = False
        pairs += _listed(count, touched, n, last - first, tokens, kv_tile, tiles, kinds)
        pointer[row + 1] = len(tiles)
    return pointer, np.array(tiles), np.array(kinds), pairs


@njit(cache=True)
def _of_boxes(
    order: Any, place: Any, low0: Any, low1: Any, low2: Any, high0: Any, high1: Any, high2: Any, q_tile: int, kv_tile: int
) -> tuple[Any, Any, Any, int]:
    tokens, n1, n2 = len(order), len(low1), len(low2)
    rows = -(-tokens // q_tile)
    count = np.zeros(-(-tokens // kv_tile), np.int64)
    seen = np.zeros(len(count), np.bool_)
    touched = np.empty(len(count), np.int64)
    pointer = np.zeros(rows + 1, np.int64)
    tiles = [np.int64(0) for _ in range(0)]
    kinds = [np.int64(0) for _ in range(0)]
    pairs = 0
    for row in range(rows):
        first, last = row * q_tile, min((row + 1) * q_tile, tokens)
        token = order[first:last]
        x, y, z = token // (n1 * n2), token // n2 % n1, token % n2
        a, b, c = low0[x].min(), low1[y].min(), low2[z].min()
        u, v, w = high0[x].max() - a, high1[y].max() - b, high2[z].max() - c
        # How many of the queries see each key of the box around their windows: corners, then running sums along each axis.
        sums = np.zeros((u + 1, v + 1, w + 1), np.int32)
        for i in range(len(token)):
            x0, x1 = low0[x[i]] - a, high0[x[i]] - a
            y0, y1 = low1[y[i]] - b, high1[y[i]] - b
            z0, z1 = low2[z[i]] - c, high2[z[i]] - c
            sums[x0, y0, z0] += 1
            sums[x1, y0, z0] -= 1
            sums[x0, y1, z0] -= 1
            sums[x0, y0, z1] -= 1
            sums[x1, y1, z0] += 1
            sums[x1, y0, z1] += 1
            sums[x0, y1, z1] += 1
            sums[x1, y1, z1] -= 1
        for i in range(1, u):
            sums[i] += sums[i - 1]
        for i in range(u):
            for j in range(1, v):
                sums[i, j] += sums[i, j - 1]
        n = 0
        for i in range(u):
            for j in range(v):
                line = ((a + i) * n1 + b + j) * n2 + c
                now = 0
                for k in range(w):
                    now += sums[i, j, k]
                    if now:
                        tile = place[line + k] // kv_tile
                        if not seen[tile]:
                            seen[tile] = True
                            touched[n] = tile
                            n += 1
                        count[tile] += now
        for i in range(n):
            seen[touched[i]] = False
        pairs += _listed(count, touched, n, last - first, tokens, kv_tile, tiles, kinds)
        pointer[row + 1] = len(tiles)
    return pointer, np.array(tiles), np.array(kinds), pairs
