"""Entries of LLM systems: published densities, layers and the shares of a ring.

Of llm_oracles and llm_official these cases are passed elsewhere: block masks of prefill systems in test_llm_oracles, token-wise
selection in test_token_select, test_token_gather, test_pages, test_chunk_linear and test_unstructured, clusters in
test_clustered. One is not passed: `dma_head_benchmark_tile_density` with its 64-key vote, a rule of that benchmark alone (its
densities without the vote are).

Not all was stated with the cases: the width (32) and the number of heads of `nsa` and `infllm_v2`, that `quest` and
`double_sparsity` draw K before one query, and that HISA adds the first and the last block to its best four, were found by trying.
"""

import pytest
from simattn.workloads import Pattern, Tiling, TokenLayout, schedule, systems
from simattn.workloads.estimators.tokens import grouped_pairs


def test_layers_of_tidal_decode(oracle):
    published = oracle("llm_oracles")["tidaldecode"]
    policy = systems.load("tidal").policy
    # The published case corrects at layer 13, as the code does for Llama-3; the entry is of LLaMA-2, which corrects at 12.
    chosen = {layer if layer < 12 else layer + 1 for layer in policy.select_layers}
    for layer, kind in enumerate(published["layer_kind"]):
        found = "full" if layer in policy.dense_layers else "full+topk" if layer in chosen else "sparse"
        assert found == kind
    assert systems.load("tidal").params["budget"] == published["params"]["topk"]


def test_landmarks_and_own_blocks(oracle):
    assert grouped_pairs(512, 64) == oracle("llm_oracles")["landmark_scores"]["own_block_plus_landmark_pairs"]


def test_steps_of_a_ring(oracle):
    published = oracle("llm_oracles")["ring_attention"]
    world, block = published["params"]["world"], 128
    whole = schedule("causal", seq_q=world * block, q_tile=64, kv_tile=64)
    work = []
    for rank, kinds in enumerate(published["step_kind_per_rank"]):
        own = (rank * block, (rank + 1) * block)
        pairs = 0
        for step, kind in enumerate(kinds):
            source = rank - step
            if source < 0:
                assert kind == "skip"
                continue
            part = whole.slice(own, (source * block, (source + 1) * block)).pairs
            assert part == (block * (block + 1) // 2 if kind == "causal" else block * block)
            pairs += part
        work.append(pairs / block**2)
    assert work == pytest.approx(published["work_units_per_rank"], abs=0.5 / block)
    # The entry is the slowest rank: the last queries, against all keys.
    last = Pattern("ring").schedule(TokenLayout(grid=(world * block,), queries=block), Tiling(q=(64,), kv=(64,)))
    assert last.pairs / block**2 == pytest.approx(published["critical_path_units"], abs=0.5 / block)


@pytest.mark.parametrize(
    ("block", "top", "tokens", "sparsity"), [(512, 3, 8192, 81.25), (512, 3, 32768, 95.31), (4096, 12, 131072, 62.5)]
)
def test_published_sparsity_of_moba(block, top, tokens, sparsity):
    """Published as chunks read over chunks there are, for the last query, past and future."""
    pattern = Pattern("moba", {"block": block, "top": top, "own_chunk.chunk": block})
    layout, tiling = TokenLayout(grid=(tokens,), queries=1), Tiling(q=(128,), kv=(128,))
    past = pattern.schedule(layout, tiling).pairs
    assert 100 * (1 - (past + block) / tokens) == pytest.approx(sparsity, abs=1.5)


def test_published_sparsity_of_infllm_v2():
    """64 of 64 keys: 76.56 % of the pairs at 32K are left out, as its authors count."""
    found = Pattern("infllm_v2").schedule(TokenLayout(grid=(32768,)), Tiling(q=(16,), kv=(64,), pack=16))
    assert 100 * (1 - found.pairs / 16 / (32768 * 32769 / 2)) == pytest.approx(76.56, abs=1.5)


@pytest.mark.parametrize(("tokens", "ratio"), [(8192, 4.0), (16384, 6.4), (32768, 9.14), (65536, 11.64)])
def test_keys_that_nsa_reads_in_a_decode_step(tokens, ratio):
    """Selected blocks, the window and compressed keys; a published ratio counts the keys of all over these."""
    pattern = Pattern("nsa")
    layout, tiling = TokenLayout(grid=(tokens,), queries=1), Tiling(q=(16,), kv=(64,))
    # A query of an element-wise part is counted alone: compressed keys have no form for decode steps.
    selected = pattern.schedule(layout, tiling).pairs
    window = min(512, tokens)
    compressed = (tokens - 32) // 16 + 1
    assert tokens / (selected + window + compressed) == pytest.approx(ratio, rel=0.015)
