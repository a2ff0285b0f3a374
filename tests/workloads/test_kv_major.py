"""The same visits seen from the keys, and what a kernel that owns keys runs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simattn.workloads import Attention, AttentionProblem, Memory, Pattern, Tiling, TokenLayout, from_bsr, schedule
from simattn.workloads.backward import postprocess_bytes, preprocess_bytes
from simattn.workloads.kv_major import by_keys

from simattn import UserError


@pytest.mark.parametrize("pattern", ["dense", "causal", "sliding_window", "streaming_llm", "longformer"])
@pytest.mark.parametrize(("q_tile", "kv_tile"), [(64, 64), (128, 64), (64, 128), (80, 128)])
def test_the_mask_of_tiles_is_transposed(pattern, q_tile, kv_tile):
    params = {
        "sliding_window": {"window": 200},
        "streaming_llm": {"window": 150, "sinks": 70},
        "longformer": {"window": (90, 90)},
    }
    for tokens in (1280, 1000):
        plain = schedule(pattern, seq_q=tokens, q_tile=q_tile, kv_tile=kv_tile, **params.get(pattern, {}))
        turned = by_keys(plain)
        assert (turned.to_mask() == plain.to_mask().transpose(0, 2, 1)).all()
        for count in ("visited", "pairs", "tile_area"):
            assert getattr(turned, count) == getattr(plain, count)
        assert turned.row_live.sum() == tokens == turned.seq_q
        # What fills up the last tile of the visited axis counts as masked, whichever axis that is.
        if tokens == 1280:
            assert (turned.full_mask() == plain.full_mask().transpose(0, 2, 1)).all()


def test_gradients_of_a_gna_box():
    plain = schedule("gna", grid=(32, 32), window=(10, 10), stride=(2, 2), q_tile=(8, 8), kv_tile=(8, 8))
    turned = by_keys(plain)
    assert (turned.to_mask() == plain.to_mask().transpose(0, 2, 1)).all()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(rows=st.lists(st.sets(st.integers(0, 9)), min_size=1, max_size=8))
def test_any_list_of_blocks(rows):
    indptr = np.cumsum([0, *map(len, rows)])
    indices = np.array([block for row in rows for block in sorted(row)], np.int64)
    plain = from_bsr(indptr, indices, q_tile=64, kv_tile=64, seq_q=64 * len(rows), seq_kv=640)
    turned = by_keys(plain)
    assert turned.visited == plain.visited == len(indices)
    # Blocks behind the last one that anybody chose belong to nobody.
    last = turned.to_mask().shape[1]
    assert (turned.to_mask()[0] == plain.to_mask()[0].T[:last]).all()
    assert not plain.to_mask()[0].T[last:].any()


def test_load_is_skewed_to_the_first_keys():
    """Causal: the first tile of keys is visited by all tiles of queries, the last one by its own."""
    turned = by_keys(schedule("causal", seq_q=4096, q_tile=128, kv_tile=128))
    assert turned.counts.visited.tolist() == list(range(32, 0, -1))


def test_what_has_no_grid_or_is_turned_already():
    with pytest.raises(UserError, match="no tile of keys can own them"):
        by_keys(schedule("sliding_window", seq_q=512, window=100, dynamic_kv=True))
    turned = by_keys(schedule("causal", seq_q=512))
    with pytest.raises(UserError, match="keys already"):
        by_keys(turned)


def plan_of(pattern, problem, **tiling):
    layout = TokenLayout(grid=(problem.seq_kv,))
    params = {"window": 300, "sinks": 64} if pattern == "streaming_llm" else {}
    return Pattern(pattern, params).plan(problem, layout, lambda mask, kernel: Tiling(**tiling))


def test_a_backward_pass_is_three_kernels_and_two_more_where_heads_share_keys():
    alone = AttentionProblem(batch=2, q_heads=4, seq_q=1024, head_dim=128, phase="backward")
    shared = AttentionProblem(batch=2, q_heads=4, kv_heads=2, seq_q=1024, head_dim=128, phase="backward")
    names = [[op.name for op in plan_of("causal", p, q=(64,), kv=(128,), major="kv")] for p in (alone, shared)]
    assert names == [
        ["row sums of dO O", "backward", "convert dQ"],
        ["row sums of dO O", "backward", "convert dQ", "convert dK", "convert dV"],
    ]
    for problem in (alone, shared):
        (main,) = (op.schedule for op in plan_of("causal", problem, q=(64,), kv=(128,), major="kv") if isinstance(op, Attention))
        # Every query head has CTAs of its own, whoever shares K and V.
        assert (main.major, main.copies, main.q_tile, main.kv_tile) == ("kv", 8, 128, 64)
        assert problem.flops(main.pairs) == 2.5 * 4 * 128 * main.pairs


def test_bytes_beside_a_backward_pass():
    p = AttentionProblem(batch=2, q_heads=4, kv_heads=2, seq_q=100, seq_kv=300, head_dim=64, head_dim_v=32)
    assert preprocess_bytes(p) == 2 * 4 * 100 * (2 * 32 * 2 + 4 + 64 * 4)
    assert postprocess_bytes(p) == (2 * 4 * 100 * 64 * 6, 2 * 2 * 300 * 64 * 6, 2 * 2 * 300 * 32 * 6)


def test_selection_by_keys_adds_up_partial_outputs():
    problem = AttentionProblem(q_heads=2, seq_q=2048, head_dim=128)
    ops = plan_of("streaming_llm", problem, q=(128,), kv=(64,), major="kv")
    statistics, main, reduction = ops
    assert isinstance(reduction, Memory)
    assert (statistics.schedule.visited, statistics.schedule.qk_only) == (0, main.schedule.visited)
    # What is scored twice is live once, and no more is live than is computed.
    assert (statistics.schedule.pairs, main.schedule.pairs) == (
        0,
        2 * schedule("streaming_llm", seq_q=2048, window=300, sinks=64).pairs,
    )
    assert 0 < main.schedule.pairs <= main.schedule.live_area()
    assert reduction.bytes == (main.schedule.visited * 128 + 2 * 2048) * 128 * 2
