"""Static patterns on block numbers: bands, spans, stripes, diagonals, powers of two, random blocks, and their unions."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from msgspec import Meta, Struct
from numba import njit

from ...facts import UserError
from ..blocks import BlockLists, BlockShape, block_schedule
from ..layout import Tiling, TokenLayout
from ..schedule import TileSchedule
from .band import Band

Count = Annotated[int, Meta(ge=0, le=2**30)]


class Strided(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row of blocks keeps what any of its rules keeps; all lengths are in blocks.

    Parameters
    ----------
    block : int
        Tokens of a block.
    causal : bool
        Blocks above the diagonal are not seen.
    local : int
        Blocks up to and with its own (on both sides, where not causal).
    span : int
        Rows see the blocks of their own span of so many.
    sinks, global_rows : int
        First blocks, which all rows see; first rows, which see all.
    stride, stripe, phase, head_step : int
        Columns j with (j + phase + head_step * head) mod stride < stripe.
    diagonals, thick : int
        Columns at a distance d from the row with d mod diagonals < thick (from above or below, where not causal).
    powers : bool
        Columns at a distance that is a power of two.
    random : int
        Further blocks of each row, drawn from those that no other rule keeps.
    dense_heads : int
        Last heads, which see all.
    seed : int
        Of the random blocks.

    References
    ----------
    Sparse Transformer: arXiv 1904.10509, openai/sparse_attention @c53f3bd. BigBird: arXiv 2007.14062. S2-Attention:
    arXiv 2407.17678, linxihui/dkernel @0d4e90e. PowerAttention: arXiv 2503.03588. LogSparse: arXiv 1907.00235.

    Examples
    --------
    >>> power = Strided(block=256, local=5, sinks=1, powers=True)
    >>> power.schedule(TokenLayout(grid=(32768,)), Tiling(q=(256,), kv=(256,))).visited
    1141
    """

    block: Annotated[int, Meta(ge=1, le=2**20)] = 64
    causal: bool = True
    local: Count = 0
    span: Count = 0
    sinks: Count = 0
    global_rows: Count = 0
    stride: Count = 0
    stripe: Count = 1
    phase: Count = 0
    head_step: Count = 0
    diagonals: Count = 0
    thick: Count = 1
    powers: bool = False
    random: Count = 0
    dense_heads: Count = 0
    seed: Count = 0

    def __post_init__(self) -> None:
        if not (self.local or self.span or self.stride or self.diagonals or self.powers or self.random):
            raise UserError("give at least one of local, span, stride, diagonals, powers, random")

    def mask_class(self) -> str:
        return "blocks"

    def without_pattern(self) -> Band:
        return Band(causal=self.causal)

    def schedule(self, layout: TokenLayout, tiling: Tiling) -> TileSchedule:
        return self.schedule_heads(layout, tiling, 1)

    def schedule_heads(self, layout: TokenLayout, tiling: Tiling, heads: int) -> TileSchedule:
        """The work of `heads` heads of one item; heads of the same shift share a table."""
        shape = BlockShape(self.block, self.block, layout.query_tokens, layout.tokens, causal=self.causal)
        shifts: dict[int, int] = {}
        sparse = heads - min(self.dense_heads, heads)
        for head in range(sparse):
            shift = (self.phase + self.head_step * head) % max(self.stride, 1)
            shifts[shift] = shifts.get(shift, 0) + 1
        tables = [(self._lists(shape, shift), copies) for shift, copies in shifts.items()]
        if heads > sparse:
            tables.append((BlockLists.of(np.arange(shape.columns) < shape.visible()[:, None]), heads - sparse))
        return block_schedule(tables, shape, tiling)

    def _lists(self, shape: BlockShape, shift: int) -> BlockLists:
        own, visible = shape.own_columns(), shape.visible()
        lists = _kept(
            own[:, 0], own[:, 1] - 1, visible, shape.columns, self.causal, self.local, self.span, self.sinks, self.global_rows,
            self.stride, self.stripe, shift, self.diagonals, self.thick, self.powers,
        )  # fmt: skip
        return self._with_random(BlockLists(*lists), visible) if self.random else BlockLists(*lists)

    def _with_random(self, lists: BlockLists, visible: Any) -> BlockLists:
        rng = np.random.default_rng(self.seed)
        rows = []
        for row, begin, end in zip(visible, lists.indptr[:-1], lists.indptr[1:], strict=True):
            kept = lists.column[begin:end]
            others = np.setdiff1d(np.arange(row, dtype=np.int32), kept, assume_unique=True)
            drawn = rng.choice(others, min(self.random, len(others)), replace=False) if len(others) else others
            rows.append(np.sort(np.concatenate([kept, drawn])))
        return BlockLists(np.cumsum([0, *map(len, rows)]), np.concatenate(rows))


@njit(cache=True)
def _kept(
    first: Any, last: Any, visible: Any, columns: int, causal: bool, local: int, span: int, sinks: int, global_rows: int,
    stride: int, stripe: int, shift: int, diagonals: int, thick: int, powers: bool,
) -> Any:  # fmt: skip
    """Blocks of every row, as (indptr, column): all rules mark, then what is marked is read."""
    column = np.empty(1024, np.int32)
    indptr = np.zeros(len(visible) + 1, np.int64)
    marked = np.zeros(columns, np.bool_)
    at = 0
    for row in range(len(visible)):
        n, low, high = visible[row], first[row], last[row]
        marked[:n] = row < global_rows
        marked[: min(sinks, n)] = True
        if local:
            marked[max(low - local + 1, 0) : min(high + (1 if causal else local), n)] = True
        if span:
            marked[low // span * span : min((high // span + 1) * span, n)] = True
        if stride:
            for begin in range(-shift % stride - stride, n, stride):
                for c in range(max(begin, 0), min(begin + stripe, n)):
                    marked[c] = True
        if diagonals:
            for step in range(0, columns, diagonals):
                for d in range(step, step + thick):
                    for c in (low - d, low + d):
                        if 0 <= c < n:
                            marked[c] = True
        if powers:
            d = 1
            while d < columns:
                for c in (low - d, low + d):
                    if 0 <= c < n:
                        marked[c] = True
                d *= 2
        for c in range(n):
            if marked[c]:
                if at == len(column):
                    grown = np.empty(2 * at, np.int32)
                    grown[:at] = column
                    column = grown
                column[at] = c
                at += 1
        indptr[row + 1] = at
    return indptr, column[:at].copy()
