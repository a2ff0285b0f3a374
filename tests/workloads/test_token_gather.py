"""Gathered keys against the published numbers of gathers, and against sums over queries."""

import time

import numpy as np
import pytest
from simattn.facts import UserError
from simattn.workloads import Kind, Tiling, TokenLayout
from simattn.workloads.estimators.tokens import hip_blocks, hisa_keys, indexer_scores
from simattn.workloads.families import PrefixTop, TokenGather
from simattn.workloads.families.prefix_top import stays_until
from simattn.workloads.selection import top_k

from .conftest import qks

LAYOUT = TokenLayout(grid=(512,))


def indexer():
    q, k = qks(7, 512, 32, 64)
    heads = np.stack([q + 0.3 * np.random.default_rng(700 + h).standard_normal(q.shape) for h in range(4)])
    return heads, k, np.abs(np.random.default_rng(77).standard_normal((512, 4)))


def test_dsa_gathers(oracle):
    published = oracle("llm_oracles")["dsa_topk"]
    scores = indexer_scores(*indexer())
    assert np.isfinite(scores).sum() == published["dense_index_scores"]
    kept = top_k(scores, 64)
    assert kept.sum() == published["gathered"] == 30752
    assert np.flatnonzero(kept[511]).tolist() == published["row511"]
    schedule = TokenGather(keys=64).schedule(LAYOUT, Tiling(q=(16,), kv=(64,), pack=16))
    assert schedule.pairs == 16 * 30752
    assert schedule.visited == published["b_topk64_tiles_per_head_group"]


def test_hisa_looks_at_fewer_keys_and_finds_almost_the_same(oracle):
    published = oracle("llm_oracles")["hisa"]
    q, k, weights = indexer()
    dsa = top_k(indexer_scores(q, k, weights), 64)
    hisa = hisa_keys(q, k, weights, block=32, top_blocks=4, keys=64)
    overlap = (hisa & dsa).sum(1) / (hisa | dsa).sum(1)
    assert overlap.mean() == pytest.approx(published["mean_iou_vs_dsa"], abs=1e-12)
    assert (np.arange(512) // 32 + 1).sum() == published["block_scores"]


def test_hip_tree_search(oracle):
    published = oracle("llm_official")["hip_v1_1_draft"]
    q, k = qks(22, 1024, 32, 64)
    for tile, rows in published["rows"].items():
        end = (int(tile) + 1) * 64
        assert hip_blocks(q[end - 64 : end], k[:end], block=8, keys=128).tolist() == rows


def test_dma_tiles(oracle):
    published, official = oracle("llm_oracles")["dma_prefix_topw"], oracle("llm_official")["dma_prefix_topw"]
    schedule = PrefixTop(window=32, seed=12).schedule(LAYOUT, Tiling(q=(64,), kv=(64,)))
    assert schedule.pairs == published["params"]["active_tokens"] == official["active_tokens"]
    assert np.argwhere(schedule.to_mask()[0]).tolist() == published["active"] == official["active"]


def test_dma_density_without_its_vote(oracle):
    """Each 16th row was sampled for the published densities. Those with the 64-key vote are another rule, and not built."""
    layout, tiling = TokenLayout(grid=(32_768,)), Tiling(q=(64,), kv=(64,))
    for window, found in oracle("llm_official")["dma_head_benchmark_tile_density"]["by_window"].items():
        schedule = PrefixTop(window=int(window)).schedule(layout, tiling)
        density = schedule.visited / (512 * 513 // 2)
        assert density == pytest.approx(found["density_without_majority_vote"], abs=1e-3)


def test_prefix_top_against_brute_force():
    scores = np.random.default_rng(5).integers(0, 30, 200).astype(float)
    leaves = stays_until(scores, 20)
    for query in range(200):
        best = sorted(range(query + 1), key=lambda key: (-scores[key], key))[:20]
        assert sorted(best) == [key for key in range(query + 1) if leaves[key] > query]


@pytest.mark.parametrize(
    "family",
    [
        TokenGather(keys=100, sinks=16, window=64),
        TokenGather(keys=128, segment=8, queries=64, sinks=32, window=128),
        TokenGather(share=0.2, queries=128, init=16),
        TokenGather(share=0.3, spread=0.5, seed=4),
        TokenGather(keys=50, causal=False),
    ],
)
def test_pairs_are_those_of_the_lists(family):
    layout, tiling = TokenLayout(grid=(1000,)), Tiling(q=(64,), kv=(64,), pack=4)
    schedule = family.schedule(layout, tiling)
    runs = schedule.runs
    assert ((runs.row[1:] > runs.row[:-1]) | (runs.start[1:] >= runs.stop[:-1])).all()
    assert runs.stop.max() <= 1000
    assert runs.start.min() >= 0
    keys = np.bincount(runs.row, weights=runs.length, minlength=len(schedule.row_live)).astype(int)
    window = runs.kind == Kind.PARTIAL
    # In the window of a shared list each query misses those after itself: 0 + 1 + ... of its tile's tokens.
    masked = 0
    if window.any():
        size = np.minimum(family.queries, 1000 - np.arange(0, 1000, family.queries))
        masked = 4 * int((size * (size - 1) // 2).sum())
    assert schedule.pairs == int((keys * schedule.row_live).sum()) - masked
    assert schedule.row_live.sum() == 4000


def test_neighbours_share_what_stays():
    runs = TokenGather(keys=128, stay=0.75).schedule(TokenLayout(grid=(4096,)), Tiling(q=(16,), kv=(64,))).runs
    moved = np.abs(np.diff(runs.start))[1000:]
    assert np.median(moved) == 32
    # Over many lists the keys in common wander through all of the past.
    assert runs.stop.max() > 3500
    assert runs.start[2000:].min() < 100


def test_a_shared_list_is_read_once_a_tile():
    alone = TokenGather(keys=2048).schedule(TokenLayout(grid=(65_536,)), Tiling(q=(128,), kv=(128,)))
    shared = TokenGather(keys=2048, queries=2048).schedule(TokenLayout(grid=(65_536,)), Tiling(q=(128,), kv=(128,)))
    assert alone.visited > 100 * shared.visited


def test_mistakes_are_named():
    with pytest.raises(UserError, match="either keys or share"):
        TokenGather()
    with pytest.raises(UserError, match="window needs causal"):
        TokenGather(keys=1, window=4, causal=False)
    with pytest.raises(UserError, match="as many queries"):
        PrefixTop(window=4).schedule(TokenLayout(grid=(64,), queries=8), Tiling(q=(64,), kv=(64,)))


def test_long_sequences_are_quick():
    layout = TokenLayout(grid=(131_072,))
    PrefixTop(window=4).schedule(LAYOUT, Tiling(q=(64,), kv=(64,)))
    began = time.perf_counter()
    schedule = TokenGather(keys=2048).schedule(layout, Tiling(q=(64,), kv=(64,), pack=128))
    assert schedule.pairs == 128 * (2048 * 2049 // 2 + (131_072 - 2048) * 2048)
    assert PrefixTop(window=2048).schedule(layout, Tiling(q=(64,), kv=(64,))).visited > 1e6
    assert time.perf_counter() - began < 5
