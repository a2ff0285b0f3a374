"""Local windows at full resolution, and the windows of a small copy of the image that lie around them (Scale-DiT).

The rule is that of the mask builder of the method's code (PeterYYZhang/Scale-DiT at ef68520; arXiv 2510.16325), evaluated on
blocks: its kernel computes a block whole or not at all. Tokens lie as [text, image by windows, small copy by windows].
"""

from __future__ import annotations

from math import prod
from typing import Annotated

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from ...facts import UserError
from ..layout import Tiling, TokenLayout
from ..runs import paint
from ..schedule import BlockGrid, TileSchedule, flat_schedule
from .band import Band
from .box import Box

Ints = NDArray[np.int64]
Size = Annotated[int, Meta(ge=1)]


class TwoScale(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A window around each image token, its place in a small copy of the image, and text.

    Parameters
    ----------
    window : int
        Side of the windows in which tokens lie in memory; a token sees half of it to either side, cut at the border.
    scale : int
        How much smaller the copy is along each axis. A window sees its own window in it and the ones before and after.
    q_block, kv_block : int
        Blocks in which the pattern is defined.

    Notes
    -----
    The tokens of the copy count as text of the layout: `text` = text tokens + image tokens / scale**2. They see only windows of
    the copy that touch theirs, and text does not see them.

    Examples
    --------
    >>> four_k = TokenLayout(grid=(256, 256), text=512 + 64 * 64)
    >>> TwoScale().schedule(four_k, Tiling(q=(128,), kv=(64,))).visited
    17912
    """

    window: Size = 16
    scale: Size = 4
    q_block: Size = 128
    kv_block: Size = 64

    def mask_class(self) -> str:
        return "blocks"

    def without_pattern(self) -> Band:
        return Band()

    def _sizes(self, layout: TokenLayout) -> tuple[int, int, int]:
        """Tokens of the text, of the image and of its copy, checked."""
        image, copy = prod(layout.grid), prod(layout.grid) // self.scale**2
        text, small = layout.text - copy, self.window // self.scale
        if len(layout.grid) != 2 or any(n % self.window for n in layout.grid) or self.window % self.scale:
            raise UserError(f"a two-scale pattern needs a grid of whole windows of {self.window}, got {layout.grid}")
        if text < 0:
            raise UserError(f"the text must hold the {copy} tokens of the small copy too, got {layout.text}")
        lengths = (text, image, copy)
        if (
            any(n % max(self.q_block, self.kv_block) for n in lengths)
            or self.q_block % self.window
            or self.kv_block % self.window
        ):
            raise UserError(f"text, image and copy must be whole blocks of {self.q_block} x {self.kv_block}, got {lengths}")
        if self.q_block % small**2 or self.kv_block % small**2:
            raise UserError(f"blocks must hold whole windows of {small} x {small} tokens of the copy")
        return lengths

    def schedule(self, layout: TokenLayout, tiling: Tiling) -> TileSchedule:
        tiling.require_flat("a two-scale pattern")
        if tiling.pack != 1 or layout.queries:
            raise UserError("a two-scale pattern has no form with packed GQA heads or fewer queries than keys")
        text, image, _ = self._sizes(layout)
        kv, tokens = self.kv_block, layout.tokens
        heads, middle = text // self.q_block, image // self.q_block
        row, block = self._image_to_image(layout.grid)
        near_row, near_first, near_last = self._image_to_copy(layout.grid)
        small_row, small = self._copy_to_copy(layout.grid)
        above = np.arange(heads + middle)
        parts = [
            (np.arange(heads), np.zeros(heads, np.int64), np.full(heads, text + image)),
            (above, np.zeros_like(above), np.full_like(above, text)),
            (heads + row, text + block * kv, text + (block + 1) * kv),
            (heads + near_row, text + image + near_first * kv, text + image + near_last * kv),
            (heads + middle + small_row, text + image + small * kv, text + image + (small + 1) * kv),
        ]
        rows = tokens // self.q_block
        row, start, stop = (np.concatenate(part) for part in zip(*parts, strict=True))
        runs = paint(rows, row, start, stop, np.ones(len(row), bool), None)
        blocks = BlockGrid(self.q_block, int((runs.length // kv).sum()), rows * (tokens // kv))
        whole = flat_schedule(runs, q_tile=self.q_block, kv_tile=kv, seq_q=tokens, seq_kv=tokens, mask_free=True, blocks=blocks)
        return whole.retile(tiling.q_rows, tiling.kv_rows)

    def _image_to_image(self, grid: tuple[int, ...]) -> tuple[Ints, Ints]:
        """Blocks of the image that blocks of it see, both in window order: a box of tiles that are slices of windows."""
        window = self.window
        tiles = Tiling(q=(self.q_block // window, window), kv=(self.kv_block // window, window))
        reach = 2 * (window // 2) + 1
        seen = Box(window=reach, border="cut").schedule(TokenLayout(grid=grid), tiles)
        indptr, columns = seen.to_bsr()
        rows = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
        across = grid[1] // window

        def by_windows(tile: Ints, height: int) -> Ints:
            slices = window // height
            down, right = tile // across, tile % across
            return (down // slices * across + right) * slices + down % slices

        return by_windows(rows, tiles.q[0]), by_windows(columns, tiles.kv[0])

    def _image_to_copy(self, grid: tuple[int, ...]) -> tuple[Ints, Ints, Ints]:
        """Blocks of the copy that a block of the image sees, as [first, end): those of three consecutive windows."""
        per_window = self.window**2 // self.q_block
        of_block, windows = self.kv_block // (self.window // self.scale) ** 2, prod(grid) // self.window**2
        at = np.repeat(np.arange(windows), per_window)
        first, last = np.maximum(at - 1, 0), np.minimum(at + 2, windows)
        return np.arange(len(at)), first // of_block, -(-last // of_block)

    def _copy_to_copy(self, grid: tuple[int, ...]) -> tuple[Ints, Ints]:
        """Blocks of the copy that a block of it sees: those of windows that touch its own."""
        side = (self.window // self.scale) ** 2
        down, across = (n // self.window for n in grid)
        i, j = np.divmod(np.arange(down * across), across)
        row, column = [], []
        for di in (-1, 0, 1):
            for dj in (-1, 0, 1):
                inside = (i + di >= 0) & (i + di < down) & (j + dj >= 0) & (j + dj < across)
                row.append(np.flatnonzero(inside) * side // self.q_block)
                column.append(((i + di) * across + j + dj)[inside] * side // self.kv_block)
        return np.concatenate(row), np.concatenate(column)
