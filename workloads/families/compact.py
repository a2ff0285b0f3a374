"""Tokens that are dropped before attention: Token Sparse Attention, ZipVL, TCA-Attention, Mixture-of-Head attention.

What is left is packed together, and a dense kernel runs over it. Which tokens are left does not change the work where queries and
keys are the same tokens; otherwise they are spread evenly.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from ...facts import UserError
from ..layout import Tiling, TokenLayout
from ..schedule import TileSchedule
from .band import Band, interval_schedule

Ints = NDArray[np.int64]


class Compact(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A share of the tokens takes part, in their old order.

    Parameters
    ----------
    keep : float
        Share of the tokens that is left.
    of : str
        What is dropped: `tokens` (queries and keys alike), `queries` or `keys` alone.
    least, extra : int
        Tokens that are always left, and tokens left beside the share.
    causal : bool
        A query sees what is left of the keys up to itself.

    References
    ----------
    Token Sparse Attention: dongwonjo/Token-Sparse-Attention; ZipVL: arXiv 2410.08584; MoH: arXiv 2410.11842.

    Examples
    --------
    >>> half = Compact(keep=0.5)
    >>> half.schedule(TokenLayout(grid=(512,)), Tiling(q=(64,), kv=(64,))).visited
    10
    >>> Compact(keep=0.5, of="queries").schedule(TokenLayout(grid=(512,)), Tiling(q=(64,), kv=(64,))).visited
    20
    """

    keep: Annotated[float, Meta(gt=0, le=1)]
    of: Literal["tokens", "queries", "keys"] = "tokens"
    least: Annotated[int, Meta(ge=0, le=2**40)] = 0
    extra: Annotated[int, Meta(ge=0, le=2**40)] = 0
    causal: bool = True

    def mask_class(self) -> str:
        return "dense"

    def without_pattern(self) -> Band:
        return Band(causal=self.causal)

    def left(self, tokens: int) -> int:
        """Tokens that are left of so many."""
        return min(max(round(self.keep * tokens), self.least, 1) + self.extra, tokens)

    def schedule(self, layout: TokenLayout, tiling: Tiling) -> TileSchedule:
        tiling.require_flat("dropped tokens")
        if layout.queries:
            raise UserError("dropped tokens need as many queries as keys")
        tokens = layout.tokens
        left = self.left(tokens)
        if self.of == "tokens":
            return self.without_pattern().schedule(TokenLayout(grid=(left,)), tiling)
        if self.of == "queries":
            queries, keys = left, tokens
        else:
            queries, keys = tokens, left

        def interval(q: Ints) -> tuple[Ints, Ints]:
            """Query q of those that are left stands at the end of its share of the tokens, and so do keys."""
            position = (q + 1) * tokens // queries
            end = np.maximum(position * keys // tokens, 1) if self.causal else np.full_like(q, keys)
            return np.zeros_like(q), end

        return interval_schedule(interval, queries, keys, tiling)
