"""Neighborhood attention on a grid (GNA): every query sees a box of keys.

Rules, per axis and all in integers, as NATTEN's kernels define them (arXiv 2504.16922; SHI-Labs/NATTEN at 8c8729f): the
queries of one stride share the window of their leader; a window that would leave the grid is pushed back inside, so that
every query of a bidirectional axis sees exactly `window` keys; axes are independent.
"""

from __future__ import annotations

from functools import reduce
from itertools import product
from math import prod
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from ...facts import UserError
from ..layout import Tiling, TokenLayout
from ..orders import Order, token_order
from ..reorder import boxes_in_order
from ..runs import Runs, paint
from ..schedule import Buffer, Group, TileSchedule
from .axis import Axis, Border, Cut
from .band import Band
from .flat_boxes import flat_boxes, spread_intervals

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
PerAxis = Annotated[int, Meta(ge=1)] | tuple[Annotated[int, Meta(ge=1)], ...]


class Box(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Generalized neighborhood attention.

    Parameters
    ----------
    window : int or tuple of int
        Keys seen along each axis; a negative number is not allowed, the length of the axis means all of it.
    stride : int or tuple of int
        Queries that share one window, 1 (sliding) to `window` (blocked).
    dilation : int or tuple of int
        Distance of neighbouring keys; queries and keys fall into that many groups that do not mix.
    causal : bool or tuple of bool
        Axes along which only keys up to self are seen.
    border : str
        What becomes of a window that would leave the grid: `clamp` pushes it back inside (neighborhood attention), `cut` drops
        what lies outside, as zero padding and a mask do (SASA; with `stride` b and `window` b + 2h, the halos of HaloNet).
    order : str
        Order of the tokens in memory: `tiles` for kernels with tiles of several axes, or one for the flat tiles of FlexAttention:
        `rows` (row-major), which then visit most of what they mask, or one into which tokens are permuted: `blocks` (boxes of as
        many tokens as the smaller tile), `morton` or `hilbert` (curves).

    Examples
    --------
    >>> flux = Box(window=(80, 80), stride=(16, 16))
    >>> s = flux.schedule(TokenLayout(grid=(256, 256)), Tiling(q=(16, 16), kv=(16, 8)))
    >>> s.visited, s.max_visited, s.mask_free
    (12800, 50, True)
    """

    window: PerAxis
    stride: PerAxis = 1
    dilation: PerAxis = 1
    causal: bool | tuple[bool, ...] = False
    border: Border = "clamp"
    order: Literal["tiles", "rows", "blocks", "morton", "hilbert"] = "tiles"

    def mask_class(self) -> str:
        return "box" if self.order == "tiles" else "element"

    def without_pattern(self) -> Band:
        return Band(causal=self.causal is True or self.causal == (True,))

    def axes(self, layout: TokenLayout) -> list[Axis]:
        """The rule of each axis, checked against the grid."""
        return [
            Axis(length, window, stride, dilation, causal, self.border).checked(i)
            for i, (length, window, stride, dilation, causal) in enumerate(
                zip(
                    layout.grid,
                    per_axis("window", self.window, layout.grid),
                    per_axis("stride", self.stride, layout.grid),
                    per_axis("dilation", self.dilation, layout.grid),
                    per_axis("causal", self.causal, layout.grid),
                    strict=True,
                )
            )
        ]

    def visible(self, q: Any, k: Any, layout: TokenLayout) -> Any:
        """Whether query q sees key k (row-major indices); works on numpy arrays and on torch tensors."""
        seen: Any = True
        for axis in reversed(self.axes(layout)):
            seen = seen & axis.visible(q % axis.length, k % axis.length)
            q, k = q // axis.length, k // axis.length
        return seen

    def permuted(self, layout: TokenLayout, tiling: Tiling) -> tuple[int, int]:
        """Tokens of Q and of K after padding to whole tiles of every dilation group; equal to the grid if none is needed."""
        if self.order != "tiles":
            return prod(layout.grid), prod(layout.grid)
        axes = self.axes(layout)
        groups = prod(axis.dilation for axis in axes)
        q, kv = (prod(_padded_tiles(axes, tile)) * prod(tile) * groups for tile in (tiling.q, tiling.kv))
        return q, kv

    def needs_permutation(self, layout: TokenLayout, tiling: Tiling) -> bool:
        """Whether tokens must be reordered: not on one undilated axis, nor where they lie row-major under flat tiles."""
        axes = self.axes(layout)
        if self.order in ("blocks", "morton", "hilbert"):
            return len(axes) > 1
        return len(tiling.q) == len(axes) and (len(axes) > 1 or axes[0].dilation > 1) and not tiling.dynamic_kv

    def schedule(self, layout: TokenLayout, tiling: Tiling) -> TileSchedule:
        if layout.queries:
            raise UserError("gna needs as many queries as keys")
        if tiling.pack != 1:
            raise UserError("gna has no form with packed GQA heads")
        axes = self.axes(layout)
        if self.order in ("blocks", "morton", "hilbert"):
            return self._ordered(axes, self.order, layout, tiling)
        if len(tiling.q) != len(axes) or len(tiling.kv) != len(axes):
            if len(tiling.q) == len(tiling.kv) == 1:
                return flat_boxes(axes, layout, tiling)
            raise UserError(
                f"q_tile and kv_tile must have one number or one per axis of the grid ({len(axes)}), "
                f"got {_by(tiling.q)} and {_by(tiling.kv)}"
            )
        return self._boxes(axes, layout, tiling)

    def _ordered(self, axes: list[Axis], order: Order, layout: TokenLayout, tiling: Tiling) -> TileSchedule:
        """Tiles are consecutive tokens of another order."""
        tiling.require_flat(f"order {order}")
        if any(a.dilation > 1 for a in axes) or layout.text:
            raise UserError("gna under flat tiles takes no dilation and no text")
        windows = [a.window_of(np.arange(a.length, dtype=np.int64)) for a in axes]
        low, high = ([np.asarray(edge) for edge in edges] for edges in zip(*windows, strict=True))
        return boxes_in_order(
            low, high, token_order(order, layout, min(tiling.q_rows, tiling.kv_rows)), tiling.q_rows, tiling.kv_rows
        )

    def _boxes(self, axes: list[Axis], layout: TokenLayout, tiling: Tiling) -> TileSchedule:
        """Tiles are boxes of the permuted grid: per axis one interval of kv tiles, and the visited set is their product."""
        kv_tiles = _padded_tiles(axes, tiling.kv)
        groups = list(product(*(range(a.dilation) for a in axes)))
        mask_free = all(a.block_sparse(tq, tk, tiling.dynamic_kv) for a, tq, tk in zip(axes, tiling.q, tiling.kv, strict=True))
        parts, live, keys = [], [], []
        for index, group in enumerate(groups):
            cuts = [a.cut(g, tq, tk) for a, g, tq, tk in zip(axes, group, tiling.q, tiling.kv, strict=True)]
            first_key = index * prod(kv_tiles) * tiling.kv_rows
            runs = (
                _dynamic_runs(cuts, tiling, mask_free)
                if tiling.dynamic_kv
                else _static_runs(cuts, kv_tiles, tiling.kv_rows, first_key)
            )
            parts.append(runs)
            live.append(reduce(np.multiply.outer, [c.live for c in cuts]).ravel())
            per_axis = [c.dynamic_keys if tiling.dynamic_kv else c.keys for c in cuts]
            keys.append(reduce(np.multiply.outer, per_axis).ravel() + layout.text)
        padded = len(groups) * prod(kv_tiles) * tiling.kv_rows
        buffers = [Buffer("kv", 0, padded)]
        runs = Runs.stack(parts)
        if layout.text:
            runs = _with_text(runs, padded, layout.text)
            buffers.append(Buffer("text", padded, layout.text))
        queries = prod(layout.grid)
        return TileSchedule(
            q_tile=tiling.q_rows,
            kv_tile=tiling.kv_rows,
            seq_q=queries,
            seq_kv=layout.tokens,
            row_live=np.concatenate(live),
            row_keys=np.concatenate(keys),
            runs=runs,
            groups=(Group(0, runs.rows, 1),),
            buffers=tuple(buffers),
            pairs_per_copy=(prod(a.pairs() for a in axes) + queries * layout.text,),
            aligned=not tiling.dynamic_kv,
            mask_free=mask_free,
            mask_axes=len(axes),
            box=(_padded_tiles(axes, tiling.q), kv_tiles),
        )


def _padded_tiles(axes: list[Axis], tile: tuple[int, ...]) -> tuple[int, ...]:
    """Tiles along each axis of one dilation group: tokens are padded so that every group has the same."""
    return tuple(-(-a.length // (t * a.dilation)) for a, t in zip(axes, tile, strict=True))


def _static_runs(cuts: list[Cut], kv_tiles: tuple[int, ...], kv_rows: int, first_key: int) -> Runs:
    """Runs of all q tiles (row-major) along the last axis of the kv tile grid."""
    shape = tuple(len(c.live) for c in cuts)
    rows = prod(shape)
    at = np.unravel_index(np.arange(rows), shape)
    row, base, whole = np.arange(rows), np.zeros(rows, np.int64), np.ones(rows, bool)
    for cut, index, tiles in zip(cuts[:-1], at[:-1], kv_tiles[:-1], strict=True):
        mine = index[row]
        parent, coordinate = spread_intervals(cut.first[mine], cut.last[mine])
        mine = mine[parent]
        whole = whole[parent] & (coordinate >= cut.full_first[mine]) & (coordinate < cut.full_last[mine])
        row, base = row[parent], base[parent] * tiles + coordinate
    cut, mine = cuts[-1], at[-1][row]
    base = base * kv_tiles[-1]
    start = np.concatenate([base + cut.first[mine], base + cut.full_first[mine]]) * kv_rows + first_key
    stop = np.concatenate([base + cut.last[mine], np.where(whole, base + cut.full_last[mine], 0)]) * kv_rows + first_key
    return paint(rows, np.concatenate([row, row]), start, stop, np.repeat([False, True], len(row)), None)


def _dynamic_runs(cuts: list[Cut], tiling: Tiling, full: bool) -> Runs:
    """One run a q tile, as long as the tiles that it needs: they start where its window does, and lie on no grid."""
    visits = reduce(np.multiply.outer, [c.dynamic for c in cuts]).ravel()
    rows = len(visits)
    sparse = np.zeros(rows, np.int64)
    return Runs(np.arange(rows), sparse, visits * tiling.kv_rows, np.full(rows, not full, np.uint8), rows)


def _with_text(runs: Runs, first_key: int, text: int) -> Runs:
    """Every row sees the text keys behind the grid."""
    rows = np.arange(runs.rows)
    return paint(
        runs.rows,
        np.concatenate([runs.row, rows]),
        np.concatenate([runs.start, np.full_like(rows, first_key)]),
        np.concatenate([runs.stop, np.full_like(rows, first_key + text)]),
        np.concatenate([runs.kind == 0, np.ones(len(rows), bool)]),
        None,
    )


def per_axis(name: str, value: Any, grid: tuple[int, ...]) -> tuple[Any, ...]:
    """One value per axis from one value or a tuple."""
    if not isinstance(value, tuple):
        return (value,) * len(grid)
    if len(value) != len(grid):
        raise UserError(f"{name} must have one number or one per axis of the grid {_by(grid)}, got {_by(value)}")
    return value


def _by(shape: tuple[Any, ...]) -> str:
    return "x".join(str(n) for n in shape)
