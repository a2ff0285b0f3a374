"""A band in memory order whose width follows from the share of the pairs that it should keep (Sparse VideoGen, Re-ttention).

Rules as in the methods' code: svg-project/Sparse-VideoGen at 5ce7b01 (arXiv 2502.01776), cccrrrccc/Re-ttention at bbec1f5. Heads
that look along time are stored token-major by a kernel before, so that all heads of a layer run the same band.
"""

from __future__ import annotations

from math import ceil, floor, prod, sqrt
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from ...facts import UserError
from ..layout import Tiling, TokenLayout
from ..runs import paint
from ..schedule import TileSchedule, flat_schedule
from .band import Band

Ints = NDArray[np.int64]

GRAIN = 128
"""Tokens to which Sparse VideoGen rounds the half-width of its band."""


class MemoryBand(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keys near a query in memory, text, and the first frame or not.

    Parameters
    ----------
    keep : float
        Share of the pairs to keep, from which the width of the band is computed (Sparse VideoGen's code calls it sparsity).
    variant : str
        `hunyuan`: text behind the video sees and is seen by all; padding of the text sees only itself. `wan`: the first frame
        is a sink that all see. `re-ttention`: a plain band of `keep` x N keys.
    prompt : int or None
        Text tokens that are no padding; all by default.

    Examples
    --------
    >>> svg = MemoryBand(keep=0.3, variant="wan")
    >>> svg.reach(TokenLayout(grid=(21, 45, 80)))
    12416
    """

    keep: Annotated[float, Meta(gt=0, le=1)]
    variant: Literal["hunyuan", "wan", "re-ttention"] = "hunyuan"
    prompt: Annotated[int, Meta(ge=0)] | None = None

    def mask_class(self) -> str:
        return "element"

    def without_pattern(self) -> Band:
        return Band()

    def reach(self, layout: TokenLayout) -> int:
        """Keys seen on either side of self."""
        tokens = layout.tokens
        if self.variant == "re-ttention":
            return int(tokens * self.keep) // 2
        dense = self.keep - 2 * layout.text / tokens
        if not 0 < dense <= 1:
            raise UserError(f"keep must leave room for the rows and columns of {layout.text} text tokens, got {self.keep}")
        width = tokens * (1 - sqrt(1 - dense)) / GRAIN
        if self.variant == "wan":
            return ceil(width) * GRAIN
        if width < 1:
            raise UserError(f"a band of keep={self.keep} is narrower than {GRAIN} tokens, which is none at all")
        return floor(width) * GRAIN - 1

    def _parts(self, layout: TokenLayout) -> tuple[int, int]:
        """Ends of the video and of the prompt."""
        video = prod(layout.grid)
        prompt = layout.text if self.prompt is None else self.prompt
        if prompt > layout.text:
            raise UserError(f"prompt must be at most the text of {layout.text} tokens, got {prompt}")
        return video, video + prompt

    def _band(self, layout: TokenLayout) -> Band:
        """The pattern where text plays no part."""
        reach = self.reach(layout)
        return Band(window=(reach, reach), sinks=prod(layout.grid[1:]) if self.variant == "wan" else 0, causal=False)

    def visible(self, q: Any, k: Any, layout: TokenLayout) -> Any:
        """Whether query q sees key k; works on numpy arrays and on torch tensors (a FlexAttention mask_mod)."""
        if self.variant != "hunyuan":
            return self._band(layout).visible(q, k, layout)
        video, real = self._parts(layout)
        reach = self.reach(layout)
        near = (q - k <= reach) & (k - q <= reach)
        return ((q < real) & (k < real) & (near | (q >= video) | (k >= video))) | ((q >= real) & (k >= real))

    def schedule(self, layout: TokenLayout, tiling: Tiling) -> TileSchedule:
        tiling.require_flat("a band in memory order")
        if tiling.pack != 1 or layout.queries:
            raise UserError("a band in memory order has no form with packed GQA heads or fewer queries than keys")
        if self.variant != "hunyuan":
            return self._band(layout).schedule(layout, tiling)
        video, real = self._parts(layout)
        reach, tokens = self.reach(layout), layout.tokens
        begin = np.arange(0, tokens, tiling.q_rows, dtype=np.int64)
        end = np.minimum(begin + tiling.q_rows, tokens)
        tile, need = np.arange(len(begin)), np.zeros(len(begin), np.int64)
        row, start, stop, full = [], [], [], []

        def see(which: NDArray[np.bool_], low: Any, high: Any, whole: bool) -> None:
            row.append(tile[which])
            start.append(np.broadcast_to(low, len(tile))[which])
            stop.append(np.broadcast_to(high, len(tile))[which])
            full.append(np.full(int(which.sum()), whole))

        # Rows of a tile are of up to three kinds; a key is seen by all of them if each kind sees it whole.
        for low, high in ((0, video), (video, real), (real, tokens)):
            first, last = np.maximum(begin, low), np.minimum(end, high) - 1
            here = first <= last
            need += here
            if low == 0:
                see(here, np.maximum(first - reach, 0), np.minimum(last + reach + 1, video), whole=False)
                see(here, np.maximum(last - reach, 0), np.minimum(first + reach + 1, video), whole=True)
                see(here, video, real, whole=True)
            else:
                see(here, low if low == real else 0, high, whole=True)
        rows, starts, stops, fulls = (np.concatenate(part) for part in (row, start, stop, full))
        runs = paint(len(tile), rows, starts, stops, fulls, need)
        at = np.arange(video)
        near = int((np.minimum(at + reach + 1, video) - np.maximum(at - reach, 0)).sum())
        return flat_schedule(
            runs,
            q_tile=tiling.q_rows,
            kv_tile=tiling.kv_rows,
            seq_q=tokens,
            seq_kv=tokens,
            pairs=near + video * (real - video) + (real - video) * real + (tokens - real) ** 2,
            aligned=not tiling.dynamic_kv,
        )
