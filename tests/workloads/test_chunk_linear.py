"""Linear attention by chunks: its FLOPs against the published count of its loop."""

import pytest
from simattn.facts import UserError
from simattn.workloads import AttentionProblem, Kind, Tiling, TokenLayout
from simattn.workloads.families import ChunkLinear

LAYOUT, TILING = TokenLayout(grid=(512,)), Tiling(q=(64,), kv=(64,))


def test_lightning_programs_and_steps(oracle):
    published = oracle("llm_oracles")["lightning_attention2"]
    chain = ChunkLinear(chunk=64, state=64, slices=2).schedule(LAYOUT, TILING)
    assert chain.work_rows == published["programs_per_head"]
    assert chain.max_visited == published["iterations_per_program"]


def test_pairs_are_worth_the_flops_of_the_published_loop(oracle):
    """The loop multiplies whole chunks, of whose scores the causal half is live, and computes scores in every slice."""
    flops = oracle("llm_oracles")["lightning_attention2"]["flops_per_head_block"]
    problem = AttentionProblem(q_heads=1, seq_q=512, head_dim=64)
    slices = 2
    pairs = ChunkLinear(chunk=64, state=64, slices=slices).schedule(LAYOUT, TILING).pairs
    live = 64 * 65 / 2 / (64 * 64)
    whole = live * (flops["qk"] + slices * flops["pv"]) + slices * (flops["inter"] + flops["state"])
    assert problem.flops(pairs) == pytest.approx(8 * whole, rel=1e-12)


def test_parallel_chunks_read_a_state():
    parallel = ChunkLinear(chunk=128, state=128, order="parallel").schedule(LAYOUT, TILING)
    assert parallel.work_rows == 8
    # Tiles of 64 in chunks of 128: one or two visits of the chunk, and the state as 64 keys.
    assert parallel.counts.visited.tolist() == [2, 3] * 4
    assert parallel.pairs == 4 * (128 * 129 // 2) + 512 * 64
    assert (parallel.runs.kind == Kind.PARTIAL).sum() == 8


def test_without_causality_there_is_only_the_state():
    both = ChunkLinear(state=128, order="parallel", causal=False).schedule(LAYOUT, TILING)
    assert (both.visited, both.pairs) == (8, 512 * 64)
    with pytest.raises(UserError, match="causal"):
        ChunkLinear(causal=False)
