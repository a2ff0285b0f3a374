"""TileSchedule: the work that one attention kernel is handed, in a form that does not grow with N squared.

A schedule is a list of work rows. A row has an owner tile (a block of query rows), and runs of keys in tokens, each of a
kind. A pattern's own block need not be the kernel's tile: runs are cut into visits by `kv_tile`, and `retile` changes both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..facts import UserError
from .counting import count_visits
from .runs import Runs, paint

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

DENSE_MASK_LIMIT = 2**28
"""Most tiles that `to_mask` and what builds on it will write out: an N x N array is a picture, not a working form."""


class Kind(IntEnum):
    """What a visit computes."""

    FULL = 0
    """QK, softmax, PV; every live query sees every key."""
    PARTIAL = 1
    """As FULL, and an element mask."""
    GATHER = 2
    """As FULL, but the keys lie scattered in memory."""
    QK_ONLY = 3
    """QK and a test; the rest was found negligible (BLASST)."""
    SKIPPED = 4
    """Nothing but the look that finds it skipped."""


class Buffer(NamedTuple):
    """A named range of the key address space: keys and values, a text part, a pooled copy."""

    name: str
    start: int
    """First key address; a multiple of the kv tile where tiles lie on a grid."""
    tokens: int
    """Keys in it."""


class BlockGrid(NamedTuple):
    """The blocks in which a pattern is defined, a head."""

    size: int
    active: int
    total: int


class Group(NamedTuple):
    """Rows that are launched once per head and item: a batch item of its own length, or heads with a table of their own."""

    first_row: int
    rows: int
    copies: int
    """How often the rows occur: heads x batch items."""


class Counts(NamedTuple):
    """Visits of each row of a schedule, each an int64 array [rows]."""

    visited: Ints
    """Tiles computed whole: FULL, PARTIAL and GATHER."""
    full: Ints
    """Of those, tiles in which every live query sees every key."""
    gather: Ints
    qk_only: Ints
    skipped: Ints


@dataclass(frozen=True, eq=False)
class TileSchedule:
    """The work of one attention kernel: rows, runs and groups.

    Attributes
    ----------
    q_tile, kv_tile : int
        Rows of an owner tile and keys of a visit.
    seq_q, seq_kv : int
        Live query rows and live keys of one head, over all items.
    row_live : int64 array [rows]
        Live query rows of each owner tile; the rest of the tile is padding.
    runs : Runs
        Keys of each row, CSR by row: start and length in tokens of the key address space, and Kind.
    groups : tuple of Group
        Partition of the rows, in launch order.
    buffers : tuple of Buffer
        The key address space.
    pairs_per_copy : tuple of int
        Live (query, key) pairs of one copy of each group.
    aligned : bool
        Visits lie on the fixed kv grid; otherwise each run is cut from its own start.
    mask_free : bool
        The kernel can tell before launch that no element mask is needed.
    mask_axes : int
        Axes that an element mask has to test.
    row_keys : int64 array [rows] or None
        Live keys in the visited tiles of each row, where tiles are boxes whose padding lies inside the address space.
    blocks : BlockGrid or None
        The pattern's own blocks.
    stored : float
        Bytes in which the keys and values lie in memory, over those of whole ones.
    box : tuple of int
        Tiles per axis where tiles are boxes of a grid (for pictures); empty otherwise.
    segment : int
        Keys that lie side by side in memory, of GATHER runs: 1 for a list of tokens, the size of a page or block for others.
    major : str
        Axis of the owner tiles. `kv` for kernels whose CTAs own keys and visit queries: what is said here of queries then holds
        for keys, and of keys for queries.

    Notes
    -----
    `visited`, `full`, `partial` and `pairs` count over all heads and items; a schedule built without heads has one.
    """

    q_tile: int
    kv_tile: int
    seq_q: int
    seq_kv: int
    row_live: Ints
    runs: Runs
    groups: tuple[Group, ...]
    buffers: tuple[Buffer, ...]
    pairs_per_copy: tuple[int, ...]
    aligned: bool = True
    mask_free: bool = False
    mask_axes: int = 1
    row_keys: Ints | None = None
    blocks: BlockGrid | None = None
    stored: float = 1.0
    box: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    segment: int = 1
    major: Literal["q", "kv"] = "q"

    # -- counts ------------------------------------------------------------------------------------------------------

    @cached_property
    def counts(self) -> Counts:
        """Visits of each row, by kind."""
        runs = self.runs
        if self.aligned:
            return Counts(*count_visits(runs.row, runs.start, runs.length, runs.kind, len(self.row_live), self.kv_tile))
        return Counts(
            visited=self._tiles(runs.kind <= Kind.GATHER),
            full=self._covered_tiles(),
            gather=self._tiles(runs.kind == Kind.GATHER),
            qk_only=self._tiles(runs.kind == Kind.QK_ONLY),
            skipped=self._tiles(runs.kind == Kind.SKIPPED),
        )

    def _tiles(self, chosen: Bools) -> Ints:
        """Tiles touched by the chosen runs of each row, cut from the start of each span of them."""
        runs, tile, rows = self.runs, self.kv_tile, len(self.row_live)
        if not chosen.any():
            return np.zeros(rows, np.int64)
        row, start, stop = runs.row[chosen], runs.start[chosen], runs.stop[chosen]
        begins, spans = _spans(row, start, stop)
        last_of_span = np.append(begins[1:], len(row)) - 1
        lengths = stop[last_of_span] - spans[begins]
        return np.bincount(row[begins], weights=-(-lengths // tile), minlength=rows).astype(np.int64)

    def _covered_tiles(self) -> Ints:
        """Tiles, cut likewise, that lie wholly in FULL runs of each row."""
        runs, tile, rows = self.runs, self.kv_tile, len(self.row_live)
        full = runs.kind == Kind.FULL
        if not full.any():
            return np.zeros(rows, np.int64)
        row, start, stop = runs.row[full], runs.start[full], runs.stop[full]
        origin = _spans(runs.row, runs.start, runs.stop)[1][full]
        covered = np.maximum((stop - origin) // tile - -(-(start - origin) // tile), 0)
        return np.bincount(row, weights=covered, minlength=rows).astype(np.int64)

    def total(self, per_row: Ints) -> int:
        """A whole number of each row, summed over all heads and items."""
        return sum(int(per_row[g.first_row : g.first_row + g.rows].sum()) * g.copies for g in self.groups)

    @property
    def q_tiles(self) -> int:
        """Owner tiles of one head of the longest item."""
        return max(g.rows for g in self.groups)

    @property
    def kv_tiles(self) -> int:
        """KV tiles of the key address space."""
        return sum(-(-b.tokens // self.kv_tile) for b in self.buffers)

    @property
    def copies(self) -> int:
        """Heads x items."""
        return sum(g.copies for g in self.groups)

    @property
    def work_rows(self) -> int:
        """Owner tiles over all heads and items."""
        return sum(g.rows * g.copies for g in self.groups)

    @cached_property
    def visited(self) -> int:
        """Tiles computed, over all heads and items."""
        return self.total(self.counts.visited)

    @property
    def full(self) -> int:
        """Visited tiles in which every live query sees every key."""
        return self.total(self.counts.full)

    @property
    def partial(self) -> int:
        """Visited tiles with a mask inside."""
        return self.visited - self.full - self.total(self.counts.gather)

    @property
    def qk_only(self) -> int:
        """Tiles of which only QK is computed, over all heads and items."""
        return self.total(self.counts.qk_only)

    @property
    def max_visited(self) -> int:
        """Tiles of the worst owner tile."""
        return int(self.counts.visited.max(initial=0))

    @property
    def pairs(self) -> int:
        """Live (query, key) pairs over all heads and items."""
        return sum(p * g.copies for p, g in zip(self.pairs_per_copy, self.groups, strict=True))

    @property
    def tile_area(self) -> int:
        """(query, key) pairs of whole visited tiles, padding included, over all heads and items."""
        return self.visited * self.q_tile * self.kv_tile

    def live_area(self) -> int:
        """(query, key) pairs of whole visited tiles, padding of the last tiles left out, over all heads and items."""
        counts, total = self.counts.visited, 0
        for group in self.groups:
            rows = slice(group.first_row, group.first_row + group.rows)
            live, visited = self.row_live[rows], counts[rows]
            if self.row_keys is not None:
                area = int((live * self.row_keys[rows]).sum())
            else:
                area = int((live * visited).sum()) * self.kv_tile
                area -= self._padding_of_last_tile(rows, live) if self.aligned else 0
            total += area * group.copies
        return total

    def _padding_of_last_tile(self, rows: slice, live: Ints) -> int:
        """Pairs with keys behind the end of the sequence, in the last kv tile of the rows that visit it."""
        first, last = self.runs.indptr[rows.start], self.runs.indptr[rows.stop]
        if first == last:
            return 0
        row, stop = self.runs.row[first:last] - rows.start, self.runs.stop[first:last]
        keys = int(stop.max())
        behind = -keys % self.kv_tile
        touching = np.zeros(len(live), bool)
        touching[row[stop > keys - (self.kv_tile - behind)]] = True
        return int(live[touching].sum()) * behind

    # -- changed copies ----------------------------------------------------------------------------------------------

    def with_copies(self, copies: int) -> TileSchedule:
        """The same work for `copies` heads and items.

        >>> from simattn.workloads import schedule
        >>> schedule("causal", seq_q=256, q_tile=128, kv_tile=128).with_copies(4).visited
        12
        """
        if copies < 1:
            raise UserError(f"copies must be at least 1, got {copies}")
        return self.with_copies_of_each([g.copies * copies for g in self.groups])

    def with_copies_of_each(self, copies: Sequence[int]) -> TileSchedule:
        """The same rows, with so many copies of each group."""
        found = replace(self, groups=tuple(g._replace(copies=n) for g, n in zip(self.groups, copies, strict=True)))
        # Visits of a row are those of all its copies.
        found.__dict__["counts"] = self.counts
        return found

    def of_group(self, group: Group) -> TileSchedule:
        """The rows of one of its groups alone, as often as `group` says.

        Examples
        --------
        >>> from simattn.workloads import schedule
        >>> s = schedule("ragged", seq_q=768, lengths=[256, 512])
        >>> [s.of_group(g).visited for g in s.groups]
        [3, 10]
        """
        rows = slice(group.first_row, group.first_row + group.rows)
        at = next(i for i, own in enumerate(self.groups) if own.first_row == group.first_row)
        return replace(
            self,
            row_live=self.row_live[rows],
            runs=self.runs.take(np.array([group.first_row]), np.array([group.rows]), keep_rows=True),
            groups=(group._replace(first_row=0),),
            pairs_per_copy=(self.pairs_per_copy[at],),
            row_keys=None if self.row_keys is None else self.row_keys[rows],
        )

    def retile(self, q_tile: int, kv_tile: int) -> TileSchedule:
        """Cut the same work into other tiles of a flat sequence.

        Merged rows visit the union of what their parts visited, FULL where all parts are. Rows smaller than before keep
        the runs of the row they come from, so that splitting a tile that was built from a token mask is an upper bound.

        Raises
        ------
        UserError
            The visits lie on no fixed grid, or rows are packed boxes of a multi-dimensional grid.
        """
        if not self.aligned or any(self.box):
            raise UserError("only a schedule on a fixed flat grid can be cut into other tiles")
        if q_tile < 1 or kv_tile < 1:
            raise UserError(f"tiles must be at least 1, got {q_tile} and {kv_tile}")
        if q_tile == self.q_tile:
            recut = replace(self, kv_tile=kv_tile)
            return replace(recut, mask_free=self.mask_free and recut.partial == 0)
        if (self.runs.kind > Kind.PARTIAL).any():
            raise UserError("rows can be merged and split only where all visits are FULL or PARTIAL")
        live: list[Ints] = []
        parts: list[Runs] = []
        groups: list[Group] = []
        for group in self.groups:
            old_live = self.row_live[group.first_row : group.first_row + group.rows]
            tokens = int(old_live.sum())
            new_live = tile_rows(tokens, q_tile)
            begin = np.arange(len(new_live)) * q_tile
            first, last = begin // self.q_tile, (begin + new_live - 1) // self.q_tile
            spread = self.runs.take(group.first_row + first, last - first + 1)
            parts.append(paint(len(new_live), spread.row, spread.start, spread.stop, spread.kind == Kind.FULL, last - first + 1))
            groups.append(Group(sum(map(len, live)), len(new_live), group.copies))
            live.append(new_live)
        recut = replace(
            self, q_tile=q_tile, kv_tile=kv_tile, row_live=np.concatenate(live), runs=Runs.stack(parts), groups=tuple(groups)
        )
        return replace(recut, mask_free=self.mask_free and recut.partial == 0)

    def slice(self, q_range: tuple[int, int], kv_range: tuple[int, int]) -> TileSchedule:
        """The part of the work with queries and keys in two half-open token ranges: a ring step, a chunk of a prefill.

        `q_range` must begin and end on owner tiles (or at the end). Live pairs are counted anew from the runs: those of
        PARTIAL runs at the mean share that they have in the whole schedule.
        """
        if len(self.groups) != 1 or not self.aligned or any(self.box):
            raise UserError("only a schedule of one group on a fixed flat grid can be sliced")
        begin, end = q_range
        if begin % self.q_tile or (end % self.q_tile and end < self.seq_q) or not 0 <= begin < end <= self.seq_q:
            raise UserError(f"q_range must lie on tiles of {self.q_tile} within 0..{self.seq_q}, got {begin}..{end}")
        low, high = kv_range
        if not 0 <= low < high <= self.seq_kv:
            raise UserError(f"kv_range must lie within 0..{self.seq_kv}, got {low}..{high}")
        first, rows = begin // self.q_tile, -(-(end - begin) // self.q_tile)
        taken = self.runs.take(np.array([first]), np.array([rows]), keep_rows=True).clip(low, high)
        live = self.row_live[first : first + rows]
        whole_full, whole_partial = _areas(self.runs, self.row_live)
        full, partial = _areas(taken, live)
        pairs = full + round(partial * (self.pairs_per_copy[0] - whole_full) / max(whole_partial, 1))
        return replace(
            self,
            seq_q=end - begin,
            seq_kv=high - low,
            row_live=live,
            runs=taken,
            groups=(Group(0, rows, self.groups[0].copies),),
            buffers=(Buffer("kv", 0, high - low),),
            pairs_per_copy=(pairs,),
            blocks=None,
        )

    # -- conversions -------------------------------------------------------------------------------------------------

    def to_mask(self) -> Bools:
        """Computed tiles as bool [heads or 1, q_tiles, kv_tiles] (keys first where they own); in row-major order of coordinates.

        Raises
        ------
        UserError
            No grid of blocks exists (dynamic KV tiling), items differ in length, or the picture would be too large.
        """
        self._require_drawable()
        indptr, indices = self.to_bsr()
        distinct = len(self.groups)
        mask = np.zeros((distinct * self.q_tiles, self.kv_tiles), bool)
        mask[np.repeat(np.arange(distinct * self.q_tiles), np.diff(indptr)), indices] = True
        return mask.reshape(distinct, self.q_tiles, self.kv_tiles)

    def to_bsr(self) -> tuple[Ints, Ints]:
        """Computed tiles as (indptr [rows + 1], indices): sorted kv tiles of each row."""
        self._require_grid()
        tile = self.kv_tile
        computed = self.runs.kind <= Kind.GATHER
        row, start, stop = self.runs.row[computed], self.runs.start[computed], self.runs.stop[computed]
        painted = paint(len(self.row_live), row, start // tile * tile, -(-stop // tile) * tile, np.ones(len(row), bool), None)
        counts = painted.length // tile
        indices = np.repeat(painted.start // tile - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        per_row = np.bincount(painted.row, weights=counts, minlength=len(self.row_live)).astype(np.int64)
        return np.concatenate([[0], np.cumsum(per_row)]), indices

    def full_mask(self) -> Bools:
        """Which of the computed tiles need no element mask, as bool [groups, q_tiles, kv_tiles]."""
        self._require_drawable()
        tile, full = self.kv_tile, self.runs.kind == Kind.FULL
        first, last = -(-self.runs.start[full] // tile), self.runs.stop[full] // tile
        count = np.maximum(last - first, 0)
        columns = np.repeat(first - np.cumsum(count) + count, count) + np.arange(count.sum())
        mask = np.zeros((len(self.groups) * self.q_tiles, self.kv_tiles), bool)
        mask[np.repeat(self.runs.row[full], count), columns] = True
        return mask.reshape(len(self.groups), self.q_tiles, self.kv_tiles)

    def to_block_mask(self) -> Any:
        """A FlexAttention BlockMask of the same tiles (needs torch); PARTIAL tiles stay for the caller's `mask_mod`."""
        import torch
        from torch.nn.attention.flex_attention import BlockMask

        tensor: Any = torch.from_numpy
        visited, full = self.to_mask(), self.full_mask()

        def listed(mask: Bools) -> tuple[Any, Any]:
            order = np.argsort(~mask, axis=-1, kind="stable").astype(np.int32)
            return tensor(mask.sum(-1, dtype=np.int32))[None], tensor(order)[None]

        partial_count, partial_index = listed(visited & ~full)
        full_count, full_index = listed(full)
        from_kv_blocks: Any = BlockMask.from_kv_blocks
        return from_kv_blocks(
            partial_count,
            partial_index,
            full_count,
            full_index,
            BLOCK_SIZE=(self.q_tile, self.kv_tile),
            # Tokens in boxes are padded to whole tiles; a flat sequence is not.
            seq_lengths=(self.q_tiles * self.q_tile, self.kv_tiles * self.kv_tile)
            if any(self.box)
            else (self.seq_q, self.seq_kv),
        )

    def _require_grid(self) -> None:
        if not self.aligned:
            raise UserError("no grid of blocks exists: KV tiles start at the first key that each q tile needs")
        if len({g.rows for g in self.groups}) > 1:
            raise UserError("no single grid of blocks exists: the items differ in length")

    def _require_drawable(self) -> None:
        self._require_grid()
        if len(self.groups) * self.q_tiles * self.kv_tiles > DENSE_MASK_LIMIT:
            raise UserError(f"a mask of {self.q_tiles} x {self.kv_tiles} tiles is too large to write out")


def _spans(row: Ints, start: Ints, stop: Ints) -> tuple[Ints, Ints]:
    """Runs that touch each other as spans: the first run of each span, and for each run where its span starts."""
    fresh = np.ones(len(row), bool)
    fresh[1:] = (row[1:] != row[:-1]) | (start[1:] != stop[:-1])
    begins = np.flatnonzero(fresh)
    return begins, start[begins][np.cumsum(fresh) - 1]


def _areas(runs: Runs, live: Ints) -> tuple[int, int]:
    """(query, key) pairs that FULL runs span, and those that PARTIAL runs span."""
    area = runs.length * live[runs.row]
    return int(area[(runs.kind == Kind.FULL) | (runs.kind == Kind.GATHER)].sum()), int(area[runs.kind == Kind.PARTIAL].sum())


def flat_schedule(
    runs: Runs,
    *,
    q_tile: int,
    kv_tile: int,
    seq_q: int,
    seq_kv: int,
    pairs: int | None = None,
    **attributes: Any,
) -> TileSchedule:
    """A schedule of one group over one flat sequence; `pairs` follows from the runs where all of them are FULL."""
    live = tile_rows(seq_q, q_tile)
    if pairs is None:
        pairs = int((runs.length * live[runs.row])[runs.kind <= Kind.GATHER].sum())
    return TileSchedule(
        q_tile=q_tile,
        kv_tile=kv_tile,
        seq_q=seq_q,
        seq_kv=seq_kv,
        row_live=live,
        runs=runs,
        groups=(Group(0, len(live), 1),),
        buffers=(Buffer("kv", 0, seq_kv),),
        pairs_per_copy=(pairs,),
        **attributes,
    )


def tile_rows(tokens: int, q_tile: int) -> Ints:
    """Live rows of each tile of a flat sequence."""
    return np.minimum(q_tile, tokens - np.arange(0, tokens, q_tile, dtype=np.int64))
