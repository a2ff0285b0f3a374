"""Sliding tile attention: the tokens of a tile of the grid share one box of whole tiles of keys.

The rule is that of the method's code (arXiv 2502.04507; hao-ai-lab/FastVideo at 2f3d407, fastvideo-kernel). Tokens lie tile by
tile in memory, so a tile is a block of consecutive tokens and no mask runs inside one.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Annotated

import numpy as np
from msgspec import Meta, Struct

from ...facts import UserError
from ..layout import Tiling, TokenLayout
from ..runs import paint
from ..schedule import BlockGrid, Buffer, TileSchedule, flat_schedule
from .axis import Axis
from .band import Band
from .box import Box

Tiles = Annotated[int, Meta(ge=1)]


class SlidingTile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Boxes of whole tiles that slide by a tile, pushed back inside at the borders of the grid.

    Parameters
    ----------
    window : tuple of int
        Tiles seen along each axis; an even number sees as many as the next odd one.
    tile : tuple of int
        Tokens of a tile along each axis; they must divide the grid.

    Notes
    -----
    The schedule is that of the queries of the grid: they see text too. Text is padded to a whole tile.

    Examples
    --------
    >>> sta = SlidingTile(window=(3, 3, 3))
    >>> s = sta.schedule(TokenLayout(grid=(30, 48, 80)), Tiling(q=(192,), kv=(128,)))
    >>> s.q_tiles, s.max_visited, s.blocks
    (600, 81, BlockGrid(size=384, active=8100, total=90000))
    """

    window: tuple[Tiles, ...]
    tile: tuple[Tiles, ...] = (6, 8, 8)

    def mask_class(self) -> str:
        return "blocks"

    def without_pattern(self) -> Band:
        return Band()

    def axes(self, layout: TokenLayout) -> list[Axis]:
        """The rule along each axis, in tokens."""
        if not len(self.window) == len(self.tile) == len(layout.grid):
            raise UserError(
                f"sliding tiles need a window and a tile of {len(layout.grid)} numbers, one per axis of the grid, "
                f"got {self.window} and {self.tile}"
            )
        if any(length % tile for length, tile in zip(layout.grid, self.tile, strict=True)):
            raise UserError(f"the grid must be whole tiles of {self.tile}, got {layout.grid}")
        sides = zip(layout.grid, self.window, self.tile, strict=True)
        return [Axis(n, min(2 * (w // 2) * t + t, n), t, 1, causal=False) for n, w, t in sides]

    def schedule(self, layout: TokenLayout, tiling: Tiling) -> TileSchedule:
        tiling.require_flat("sliding tile attention")
        if tiling.pack != 1 or layout.queries:
            raise UserError("sliding tile attention has no form with packed GQA heads or fewer queries than keys")
        axes, size, tokens = self.axes(layout), prod(self.tile), prod(layout.grid)
        box = Box(window=tuple(a.window for a in axes), stride=self.tile)
        tiles = box.schedule(TokenLayout(grid=layout.grid), Tiling(q=self.tile, kv=self.tile))
        rows = np.arange(len(tiles.row_live))
        text_end = tokens + -(-layout.text // size) * size
        # Text keys, and the padding behind them, which the kernel masks.
        edges = [(tokens, tokens + layout.text), (tokens + layout.text, text_end)]
        runs = paint(
            len(rows),
            np.concatenate([tiles.runs.row, rows, rows]),
            np.concatenate([tiles.runs.start, *(np.full_like(rows, low) for low, _ in edges)]),
            np.concatenate([tiles.runs.stop, *(np.full_like(rows, high) for _, high in edges)]),
            np.concatenate([np.ones(len(tiles.runs.row) + len(rows), bool), np.zeros(len(rows), bool)]),
            None,
        )
        blocks = flat_schedule(
            runs,
            q_tile=size,
            kv_tile=size,
            seq_q=tokens,
            seq_kv=layout.tokens,
            pairs=tiles.pairs + tokens * layout.text,
            mask_free=text_end == layout.tokens,
            blocks=BlockGrid(size, tiles.visited, len(rows) ** 2),
        )
        cut = replace(blocks.retile(tiling.q_rows, tiling.kv_rows), buffers=(Buffer("kv", 0, text_end),))
        return replace(cut, row_keys=cut.counts.visited * cut.kv_tile - (text_end - layout.tokens))
