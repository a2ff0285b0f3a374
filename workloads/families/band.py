"""Intervals that move with the query: dense, causal, sliding window, sinks, global tokens, documents, ragged batches."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import groupby
from typing import Annotated, Any

import numpy as np
from msgspec import Meta, Struct
from msgspec.structs import force_setattr
from numpy.typing import NDArray

from ...facts import UserError
from ..layout import Tiling, TokenLayout
from ..runs import Runs, paint
from ..schedule import Buffer, Group, TileSchedule

Ints = NDArray[np.int64]
Bounds = Callable[[Ints], tuple[Ints, Ints]]
"""First key and end of keys that queries at given positions see; both must never fall with the position."""

Count = Annotated[int, Meta(ge=0, le=2**40)]
CHUNK = 1 << 16
"""Queries counted at a time: bounds the memory of the exact pair count."""


class Band(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Each query sees an interval around its own position, the first `sinks` keys, and global tokens.

    Parameters
    ----------
    window : int or (int, int) or None
        Keys seen, self included, for a causal band; (left, right) beside self otherwise; None for all.
    sinks : int
        Keys at the start that every query sees (still causally, where the band is causal).
    global_tokens : int
        First tokens that see everything and are seen by everything; not with a causal band.
    causal : bool or None
        By default a window of one number is causal, all else is not.

    References
    ----------
    Windows as FlashAttention defines them; sinks: arXiv 2309.17453; global tokens: arXiv 2004.05150.

    Examples
    --------
    >>> band = Band(window=128)
    >>> band.schedule(TokenLayout(grid=(512,)), Tiling(q=(64,), kv=(64,))).visited
    21
    """

    window: Annotated[int, Meta(ge=1)] | tuple[Count, ...] | None = None
    sinks: Count = 0
    global_tokens: Count = 0
    causal: bool | None = None

    def __post_init__(self) -> None:
        if self.causal is None:
            force_setattr(self, "causal", isinstance(self.window, int))
        if isinstance(self.window, tuple) and len(self.window) != 2:
            raise UserError(f"window takes one number or (left, right), got {self.window}")
        if isinstance(self.window, int) and not self.causal:
            raise UserError(f"a window that is not causal takes (left, right), got window={self.window}")
        if self.causal and self.global_tokens:
            raise UserError("global_tokens need a band that is not causal")

    def mask_class(self) -> str:
        if self.sinks or self.global_tokens:
            return "blocks"
        return "dense" if self.window is None else "window"

    def without_pattern(self) -> Band:
        return Band(causal=self.causal)

    def bounds(self, layout: TokenLayout) -> Bounds:
        """Interval of a query position, sinks and global tokens aside; the last query is aligned with the last key."""
        keys, offset = layout.tokens, layout.tokens - layout.query_tokens
        left, right = keys, keys
        if isinstance(self.window, int):
            left, right = self.window - 1, 0
        elif self.window is not None:
            left, right = self.window
        if self.causal:
            right = 0

        def interval(q: Ints) -> tuple[Ints, Ints]:
            position = q + offset
            return np.maximum(position - left, 0), np.minimum(position + right + 1, keys)

        return interval

    def visible(self, q: Any, k: Any, layout: TokenLayout) -> Any:
        """Whether query q sees key k; works on numpy arrays and on torch tensors (a FlexAttention mask_mod)."""
        position = q + (layout.tokens - layout.query_tokens)
        seen = (k >= 0) & (q >= 0)
        if isinstance(self.window, int):
            seen = position - k < self.window
        elif self.window is not None:
            seen = (position - k <= self.window[0]) & (k - position <= self.window[1])
        seen = seen | (k < self.sinks)
        if self.causal:
            seen = seen & (k <= position)
        return seen | (k < self.global_tokens) | (q < self.global_tokens)

    def schedule(self, layout: TokenLayout, tiling: Tiling) -> TileSchedule:
        tiling.require_flat("a band")
        return band_schedule(self, layout, tiling)


class Documents(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Documents packed into one sequence: a query sees the keys of its own document.

    Parameters
    ----------
    lengths : tuple of int
        Tokens of each document; they must add up to the sequence.
    causal : bool
        Within a document only keys up to self are seen.

    Examples
    --------
    >>> packed = Documents(lengths=(100, 156), causal=False)
    >>> packed.schedule(TokenLayout(grid=(256,)), Tiling(q=(128,), kv=(128,))).pairs == 100**2 + 156**2
    True
    """

    lengths: tuple[Annotated[int, Meta(ge=1)], ...]
    causal: bool = True

    def mask_class(self) -> str:
        return "element"

    def without_pattern(self) -> Band:
        return Band(causal=self.causal)

    def _starts(self, layout: TokenLayout) -> Ints:
        starts = np.cumsum([0, *self.lengths])
        if starts[-1] != layout.tokens or layout.queries:
            raise UserError(f"lengths must add up to the sequence of {layout.tokens} tokens, got {starts[-1]}")
        return starts

    def visible(self, q: Any, k: Any, layout: TokenLayout) -> Any:
        """Whether query q sees key k; works on numpy arrays and on torch tensors (a FlexAttention mask_mod)."""
        same = sum(((q >= int(s)) & (k >= int(s)) & (q < int(e)) & (k < int(e)) for s, e in _pairs(self._starts(layout))), q < 0)
        return same & (k <= q) if self.causal else same

    def schedule(self, layout: TokenLayout, tiling: Tiling) -> TileSchedule:
        tiling.require_flat("a document mask")
        starts = self._starts(layout)

        def interval(q: Ints) -> tuple[Ints, Ints]:
            document = np.searchsorted(starts, q, side="right") - 1
            return starts[document], (q + 1 if self.causal else starts[document + 1])

        return interval_schedule(interval, layout.query_tokens, layout.tokens, tiling)


class Ragged(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A batch of sequences of unlike length (varlen): each is tiled on its own.

    Parameters
    ----------
    lengths : tuple of int
        Tokens of each sequence; they must add up to the tokens of the call. Where the call has fewer queries than keys, every
        sequence has as many of them, its last ones.
    causal : bool
        Each sequence is causal.

    Examples
    --------
    >>> batch = Ragged(lengths=(64, 128))
    >>> batch.schedule(TokenLayout(grid=(192,)), Tiling(q=(64,), kv=(64,))).visited
    4
    """

    lengths: tuple[Annotated[int, Meta(ge=1)], ...]
    causal: bool = True

    def mask_class(self) -> str:
        return "varlen"

    def without_pattern(self) -> Ragged:
        return self

    def schedule(self, layout: TokenLayout, tiling: Tiling) -> TileSchedule:
        if sum(self.lengths) != layout.tokens:
            raise UserError(f"lengths must add up to the sequence of {layout.tokens} tokens, got {sum(self.lengths)}")
        queries, rest = divmod(layout.queries, len(self.lengths))
        if rest or queries > min(self.lengths):
            raise UserError(
                f"every one of {len(self.lengths)} sequences has as many queries, at most {min(self.lengths)}: "
                f"seq_q={layout.queries} cannot be"
            )
        band = Band(causal=self.causal)
        items = [(length, len(list(same))) for length, same in groupby(self.lengths)]
        parts = [band.schedule(TokenLayout(grid=(length,), queries=queries), tiling) for length, _ in items]
        longest = max(parts, key=lambda part: part.seq_kv)
        first = np.cumsum([0, *(len(p.row_live) for p in parts)]).tolist()
        return TileSchedule(
            q_tile=longest.q_tile,
            kv_tile=longest.kv_tile,
            seq_q=layout.query_tokens * tiling.pack,
            seq_kv=sum(self.lengths),
            row_live=np.concatenate([p.row_live for p in parts]),
            runs=Runs.stack([p.runs for p in parts]),
            groups=tuple(Group(f, len(p.row_live), n) for f, p, (_, n) in zip(first, parts, items, strict=False)),
            buffers=longest.buffers,
            pairs_per_copy=tuple(p.pairs for p in parts),
            aligned=longest.aligned,
        )


@lru_cache(maxsize=16)
def band_schedule(band: Band, layout: TokenLayout, tiling: Tiling) -> TileSchedule:
    """The schedule of a band. Kept: every prediction asks for the same few dense schedules several times."""
    sinks = max(band.sinks, band.global_tokens)
    return interval_schedule(
        band.bounds(layout),
        layout.query_tokens,
        layout.tokens,
        tiling,
        sinks,
        band.global_tokens,
        sinks_to_self=bool(band.causal),
    )


def interval_schedule(
    bounds: Bounds,
    queries: int,
    keys: int,
    tiling: Tiling,
    sinks: int = 0,
    global_tokens: int = 0,
    *,
    sinks_to_self: bool = True,
) -> TileSchedule:
    """Schedule of queries that each see [lo, hi), the first `sinks` keys (up to hi if `sinks_to_self`) and global tokens.

    Because lo and hi never fall, a tile of queries sees something of [lo(first), hi(last)) and all of [lo(last), hi(first)).
    """
    pack = tiling.pack
    rows = queries * pack
    begin = np.arange(0, rows, tiling.q_rows, dtype=np.int64)
    live = np.minimum(tiling.q_rows, rows - begin)
    first, last = begin // pack, (begin + live - 1) // pack
    ordinary = np.minimum(np.maximum(first, global_tokens), last)
    (lo_any, _), (_, hi_first), (lo_last, hi_last) = bounds(first), bounds(ordinary), bounds(last)
    all_global = last < global_tokens
    sink_any, sink_full = (np.minimum(sinks, hi if sinks_to_self else np.full_like(hi, keys)) for hi in (hi_last, hi_first))
    some_global = first < global_tokens

    tile = np.arange(len(begin))
    zero = np.zeros_like(tile)
    row = np.concatenate([tile] * 4)
    start = np.concatenate([zero, np.where(some_global, 0, lo_any), zero, np.where(all_global, 0, lo_last)])
    stop = np.concatenate([sink_any, np.where(some_global, keys, hi_last), sink_full, np.where(all_global, keys, hi_first)])
    full = np.repeat([False, False, True, True], len(tile))
    return TileSchedule(
        q_tile=tiling.q_rows,
        kv_tile=tiling.kv_rows,
        seq_q=rows,
        seq_kv=keys,
        row_live=live,
        runs=paint(len(tile), row, start, stop, full, None),
        groups=(Group(0, len(tile), 1),),
        buffers=(Buffer("kv", 0, keys),),
        pairs_per_copy=(pack * _pair_count(bounds, queries, keys, sinks, global_tokens, sinks_to_self),),
        aligned=not tiling.dynamic_kv,
    )


def _pair_count(bounds: Bounds, queries: int, keys: int, sinks: int, global_tokens: int, sinks_to_self: bool) -> int:
    """Live pairs of all queries, exactly."""
    total = 0
    for begin in range(0, queries, CHUNK):
        q = np.arange(begin, min(begin + CHUNK, queries), dtype=np.int64)
        lo, hi = bounds(q)
        behind = 0 if sinks_to_self else np.maximum(min(sinks, keys) - hi, 0)
        seen = hi - lo + np.minimum(sinks, lo) + behind
        total += int(np.where(q < global_tokens, keys, seen).sum())
    return total


def _pairs(starts: Ints) -> list[tuple[int, int]]:
    return list(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True))
