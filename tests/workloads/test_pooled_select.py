import numpy as np
import pytest
from simattn.facts import UserError
from simattn.workloads import Tiling, TokenLayout
from simattn.workloads.families import PooledSelect

FLAT = Tiling(q=(64,), kv=(64,))
LONG = TokenLayout(grid=(32768,))
HUNYUAN = TokenLayout(grid=(33, 48, 80), text=256)


def per_row(schedule):
    """Blocks of each row, a head a line."""
    return schedule.counts.visited.reshape(len(schedule.groups), -1)


def test_top_k_keeps_as_many_in_every_row():
    s = PooledSelect(causal=True, top_k=10, sinks=1).schedule_heads(LONG, FLAT, 4)
    assert (per_row(s) == np.minimum(np.arange(512) + 1, 10)).all()
    assert s.to_mask()[:, np.arange(512), np.arange(512)].all()
    assert s.to_mask()[:, :, 0].all()


def test_forced_blocks_on_top_of_the_budget():
    s = PooledSelect(causal=True, top_k=10, sinks=2, local=3, forced_extra=True).schedule(LONG, FLAT)
    assert per_row(s)[0, 20:].tolist() == [15] * 492
    assert s.to_mask()[0][np.arange(2, 512), np.arange(510)].all()


def test_density_is_met_and_rows_and_heads_differ_as_asked():
    family = PooledSelect(causal=True, rule="row_mass", density=0.1, imbalance=0.5, head_spread=0.4, sinks=1)
    s = family.schedule_heads(LONG, FLAT, 16)
    rows = per_row(s)
    assert s.visited / 16 / (512 * 513 / 2) == pytest.approx(0.1, abs=1e-3)
    late = rows[:, 256:] / (np.arange(256, 512) + 1)
    assert np.log(late / late.mean(1, keepdims=True)).std() == pytest.approx(0.5, abs=0.08)
    assert np.log(rows.sum(1)).std() == pytest.approx(0.4, abs=0.15)
    assert np.log(per_row(PooledSelect(causal=True, rule="threshold", density=0.1).schedule(LONG, FLAT))[0, 500:]).std() < 0.02


def test_density_follows_length_where_rows_grow_slower_than_what_they_see():
    family = PooledSelect(causal=True, rule="row_mass", density=0.1, density_at=16384, growth=0.5)
    for tokens, density in ((16384, 0.1), (65536, 0.05)):
        s = family.schedule(TokenLayout(grid=(tokens,)), FLAT)
        rows = tokens // 64
        assert s.visited / (rows * (rows + 1) / 2) == pytest.approx(density, rel=0.02)
    early, late = per_row(s)[0, 200:256].mean(), per_row(s)[0, 968:].mean()
    assert late / early == pytest.approx(2.1, abs=0.15)


def test_near_and_stripes_say_where():
    def mask(**where):
        return PooledSelect(rule="top_k", top_k=40, local=0, **where).schedule(LONG, FLAT).to_mask()[0]

    near, stripes, even = mask(near=1.0, stripes=0.0), mask(near=0.0, stripes=1.0), mask(near=0.0, stripes=0.0)
    away = np.abs(np.arange(512)[:, None] - np.arange(512))
    assert np.median(away[near]) < 40 < np.median(away[even])
    assert np.sort(stripes.sum(0))[-26:].sum() > 0.5 * stripes.sum() > 2 * np.sort(even.sum(0))[-26:].sum()


def test_seed_decides():
    def drawn(seed):
        return PooledSelect(top_k=8, seed=seed).schedule_heads(LONG, FLAT, 2).to_mask()

    assert (drawn(1) == drawn(1)).all()
    assert (drawn(1) != drawn(2)).any()


def test_draft_attention_blocks():
    """DraftAttention on HunyuanVideo: patterns_visual.md section 11, from the method's code."""
    family = PooledSelect(block=(1, 8, 16), rule="global_threshold", density=0.1, rounding="above", local=0, imbalance=0.6)
    s = family.schedule_heads(HUNYUAN, Tiling(q=(128,), kv=(128,)), 2)
    assert s.blocks == (128, 101975, 992**2)
    rows = per_row(s)
    assert (rows[:, 990:] == 992).all()
    assert (rows[:, :990].sum(1) == 98011 + 2 * 990).all()
    assert s.to_mask()[:, :, 990:].all()


@pytest.mark.parametrize(("grid", "sparsity", "cubes", "kept", "padding"), [
    ((21, 30, 52), 0.8, 624, 125, 1.219),
    ((21, 45, 80), 0.9, 1440, 144, 1.219),
    ((20, 48, 80), 0.9, 1200, 120, 1.0),
])  # fmt: skip
def test_cubes_of_vsa(grid, sparsity, cubes, kept, padding):
    """VSA: patterns_visual.md section 13."""
    s = PooledSelect(block=(4, 4, 4), density=1 - sparsity, local=0, near=0.0, stripes=0.0).schedule(TokenLayout(grid=grid), FLAT)
    assert s.blocks == (64, cubes * kept, cubes**2)
    assert cubes * 64 / np.prod(grid) == pytest.approx(padding, abs=1e-3)
    assert s.pairs / np.prod(grid) ** 2 == pytest.approx(kept / cubes, rel=0.03)


def test_rest_of_the_visible_blocks_is_qk_only():
    family = PooledSelect(causal=True, rule="relative_threshold", density=0.25, qk_only=True)
    s = family.schedule(LONG, FLAT)
    assert family.mask_class() == "qk_only"
    assert s.visited + s.qk_only == 512 * 513 // 2


def test_chunk_of_a_prefill():
    s = PooledSelect(causal=True, top_k=10).schedule(TokenLayout(grid=(32768,), queries=4096), FLAT)
    assert (s.q_tiles, s.visited) == (64, 640)


@pytest.mark.parametrize(("params", "message"), [
    ({}, "either top_k or density"),
    ({"top_k": 3, "density": 0.1}, "either top_k or density"),
    ({"top_k": 3, "rule": "row_mass"}, "takes a density"),
    ({"top_k": 3, "block": (1, 8, 16), "causal": True}, "no causal order"),
    ({"top_k": 3, "block": (1, 8, 16), "block_k": 64}, "both numbers or both shapes"),
    ({"top_k": 3, "near": 0.8, "stripes": 0.8}, "shares of one whole"),
    ({"top_k": 3, "block": (8, 16)}, "one number per axis"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused(params, message):
    with pytest.raises(UserError, match=message):
        PooledSelect(**params).schedule(HUNYUAN, FLAT)
