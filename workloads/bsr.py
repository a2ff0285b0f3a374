"""Schedules from lists of kv blocks (BSR): what FlashInfer, FlexAttention and users' own masks speak."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..facts import UserError
from .runs import Runs
from .schedule import BlockGrid, Kind, TileSchedule, flat_schedule
from .visits import visits

Ints = NDArray[np.int64]


def from_bsr(
    indptr: Sequence[int] | Ints,
    indices: Sequence[int] | Ints,
    *,
    q_tile: int,
    kv_tile: int,
    seq_q: int,
    seq_kv: int,
    kinds: Sequence[int] | Ints | None = None,
) -> TileSchedule:
    """A schedule from lists of kv blocks (BSR), each FULL or of the kind given for it.

    Parameters
    ----------
    indptr, indices : int arrays [rows + 1], [blocks]
        KV blocks of each row of blocks.
    kinds : int array [blocks], optional
        `Kind` of each block.

    Examples
    --------
    >>> from_bsr([0, 1, 3], [0, 0, 1], q_tile=64, kv_tile=64, seq_q=128, seq_kv=128).visited
    3
    """
    if min(q_tile, kv_tile, seq_q, seq_kv) < 1:
        raise UserError(f"tiles and lengths must be at least 1, got tiles {q_tile} x {kv_tile} of {seq_q} x {seq_kv} tokens")
    pointer, blocks = _integers("indptr", indptr), _integers("indices", indices)
    rows = -(-seq_q // q_tile)
    if len(pointer) != rows + 1 or pointer[0] != 0 or (np.diff(pointer) < 0).any():
        raise UserError(f"indptr must rise from 0 over {rows} rows of {q_tile} queries, got {len(pointer)} entries")
    if len(blocks) != pointer[-1]:
        raise UserError(f"indices must have indptr[-1]={pointer[-1]} entries, got {len(blocks)}")
    if len(blocks) and not (blocks.min() >= 0 and blocks.max() < -(-seq_kv // kv_tile)):
        raise UserError(f"indices must lie in 0..{-(-seq_kv // kv_tile) - 1}, got {blocks.min()}..{blocks.max()}")
    asked = np.zeros(len(blocks), np.int64) if kinds is None else _integers("kinds", kinds)
    if len(asked) != len(blocks) or (len(asked) and not (asked.min() >= 0 and asked.max() <= max(Kind))):
        raise UserError(f"kinds must be one of 0..{max(Kind)} for each of the {len(blocks)} blocks")
    kind = asked.astype(np.uint8)
    row = np.repeat(np.arange(rows), np.diff(pointer))
    order = np.lexsort((blocks, row))
    row, blocks, kind = row[order], blocks[order], kind[order]
    if ((row[1:] == row[:-1]) & (blocks[1:] == blocks[:-1])).any():
        raise UserError("indices must not name a block twice in one row")
    start = blocks * kv_tile
    runs = Runs(row, start, np.minimum(kv_tile, seq_kv - start), kind, rows).joined()
    return flat_schedule(
        runs,
        q_tile=q_tile,
        kv_tile=kv_tile,
        seq_q=seq_q,
        seq_kv=seq_kv,
        mask_free=bool((kind != Kind.PARTIAL).all()),
        blocks=BlockGrid(max(q_tile, kv_tile), int((kind <= Kind.GATHER).sum()), rows * -(-seq_kv // kv_tile)),
    )


def coarsened(schedule: TileSchedule, block: int) -> TileSchedule:
    """A flat schedule in blocks of so many queries and keys: what touches a block makes it visited, as of a block mask.

    A block is FULL where all of it was, and PARTIAL otherwise; the live pairs stay what they were.

    Raises
    ------
    UserError
        The visits lie on no fixed grid, or not all of them are FULL or PARTIAL.

    Examples
    --------
    >>> fine = from_bsr([0, 1, 1, 2, 4], [0, 1, 2, 3], q_tile=64, kv_tile=64, seq_q=256, seq_kv=256)
    >>> coarse = coarsened(fine, 128)
    >>> coarse.visited, coarse.full, coarse.pairs == fine.pairs
    (3, 0, True)
    """
    if block < 1:
        raise UserError(f"block must be at least 1, got {block}")
    found = visits(schedule.retile(block, block))
    made = from_bsr(
        found.row_first,
        found.tile.astype(np.int64),
        q_tile=block,
        kv_tile=block,
        seq_q=schedule.seq_q,
        seq_kv=schedule.seq_kv,
        kinds=found.kind.astype(np.int64),
    )
    return replace(made, pairs_per_copy=schedule.pairs_per_copy)


def _integers(name: str, values: Any) -> Ints:
    """A flat array of integers, or UserError."""
    array = np.asarray(values)
    if array.ndim != 1 or not (np.issubdtype(array.dtype, np.integer) or not array.size):
        raise UserError(f"{name} must be a flat list of integers, got {array.dtype} {array.shape}")
    return array.astype(np.int64)
