"""Single keys chosen by each query, or by neighbouring queries together, and gathered: DSA, HISA, AnchorAttention, HiP, Spark.

Which keys they are does not change the work, only how much of it neighbouring CTAs find in L2. So a list is one run of so many
scattered keys whose start is nominal: from list to list it moves on by the keys that are newly chosen, which gives neighbours the
keys in common that they have.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from msgspec import Meta, Struct
from numba import njit
from numpy.typing import NDArray

from ...facts import UserError
from ..layout import Tiling, TokenLayout
from ..lists import list_rows
from ..runs import Runs
from ..schedule import Buffer, Group, Kind, TileSchedule
from .band import Band

Ints = NDArray[np.int64]
Count = Annotated[int, Meta(ge=0, le=2**40)]
Fraction = Annotated[float, Meta(ge=0, le=1)]


class TokenGather(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Each query sees some keys of its past, the same for `queries` neighbours, beside first and newest ones.

    Parameters
    ----------
    keys : int
        Keys that a list chooses; fewer where there are not so many.
    share : float
        Share of the keys it can choose from, in place of `keys`, for rules that keep what is above a threshold.
    spread : float
        With `share`: standard deviation of the logarithm of the keys of a list.
    segment : int
        Keys that are chosen together and lie side by side.
    queries : int
        Neighbouring queries that share a list; it is chosen from the keys before the first of them.
    sinks, window : int
        First keys, and newest ones of each query, that the same kernel reads besides.
    init : int
        First keys that another kernel reads, and a list does not choose from.
    causal : bool
        Keys after a query are not seen; otherwise all keys can be chosen.
    stay : float
        Share of the keys of a list that the next list has too.
    seed : int
        Of the numbers of keys, and of where the first list starts.

    References
    ----------
    DSA: deepseek-ai/DeepSeek-V3.2-Exp; HISA: arXiv 2603.28458; AnchorAttention: arXiv 2505.23520; HiP: arXiv 2406.09827.

    Examples
    --------
    >>> dsa = TokenGather(keys=64)
    >>> dsa.schedule(TokenLayout(grid=(512,)), Tiling(q=(16,), kv=(64,))).pairs
    30752
    """

    keys: Count = 0
    share: Fraction = 0.0
    spread: Annotated[float, Meta(ge=0, le=3)] = 0.0
    segment: Annotated[int, Meta(ge=1, le=2**20)] = 1
    queries: Annotated[int, Meta(ge=1, le=2**30)] = 1
    sinks: Count = 0
    window: Count = 0
    init: Count = 0
    causal: bool = True
    stay: Fraction = 0.8
    seed: int = 0

    def __post_init__(self) -> None:
        if bool(self.keys) == bool(self.share):
            raise UserError(f"give either keys or share, got keys={self.keys} and share={self.share:g}")
        if not self.causal and self.window:
            raise UserError("a window needs causal=true")

    def mask_class(self) -> str:
        return "token_gather" if self.queries == 1 else "gather"

    def without_pattern(self) -> Band:
        return Band(causal=self.causal)

    def schedule(self, layout: TokenLayout, tiling: Tiling) -> TileSchedule:
        tiling.require_flat("a gather of single keys")
        tokens, keys = layout.query_tokens, layout.tokens
        first = np.arange(0, tokens, self.queries, dtype=np.int64) + keys - tokens
        last = np.minimum(first + self.queries, keys) - 1
        low = np.minimum(max(self.sinks, self.init), first)
        # Of a list of several queries all choose from what lies before the first of them.
        end = first + 1 - self.window if self.window or self.queries == 1 else first
        high = np.maximum(end, low) if self.causal else np.full_like(first, keys)
        return self._rows(layout, tiling, first, last, low, high)

    def _chosen(self, available: Ints) -> Ints:
        """Keys that each list chooses, out of so many."""
        if self.keys:
            return np.minimum(available, self.keys)
        noise = np.random.default_rng(self.seed).standard_normal(len(available)) if self.spread else np.zeros(len(available))
        # The mean of a log-normal number lies above its median.
        wanted = self.share * np.exp(self.spread * noise - self.spread**2 / 2) * available
        return np.minimum(np.round(wanted / self.segment).astype(np.int64) * self.segment, available)

    def _rows(self, layout: TokenLayout, tiling: Tiling, first: Ints, last: Ints, low: Ints, high: Ints) -> TileSchedule:
        """Each list as up to three runs: sinks, keys chosen from [low, high), the window."""
        chosen = self._chosen(high - low)
        start = low + _walk(high - low - chosen, (1 - self.stay) * chosen, np.random.default_rng(self.seed).random())
        sinks = np.minimum(self.sinks, low)
        window_from = np.maximum(first + 1 - self.window, low) if self.window else last + 1
        begin = np.stack([np.zeros_like(first), start, window_from], axis=1)
        length = np.stack([sinks, chosen, last + 1 - window_from], axis=1)
        newest = Kind.FULL if self.queries == 1 else Kind.PARTIAL
        kind = np.broadcast_to(np.array([Kind.FULL, Kind.GATHER, newest], np.uint8), length.shape)
        kept = length > 0
        runs = Runs(np.nonzero(kept)[0], begin[kept], length[kept], kind[kept], len(first))
        rows = list_rows(layout.query_tokens, self.queries, tiling.pack, tiling.q_rows)
        live = last + 1 - first
        pairs = live * length.sum(axis=1) - (live * (live - 1) // 2 if self.window else 0)
        if len(rows.list) > len(first):
            runs = runs.take(rows.list, np.ones(len(rows.list), np.int64))
        return TileSchedule(
            q_tile=tiling.q_rows,
            kv_tile=tiling.kv_rows,
            seq_q=layout.query_tokens * tiling.pack,
            seq_kv=layout.tokens,
            row_live=rows.live,
            runs=runs,
            groups=(Group(0, len(rows.list), 1),),
            buffers=(Buffer("kv", 0, layout.tokens),),
            pairs_per_copy=(int(pairs.sum()) * tiling.pack,),
            aligned=False,
            segment=self.segment,
        )


@njit(cache=True)
def _walk(room: Any, step: Any, begin: float) -> Any:
    """Places from 0 to `room`, each by `step` further than the one before, back and forth."""
    place = np.empty(len(room), np.int64)
    at, way = begin * room.max(), 1.0
    for i in range(len(room)):
        at += way * step[i]
        if at < 0:
            at, way = -at, 1.0
        if at > room[i]:
            at, way = max(2 * room[i] - at, 0.0), -1.0
        at = min(at, room[i])
        place[i] = int(at)
    return place
