"""Keys at several resolutions against the code of PSA and LLSA, and compressed keys against brute force."""

import numpy as np
import pytest
from simattn.facts import UserError
from simattn.workloads.families import Level, Levels
from simattn.workloads.layout import Tiling, TokenLayout
from simattn.workloads.schedule import Kind

QUOTAS = {
    "CogVideo1.5_5b psa_balanced, 80x48x11 +226 ": {1: 0.1, 2: 0.05, 8: 0.2},
    "CogVideo_5b psa_4steps bn128 (17776 tokens)": {1: 0.05, 2: 0.1, 4: 0.1, 8: 0.25},
    "Wan2.1_1.3b psa_topk (32760 tokens, bn32)": {1: 0.05, 2: 0.05, 4: 0.05, 8: 0.1},
}


def test_pyramids_of_psa(oracle):
    """Tokens are those of the blocks that the vectors state. (80x48x11 + 226 would be 1328 blocks, not 1410.)"""
    cases = oracle("visual_misc")["psa"]
    assert len(cases) == len(QUOTAS)
    for case in cases:
        block, blocks, keep = case["block_n"], case["kv_blocks"], QUOTAS[case["preset"]]
        levels = tuple(Level(pool=pool, keep=share, block=block // pool) for pool, share in keep.items())
        family, tokens = Levels(levels=levels, fill=32), blocks * block
        quotas = dict(zip(keep, family.quotas(tokens), strict=True))
        assert {str(pool): quotas.get(pool, 0) for pool in (1, 2, 4, 8)} | {"0": blocks - sum(quotas.values())} == case["levels"]
        assert round(sum(quotas.values()) / blocks, 4) == round(case["visited_block_share"], 4)
        s = family.schedule(TokenLayout(grid=(tokens,)), Tiling(q=(128,), kv=(32,)))
        assert round(s.pairs / tokens**2, 5) == case["effective_density"]
        # Rounding the quotas fills every tile of 32 keys.
        assert s.visited * 32 == sum(n * block // pool for pool, n in quotas.items()) * s.q_tiles
        assert set(s.runs.kind) == {int(Kind.GATHER)}
        assert family.mask_class() == "blocks"


def llsa(levels, keep):
    chosen = [Level(pool=16**i, keep=keep, block=16) for i in range(levels)]
    return Levels(levels=(*chosen, Level(pool=16**levels)), queries=16)


def test_hierarchies_of_llsa(oracle):
    cases = oracle("visual_misc")["llsa"]
    assert len(cases) == 4
    for case in cases:
        s = llsa(case["levels"], case["k"]).schedule(TokenLayout(grid=(case["N"],)), Tiling(q=(128,), kv=(64,)))
        assert s.pairs == case["N"] * case["keys_per_query"]
        assert s.pairs / case["N"] ** 2 == pytest.approx(case["density_equiv"], abs=5e-7)
        assert (s.q_tile, s.q_tiles) == (16, case["N"] // 16)
        assert [b.tokens for b in s.buffers] == [case["N"] // 16**i for i in range(case["levels"] + 1)]
        # The last level is read whole, the others by blocks.
        assert (s.full > 0, s.counts.gather.min() > 0) == (True, True)


@pytest.mark.parametrize(("pool", "stride"), [(64, 0), (32, 16), (16, 16), (7, 3)])
@pytest.mark.parametrize(("queries", "pack"), [(0, 1), (100, 4)])
def test_compressed_keys_equal_brute_force(pool, stride, queries, pack):
    """NSA: a query sees the pooled keys that lie wholly at or before it."""
    family = Levels(levels=(Level(pool=pool, stride=stride),), causal=True)
    layout, tiling = TokenLayout(grid=(512,), queries=queries), Tiling(q=(48,), kv=(16,), pack=pack)
    s = family.schedule(layout, tiling)
    keys = family.levels[0].keys(512)
    position = np.repeat(np.arange(512)[-layout.query_tokens :], pack)
    seen = np.arange(keys)[None, :] * (stride or pool) + pool - 1 <= position[:, None]
    assert s.pairs == seen.sum()
    padded = np.zeros((-(-len(position) // 48) * 48, -(-keys // 16) * 16), bool)
    padded[: len(position), :keys] = seen
    tiles = padded.reshape(len(padded) // 48, 48, -1, 16)
    assert (s.to_mask()[0] == tiles.any((1, 3))).all()
    assert family.mask_class() == "element"


def test_compressed_visits_of_nsa():
    """1800 pairs of 512 queries with blocks of 64: llm_oracles, nsa."""
    family = Levels(levels=(Level(pool=64),), causal=True)
    assert family.schedule(TokenLayout(grid=(512,)), Tiling(q=(64,), kv=(64,))).pairs == 1800


def test_all_of_one_level_is_a_dense_call_on_pooled_keys():
    family = Levels(levels=(Level(pool=4),))
    s = family.schedule(TokenLayout(grid=(1024,)), Tiling(q=(128,), kv=(128,)))
    assert (family.mask_class(), s.visited, s.full, s.pairs) == ("dense", 16, 16, 1024 * 256)


@pytest.mark.parametrize(
    ("family", "tiling", "message"),
    [
        (Levels(levels=()), Tiling(q=(64,), kv=(64,)), "one level at least"),
        (llsa(1, 4), Tiling(q=(12,), kv=(64,)), "must not reach over rows of 16 queries, got 12"),
        (llsa(1, 4), Tiling(q=(4, 4), kv=(4, 4)), "takes tiles of one number"),
    ],
)
def test_what_does_not_fit_is_refused(family, tiling, message):
    with pytest.raises(UserError, match=message):
        family.schedule(TokenLayout(grid=(1024,)), tiling)
