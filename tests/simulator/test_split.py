"""How keys are divided among CTAs: by each kernel's own rule."""

from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simattn.hwspecs import gpus
from simattn.kernels import kernels
from simattn.simulator import question, simulate
from simattn.simulator.launch import grid
from simattn.simulator.memory import memory_op_seconds
from simattn.simulator.split import (
    captured_call,
    kv_parts,
    merge_kernel,
    merge_seconds,
    packing_copies,
    search_cycles,
    search_step_cycles,
)
from simattn.workloads import AttentionProblem, Memory, schedule

FA2, FA3, MLA, TRTLLM = (kernels.load(f"{name}") for name in ("fa2_decode", "fa3_decode", "flashmla", "trtllm_gen_decode"))


def flash_attention_2(ctas, sms, blocks):
    """num_splits_heuristic of FlashAttention-2, as it is called for decoding: twice the SMs, at most 128 parts."""
    sms *= 2
    if ctas >= 0.8 * sms:
        return 1
    eligible = [n for n in range(1, min(128, sms, blocks) + 1) if n == 1 or ceil(blocks / n) != ceil(blocks / (n - 1))]
    fill = {n: ctas * n / sms / ceil(ctas * n / sms) for n in eligible}
    return min(n for n in eligible if fill[n] >= 0.85 * max(fill.values()))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(heads=st.integers(1, 300), keys=st.integers(1, 50_000))
def test_flash_attention_2(heads, keys):
    work = schedule("dense", seq_q=4, seq_kv=max(keys, 4), q_tile=64, kv_tile=128).with_copies(heads)
    assert kv_parts(FA2, work, 108) == [flash_attention_2(heads, 108, ceil(max(keys, 4) / 128))]
    assert kv_parts(FA2, work, 108, packed=False) == [1]


@pytest.mark.parametrize(("batch", "keys", "parts"), [(1, 512, 1), (1, 16384, 15), (2, 65536, 8), (8, 16384, 2), (64, 8192, 1)])
def test_flash_attention_3_bounds_the_parts_of_an_item_by_an_even_share(batch, keys, parts):
    """8 heads on 132 SMs: as if the batch had one item, then none finer than 1.1 times an even share of all tiles."""
    work = schedule("dense", seq_q=4, seq_kv=keys, q_tile=64, kv_tile=128).with_copies(batch * 8)
    assert kv_parts(FA3, work, 132, heads=8) == [parts]


def test_items_of_unlike_length_are_divided_each_by_its_own():
    lengths = (65536, 1024, 1024, 1024)
    work = schedule("ragged", seq_q=4, seq_kv=sum(lengths), lengths=lengths, q_tile=64, kv_tile=128).with_copies(8)
    long, short = kv_parts(FA3, work, 132, heads=8)
    assert long > 10 * short == 10


@pytest.mark.parametrize(("heads", "keys", "parts"), [(8, 256, 1), (8, 512, 2), (8, 65536, 18), (147, 65536, 1), (74, 65536, 2)])
def test_trtllm_gen_fills_the_sms_beside_each_other_with_two_steps_at_least(heads, keys, parts):
    work = schedule("dense", seq_q=4, seq_kv=keys, q_tile=8, kv_tile=128).with_copies(heads)
    assert kv_parts(TRTLLM, work, 148) == [parts]


def metadata(blocks, sm_parts, overhead=5):
    """FlashMLA's get_decoding_sched_meta: (request, first block, end) of each part of the machine."""
    payload = ceil(sum(b + overhead for b in blocks) / sm_parts) + overhead
    request, block, cuts = 0, 0, []
    for _ in range(sm_parts):
        remain = payload
        while request < len(blocks):
            rest = blocks[request] - block
            if remain >= rest + overhead:
                cuts.append((request, block, blocks[request]))
                remain -= rest + overhead
                request, block = request + 1, 0
            else:
                if remain - overhead > 0:
                    cuts.append((request, block, block + remain - overhead))
                    block += remain - overhead
                break
    return cuts


@settings(max_examples=100, deadline=None, derandomize=True)
@given(batch=st.integers(1, 200), keys=st.integers(64, 40_000), sms=st.integers(2, 140))
def test_flashmla_deals_equal_payloads(batch, keys, sms):
    work = schedule("dense", seq_q=1, seq_kv=keys, q_tile=64, kv_tile=64).with_copies(batch)
    launched = grid(MLA, work, [1], sms=sms)
    found = list(zip(launched.copy.tolist(), launched.low.tolist(), launched.high.tolist(), strict=True))
    assert sorted(found) == metadata([ceil(keys / 64)] * batch, sms)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    heads=st.integers(1, 60),
    queries=st.integers(1, 3),
    keys=st.integers(3, 20_000),
    kernel=st.sampled_from([FA2, FA3, MLA, TRTLLM]),
)
def test_every_visit_belongs_to_one_cta(heads, queries, keys, kernel):
    work = schedule("causal", seq_q=queries, seq_kv=keys, q_tile=1, kv_tile=64).with_copies(heads)
    launched = grid(kernel, work, kv_parts(kernel, work, 132), sms=132)
    seen = np.zeros((len(work.row_live), int(work.counts.visited.max())), np.int64)
    for row, low, high, rounds in zip(
        launched.row, launched.low, launched.high, np.repeat(launched.rounds, launched.ctas), strict=True
    ):
        seen[row, low:high] += rounds
    assert all((seen[row, :count] == heads).all() for row, count in enumerate(work.counts.visited))


def test_the_merge_reads_parts_in_fp32_and_writes_rows_once():
    problem = AttentionProblem(q_heads=32, kv_heads=8, seq_q=1, seq_kv=16384, head_dim=128, phase="decode")
    work = schedule("dense", seq_q=1, seq_kv=16384, q_tile=64, kv_tile=128, pack=4).with_copies(8)
    launched = grid(FA3, work, kv_parts(FA3, work, gpus.load("h100").chip.sm_count, heads=8))
    partial, merged, parts = launched.partial(work)
    # 128 tiles in parts of ceil(128 / 15) = 9: fifteen of them, for each of 32 heads.
    assert (partial, merged, parts) == (15 * 32, 32, 15)
    assert merge_kernel(FA3, problem, partial, merged).bytes == 15 * 32 * 129 * 4 + 32 * 128 * 2
    assert merge_kernel(TRTLLM, problem, partial, merged) is None
    assert merge_kernel(FA3, problem, 0, 0) is None


def test_flash_attention_2_copies_where_heads_do_not_lie_side_by_side():
    def named(**call):
        run = simulate(
            question("dense", phase="decode", seq_kv=4096, q_heads=32, head_dim=128, **call), gpus.load("a100"), kernel="fa2"
        )
        return [op.op for op in run.side]

    assert "heads side by side" in named(batch=2, kv_heads=8)
    for call in ({"batch": 1, "kv_heads": 8}, {"batch": 2, "kv_heads": 1}):
        assert "output to its place" in named(**call)
    assert not {"heads side by side", "output to its place"} & set(named(batch=2, kv_heads=32))


def test_copies_between_two_orders_of_axes_find_every_value_anew():
    """Of 1,024 items of 64 heads: 16.8 M values of 54 instructions, and 67 MB that an A100's L2 does not hold."""
    problem = AttentionProblem(batch=1024, q_heads=64, kv_heads=2, seq_q=1, seq_kv=64, head_dim=128, phase="decode")
    op = packing_copies(FA2, problem, 32)
    a100 = gpus.load("a100")
    assert (op.bytes, op.values, op.launches) == (2**26, 2**24, 2)
    held, streamed = (memory_op_seconds(a100, op, None, missing, replayed=True) for missing in (0.0, 1.0))
    issued = 2**24 * 54 / (108 * 4 * 32) / a100.clock_hz("burst")
    assert issued < held < 1.5 * issued
    assert streamed > issued + op.bytes / (a100.mem.dram.gbps * 1e9)


def test_even_a_small_copy_waits_for_four_elements():
    """18.2 us against 12.3 of one item and 10.7 without shared heads (A100, vLLM 0.14, 2 keys): 3.7 us each, launch included."""
    problem = AttentionProblem(batch=2, q_heads=8, kv_heads=2, seq_q=1, seq_kv=2, head_dim=128, phase="decode")
    a100, op = gpus.load("a100"), packing_copies(FA2, problem, 4)
    each = memory_op_seconds(a100, op, None, 0.0, replayed=True) / 2
    assert 1e-6 < each - a100.launch.graph_node_us * 1e-6 < 2.4e-6


@pytest.mark.parametrize(
    ("batch", "keys", "parts"), [(1, 131072, 32), (2, 131072, 32), (8, 131072, 15), (1, 256, 2), (512, 4096, 1)]
)
def test_captured_calls_have_room_for_32_parts(batch, keys, parts):
    """One K/V head on 132 SMs: parts of 1.1 times an even share, at most 32, however few tiles there are."""
    problem = AttentionProblem(batch=batch, q_heads=8, kv_heads=1, seq_q=1, seq_kv=keys, head_dim=128, phase="decode")
    assert captured_call(FA3, problem, replayed=True)
    assert not captured_call(FA3, problem, replayed=False)
    work = schedule("dense", seq_q=1, seq_kv=keys, q_tile=64, kv_tile=128, pack=8).with_copies(batch)
    assert kv_parts(FA3, work, 132, heads=1, captured=True) == [parts]


def test_large_batches_are_not_captured():
    problem = AttentionProblem(batch=513, q_heads=8, kv_heads=1, seq_q=1, seq_kv=4096, head_dim=128, phase="decode")
    assert not captured_call(FA3, problem, replayed=True)


def test_ctas_of_an_sm_look_through_the_batch_once_together():
    h100 = gpus.load("h100")
    look = search_step_cycles(h100, FA3)
    assert 336 < look < 336 + 300
    for items, ctas in ((1024, 1024), (1024, 8192), (2048, 4096)):
        assert search_cycles(h100, FA3, items, ctas) * ctas / 132 == pytest.approx((items - 1) // 31 * look)
    assert search_cycles(h100, FA3, 31, 31) == search_cycles(h100, FA2, 1024, 1024) == 0
    # A CTA of one tile looks no further than the end of the batch.
    assert search_cycles(h100, FA3, 128, 128) == 4 * look


def test_a_merging_kernel_without_work_finds_that_out():
    h100 = gpus.load("h100")

    def idle(items, captured=True):
        return merge_seconds(h100, FA3, None, 0, items, replayed=True, captured=captured)

    assert idle(1, captured=False) == 0
    assert idle(512) == pytest.approx(16 * search_step_cycles(h100, FA3) / h100.clock_hz("burst"))
    assert idle(32) < merge_seconds(h100, FA3, Memory("merge", 1000, 1), 2, 32, replayed=True, captured=True)


def test_short_decodes_of_large_batches_take_longer_an_item_than_a_tile():
    """Two calls of as many tiles, one of 8 times the items (H100, vLLM 0.24, 2 keys: 210.9 us and 8 * 41.5 - 7 * 11)."""

    def seconds(batch, kv_heads):
        asked = question("dense", phase="decode", batch=batch, seq_kv=2, q_heads=8, kv_heads=kv_heads, head_dim=128)
        return simulate(asked, gpus.load("h100"), kernel="fa3").stages["clock"]

    assert seconds(8192, 1) > 1.15 * seconds(1024, 8)
