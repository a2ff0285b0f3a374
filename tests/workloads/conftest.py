"""Brute force for the tests of this folder: every mask written out token by token and cut into tiles."""

import json
from itertools import product
from math import prod
from pathlib import Path

import numpy as np
import pytest
from simattn.workloads.layout import Tiling, TokenLayout

ORACLES = Path(__file__).parent.parent / "oracles"


def whole_mask(family, layout):
    """Whether each query sees each key, from the family's `visible` alone."""
    q, k = np.arange(layout.query_tokens)[:, None], np.arange(layout.tokens)[None, :]
    return np.broadcast_to(family.visible(q, k, layout), (layout.query_tokens, layout.tokens))


def cut(seen, q_at, kv_at, kv_rows, shape):
    """Visited tiles, and those in which every real query sees every key (padded keys count as masked).

    `q_at` and `kv_at` are the tile of each query and of each key.
    """
    of_q, of_kv = (at[:, None] == np.arange(n) for at, n in zip((q_at, kv_at), shape, strict=True))
    pairs = of_q.T.astype(np.float64) @ seen @ of_kv
    return pairs > 0, pairs == np.maximum(of_q.sum(0)[:, None] * kv_rows, 1)


def cut_flat(seen, q_tile, kv_tile):
    """As `cut`, with tiles of consecutive tokens."""
    queries, keys = seen.shape
    shape = -(-queries // q_tile), -(-keys // kv_tile)
    return cut(seen, np.arange(queries) // q_tile, np.arange(keys) // kv_tile, kv_tile, shape)


def cut_boxes(family, layout, q_tile, kv_tile):
    """As `cut`, with tiles that are boxes of the grid, one dilation group after the other."""
    axes = family.axes(layout)
    grid, dilation = layout.grid, [a.dilation for a in axes]
    coordinates = np.stack(np.unravel_index(np.arange(prod(grid)), grid), -1)
    groups = {group: i for i, group in enumerate(product(*map(range, dilation)))}
    group_of = np.array([groups[tuple(c)] for c in coordinates % dilation])
    inner = coordinates // dilation

    def place(tile, padded):
        tiles = [
            tuple(
                -(-(-((g - n) // d) if not padded else -(-n // d)) // t)
                for g, n, d, t in zip(group, grid, dilation, tile, strict=True)
            )
            for group in groups
        ]
        first = np.cumsum([0, *map(prod, tiles)])
        at = [first[g] + np.ravel_multi_index(tuple(i // tile), tiles[g]) for g, i in zip(group_of, inner, strict=True)]
        return np.array(at), int(first[-1])

    (q_at, rows), (kv_at, columns) = place(q_tile, padded=False), place(kv_tile, padded=True)
    return cut(whole_mask(family, layout), q_at, kv_at, prod(kv_tile), (rows, columns))


@pytest.fixture(scope="package")
def oracle():
    """Read a file of known answers."""
    return lambda name: json.loads((ORACLES / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="package")
def brute():
    """Visited and full tiles of a family by brute force: bool [q tiles, kv tiles] each, and live pairs."""

    def by_force(family, layout, tiling):
        seen = np.repeat(whole_mask(family, layout), tiling.pack, axis=0)
        if len(tiling.q) == 1 and (len(layout.grid) > 1 or not hasattr(family, "axes")):
            return *cut_flat(seen, tiling.q_rows, tiling.kv_rows), int(seen.sum())
        return *cut_boxes(family, layout, tiling.q, tiling.kv), int(seen.sum())

    return by_force


@pytest.fixture(scope="package")
def same(brute):
    """Assert that a schedule is what brute force says, tile for tile."""

    def check(family, layout, tiling):
        visited, full, pairs = brute(family, layout, tiling)
        schedule = family.schedule(layout, tiling)
        assert schedule.pairs == pairs
        assert schedule.counts.visited.tolist() == visited.sum(1).tolist()
        assert schedule.counts.full.tolist() == full.sum(1).tolist()
        assert (schedule.to_mask()[0] == visited).all()
        assert (schedule.full_mask()[0] == full).all()
        assert schedule.visited == visited.sum()
        assert schedule.max_visited == visited.sum(1).max()
        return schedule

    return check


@pytest.fixture(scope="package")
def flat():
    """A flat layout and tiling in one line: keys, tiles, and fewer queries where wanted."""

    def make(keys, q_tile, kv_tile, queries=0, pack=1):
        return TokenLayout(grid=(keys,), queries=queries), Tiling(q=(q_tile,), kv=(kv_tile,), pack=pack)

    return make


def qk(seed, heads, tokens, width, scale=3.0):
    """Q and K of white noise, as the published cases of LLM patterns have them."""
    r = np.random.default_rng(seed)
    q = scale * r.standard_normal((heads, tokens, width))
    return q, r.standard_normal((heads, tokens, width))


def qks(seed, tokens, width, block, scale=1.0):
    """Q and K with topics by block: a query looks for its own block's topic, the first one's and that of a block before it."""
    r = np.random.default_rng(seed)
    topics = r.standard_normal((tokens // block, width))
    past = np.array([int(r.integers(0, i + 1)) for i in range(tokens // block)])
    k = np.repeat(topics, block, axis=0) + 0.5 * r.standard_normal((tokens, width))
    wanted = 0.5 * topics + 0.5 * topics[0] + 0.8 * topics[past]
    return scale * (np.repeat(wanted, block, axis=0) + 0.5 * r.standard_normal((tokens, width))), k
