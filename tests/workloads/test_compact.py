"""Dropped tokens against brute force."""

import numpy as np
import pytest
from simattn.workloads import Tiling, TokenLayout
from simattn.workloads.families import Band, Compact


def test_kept_tokens_are_a_shorter_causal_call():
    compact = Compact(keep=0.3, least=1024, extra=128)
    assert compact.left(131_072) == 39_322 + 128
    assert compact.left(2048) == 1152
    assert compact.left(1000) == 1000
    layout, tiling = TokenLayout(grid=(8192,)), Tiling(q=(128,), kv=(64,))
    shorter = Band(causal=True).schedule(TokenLayout(grid=(compact.left(8192),)), tiling)
    found = compact.schedule(layout, tiling)
    assert (found.visited, found.pairs, found.seq_q) == (shorter.visited, shorter.pairs, shorter.seq_q)


@pytest.mark.parametrize(("of", "causal"), [("queries", True), ("keys", True), ("queries", False), ("keys", False)])
def test_queries_or_keys_alone(of, causal):
    tokens, left, tile = 1000, 300, 64
    queries, keys = (left, tokens) if of == "queries" else (tokens, left)
    position = (np.arange(queries) + 1) * tokens // queries
    seen = (
        np.arange(keys)[None, :] < (np.maximum(position * keys // tokens, 1) if causal else keys)[..., None] if causal else None
    )
    if seen is None:
        seen = np.ones((queries, keys), bool)
    schedule = Compact(keep=0.3, of=of, causal=causal).schedule(TokenLayout(grid=(tokens,)), Tiling(q=(tile,), kv=(tile,)))
    tiles = np.add.reduceat(np.add.reduceat(seen, np.arange(0, queries, tile), 0), np.arange(0, keys, tile), 1) > 0
    assert schedule.pairs == seen.sum()
    assert (schedule.to_mask()[0] == tiles).all()


def test_a_token_keeps_three_quarters_of_its_heads():
    """MoH's published model: 16 shared heads and 8 of 16 others, so a head has 24/32 of the queries on the mean."""
    whole = Band(causal=True).schedule(TokenLayout(grid=(8192,)), Tiling(q=(128,), kv=(128,)))
    routed = Compact(keep=0.75, of="queries").schedule(TokenLayout(grid=(8192,)), Tiling(q=(128,), kv=(128,)))
    assert routed.pairs / whole.pairs == pytest.approx(0.75, abs=1e-3)
