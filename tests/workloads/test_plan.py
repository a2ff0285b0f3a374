"""Plans: which ops one call of a system runs, and how large they are."""

import pytest
from simattn.workloads import Attention, AttentionProblem, Memory, Pattern, TokenLayout
from simattn.workloads.layout import Tiling

from simattn import UserError

HUNYUAN = TokenLayout(grid=(30, 48, 80), text=256)
VIDEO = 30 * 48 * 80
SQUARE, BOXES = Tiling(q=(128,), kv=(128,)), Tiling(q=(4, 8, 8), kv=(2, 8, 8))


def problem_of(layout, **change):
    numbers = {"q_heads": 24, "seq_q": layout.query_tokens, "seq_kv": layout.tokens, "head_dim": 128, "phase": "diffusion"}
    return AttentionProblem(**(numbers | change))


def plan_of(name, layout, tiling=SQUARE, dense=SQUARE, params=None, **change):
    def tiling_of(mask_class, kernel):
        return dense if mask_class == "dense" else tiling

    return Pattern(name, params, published=True).plan(problem_of(layout, **change), layout, tiling_of)


def pairs_of(plan):
    return sum(op.schedule.pairs for op in plan if isinstance(op, Attention))


def test_radial_is_four_ops():
    plan = plan_of("radial", HUNYUAN)
    assert [op.name for op in plan] == ["video-video", "video-text", "merge", "text-all"]
    assert [op.mask_class for op in plan if isinstance(op, Attention)] == ["blocks", "dense", "dense"]
    # Together the kernels visit the blocks of the method's own mask, text included, each once.
    assert sum(op.schedule.visited for op in plan if isinstance(op, Attention)) == 24 * 226056
    assert pairs_of(plan) == 24 * 226056 * 128 * 128


def test_radial_splits_text_columns_and_rows_off():
    video, columns, merge, rows = plan_of("radial", HUNYUAN, batch=2)
    assert (video.schedule.seq_q, video.schedule.seq_kv) == (VIDEO, VIDEO)
    assert (columns.schedule.seq_q, columns.schedule.seq_kv) == (VIDEO, 256)
    assert (rows.schedule.seq_q, rows.schedule.seq_kv) == (256, VIDEO + 256)
    assert columns.schedule.pairs == 48 * VIDEO * 256
    assert rows.schedule.pairs == 48 * 256 * (VIDEO + 256)
    # Two partial results are read, one is written.
    assert merge == Memory("merge", 3 * 2 * 24 * VIDEO * 128 * 2, launches=1)


def test_dense_parts_of_radial_run_in_tiles_of_the_dense_kernel():
    video, columns, _, rows = plan_of("radial", HUNYUAN, dense=Tiling(q=(256,), kv=(64,)))
    assert [(op.schedule.q_tile, op.schedule.kv_tile) for op in (video, columns, rows)] == [(128, 128), (256, 64), (256, 64)]


def test_radial_without_text_is_one_kernel():
    (op,) = plan_of("radial", TokenLayout(grid=(18, 48, 80)), params={"variant": "wan", "decay": 0.2}, q_heads=40)
    assert (op.name, op.mask_class) == ("attention", "blocks")
    assert op.schedule.visited == 40 * 83728


def test_gna_reorders_tokens_before_and_after():
    layout = TokenLayout(grid=(30, 48, 80))
    permute, attention = plan_of("gna", layout, BOXES)
    padded_q = 32 * 48 * 80
    q_and_o = 24 * 128 * (VIDEO + padded_q) * 2
    k_and_v = 24 * 128 * (VIDEO + VIDEO) * 2
    assert permute == Memory("permute", 2 * (q_and_o + k_and_v), launches=4, access="permute")
    assert (attention.name, attention.mask_class, attention.schedule.copies) == ("attention", "box", 24)
    assert attention.schedule.pairs == 24 * VIDEO * 18 * 24 * 24


def test_shared_key_heads_are_reordered_once():
    layout = TokenLayout(grid=(32, 32))
    params = {"window": (8, 8), "stride": (1, 1)}
    tiling = Tiling(q=(16, 16), kv=(16, 8))
    permute, attention = plan_of("gna", layout, tiling, params=params, q_heads=8, kv_heads=2, dtype="fp8", batch=3)
    assert permute.bytes == 3 * 2 * 1024 * (128 + 128) * (8 + 2)
    assert attention.schedule.copies == 24


def test_text_adds_a_dense_op_to_gna():
    permute, attention, text = plan_of("gna", HUNYUAN, BOXES)
    assert (permute.name, attention.name, text.name, text.mask_class) == ("permute", "attention", "text-all", "dense")
    assert (text.schedule.seq_q, text.schedule.seq_kv) == (256, VIDEO + 256)
    assert attention.schedule.pairs == 24 * VIDEO * (18 * 24 * 24 + 256)
    assert pairs_of((attention, text)) == 24 * (VIDEO * (18 * 24 * 24 + 256) + 256 * (VIDEO + 256))


@pytest.mark.parametrize(
    ("layout", "tiling", "params"),
    [
        (TokenLayout(grid=(4096,)), Tiling(q=(256,), kv=(128,)), {"window": 512}),
        (TokenLayout(grid=(64, 64)), SQUARE, {"window": (16, 16)}),
        (TokenLayout(grid=(64, 64)), Tiling(q=(8, 8), kv=(8, 8), dynamic_kv=True), {"window": (16, 16)}),
    ],
)
def test_nothing_is_reordered_on_a_line_or_without_boxes_on_a_grid(layout, tiling, params):
    assert [op.name for op in plan_of("gna", layout, tiling, params=params)] == ["attention"]


@pytest.mark.parametrize("name", ["dense", "causal", "sliding_window", "streaming_llm", "longformer", "documents", "ragged"])
def test_the_rest_is_one_kernel_over_all_heads_and_items(name):
    pattern = Pattern(name, published=True)
    layout = TokenLayout(grid=(32768,)) if name in ("documents", "ragged") else TokenLayout(grid=(4096,))
    (op,) = plan_of(name, layout, batch=2)
    alone = pattern.schedule(layout, SQUARE)
    assert op.mask_class == pattern.family.mask_class()
    assert (op.schedule.visited, op.schedule.pairs) == (48 * alone.visited, 48 * alone.pairs)


def test_packed_heads_change_no_pair():
    layout = TokenLayout(grid=(4096,))
    (apart,) = plan_of("causal", layout, dense=SQUARE, q_heads=32, kv_heads=8)
    (packed,) = plan_of("causal", layout, dense=Tiling(q=(128,), kv=(128,), pack=4), q_heads=32, kv_heads=8)
    assert packed.schedule.copies == 8
    assert packed.schedule.pairs == apart.schedule.pairs


def test_heads_that_do_not_fit_the_pack_are_refused():
    with pytest.raises(UserError, match="packed heads must divide q_heads, got pack=4 and q_heads=6"):
        plan_of("causal", TokenLayout(grid=(128,)), dense=Tiling(q=(128,), kv=(128,), pack=4), q_heads=6)
