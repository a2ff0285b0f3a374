import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from simattn.hwspecs import gpus
from simattn.kernels import KINDS, kernels
from simattn.simulator.launch import MaskPlan, Section, every_cta, grid, kinds_of_rows, mask_plan
from simattn.simulator.split import kv_parts
from simattn.workloads import AttentionProblem, schedule

FA3, PAGED, FA4, NATTEN = (kernels.load(name) for name in ("fa3", "fa3_paged", "fa4", "natten_hopper"))


def test_masks_by_policy():
    causal = schedule("causal", seq_q=1024)
    assert mask_plan(FA3, causal) == MaskPlan(False, 1)
    every = msgspec.structs.replace(FA3, mask=msgspec.structs.replace(FA3.mask, policy="all"))
    assert mask_plan(every, causal) == MaskPlan(True, 1)
    assert kinds_of_rows(causal, MaskPlan(False, 1)).sum(axis=0).tolist() == [28, 8, 0, 0, 0]
    assert kinds_of_rows(causal, MaskPlan(True, 1)).sum(axis=0).tolist() == [0, 36, 0, 0, 0]


def test_flash_attention_2_masks_every_tile_of_a_window():
    fa2, window = kernels.load("fa2"), schedule("sliding_window", seq_q=4096, window=2048, q_tile=128, kv_tile=64)
    assert mask_plan(fa2.under("window"), window) == MaskPlan(True, 1)
    assert mask_plan(fa2.under("dense"), window) == MaskPlan(False, 1)
    # Two compares and a select, where causal has one compare.
    assert fa2.under("window").mask.operations(1) == 3
    # The same object each time, which caches go by; and a calibration finds the profile as it was.
    assert fa2.under("window") is fa2.under("window")
    assert FA3.under("window") is FA3


def test_paged_calls_mask_the_tile_that_they_start_with():
    whole, cut = (schedule("dense", seq_q=128, seq_kv=keys, q_tile=128, kv_tile=128) for keys in (512, 500))
    for keys, full, masked in ((whole, 3, 1), (cut, 3, 1)):
        plan = mask_plan(PAGED, keys)
        assert plan.last_visit
        assert not mask_plan(FA3, keys).last_visit
        assert kinds_of_rows(keys, plan).tolist() == [[full, masked, 0, 0, 0]]
    assert kinds_of_rows(whole, mask_plan(FA3, whole)).tolist() == [[4, 0, 0, 0, 0]]


def test_each_part_of_a_row_masks_its_last_visit():
    keys = schedule("dense", seq_q=128, seq_kv=1024, q_tile=128, kv_tile=128)
    for parts in (1, 2, 4):
        work, _ = every_cta(keys, mask_plan(PAGED, keys), grid(PAGED, keys, [parts]), heads_share=1, row_bytes=256)
        masked = np.flatnonzero(work.kind == KINDS.index("masked"))
        assert masked.tolist() == (work.row_first[1:] - 1).tolist()
        assert len(masked) == parts


def test_natten_masks_all_tiles_or_none():
    grid_of = {"grid": (64, 64), "q_tile": (16, 8), "kv_tile": (16, 8)}
    masked = schedule("gna", window=(20, 20), **grid_of)
    free = schedule("gna", window=(32, 32), stride=(32, 32), **grid_of)
    padded = schedule("gna", grid=(60, 60), window=(60, 60), q_tile=(16, 8), kv_tile=(16, 8))
    assert mask_plan(NATTEN, masked) == MaskPlan(True, 2)
    assert mask_plan(NATTEN, free) == MaskPlan(False, 0)
    assert mask_plan(NATTEN, padded) == MaskPlan(True, 1)


def test_longest_rows_first():
    causal = schedule("causal", seq_q=512).with_copies(3)
    assert grid(FA3, causal, [1]).row.tolist() == [3, 2, 1, 0]
    assert grid(NATTEN, causal, [1]).row.tolist() == [0, 1, 2, 3]
    assert grid(FA3, causal, [1]).rounds.tolist() == [3]


def test_heads_whose_keys_fit_into_l2_are_launched_side_by_side():
    """Tile by tile, a power of two of heads; what is left of the heads of an item makes a smaller section."""
    problem = AttentionProblem(batch=2, q_heads=3, seq_q=512, head_dim=128)
    causal = schedule("causal", seq_q=512).with_copies(6)
    launched = grid(FA3, causal, [1], Section(2, 3))
    assert launched.row.tolist() == [3, 3, 2, 2, 1, 1, 0, 0, 3, 2, 1, 0] * 2
    assert launched.copy.tolist() == ([0, 1] * 4 + [0] * 4) * 2
    assert launched.rounds.tolist() == [1, 1, 1, 1]
    assert grid(FA3, causal, [1], Section(2, 6)).rounds.tolist() == [3]
    work, _ = every_cta(causal, MaskPlan(False, 1), launched, heads_share=1, row_bytes=256)
    assert (work.cta_keys // 8).tolist() == [0, 1] * 4 + [2] * 4 + [3, 4] * 4 + [5] * 4
    # 32 MiB hold K and V of 128 heads of 512 keys; those of one item where lengths vary.
    assert Section.of(FA3, causal, problem, 1) == Section(128, 6)
    assert Section.of(kernels.load("fa3_paged"), causal, problem, 1) == Section(32, 3)
    dense = schedule("dense", seq_q=512).with_copies(6)
    assert Section.of(FA3, dense, problem, 1).copies == 1


@settings(max_examples=200, deadline=None, derandomize=True)
@given(copies=st.integers(1, 40), side_by_side=st.integers(1, 16), span=st.integers(1, 12), parts=st.integers(1, 3))
def test_every_row_of_every_copy_is_launched_once(copies, side_by_side, span, parts):
    causal = schedule("causal", seq_q=384).with_copies(copies)
    launched = grid(FA3, causal, [parts], Section(side_by_side, span))
    work, tiles = every_cta(causal, MaskPlan(False, 1), launched, heads_share=1, row_bytes=256)
    head = work.cta_keys // (tiles // copies)
    row, low, high = (column[work.cta_row] for column in (launched.row, launched.low, launched.high))
    # Row r has r + 1 visits; parts are equally long but for the last ones.
    cuts = {(r, min(p * -(-(r + 1) // parts), r + 1)) for r in range(3) for p in range(parts)}
    assert {(r, b) for r, b in zip(row.tolist(), low.tolist(), strict=True)} == cuts
    assert len(row) == copies * 3 * parts
    seen = sorted((h, r, v) for h, r, b, e in zip(head, row, low, high, strict=True) for v in range(b, e))
    assert seen == [(h, r, v) for h in range(copies) for r in range(3) for v in range(r + 1)]


def test_every_cta_has_every_visit():
    causal = schedule("causal", seq_q=512).with_copies(4)
    work, tiles = every_cta(causal, MaskPlan(False, 1), grid(FA3, causal, [1]), heads_share=2, row_bytes=256)
    assert tiles == 2 * 2 * 4  # K and V of four tiles, of two K/V heads
    visits = np.diff(work.row_first)[work.cta_row]
    assert visits.tolist() == [4, 3, 2, 1] * 4
    assert work.cta_keys.tolist() == [0] * 8 + [8] * 8
    assert work.row_bytes.tolist() == [128 * 256] * 4
    assert work.kind.tolist() == [0, 0, 0, 1, 0, 0, 1, 0, 1, 1]


def test_split_keys_are_all_visited_once():
    dense = schedule("dense", seq_q=128, seq_kv=128 * 10)
    work, _ = every_cta(dense, MaskPlan(False, 1), grid(FA3, dense, [3]), heads_share=1, row_bytes=256)
    assert np.diff(work.row_first).tolist() == [4, 4, 2]
    assert sorted(work.tile.tolist()) == list(range(10))


def test_the_split_fills_the_machine_but_no_finer_than_an_even_share():
    sms = gpus.load("h100").chip.sm_count
    few = schedule("dense", seq_q=128, seq_kv=65536).with_copies(4)
    assert kv_parts(FA4, few, sms) == [1]
    assert 20 <= kv_parts(FA3, few, sms)[0] <= 33
    full = schedule("dense", seq_q=65536, seq_kv=65536)
    assert kv_parts(FA3, full, sms) == [1]
    # 32 causal CTAs: the longest row has 32 tiles, an even share of all 528 is 4: never more than 7 parts.
    causal = schedule("causal", seq_q=4096)
    assert kv_parts(FA3, causal, sms)[0] <= 7
    free = msgspec.structs.replace(FA3, split=msgspec.structs.replace(FA3.split, slack=0))
    assert kv_parts(free, causal, sms) >= kv_parts(FA3, causal, sms)
