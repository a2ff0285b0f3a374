"""The best keys of every prefix, by a score that keys have of their own: DMA (Dynamic Mask Attention).

A key enters when it is among the `window` best of the keys so far, and stays until so many better ones have come. So a column of
the mask is one run of queries, and a tile is active from its diagonal down to the query at which the last of its keys leaves.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from msgspec import Meta, Struct
from numba import njit
from numpy.typing import NDArray

from ...facts import UserError
from ..layout import Tiling, TokenLayout
from ..runs import paint
from ..schedule import Buffer, Group, TileSchedule, tile_rows
from .band import Band

Ints = NDArray[np.int64]


class PrefixTop(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A query sees the `window` keys with the highest scores among those up to itself.

    Parameters
    ----------
    window : int
        Keys that a query sees.
    seed : int
        Of the scores, which are independent of each other.

    References
    ----------
    arXiv 2508.02124; SmallDoges/flash-dmattn @f024c28 flash_sparse_attn/utils/mask.py, topk_mask.

    Examples
    --------
    >>> PrefixTop(window=32).schedule(TokenLayout(grid=(512,)), Tiling(q=(64,), kv=(64,))).pairs
    15888
    """

    window: Annotated[int, Meta(ge=1, le=2**40)]
    seed: int = 0

    def mask_class(self) -> str:
        return "element"

    def without_pattern(self) -> Band:
        return Band(causal=True)

    def schedule(self, layout: TokenLayout, tiling: Tiling) -> TileSchedule:
        scores = np.random.default_rng(self.seed).standard_normal(layout.tokens)
        return self.scored(scores, layout, tiling)

    def scored(self, scores: NDArray[np.float64], layout: TokenLayout, tiling: Tiling) -> TileSchedule:
        """The schedule of given scores, one for each key."""
        tiling.require_flat("the best keys of a prefix")
        if layout.queries or tiling.pack != 1:
            raise UserError("the best keys of a prefix need as many queries as keys, and no packed heads")
        tokens, q_tile, kv_tile = layout.tokens, tiling.q_rows, tiling.kv_rows
        leaves = stays_until(np.asarray(scores, np.float64), self.window)
        position = np.arange(tokens)
        # Queries at which the last key of a kv tile leaves; where none ever enters, no tile of the column is visited.
        columns = np.arange(0, tokens, kv_tile)
        last = np.maximum.reduceat(np.where(leaves > position, leaves, 0), columns)
        first = np.minimum.reduceat(np.where(leaves > position, position, tokens), columns)
        top, bottom = first // q_tile, -(-last // q_tile)
        count = np.maximum(bottom - top, 0)
        row = np.repeat(top - np.cumsum(count) + count, count) + np.arange(count.sum())
        start = np.repeat(columns, count)
        stop = np.minimum(start + kv_tile, tokens)
        live = tile_rows(tokens, q_tile)
        return TileSchedule(
            q_tile=q_tile,
            kv_tile=kv_tile,
            seq_q=tokens,
            seq_kv=tokens,
            row_live=live,
            runs=paint(len(live), row, start, stop, np.zeros(len(row), bool), None),
            groups=(Group(0, len(live), 1),),
            buffers=(Buffer("kv", 0, tokens),),
            pairs_per_copy=(int((leaves - position).sum()),),
        )


def stays_until(scores: NDArray[np.float64], window: int) -> Ints:
    """The first query that no longer sees each key, of queries 0, 1, ...; the key itself where none does.

    >>> stays_until(np.array([3.0, 1.0, 2.0, 4.0]), window=2).tolist()
    [4, 2, 3, 4]
    """
    leaves = np.empty(len(scores), np.int64)
    _sweep(scores, min(window, len(scores)), leaves)
    return leaves


@njit(cache=True)
def _sweep(scores: Any, window: int, leaves: Any) -> None:
    """A heap of the best keys so far, the worst on top; of equal scores the later key is the worse."""
    heap = np.empty(window, np.int64)
    held = 0
    for key in range(len(scores)):
        leaves[key] = len(scores)
        if held < window:
            at = held
            held += 1
            while at and scores[key] <= scores[heap[(at - 1) // 2]]:
                heap[at] = heap[(at - 1) // 2]
                at = (at - 1) // 2
            heap[at] = key
            continue
        worst = heap[0]
        if scores[key] <= scores[worst]:
            leaves[key] = key
            continue
        leaves[worst] = key
        at = 0
        while 2 * at + 1 < window:
            child = 2 * at + 1
            if child + 1 < window and _worse(scores, heap[child + 1], heap[child]):
                child += 1
            if not _worse(scores, heap[child], key):
                break
            heap[at] = heap[child]
            at = child
        heap[at] = key


@njit(inline="always")
def _worse(scores: Any, a: int, b: int) -> bool:
    return scores[a] < scores[b] or (scores[a] == scores[b] and a > b)
