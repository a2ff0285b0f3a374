import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simattn.workloads import Kind, Tiling
from simattn.workloads.blocks import BlockLists, BlockShape, block_schedule
from simattn.workloads.visits import visits

TOKENS = 250


def drawn(block_q, block_k, *, causal, seed=0, segment=1):
    shape = BlockShape(block_q, block_k, TOKENS, TOKENS, causal=causal, segment=segment)
    kept = np.random.default_rng(seed).random((shape.rows, shape.columns)) < 0.4
    return shape, kept & (np.arange(shape.columns) < shape.visible()[:, None])


def by_tokens(shape, kept):
    """The mask of a head, token by token."""
    seen = np.repeat(np.repeat(kept, shape.q, 0)[: shape.seq_q], shape.k, 1)[:, : shape.seq_kv]
    if shape.causal:
        seen &= np.tri(shape.seq_q, shape.seq_kv, shape.seq_kv - shape.seq_q, dtype=bool)
    return seen


@settings(deadline=None)
@given(
    block_q=st.sampled_from([16, 32, 50]),
    block_k=st.sampled_from([8, 16, 32]),
    q_tile=st.sampled_from([16, 32, 48]),
    kv_tile=st.sampled_from([8, 24, 32]),
    causal=st.booleans(),
    seed=st.integers(0, 20),
)
def test_cut_into_any_tiles_is_what_the_tokens_say(block_q, block_k, q_tile, kv_tile, causal, seed):
    shape, kept = drawn(block_q, block_k, causal=causal, seed=seed)
    s = block_schedule([(BlockLists.of(kept), 1)], shape, Tiling(q=(q_tile,), kv=(kv_tile,)))
    seen = by_tokens(shape, kept)
    assert s.pairs == seen.sum()
    padded = np.pad(seen, ((0, -TOKENS % q_tile), (0, -TOKENS % kv_tile)))
    tiles = padded.reshape(len(padded) // q_tile, q_tile, -1, kv_tile)
    assert (s.to_mask()[0] == tiles.any((1, 3))).all()
    live = tiles.sum((1, 3)) == np.minimum(q_tile, TOKENS - np.arange(0, TOKENS, q_tile))[:, None] * kv_tile
    assert s.full == live.sum()


def test_queries_at_the_end_of_the_keys():
    shape = BlockShape(32, 32, 64, 160, causal=True)
    kept = np.ones((2, 5), bool)
    kept[0, 4] = False
    s = block_schedule([(BlockLists.of(kept), 1)], shape, Tiling(q=(16,), kv=(32,)))
    assert s.pairs == by_tokens(shape, kept).sum()
    assert shape.visible().tolist() == [4, 5]
    assert s.counts.visited.tolist() == [4, 4, 5, 5]


@pytest.mark.parametrize("tile", [32, 64])
def test_scores_fill_what_is_visible_and_not_kept(tile):
    shape, kept = drawn(32, 32, causal=True)
    s = block_schedule([(BlockLists.of(kept), 2)], shape, Tiling(q=(tile,), kv=(32,)), qk_only=True)
    plain = block_schedule([(BlockLists.of(kept), 2)], shape, Tiling(q=(tile,), kv=(32,)))
    dense = block_schedule([(BlockLists.of(np.ones_like(kept)), 2)], shape, Tiling(q=(tile,), kv=(32,)))
    assert (s.visited, s.full, s.pairs) == (plain.visited, plain.full, plain.pairs)
    assert s.qk_only == dense.visited - plain.visited > 0
    assert len(visits(s).tile) * 2 == dense.visited
    assert set(visits(s).kind.tolist()) == {Kind.FULL, Kind.PARTIAL, Kind.QK_ONLY}


def test_segments_see_all_of_themselves():
    """Keys permuted within segments: all blocks of the own segment, above the diagonal too, and as many live pairs as before."""
    shape = BlockShape(32, 32, 256, 256, causal=True, segment=64)
    assert shape.visible().tolist() == [2, 2, 4, 4, 6, 6, 8, 8]
    every = np.arange(8) < shape.visible()[:, None]
    s = block_schedule([(BlockLists.of(every), 1)], shape, Tiling(q=(32,), kv=(32,)))
    assert (s.visited, s.full) == (every.sum(), every.sum() - 16)
    own = np.zeros((8, 8), bool)
    own[:, :2] = np.arange(8)[:, None] < 2
    assert block_schedule([(BlockLists.of(own), 1)], shape, Tiling(q=(32,), kv=(32,))).pairs == 64 * 65 // 2


def test_packed_heads_share_rows():
    shape, kept = drawn(32, 32, causal=True)
    one = block_schedule([(BlockLists.of(kept), 1)], shape, Tiling(q=(32,), kv=(32,)))
    packed = block_schedule([(BlockLists.of(kept), 1)], shape, Tiling(q=(128,), kv=(32,), pack=4))
    assert packed.pairs == 4 * one.pairs
    assert (packed.to_mask() == one.to_mask()).all()


def test_heads_are_groups():
    shape, kept = drawn(32, 32, causal=False)
    _, other = drawn(32, 32, causal=False, seed=1)
    s = block_schedule([(BlockLists.of(kept), 2), (BlockLists.of(other), 1)], shape, Tiling(q=(32,), kv=(32,)))
    assert s.visited == 2 * kept.sum() + other.sum()
    assert (s.to_mask() == np.stack([kept, other])).all()
    assert s.blocks == (32, round((2 * kept.sum() + other.sum()) / 3), kept.size)
