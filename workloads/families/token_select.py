"""Blocks of keys chosen by each query token: NSA, FSA, InfLLM-V2, NOSA, MoBA, Landmark Attention.

The heads of a K/V head share the list of a token, so its rows of a tile are tokens x heads. A kernel goes through the tokens and
gathers their blocks, or through the blocks and gathers the tokens that chose them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta, Struct
from numba import njit
from numpy.typing import NDArray

from ...facts import UserError
from ..estimators.tokens import TOKEN_BLOCKS, TokenNumbers
from ..heads import stack_heads
from ..layout import Tiling, TokenLayout
from ..lists import Lists, draw_lists, list_rows
from ..qk import load_qk
from ..runs import Runs
from ..schedule import BlockGrid, Buffer, Group, Kind, TileSchedule
from .band import Band

Ints = NDArray[np.int64]
Count = Annotated[int, Meta(ge=0, le=2**40)]
Fraction = Annotated[float, Meta(ge=0, le=1)]


class TokenSelect(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Each query token sees whole blocks of keys up to itself: the first, the newest, and others by its own choice.

    Parameters
    ----------
    block : int
        Keys of a block.
    top : int
        Blocks of a query; the first and the newest take their places among them.
    init, local : int
        First blocks, and newest ones (the query's own included), that every query sees.
    own : bool
        The query's own block belongs to this kernel; MoBA has another one for it.
    gathered : bool
        Queries that chose the same block are copied together, and run as sequences of a call of unlike lengths.
    stay, recent : float
        Which blocks: share of the chosen ones that the next query chooses again, and of new ones that are drawn near the query.
    qk : str
        File of real Q and K (see `load_qk`), from which the blocks are found in place of the draw.
    estimator : str
        Whose estimate finds them: that of `nsa`, `infllm_v2` or `moba`.
    seed : int
        Of the draw.

    References
    ----------
    NSA: arXiv 2502.11089; FSA: arXiv 2508.18224; InfLLM-V2: arXiv 2509.24663; MoBA: arXiv 2502.13189.

    Examples
    --------
    >>> nsa = TokenSelect(block=64, top=3)
    >>> nsa.schedule(TokenLayout(grid=(512,)), Tiling(q=(16,), kv=(64,), pack=2)).visited
    1344
    """

    block: Annotated[int, Meta(ge=1, le=2**20)] = 64
    top: Annotated[int, Meta(ge=1, le=2**20)] = 16
    init: Count = 0
    local: Annotated[int, Meta(ge=1, le=2**20)] = 1
    own: bool = True
    gathered: bool = False
    stay: Fraction = 0.8
    recent: Fraction = 0.5
    qk: str = ""
    estimator: Literal["nsa", "infllm_v2", "moba"] = "nsa"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.init + self.local > self.top:
            raise UserError(f"init + local must be at most top, got {self.init} + {self.local} and top={self.top}")
        if not self.own and (self.init or self.local > 1):
            raise UserError("init and local need the query's own block (own=true)")

    def mask_class(self) -> str:
        return "varlen" if self.gathered else "tokens"

    def without_pattern(self) -> Band:
        return Band(causal=True)

    def lists(self, layout: TokenLayout) -> Lists:
        """The blocks of every query, drawn at random where the rule leaves a choice."""
        position = np.arange(layout.query_tokens, dtype=np.int64) + layout.tokens - layout.query_tokens
        own = position // self.block
        newest = self.local if self.own else 1
        chosen = draw_lists(
            np.maximum(own + 1 - newest, self.init),
            np.full(len(own), self.top - self.init - newest),
            skip=self.init,
            stay=self.stay,
            recent=self.recent,
            seed=self.seed,
        )
        return _with_forced(chosen, own, self.init, newest, self.own)

    def schedule(self, layout: TokenLayout, tiling: Tiling) -> TileSchedule:
        return self.schedule_heads(layout, tiling, 1) if self.qk else _drawn(self, layout, tiling)

    def schedule_heads(self, layout: TokenLayout, tiling: Tiling, heads: int) -> TileSchedule:
        """The work of `heads` tiles of heads of one item; with real Q and K each has lists of its own."""
        if not self.qk:
            return self.schedule(layout, tiling).with_copies(heads)
        found = load_qk(self.qk)
        kv_heads, tokens = found.k.shape[:2]
        if tokens != layout.tokens or found.q.shape[1] != layout.query_tokens or layout.queries or heads % kv_heads:
            raise UserError(
                f"{self.qk} holds {kv_heads} K/V heads of {tokens} tokens, the call has {heads} of {layout.query_tokens} x "
                f"{layout.tokens}"
            )
        numbers = TokenNumbers(self.block, self.top, self.init, self.local)
        parts: list[TileSchedule] = []
        for k, q in zip(found.k, np.split(found.q, kv_heads), strict=True):
            lists = TOKEN_BLOCKS[self.estimator](np.asarray(q, np.float64), np.asarray(k, np.float64), numbers)
            of_head = heads // kv_heads // len(lists) or 1
            parts += [self.listed(one, layout, tiling).with_copies(of_head) for one in lists]
        return stack_heads([(part, 1) for part in parts])

    def listed(self, lists: Lists, layout: TokenLayout, tiling: Tiling) -> TileSchedule:
        """The schedule of given lists, one for each query: block numbers, sorted, none of them after the query's own.

        Raises
        ------
        UserError
            The number of lists is not that of the queries.
        """
        tiling.require_flat("a token-wise selection")
        queries = layout.query_tokens
        if len(lists.indptr) != queries + 1:
            raise UserError(f"there must be one list for each of {queries} queries, got {len(lists.indptr) - 1}")
        if self.gathered or tiling.major == "kv":
            return self._by_block(lists, layout, tiling)
        end = _ends(layout)
        rows = list_rows(queries, 1, tiling.pack, tiling.q_rows)
        runs = _runs_of_lists(lists, end, self.block)
        pairs = int(runs.length.sum()) * tiling.pack
        if len(rows.list) > queries:
            runs = runs.take(rows.list, np.ones(len(rows.list), np.int64))
        return TileSchedule(
            q_tile=tiling.q_rows,
            # A step of the loop takes keys of one block.
            kv_tile=min(tiling.kv_rows, self.block),
            seq_q=queries * tiling.pack,
            seq_kv=layout.tokens,
            row_live=rows.live,
            runs=runs,
            groups=(Group(0, len(rows.list), 1),),
            buffers=(Buffer("kv", 0, layout.tokens),),
            pairs_per_copy=(pairs,),
            blocks=self._blocks(lists, queries, layout),
        )

    def _by_block(self, lists: Lists, layout: TokenLayout, tiling: Tiling) -> TileSchedule:
        """Rows of each block of keys: the keys themselves, or the queries that chose it."""
        keys, pack, queries = layout.tokens, tiling.pack, layout.query_tokens
        blocks = -(-keys // self.block)
        tokens = np.bincount(lists.ids, minlength=blocks) * pack
        held = np.minimum(self.block, keys - np.arange(blocks) * self.block)
        start = np.arange(blocks, dtype=np.int64) * self.block
        by_keys = not self.gathered
        owned, owner_tile = (held, tiling.kv_rows) if by_keys else (tokens, tiling.q_rows)
        tiles = np.where(tokens > 0, -(-owned // owner_tile), 0)
        owner = np.repeat(np.arange(blocks), tiles)
        place = np.arange(len(owner)) - np.repeat(np.cumsum(tiles) - tiles, tiles)
        visit_from, visit = (np.zeros_like(owner), tokens[owner]) if by_keys else (start[owner], held[owner])
        kind = Kind.GATHER if by_keys else Kind.FULL
        return TileSchedule(
            q_tile=owner_tile,
            kv_tile=tiling.q_rows if by_keys else tiling.kv_rows,
            seq_q=keys if by_keys else int(tokens.sum()),
            seq_kv=queries * pack if by_keys else keys,
            row_live=np.minimum(owned[owner] - place * owner_tile, owner_tile),
            runs=Runs(np.arange(len(owner)), visit_from, visit, np.full(len(owner), kind, np.uint8), len(owner)),
            groups=(Group(0, len(owner), 1),),
            buffers=(Buffer("q" if by_keys else "kv", 0, queries * pack if by_keys else keys),),
            pairs_per_copy=(_pairs_of_lists(lists, layout, self.block) * pack,),
            major="kv" if by_keys else "q",
            blocks=self._blocks(lists, queries, layout),
        )

    def _blocks(self, lists: Lists, queries: int, layout: TokenLayout) -> BlockGrid:
        return BlockGrid(self.block, len(lists.ids), queries * -(-layout.tokens // self.block))


@lru_cache(maxsize=2)
def _drawn(family: TokenSelect, layout: TokenLayout, tiling: Tiling) -> TileSchedule:
    """The schedule of drawn lists. Kept: an answer looks at it more than once, and it takes up to a second."""
    return family.listed(family.lists(layout), layout, tiling)


def _ends(layout: TokenLayout) -> Ints:
    """End of the keys that each query sees; the last query is aligned with the last key."""
    return np.arange(layout.query_tokens, dtype=np.int64) + layout.tokens - layout.query_tokens + 1


def _pairs_of_lists(lists: Lists, layout: TokenLayout, block: int) -> int:
    """Live (query, key) pairs: whole blocks, and of the query's own block the keys up to itself."""
    end = np.repeat(_ends(layout), np.diff(lists.indptr))
    return int(np.minimum(end - lists.ids * block, block).sum())


def _with_forced(chosen: Lists, own: Ints, init: int, newest: int, keep_own: bool) -> Lists:
    """First and newest blocks beside the chosen ones, which lie between them."""
    first = np.minimum(init, own + 1) if init else np.zeros_like(own)
    last_from = np.maximum(own + 1 - newest, first)
    last = own + 1 - last_from if keep_own else np.zeros_like(own)
    count = first + np.diff(chosen.indptr) + last
    indptr = np.concatenate([[0], np.cumsum(count)])
    ids = np.empty(indptr[-1], np.int64)
    _merge(chosen.indptr, chosen.ids, first, last_from, last, indptr, ids)
    return Lists(indptr, ids)


@njit(cache=True)
def _merge(chosen_at: Any, chosen: Any, first: Any, last_from: Any, last: Any, indptr: Any, ids: Any) -> None:
    for query in range(len(first)):
        at = indptr[query]
        for block in range(first[query]):
            ids[at] = block
            at += 1
        for entry in range(chosen_at[query], chosen_at[query + 1]):
            ids[at] = chosen[entry]
            at += 1
        for block in range(last[query]):
            ids[at] = last_from[query] + block
            at += 1


def _runs_of_lists(lists: Lists, end: Ints, block: int) -> Runs:
    """The keys of each list as runs, those of the last block up to `end`; blocks next to each other make one run."""
    rows = len(lists.indptr) - 1
    count = _count_runs(lists.indptr, lists.ids)
    row, start, length = (np.empty(count, np.int64) for _ in range(3))
    _write_runs(lists.indptr, lists.ids, end, block, row, start, length)
    return Runs(row, start, length, np.full(count, Kind.FULL, np.uint8), rows)


@njit(cache=True)
def _count_runs(indptr: Any, ids: Any) -> int:
    found = 0
    for query in range(len(indptr) - 1):
        for at in range(indptr[query], indptr[query + 1]):
            if at == indptr[query] or ids[at] != ids[at - 1] + 1:
                found += 1
    return found


@njit(cache=True)
def _write_runs(indptr: Any, ids: Any, end: Any, block: int, row: Any, start: Any, length: Any) -> None:
    found = -1
    for query in range(len(indptr) - 1):
        for at in range(indptr[query], indptr[query + 1]):
            stop = min((ids[at] + 1) * block, end[query])
            if at == indptr[query] or ids[at] != ids[at - 1] + 1:
                found += 1
                row[found], start[found] = query, ids[at] * block
            length[found] = stop - start[found]
