"""Clusters of queries and keys: sizes, kept shares, packed keys."""

import time

import numpy as np
import pytest
from simattn.facts import UserError
from simattn.workloads.families import Clustered
from simattn.workloads.layout import Tiling, TokenLayout

FLAT = Tiling(q=(128,), kv=(64,))
WAN = TokenLayout(grid=(21, 45, 80))
SVG2 = Clustered(q_clusters=300, k_clusters=1000, keep=0.3, least=0.1, q_spread=0.5, k_spread=0.5, imbalance=0.5, head_spread=0.3)


def per_group(s, array):
    return [array[g.first_row : g.first_row + g.rows] for g in s.groups]


def test_clusters_divide_the_queries():
    s = SVG2.schedule_heads(WAN, FLAT, 4)
    assert s.copies == 4
    for live in per_group(s, s.row_live):
        assert live.sum() == WAN.tokens
        assert live.min() >= 1
        # Queries of different clusters share no tile: on average half a tile of each cluster is padding.
        assert 590 + 100 < len(live) < 590 + 300


def test_mean_share_of_keys_is_kept():
    s = SVG2.schedule_heads(WAN, FLAT, 24)
    assert s.pairs / 24 / WAN.tokens**2 == pytest.approx(0.3, abs=0.01)
    shares = [p / WAN.tokens**2 for p in s.pairs_per_copy]
    assert 0.2 < np.std(np.log(shares)) < 0.45
    assert s.runs.length.min() > 0.05 * WAN.tokens


def test_keys_are_packed_across_clusters():
    s = SVG2.schedule(WAN, FLAT)
    assert (s.counts.visited == -(-s.runs.length // 64)).all()
    assert s.counts.gather.sum() == s.visited
    assert s.runs.stop.max() <= s.buffers[0].tokens + 64


def test_own_clusters_of_routing():
    """512 tokens, 8 clusters of 64 queries and 64 keys and one of memory: llm_oracles, routing_transformer."""
    s = Clustered(q_clusters=8, k_clusters=8, size=64, memory=1).schedule(TokenLayout(grid=(512,)), Tiling(q=(64,), kv=(64,)))
    assert (s.row_live.sum(), s.runs.length.sum(), s.visited) == (512, 520, 16)


def test_causal_clusters_see_half():
    family = Clustered(q_clusters=8, k_clusters=8, size=64, causal=True)
    s = family.schedule(TokenLayout(grid=(512,)), Tiling(q=(64,), kv=(64,)))
    assert s.pairs == 8 * 64 * 65 // 2
    assert (s.full, s.partial, family.mask_class()) == (0, 8, "element")


def test_equal_clusters():
    s = Clustered(q_clusters=16, k_clusters=16).schedule(TokenLayout(grid=(4096,)), Tiling(q=(128,), kv=(128,)))
    assert (s.q_tiles, s.visited, s.pairs) == (32, 64, 4096 * 256)


def test_text_is_a_cluster_that_sees_and_is_seen():
    text = TokenLayout(grid=(33, 45, 80), text=256)
    without, s = (SVG2.schedule(TokenLayout(grid=text.grid, text=t), FLAT) for t in (0, 256))
    assert (s.row_live[-2:].tolist(), s.runs.length[-2:].tolist()) == ([128, 128], [text.tokens] * 2)
    assert (s.runs.length[:-2] == without.runs.length + 256).all()


def test_seed_decides():
    def pairs(seed):
        return (
            Clustered(q_clusters=30, k_clusters=100, keep=0.3, q_spread=0.5, k_spread=0.5, imbalance=0.5, seed=seed)
            .schedule(WAN, FLAT)
            .pairs
        )

    assert pairs(1) == pairs(1) != pairs(2)


def test_long_sequences_are_quick():
    layout = TokenLayout(grid=(131072,))
    SVG2.schedule_heads(layout, FLAT, 2)
    begin = time.process_time()
    SVG2.schedule_heads(layout, FLAT, 32)
    assert time.process_time() - begin < 2


@pytest.mark.parametrize(
    ("params", "layout", "message"),
    [
        ({"q_clusters": 8, "k_clusters": 9}, WAN, "as many of queries as of keys, got 8 and 9"),
        ({"q_clusters": 8, "k_clusters": 80000, "keep": 0.1}, WAN, "at most the 75600 tokens, got 8 and 80000"),
        ({"q_clusters": 8, "k_clusters": 8}, TokenLayout(grid=(64,), queries=8), "fewer queries than keys"),
    ],
)
def test_what_does_not_fit_is_refused(params, layout, message):
    with pytest.raises(UserError, match=message):
        Clustered(**params).schedule(layout, FLAT)
