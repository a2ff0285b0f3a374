"""Schedules from lists of kept blocks: head by head, for any tile of the kernel.

Every family that keeps or drops blocks ends here. A head's list is cut into the kernel's tiles row by row, at a cost that
grows with the kept blocks: a tile of several block rows visits the union of theirs, FULL where all of them kept it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from .layout import Tiling
from .runs import Runs
from .schedule import BlockGrid, Buffer, Group, Kind, TileSchedule, tile_rows

Ints = NDArray[np.int64]
_QK_ONLY = int(Kind.QK_ONLY)


class BlockLists(NamedTuple):
    """Kept blocks of one head, sorted by row and column, each once.

    Attributes
    ----------
    indptr : int64 array [rows + 1]
    column : int32 array [blocks]
    """

    indptr: Ints
    column: NDArray[np.int32]

    @staticmethod
    def of(mask: NDArray[np.bool_]) -> BlockLists:
        """Lists of a bool array [rows, columns].

        >>> BlockLists.of(np.eye(2, dtype=bool)).column.tolist()
        [0, 1]
        """
        row, column = np.nonzero(mask)
        return BlockLists(np.searchsorted(row, np.arange(len(mask) + 1)), column.astype(np.int32))


class BlockShape(NamedTuple):
    """How blocks lie in the sequence.

    Attributes
    ----------
    q, k : int
        Queries and keys of a block.
    seq_q, seq_kv : int
        Tokens of the address space, padding inside blocks included.
    causal : bool
        Blocks are cut at the diagonal; query and key sequences end together.
    segment : int
        A causal query sees the keys of its own segment in an order of its own: all blocks of the segment are live.
    live_q, live_k : int64 array [rows], [columns] or None
        Live tokens of each block, where blocks are padded inside.
    """

    q: int
    k: int
    seq_q: int
    seq_kv: int
    causal: bool = False
    segment: int = 1
    live_q: Ints | None = None
    live_k: Ints | None = None

    @property
    def rows(self) -> int:
        """Block rows."""
        return -(-self.seq_q // self.q)

    @property
    def columns(self) -> int:
        """Block columns."""
        return -(-self.seq_kv // self.k)

    def own_columns(self) -> Ints:
        """First and end of the columns that hold keys at the positions of each row's queries: int64 [rows, 2]."""
        begin = np.arange(self.rows, dtype=np.int64) * self.q
        end = np.minimum(begin + self.q, self.seq_q)
        if self.causal or self.seq_q == self.seq_kv:
            begin, end = begin + self.seq_kv - self.seq_q, end + self.seq_kv - self.seq_q
        else:
            begin, end = begin * self.seq_kv // self.seq_q, -(-end * self.seq_kv // self.seq_q)
        if self.segment > 1:
            begin, end = begin // self.segment * self.segment, np.minimum(-(-end // self.segment) * self.segment, self.seq_kv)
        return np.stack([begin // self.k, -(-end // self.k)], axis=1)

    def visible(self) -> Ints:
        """Columns that each row can keep: the first so many of them, int64 [rows]."""
        return self.own_columns()[:, 1] if self.causal else np.full(self.rows, self.columns, np.int64)


def block_schedule(
    tables: Sequence[tuple[BlockLists, int]], shape: BlockShape, tiling: Tiling, *, qk_only: bool = False
) -> TileSchedule:
    """The schedule of heads that each have a list of blocks; a table comes with the number of heads that share it.

    With `qk_only`, the scores of all other visible blocks are computed too.

    Examples
    --------
    >>> lists = BlockLists.of(np.tri(2, dtype=bool))
    >>> shape = BlockShape(64, 64, 128, 128, causal=True)
    >>> s = block_schedule([(lists, 3)], shape, Tiling(q=(64,), kv=(64,)))
    >>> s.visited, s.full, s.pairs == 3 * 128 * 129 // 2
    (9, 3, True)
    """
    tiling.require_flat("a pattern of blocks")
    live = tile_rows(shape.seq_q * tiling.pack, tiling.q_rows)
    begin = np.arange(len(live)) * tiling.q_rows
    first, last = begin // tiling.pack, (begin + live - 1) // tiling.pack
    parts, pairs, active, heads = [], [], 0, 0
    for lists, copies in tables:
        most = _most_runs(lists.indptr, first // shape.q, last // shape.q, qk_only)
        row, start, length = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
        kind = np.empty(most, np.uint8)
        n = _cut(
            lists.indptr, lists.column, first, last, shape.q, shape.k, shape.columns, shape.seq_kv,
            shape.seq_kv - shape.seq_q, shape.causal, shape.segment, qk_only, row, start, length, kind,
        )  # fmt: skip
        parts.append(Runs(row[:n].copy(), start[:n].copy(), length[:n].copy(), kind[:n].copy(), len(live)))
        pairs.append(tiling.pack * _live_pairs(lists, shape))
        active += len(lists.column) * copies
        heads += copies
    return TileSchedule(
        q_tile=tiling.q_rows,
        kv_tile=tiling.kv_rows,
        seq_q=shape.seq_q * tiling.pack,
        seq_kv=shape.seq_kv,
        row_live=np.tile(live, len(parts)),
        runs=Runs.stack(parts),
        groups=tuple(Group(i * len(live), len(live), copies) for i, (_, copies) in enumerate(tables)),
        buffers=(Buffer("kv", 0, shape.seq_kv),),
        pairs_per_copy=tuple(pairs),
        mask_free=not shape.causal,
        blocks=BlockGrid(max(shape.q, shape.k), round(active / heads), shape.rows * shape.columns),
    )


def _live_pairs(lists: BlockLists, shape: BlockShape) -> int:
    """Live (query, key) pairs of one head."""
    column = lists.column.astype(np.int64)
    row = np.repeat(np.arange(shape.rows), np.diff(lists.indptr))
    if not shape.causal:
        live_q = tile_rows(shape.seq_q, shape.q) if shape.live_q is None else shape.live_q
        live_k = tile_rows(shape.seq_kv, shape.k) if shape.live_k is None else shape.live_k
        return int((live_q[row] * live_k[column]).sum())
    # Query p sees the keys up to p: of a block of keys [s, e) those are p + 1 - s, at least none and at most e - s.
    offset = shape.seq_kv - shape.seq_q
    p, end = row * shape.q + offset, np.minimum((row + 1) * shape.q, shape.seq_q) + offset
    s, e = column * shape.k, np.minimum((column + 1) * shape.k, shape.seq_kv)
    below = np.maximum(end - np.maximum(p, e), 0) * (e - s)
    low, high = np.maximum(p, s), np.minimum(end, e)
    across = np.where(high > low, (high - low) * (low + high + 1 - 2 * s) // 2, 0)
    return int((below + across).sum())


@njit(cache=True)
def _most_runs(indptr: Any, first_row: Any, last_row: Any, qk_only: bool) -> int:
    """Runs that all tiles can have at most: a block gives a FULL and a PARTIAL run, and a gap before them."""
    most = 0
    for tile in range(len(first_row)):
        most += (3 if qk_only else 2) * (indptr[last_row[tile] + 1] - indptr[first_row[tile]]) + 1
    return most


@njit(cache=True)
def _cut(
    indptr: Any, column: Any, first: Any, last: Any, block_q: int, block_k: int, columns: int, keys: int, offset: int,
    causal: bool, segment: int, qk_only: bool, row: Any, start: Any, length: Any, kind: Any,
) -> int:  # fmt: skip
    """Fill in the runs of every tile, in order, neighbours of a kind joined; how many there are."""
    rows_with, last_with = np.zeros(columns, np.int32), np.zeros(columns, np.int32)
    n = 0
    for tile in range(len(first)):
        top, bottom = first[tile] // block_q, last[tile] // block_q
        # Keys before `bound` are seen by some row of the tile, keys before `sure` by all.
        bound, sure = keys, keys
        if causal and segment == 1:
            bound, sure = last[tile] + offset + 1, first[tile] + offset + 1
        elif causal:
            bound = min(((last[tile] + offset) // segment + 1) * segment, keys)
            sure = (first[tile] + offset) // segment * segment
        low, high = columns, -1
        for r in range(top, bottom + 1):
            if indptr[r] == indptr[r + 1]:
                continue
            low, high = min(low, column[indptr[r]]), max(high, column[indptr[r + 1] - 1])
            for b in range(indptr[r], indptr[r + 1]):
                rows_with[column[b]] += 1
                last_with[column[b]] = r
        here, past = n, 0
        for c in range(low, high + 1):
            found = rows_with[c]
            if found == 0:
                continue
            rows_with[c] = 0
            begin, end = c * block_k, min((c + 1) * block_k, bound)
            if causal and segment == 1:
                end = min(end, (last_with[c] + 1) * block_q + offset)
            if begin >= end:
                continue
            if qk_only and begin > past:
                row[n], start[n], length[n], kind[n] = tile, past, begin - past, _QK_ONLY
                n += 1
            past = end
            edge = begin
            if found == bottom - top + 1:
                edge = min(end, max(sure, begin))
            for a, b, what in ((begin, edge, 0), (edge, end, 1)):
                if a >= b:
                    continue
                if n > here and start[n - 1] + length[n - 1] == a and kind[n - 1] == what:
                    length[n - 1] += b - a
                else:
                    row[n], start[n], length[n], kind[n] = tile, a, b - a, what
                    n += 1
        if qk_only and past < bound:
            row[n], start[n], length[n], kind[n] = tile, past, bound - past, _QK_ONLY
            n += 1
    return n
