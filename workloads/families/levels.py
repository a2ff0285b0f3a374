"""Keys at several resolutions: pooled copies of the keys beside, or in place of, the keys themselves.

A pyramid (PSA) reads its best blocks whole and the next best ones pooled; a hierarchy (LLSA) reads the best blocks of each level
and all of the last; compressed keys (NSA) are one pooled level. Rules as in the methods' code: ziplab/Pyramid-Sparse-Attention at
be122cf, SingleZombie/LLSA at 7f021df; NSA: arXiv 2502.11089.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Annotated, NamedTuple

import numpy as np
from msgspec import Meta, Struct
from msgspec.structs import force_setattr
from numpy.typing import NDArray

from ...facts import UserError
from ..layout import Tiling, TokenLayout
from ..runs import paint
from ..schedule import Buffer, Group, Kind, TileSchedule, tile_rows
from .band import Band

Ints = NDArray[np.int64]
Size = Annotated[int, Meta(ge=1, le=2**30)]


MOST_BLOCKS = 2**30


class Level(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One resolution.

    Parameters
    ----------
    pool, stride : int
        Tokens that become one key, and the distance of the first tokens of two keys (`pool` by default).
    keep : int or float or None
        Blocks that a row of queries reads of this level: a number, a share of all, or all of them (None).
    block : int
        Keys of a block.
    """

    pool: Size = 1
    stride: Annotated[int, Meta(ge=0)] = 0
    keep: int | float | None = None
    block: Size = 1

    def __post_init__(self) -> None:
        force_setattr(self, "stride", self.stride or self.pool)
        if self.keep is not None and not 0 < self.keep <= (1 if isinstance(self.keep, float) else MOST_BLOCKS):
            raise UserError(f"keep is a share up to 1.0 or a number of blocks, got {self.keep}")

    def keys(self, tokens: int) -> int:
        """Keys of the level, the last of them of fewer tokens where they do not divide."""
        return max(-(-(tokens - self.pool) // self.stride), 0) + 1

    def seen(self, position: Ints, keys: int) -> Ints:
        """Keys that lie wholly at or before a position."""
        return np.clip((position + 1 - self.pool) // self.stride + 1, 0, keys)


class Levels(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Each row of queries reads some blocks, or all, of each level.

    Parameters
    ----------
    levels : tuple of Level
        Shares are of ranks: the best blocks go to the first level with a share, the next best to the next, as the method's code
        cuts them.
    queries : int
        Queries that read the same blocks.
    fill : int
        Keys up to which the blocks of a level with a share are rounded up, so that the tiles of the kernel are full; 0 for none.
    causal : bool
        Only pooled keys whose tokens all lie at or before a query are seen.

    Examples
    --------
    >>> llsa = Levels(levels=(Level(keep=8, block=16), Level(pool=16, keep=8, block=16), Level(pool=256)), queries=16)
    >>> s = llsa.schedule(TokenLayout(grid=(16384,)), Tiling(q=(64,), kv=(64,)))
    >>> s.q_tile, s.pairs / 16384
    (16, 320.0)
    """

    levels: tuple[Level, ...]
    queries: Size = 128
    fill: Annotated[int, Meta(ge=0)] = 0
    causal: bool = False

    def mask_class(self) -> str:
        if any(level.keep is not None for level in self.levels):
            return "blocks"
        return "element" if self.causal else "dense"

    def without_pattern(self) -> Band:
        return Band(causal=self.causal)

    def quotas(self, tokens: int) -> list[int]:
        """Blocks that a row reads of each level."""
        begin, passed, quotas = 0, 0.0, []
        for level in self.levels:
            keys = level.keys(tokens)
            blocks = -(-keys // level.block)
            if isinstance(level.keep, float):
                passed += level.keep
                # What a float misses of a whole number is none of its own.
                taken = max(int(passed * blocks + 1e-9) - begin, 0)
                unit = max(ceil(self.fill / level.block), 1)
                taken = min(-(-taken // unit) * unit, max(blocks - begin, 0))
                begin += taken
            else:
                taken = blocks if level.keep is None else min(level.keep, blocks)
            quotas.append(taken)
        return quotas

    def schedule(self, layout: TokenLayout, tiling: Tiling) -> TileSchedule:
        tiling.require_flat("a pattern of levels")
        if not self.levels:
            raise UserError("a pattern of levels needs one level at least")
        keys, pack = layout.tokens, tiling.pack
        chosen = any(level.keep is not None for level in self.levels)
        q_tile = min(tiling.q_rows, self.queries * pack) if chosen else tiling.q_rows
        if chosen and self.queries * pack % q_tile:
            raise UserError(f"a q tile must not reach over rows of {self.queries} queries, got {tiling.q_rows}")
        live = tile_rows(layout.query_tokens * pack, q_tile)
        begin = np.arange(len(live)) * q_tile
        offset = keys - layout.query_tokens
        first, last = begin // pack + offset, (begin + live - 1) // pack + offset
        reads = [
            self._read(level, quota, keys, first, last, tiling.kv_rows)
            for level, quota in zip(self.levels, self.quotas(keys), strict=True)
        ]
        buffers = _buffers([level.keys(keys) for level in self.levels], self.levels, tiling.kv_rows)
        rows, base = np.arange(len(live)), [buffer.start for buffer in buffers]
        start = [at + read.start for at, read in zip(base, reads, strict=True)]
        some, every = (
            [at + end for at, end in zip(base, ends, strict=True)] for ends in zip(*(r[1:] for r in reads), strict=True)
        )
        runs = paint(
            len(rows),
            np.tile(rows, 2 * len(reads)),
            np.concatenate([*start, *start]),
            np.concatenate([*some, *every]),
            np.repeat([False, True], len(reads) * len(rows)),
            None,
        )
        gathered = np.array([level.keep is not None for level in self.levels])
        at = np.searchsorted(base, runs.start, side="right") - 1
        runs.kind[gathered[at]] = Kind.GATHER
        return TileSchedule(
            q_tile=q_tile,
            kv_tile=tiling.kv_rows,
            seq_q=layout.query_tokens * pack,
            seq_kv=keys,
            row_live=live,
            runs=runs,
            groups=(Group(0, len(live), 1),),
            buffers=tuple(buffers),
            pairs_per_copy=(self._pairs(reads, live, layout, pack),),
            mask_free=not self.causal,
            segment=min((level.block for level in self.levels if level.keep is not None), default=1),
        )

    def _read(self, level: Level, quota: int, tokens: int, first: Ints, last: Ints, kv_tile: int) -> _Read:
        """Keys that owner tiles of queries [first, last] read of a level."""
        keys = level.keys(tokens)
        some, every = (level.seen(at, keys) if self.causal else np.full_like(at, keys) for at in (last, first))
        if level.keep is None:
            return _Read(np.zeros_like(some), some, every)
        # Which blocks they are does not change the work. They are packed into tiles, so their nominal place is a whole tile.
        taken = np.minimum(quota * level.block, some)
        start = np.clip(some - taken, 0, None) if self.causal else (last * (keys - taken)) // max(tokens - 1, 1)
        start = start // kv_tile * kv_tile
        return _Read(start, start + taken, start + taken)

    def _pairs(self, reads: Sequence[_Read], live: Ints, layout: TokenLayout, pack: int) -> int:
        """Live pairs: exactly where a level is read whole, and of all keys that a tile reads elsewhere."""
        total = 0
        position = np.arange(layout.query_tokens, dtype=np.int64) + layout.tokens - layout.query_tokens
        for level, read in zip(self.levels, reads, strict=True):
            if level.keep is None and self.causal:
                total += int(level.seen(position, level.keys(layout.tokens)).sum()) * pack
            else:
                total += int((live * (read.some - read.start)).sum())
        return total


class _Read(NamedTuple):
    """Keys of a level that owner tiles read: from `start`, those that some query sees, and those that all see (ends)."""

    start: Ints
    some: Ints
    every: Ints


def _buffers(keys: Sequence[int], levels: Sequence[Level], kv_tile: int) -> list[Buffer]:
    """The keys of each level, one behind the other, each from a fresh tile on."""
    buffers, start = [], 0
    for count, level in zip(keys, levels, strict=True):
        buffers.append(Buffer(f"pooled by {level.pool}" if level.pool > 1 else "kv", start, count))
        start += -(-count // kv_tile) * kv_tile
    return buffers
