"""Lists of blocks for single query tokens, drawn at random: what a token-wise selection looks like without its Q and K.

How many blocks a query reads is the selection's own rule and exact; which ones is a model with two numbers. `stay` is the share
of a query's blocks that the next query chooses again, and `recent` the share of new ones that are drawn near the query, with a
distance whose logarithm is uniform. The rest are uniform over the past, so early blocks are chosen most often.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class Lists(NamedTuple):
    """Blocks of each query in CSR form, sorted: `ids[indptr[q] : indptr[q + 1]]`."""

    indptr: Ints
    ids: Ints


def draw_lists(candidates: Ints, picks: Ints, *, skip: int, stay: float, recent: float, seed: int) -> Lists:
    """Lists of `picks[q]` different blocks out of [skip, candidates[q]), fewer where there are not so many.

    Parameters
    ----------
    candidates, picks : int64 arrays [queries]
        End of the blocks that a query may choose from, never falling; and how many it chooses.
    skip : int
        Blocks at the start that are not drawn.
    stay, recent : float
        The model, as above.

    Examples
    --------
    >>> lists = draw_lists(np.array([1, 2, 8]), np.array([3, 3, 3]), skip=0, stay=0.5, recent=0.5, seed=0)
    >>> np.diff(lists.indptr).tolist()
    [1, 2, 3]
    """
    count = np.clip(candidates - skip, 0, picks)
    indptr = np.concatenate([[0], np.cumsum(count)])
    ids = np.empty(indptr[-1], np.int64)
    _draw(indptr, np.asarray(candidates, np.int64), skip, stay, recent, np.uint64(seed), ids)
    return Lists(indptr, ids)


@njit(cache=True)
def _draw(indptr: Any, candidates: Any, skip: int, stay: float, recent: float, seed: Any, ids: Any) -> None:
    state = np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x632BE59BD9B4E019)
    taken_by = np.full(max(candidates.max() if len(candidates) else 0, 1), -1, np.int64)
    for query in range(len(indptr) - 1):
        begin, end = indptr[query], indptr[query + 1]
        span = candidates[query] - skip
        at = begin
        if end - begin == span:
            for block in range(skip, candidates[query]):
                ids[at] = block
                at += 1
            continue
        if query:
            for before in range(indptr[query - 1], begin):
                state, chance = _uniform(state)
                if at < end and chance < stay:
                    ids[at] = ids[before]
                    taken_by[ids[before]] = query
                    at += 1
        while at < end:
            state, kind = _uniform(state)
            state, where = _uniform(state)
            offset = int(span**where) - 1 if kind < recent else int(where * span)
            block = candidates[query] - 1 - offset if kind < recent else skip + offset
            while taken_by[block] == query:
                block = block + 1 if block + 1 < candidates[query] else skip
            ids[at] = block
            taken_by[block] = query
            at += 1
        _sort(ids, begin, end)


@njit(inline="always")
def _uniform(state: Any) -> Any:
    """Next state of splitmix64, and a number in [0, 1)."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    mixed = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed = mixed ^ (mixed >> np.uint64(31))
    return state, (mixed >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@njit(inline="always")
def _sort(ids: Any, begin: int, end: int) -> None:
    """Insertion: a list is short, and mostly in order already."""
    for i in range(begin + 1, end):
        value, j = ids[i], i
        while j > begin and ids[j - 1] > value:
            ids[j] = ids[j - 1]
            j -= 1
        ids[j] = value


class ListRows(NamedTuple):
    """Owner tiles of lists: which list each tile reads, and its live rows. int64 arrays [tiles]."""

    list: Ints
    live: Ints


def list_rows(queries: int, share: int, pack: int, q_tile: int) -> ListRows:
    """Tiles of `q_tile` rows where every `share` queries, of `pack` heads each, have a list of their own.

    >>> rows = list_rows(queries=3, share=1, pack=24, q_tile=16)
    >>> rows.list.tolist(), rows.live.tolist()
    ([0, 0, 1, 1, 2, 2], [16, 8, 16, 8, 16, 8])
    """
    lists = -(-queries // share)
    rows = np.full(lists, share * pack, np.int64)
    rows[-1] = (queries - (lists - 1) * share) * pack
    tiles = -(-rows // q_tile)
    owner = np.repeat(np.arange(lists), tiles)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(tiles) - tiles, tiles)
    return ListRows(owner, np.minimum(rows[owner] - place * q_tile, q_tile))
