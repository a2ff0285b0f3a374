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


def clusters_of(tmp_path, heads=2, groups=8, each=64, noise=0.05):
    """Q and K of tokens in clear clusters, in a random order: cluster i of the queries looks for cluster i of the keys."""
    rng = np.random.default_rng(0)
    centres = 4 * rng.standard_normal((heads, groups, 32))
    label = np.stack([rng.permutation(np.repeat(np.arange(groups), each)) for _ in range(heads)])
    tokens = np.take_along_axis(centres, label[:, :, None], 1)
    q, k = (tokens + noise * rng.standard_normal(tokens.shape) for _ in range(2))
    np.savez(tmp_path / "qk.npz", q=q, k=k)
    return str(tmp_path / "qk.npz")


def test_clusters_of_real_queries_and_keys(tmp_path):
    """Clear clusters are found, where k-means has some more of them, and each sees its own keys and the least share."""
    file = clusters_of(tmp_path)
    layout, tiling = TokenLayout(grid=(512,)), Tiling(q=(64,), kv=(64,))
    family = Clustered(q_clusters=24, k_clusters=24, keep=0.5, estimator="k_means", least=0.05, qk=file)
    s = family.schedule_heads(layout, tiling, 4)
    assert [g.copies for g in s.groups] == [2, 2]
    assert sum(int(s.row_live[g.first_row : g.first_row + g.rows].sum()) * g.copies for g in s.groups) == 4 * 512
    # Nine tenths of the mass lie in its own 64 keys; parts of two groups that are one cluster see both.
    assert 0.1 < s.pairs / 4 / 512**2 < 0.2
    assert family.schedule_heads(layout, tiling, 4).pairs == s.pairs


def test_all_of_the_mass_is_all_clusters(tmp_path):
    family = Clustered(q_clusters=8, k_clusters=8, keep=0.5, estimator="k_means", mass=1.0, least=1.0, qk=clusters_of(tmp_path))
    assert family.schedule_heads(TokenLayout(grid=(512,)), FLAT, 2).pairs == 2 * 512**2


@pytest.mark.parametrize(
    ("params", "message"),
    [({}, "was not published"), ({"estimator": "k_means"}, "hold 2 heads of 512 x 512 tokens, the call has 3 of 512")],
)
def test_files_that_do_not_fit(tmp_path, params, message):
    family = Clustered(q_clusters=8, k_clusters=8, keep=0.5, qk=clusters_of(tmp_path), **params)
    with pytest.raises(UserError, match=message):
        family.schedule_heads(TokenLayout(grid=(512,)), FLAT, 3)


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
