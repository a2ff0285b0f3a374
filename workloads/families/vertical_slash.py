"""Vertical columns and slashes (diagonals) of a causal map: MInference's kernel and its block-aligned relatives.

A slash is a distance from query to key, a vertical is a key that all later queries see. MInference covers the slashes of a tile
of queries by runs of keys that start where a slash starts (on no grid) and grow by whole tiles, and gathers the verticals that
no run holds. How far apart the slashes lie decides what they cost; their number alone says little.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Annotated, Any, NamedTuple

import numpy as np
from msgspec import Meta, Struct
from numba import njit
from numpy.typing import NDArray

from ...facts import UserError
from ..blocks import BlockLists, BlockShape, block_schedule
from ..estimators.lines import line_scores, top_lines
from ..heads import heads_of_kinds, stack_heads
from ..layout import Tiling, TokenLayout
from ..qk import load_qk
from ..runs import Runs
from ..schedule import Kind, TileSchedule, flat_schedule
from .band import Band

Ints = NDArray[np.int64]
Count = Annotated[int, Meta(ge=0, le=2**30)]
Share = Annotated[float, Meta(ge=0, le=1)]
Budget = tuple[float, int, int]
"""Share of the heads, columns and diagonals of each."""


class VerticalSlash(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Each head sees some columns and some diagonals.

    Parameters
    ----------
    verticals, slashes : int
        Columns and diagonals of a head, in tokens.
    kinds : tuple of (share, verticals, slashes)
        Heads of several budgets, with the share of each, in place of `verticals` and `slashes`.
    first, recent : int
        Columns and diagonals that are always among them: first keys, and smallest distances.
    band : float
        Share of the other diagonals that join the recent ones in one band; the rest lies anywhere.
    cluster : int
        Neighbouring diagonals (and columns) outside the band that come together.
    dilation : int
        Diagonals lie this far apart, from 0 on, in place of what is drawn.
    aligned : int
        Columns and diagonals are those of blocks of so many tokens, which are computed whole. 0: MInference's runs and gathers.
    seed : int
        Of where they lie.
    qk : str
        File of real queries and keys (.npz, `q` and `k` [heads, tokens, width]): lines are then the best of its last 64 queries.

    References
    ----------
    MInference: arXiv 2407.02490, microsoft/MInference @fb56c91 csrc/vertical_slash_index.cu. FlexPrefill: arXiv 2502.20766.

    Examples
    --------
    >>> head = VerticalSlash(verticals=1000, slashes=6096, band=1.0)
    >>> s = head.schedule(TokenLayout(grid=(32768,)), Tiling(q=(64,), kv=(64,)))
    >>> round(s.visited / (512 * 513 / 2), 2)
    0.37
    """

    verticals: Count = 0
    slashes: Count = 0
    kinds: tuple[Budget, ...] = ()
    first: Count = 30
    recent: Count = 100
    band: Share = 0.5
    cluster: Annotated[int, Meta(ge=1, le=2**20)] = 64
    dilation: Count = 0
    aligned: Count = 0
    seed: Count = 0
    qk: str = ""

    def __post_init__(self) -> None:
        if bool(self.kinds) == bool(self.verticals or self.slashes):
            raise UserError("give either verticals and slashes, or kinds")
        if min(slashes for _, _, slashes in self._kinds()) < 1:
            raise UserError("a head needs at least one slash: its own key")

    def mask_class(self) -> str:
        return "blocks" if self.aligned else "gather"

    def without_pattern(self) -> Band:
        return Band(causal=True)

    def schedule(self, layout: TokenLayout, tiling: Tiling) -> TileSchedule:
        return self.schedule_heads(layout, tiling, 1)

    def schedule_heads(self, layout: TokenLayout, tiling: Tiling, heads: int) -> TileSchedule:
        """The work of `heads` heads of one item: of each budget as many as its share, each with lines of its own."""
        tiling.require_flat("vertical and slash lines")
        if layout.queries:
            raise UserError("vertical and slash lines need as many queries as keys")
        if tiling.pack != 1:
            raise UserError("vertical and slash lines have no form with packed GQA heads")
        kinds = self._kinds()
        copies = heads_of_kinds([kind[0] for kind in kinds], heads)
        lines = self._measured(kinds, copies, layout.tokens) if self.qk else self._drawn(kinds, copies, layout.tokens)
        of_lines = run_schedule if not self.aligned else partial(aligned_schedule, block=self.aligned)
        return stack_heads([(of_lines(found, tokens=layout.tokens, tiling=tiling), n) for found, n in lines])

    def _drawn(self, kinds: Sequence[Budget], copies: Sequence[int], tokens: int) -> Iterator[tuple[Lines, int]]:
        """Lines that heads share, and how many do."""
        rng = np.random.default_rng(self.seed)
        for (_, verticals, slashes), n in zip(kinds, copies, strict=True):
            distinct = max((m for m in range(1, n + 1) if n % m == 0 and m <= MOST_DRAWN), default=0)
            for _ in range(distinct):
                yield self._lines(rng, verticals, slashes, tokens), n // distinct

    def _measured(self, kinds: Sequence[Budget], copies: Sequence[int], tokens: int) -> Iterator[tuple[Lines, int]]:
        """Lines of the heads of a file: the budgets go to them in their order."""
        heads = sum(copies)
        q, k = load_qk(self.qk).each_head(heads, tokens)
        budgets = [kind for kind, n in zip(kinds, copies, strict=True) for _ in range(n)][:: heads // len(q)]
        for head, (_, verticals, slashes) in enumerate(budgets):
            scores = line_scores(q[head, None], k[head, None], 64)
            found = top_lines(scores, min(verticals, tokens), min(slashes, tokens), first=self.first, recent=self.recent)
            yield Lines(*found[0]), heads // len(q)

    def _kinds(self) -> tuple[Budget, ...]:
        return self.kinds or ((1.0, self.verticals, self.slashes),)

    def _lines(self, rng: np.random.Generator, verticals: int, slashes: int, tokens: int) -> Lines:
        vertical = _drawn(rng, min(verticals, tokens), self.first, self.cluster, tokens)
        if self.dilation:
            return Lines(vertical, np.arange(min(slashes, -(-tokens // self.dilation))) * self.dilation)
        slashes = min(slashes, tokens)
        recent = min(self.recent, slashes)
        return Lines(vertical, _drawn(rng, slashes, recent + round(self.band * (slashes - recent)), self.cluster, tokens))


MOST_DRAWN = 4
"""Heads of one budget that are drawn apart; further ones share their lines."""


class Lines(NamedTuple):
    """Columns and diagonals of a head: keys, and distances from query to key; int64, ascending."""

    vertical: Ints
    slash: Ints


def _drawn(rng: np.random.Generator, count: int, first: int, cluster: int, below: int) -> Ints:
    """So many numbers below a limit: the first ones, and clusters of neighbours that lie anywhere behind them."""
    taken = np.zeros(below, bool)
    taken[: min(first, count)] = True
    missing = count - int(taken.sum())
    while missing:
        length = min(cluster, missing)
        begin = int(rng.integers(first, max(below - length, first) + 1))
        taken[begin : begin + length] = True
        missing = count - int(taken.sum())
    return np.flatnonzero(taken)


def run_schedule(lines: Lines, tokens: int, tiling: Tiling) -> TileSchedule:
    """The schedule of one head by MInference's conversion: runs of keys on no grid, and gathered columns.

    >>> lines = Lines(np.array([0, 1, 2, 3, 70, 130]), np.array([0, 1, 2, 64, 100]))
    >>> s = run_schedule(lines, 256, Tiling(q=(64,), kv=(64,)))
    >>> s.counts.visited.tolist(), s.counts.gather.tolist()
    ([1, 2, 4, 4], [0, 0, 1, 1])
    """
    q_tile, kv_tile = tiling.q_rows, tiling.kv_rows
    rows = -(-tokens // q_tile)
    row, start, stop, columns = _convert(lines.vertical, lines.slash, rows, q_tile, tokens)
    # Of a run, what lies up to the first query is seen by all; what the last rows of a run cover beyond the end is no key.
    edge = np.clip(row * q_tile + 1, start, stop)
    tile = np.arange(rows)
    at = np.concatenate([row, row, tile])
    begin = np.concatenate([start, edge, np.full(rows, lines.vertical[0] if len(lines.vertical) else 0)])
    length = np.concatenate([edge - start, stop - edge, columns])
    kind = np.repeat(np.array([Kind.FULL, Kind.PARTIAL, Kind.GATHER], np.uint8), [len(row), len(row), rows])
    # Gathered columns come last, as in the kernel; where they start means nothing.
    order = np.lexsort((begin, kind == Kind.GATHER, at))
    order = order[length[order] > 0]
    runs = Runs(at[order], begin[order], length[order], kind[order], rows)
    first, last = row * q_tile, np.minimum((row + 1) * q_tile, tokens)
    below = np.maximum(last - np.maximum(first, stop), 0) * (stop - start)
    low, high = np.maximum(first, start), np.minimum(last, stop)
    across = np.where(high > low, (high - low) * (low + high + 1 - 2 * start) // 2, 0)
    live = np.minimum(q_tile, tokens - tile * q_tile)
    pairs = int((below + across).sum() + (columns * live).sum())
    return flat_schedule(runs, q_tile=q_tile, kv_tile=kv_tile, seq_q=tokens, seq_kv=tokens, pairs=pairs, aligned=False)


@njit(cache=True)
def _convert(vertical: Any, slash: Any, rows: int, q_tile: int, tokens: int) -> Any:
    """Runs of every row (row, start, stop), and how many columns each gathers.

    Slashes are met from the farthest to the nearest. One that ends more than a tile behind the run begins a new run; one that
    ends behind it makes it longer by a tile. Columns inside a run are dropped.
    """
    row, start, stop = np.empty(1024, np.int64), np.empty(1024, np.int64), np.empty(1024, np.int64)
    columns = np.zeros(rows, np.int64)
    n = 0
    for tile in range(rows):
        end = (tile + 1) * q_tile
        s, v = len(slash) - 1, 0
        while s >= 0 and slash[s] >= end:
            s -= 1
        past = 0
        while s >= 0:
            run_end = max(end - slash[s], q_tile)
            run_start = run_end - q_tile
            s -= 1
            while s >= 0:
                next_end = max(end - slash[s], q_tile)
                if next_end > run_end + q_tile:
                    break
                if next_end > run_end:
                    run_end += q_tile
                s -= 1
            if n == len(row):
                row, start, stop = _longer(row), _longer(start), _longer(stop)
            row[n], start[n], stop[n] = tile, run_start, min(run_end, tokens)
            n += 1
            while v < len(vertical) and vertical[v] < run_start:
                if vertical[v] >= past:
                    columns[tile] += 1
                v += 1
            past = run_end
    return row[:n], start[:n], stop[:n], columns


@njit(cache=True)
def _longer(array: Any) -> Any:
    grown = np.empty(2 * len(array), np.int64)
    grown[: len(array)] = array
    return grown


def aligned_schedule(lines: Lines, tokens: int, tiling: Tiling, *, block: int) -> TileSchedule:
    """The schedule of one head whose columns and diagonals are those of whole blocks.

    >>> s = aligned_schedule(Lines(np.array([0]), np.array([0, 200])), 512, Tiling(q=(64,), kv=(64,)), block=64)
    >>> s.counts.visited.tolist()
    [1, 2, 2, 2, 3, 3, 3, 3]
    """
    shape = BlockShape(block, block, tokens, tokens, causal=True)
    columns, distances = np.unique(lines.vertical // block), np.unique(lines.slash // block)
    row = np.arange(shape.rows)
    by_column = np.zeros((shape.rows, shape.columns), bool)
    by_column[:, columns] = True
    for distance in distances:
        by_column[row[distance:], row[distance:] - distance] = True
    return block_schedule([(BlockLists.of(by_column & np.tri(shape.rows, dtype=bool)), 1)], shape, tiling)
