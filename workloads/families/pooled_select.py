"""Blocks chosen by a score: what most content-dependent systems do, whatever they pool and however they choose.

Without data, masks are drawn from published statistics (workloads.scores). With a file of real Q and K they are the system's
own: its estimate of each block (workloads.estimators) and its rule (workloads.selection).
"""

from __future__ import annotations

from math import ceil, prod
from typing import Annotated, Literal, NamedTuple

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from ...facts import UserError
from ..blocks import BlockLists, BlockShape, block_schedule
from ..estimators import OWN, Numbers, choose
from ..layout import Tiling, TokenLayout
from ..orders import box_order
from ..qk import load_qk
from ..schedule import TileSchedule
from ..scores import Placement, draw_blocks, head_shares, row_loads
from ..selection import forced
from .band import Band

Ints = NDArray[np.int64]
Size = Annotated[int, Meta(ge=1, le=2**20)]
Block = Annotated[int, Meta(ge=0, le=2**20)]
Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0, le=2**30)]

MOST_DRAWN = 2**22
"""Blocks drawn for all heads: where that many are reached, heads share tables, as many heads each."""


class PooledSelect(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Each row of blocks keeps the blocks that a score chooses, and some that are forced.

    Parameters
    ----------
    block : int or tuple of int
        Queries of a block, on the flat sequence; or its shape on the grid, for tokens that are reordered block by block. 0 for
        the tiles of the kernel, where it is the kernel that chooses.
    block_k : int or tuple of int, optional
        Keys of a block; as `block` by default.
    causal : bool
        Blocks above the diagonal are not seen.
    rule : str
        `top_k`: as many blocks in every row. All other rules leave rows unlike each other: `row_mass`, `global_mass`,
        `global_threshold`, `threshold`, `relative_threshold`.
    top_k : int
        Blocks of a row under `top_k`; or give `density`.
    density : float
        Share kept of the blocks that can be kept (of a full row under `top_k`), what is forced included.
    rounding : str
        How a share becomes a whole number of blocks: `floor`, `ceil`, or `above` (floor and one more).
    density_at : int
        Tokens at which `density` was published; at other lengths it follows `growth`. 0: the same at every length.
    growth : float
        Blocks of a row grow as this power of the blocks that it can see.
    imbalance, head_spread : float
        Spread of the blocks of a row, and of the density of a head: standard deviation of the logarithm.
    sinks, last_rows : int
        First columns that all rows keep; last rows that keep all.
    local : int
        Columns up to the diagonal that each row keeps; 0: none, not even its own.
    forced_extra : bool
        Under `top_k`, forced blocks come on top of `top_k` and do not use it up.
    text_dense : bool
        Text keeps all, and is kept by all.
    segment : int
        A causal row sees all of its own segment of so many keys, in an order of their own.
    qk_only : bool
        QK is computed of all visible blocks, to find out which are kept.
    near, stripes : float
        Of the drawn blocks, the share near the diagonal and the share in columns that all rows of a head favour.
    seed : int
        Seed of what is drawn.
    qk : str
        File of real queries and keys (.npz, `q` and `k` [heads, tokens, width]): masks are then those of `estimator` and `rule`.
    estimator : str
        Scores of blocks (`products`, `mean_pool`, `antidiagonal`, `exact`, `sampled`), or a system that chooses in its own way.
    keep : float
        The rule's own number on those scores: a mass, a threshold, a share.

    Examples
    --------
    >>> draft = PooledSelect(block=(1, 8, 16), rule="global_threshold", density=0.1, rounding="above", local=0)
    >>> draft.schedule(TokenLayout(grid=(33, 48, 80), text=256), Tiling(q=(128,), kv=(128,))).blocks
    BlockGrid(size=128, active=101975, total=984064)
    """

    block: Block | tuple[Size, ...] = 64
    block_k: Size | tuple[Size, ...] | None = None
    causal: bool = False
    rule: Literal["top_k", "row_mass", "global_mass", "global_threshold", "threshold", "relative_threshold"] = "top_k"
    top_k: Count = 0
    density: Share = 0.0
    rounding: Literal["floor", "ceil", "above"] = "ceil"
    density_at: Count = 0
    growth: Annotated[float, Meta(ge=0, le=1)] = 1.0
    imbalance: Annotated[float, Meta(ge=0, le=3)] = 0.0
    head_spread: Annotated[float, Meta(ge=0, le=3)] = 0.0
    sinks: Count = 0
    last_rows: Count = 0
    local: Count = 1
    forced_extra: bool = False
    text_dense: bool = True
    segment: Size = 1
    qk_only: bool = False
    near: Share = 0.5
    stripes: Share = 0.25
    seed: Count = 0
    qk: str = ""
    estimator: Literal[
        "products", "mean_pool", "antidiagonal", "exact", "sampled",
        "seer", "xattention", "pbs", "sparsed", "blasst", "sale", "flexprefill", "dhsa",
    ] = "mean_pool"  # fmt: skip
    keep: Annotated[float, Meta(ge=0)] = 0.0

    def __post_init__(self) -> None:
        if (self.top_k == 0) == (self.density == 0.0):
            raise UserError("give either top_k or density")
        if self.top_k and self.rule != "top_k":
            raise UserError(f"top_k belongs to the rule top_k; {self.rule} takes a density")
        if isinstance(self.block, tuple) and self.causal:
            raise UserError("blocks on a grid have no causal order")
        if isinstance(self.block, tuple) != isinstance(self.block_k or self.block, tuple):
            raise UserError("block and block_k are both numbers or both shapes on the grid")

    def mask_class(self) -> str:
        return "qk_only" if self.qk_only else "blocks"

    def without_pattern(self) -> Band:
        return Band(causal=self.causal)

    def schedule(self, layout: TokenLayout, tiling: Tiling) -> TileSchedule:
        return self.schedule_heads(layout, tiling, 1)

    def schedule_heads(self, layout: TokenLayout, tiling: Tiling, heads: int) -> TileSchedule:
        """The work of `heads` heads of one item, each with blocks of its own."""
        geometry = _geometry(self, layout, tiling)
        tables = self._measured(geometry, layout, heads) if self.qk else self._drawn(geometry, heads)
        return block_schedule(tables, geometry.shape, tiling, qk_only=self.qk_only)

    def _measured(self, geometry: _Geometry, layout: TokenLayout, heads: int) -> list[tuple[BlockLists, int]]:
        """Blocks of each head of a file, and how many heads of the call share them."""
        shape, rows = geometry.shape, self._rows(geometry)
        if shape.seq_q != shape.seq_kv or shape.seq_kv != layout.tokens:
            raise UserError("q and k of a file need as many queries as keys, and blocks that cut the grid evenly")
        q, k = load_qk(self.qk).each_head(heads, layout.tokens)
        q, k = (x[:, _order(block, layout)] for x, block in ((q, self.block), (k, self.block_k or self.block)))
        each = self.top_k or _whole(self.density * shape.columns, self.rounding)
        numbers = Numbers(shape.q, shape.k, self.causal, self.keep, each, self.segment, self.seed)
        masks = choose(q, k, self.estimator, self.rule, numbers)
        if self.estimator not in OWN:
            column = np.arange(shape.columns)
            masks |= forced(shape.rows, shape.columns, sinks=self.sinks, local=rows.own) | rows.dense[:, None]
            masks |= column >= geometry.text_column
            masks &= column < rows.visible[:, None]
        return [(BlockLists.of(mask), heads // len(q)) for mask in masks]

    def _drawn(self, geometry: _Geometry, heads: int) -> list[tuple[BlockLists, int]]:
        """Blocks of each head from the statistics, and how many heads share them."""
        rng, rows, columns = np.random.default_rng(self.seed), self._rows(geometry), geometry.shape.columns
        density = self.density
        if self.rule != "top_k" and self.density_at:
            density = min(density * float(geometry.shape.seq_kv / self.density_at) ** (self.growth - 1), 1.0)
        mean = np.maximum(rows.least, self.top_k or density * rows.visible)
        most = MOST_DRAWN / np.minimum(mean, rows.visible).sum()
        distinct = max((n for n in range(1, heads + 1) if heads % n == 0 and n <= most), default=1)
        place = Placement(self.near, self.stripes, period=geometry.period)
        drawn = []
        for share in head_shares(rng, distinct, density, self.head_spread).tolist():
            loads = self._loads(rng, rows, share, columns)
            lists = draw_blocks(rng, loads, rows.visible, rows.own, self.sinks, geometry.text_column, columns, place)
            drawn.append((lists, heads // distinct))
        return drawn

    def _rows(self, geometry: _Geometry) -> _Rows:
        shape = geometry.shape
        visible, own = shape.visible(), shape.own_columns()
        if self.segment == 1:
            own[:, 0] = np.maximum(own[:, 0] - self.local + 1, 0) if self.local else own[:, 1]
        dense = np.arange(shape.rows) >= min(shape.rows - self.last_rows, geometry.text_row)
        text = max(shape.columns - geometry.text_column, 0)
        least = np.minimum(visible, own[:, 1] - own[:, 0] + min(self.sinks, shape.columns) + text)
        return _Rows(visible, own, np.where(dense, visible, least), dense, text)

    def _loads(self, rng: np.random.Generator, rows: _Rows, share: float, columns: int) -> Ints:
        """Blocks that each row of a head keeps. Text is kept besides what the rule chooses."""
        if self.rule == "top_k":
            each = self.top_k or _whole(share * (columns - rows.text), self.rounding)
            loads = rows.least + each if self.forced_extra else np.maximum(each + rows.text, rows.least)
            return np.where(rows.dense, rows.visible, np.minimum(loads, rows.visible))
        free = ~rows.dense
        visible = rows.visible[free]
        total = _whole(share * int((visible - rows.text).sum()), self.rounding) + rows.text * int(free.sum())
        loads = rows.visible.copy()
        loads[free] = row_loads(rng, visible, rows.least[free], total, imbalance=self.imbalance, growth=self.growth)
        return loads


class _Rows(NamedTuple):
    """What each row of blocks can keep, and must: arrays [rows].

    Attributes
    ----------
    visible, least : int64
        Most and fewest blocks.
    own : int64 [rows, 2]
        First and end of the forced columns around the diagonal.
    dense : bool
        Whether it keeps all.
    text : int
        Text columns.
    """

    visible: Ints
    own: Ints
    least: Ints
    dense: NDArray[np.bool_]
    text: int


class _Geometry(NamedTuple):
    """Blocks of a pattern on a layout: shape, first row and column that hold text, blocks of a frame."""

    shape: BlockShape
    text_row: int
    text_column: int
    period: int


def _geometry(family: PooledSelect, layout: TokenLayout, tiling: Tiling) -> _Geometry:
    q, k = family.block, family.block_k or family.block
    if q == 0:
        q, k = max(tiling.q_rows // tiling.pack, 1), tiling.kv_rows
    if isinstance(q, int) and isinstance(k, int):
        shape = BlockShape(q, k, layout.query_tokens, layout.tokens, causal=family.causal, segment=family.segment)
        rows, cells = prod(layout.grid) // q, prod(layout.grid) // k
        period = round(prod(layout.grid[1:]) / k) if len(layout.grid) == 3 else 0
    else:
        q, k = (block if isinstance(block, tuple) else (block,) for block in (q, k))
        live_q, live_k = (_live(block, layout) for block in (q, k))
        shape = BlockShape(prod(q), prod(k), len(live_q) * prod(q), len(live_k) * prod(k), live_q=live_q, live_k=live_k)
        rows, cells = (prod(-(-n // b) for n, b in zip(layout.grid, block, strict=True)) for block in (q, k))
        period = cells // -(-layout.grid[0] // k[0]) if len(layout.grid) == 3 else 0
    if layout.text and family.text_dense:
        return _Geometry(shape, rows, cells, period)
    return _Geometry(shape, shape.rows, shape.columns, period)


def _live(block: tuple[int, ...], layout: TokenLayout) -> Ints:
    """Live tokens of the blocks that cover the grid, and of those that hold the text."""
    if len(block) != len(layout.grid):
        raise UserError(f"block must have one number per axis of the grid, got {block} for {layout.grid}")
    live = np.ones(1, np.int64)
    for tokens, size in zip(layout.grid, block, strict=True):
        live = (live[:, None] * np.minimum(size, tokens - np.arange(0, tokens, size))).ravel()
    size = prod(block)
    return np.concatenate([live, np.minimum(size, layout.text - np.arange(0, layout.text, size))])


def _order(block: int | tuple[int, ...], layout: TokenLayout) -> Ints:
    """Tokens in the order in which boxes hold them, text last; as they are for blocks of the flat sequence."""
    token = np.arange(layout.tokens)
    if not isinstance(block, tuple):
        return token
    places = np.stack(np.unravel_index(token[: prod(layout.grid)], layout.grid))
    return np.concatenate([box_order(places, block), token[prod(layout.grid) :]])


def _whole(share: float, rounding: str) -> int:
    """A whole number of blocks. What a float misses of a whole number is none of its own (0.9 * 980100 is 882090)."""
    near = round(share)
    if abs(share - near) < 1e-6:
        return near + (rounding == "above")
    return ceil(share) if rounding == "ceil" else int(share) + (rounding == "above")
