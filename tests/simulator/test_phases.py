"""Decode and backward calls, fp8, scattered keys and tiles passed over, end to end."""

from contextlib import suppress

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simattn.hwspecs import gpus
from simattn.kernels import KINDS, kernels
from simattn.simulator import STAGES, Setting, attention_time, choose_kernel, predict, question, simulate
from simattn.simulator.pipeline import sm_pipeline
from simattn.workloads import AttentionProblem, Kind, schedule, systems

from simattn import UserError

LLAMA = {"q_heads": 32, "kv_heads": 8, "head_dim": 128}
H100 = gpus.load("h100")


def seconds(pattern="dense", hw="h100", **call):
    spec = gpus.load(hw) if isinstance(hw, str) else hw
    kernel = call.pop("kernel", None)
    return simulate(question(pattern, **{**LLAMA, **call}), spec, kernel=kernel).stages["side"]


# -- decode ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hw", ["a100", "h100", "b200", "b300", "l40s", "rtx_3090", "rtx_pro_6000", "mi300x"])
@pytest.mark.parametrize("pattern", ["dense", "causal", "sliding_window", "streaming_llm"])
def test_a_decode_step_on_every_gpu(hw, pattern):
    params = {"window": 1024} if pattern != "dense" and pattern != "causal" else {}
    p = predict(pattern, hw, phase="decode", batch=8, seq_kv=16384, **LLAMA, params=params)
    assert p.problem["phase"] == "decode"
    assert p.problem["seq_q"] == 1
    stages = [s.latency_ms for s in p.waterfall]
    assert [s.stage for s in p.waterfall] == list(STAGES)
    assert stages == sorted(stages)
    assert stages[-1] == p.latency_ms
    keys = 8 * 8 * 256 * 2 * (16384 if pattern in ("dense", "causal") else 1024)
    assert p.latency_ms * 1e-3 > keys / (gpus.load(hw).mem.dram.gbps * 1e9)


def test_a_decode_step_has_the_usual_keys_whether_its_queries_are_given_or_not():
    said, given = (question("causal", phase="decode", **options).problem for options in ({}, {"seq_q": 1}))
    assert said == given
    assert (given.seq_q, given.seq_kv) == (1, 32768)
    assert question("causal", phase="decode", seq_q=1, seq_kv=500).problem.seq_kv == 500


@pytest.mark.parametrize("pattern", systems.names())
def test_one_query_has_an_answer_or_is_refused(pattern):
    for options in ({}, {"phase": "decode"}):
        with suppress(UserError):
            assert predict(pattern, "h100", fidelity="bound", seq_q=1, **options).latency_ms > 0


def test_long_sequences_are_bound_by_dram():
    p = predict("dense", "h100", phase="decode", batch=16, seq_q=1, seq_kv=32768, **LLAMA)
    keys = 16 * 8 * 32768 * 256 * 2
    assert p.limiter == "dram"
    assert keys / (H100.mem.dram.gbps * 1e9) < p.latency_ms * 1e-3 < 1.1 * keys / H100.dram_bytes_per_s()


def test_few_bytes_in_flight_are_few_bytes_a_second():
    """One CTA on one SM: buffers over latency, whatever DRAM could deliver (Little)."""
    profile = kernels.load("fa3_decode")
    one = msgspec.structs.replace(profile, split=None)
    tile = profile.tiles[2]
    problem = AttentionProblem(q_heads=4, kv_heads=1, seq_q=1, seq_kv=65536, head_dim=128, phase="decode")
    choice = choose_kernel(H100, problem, "dense", kernel=one)
    work = schedule("dense", seq_q=1, seq_kv=65536, q_tile=64, kv_tile=128, pack=4)
    rates = []
    for stages in (1, 2):
        deeper = choice._replace(tile=msgspec.structs.replace(tile, stages=stages))
        time = attention_time(H100, deeper, work, problem, Setting(clock="burst")).stages["clock"]
        rates.append(65536 * 512 / time)
    latency = H100.mem.dram.latency_ns * 1e-9
    assert rates[0] < rates[1] < 2 * 65536 / latency
    assert rates[1] < H100.dram_bytes_per_s() / 20


@pytest.mark.parametrize(
    ("head_dim", "group", "window", "tile"),
    [
        (64, 8, None, (64, 192)),
        (64, 65, None, (192, 160)),
        (128, 64, None, (64, 128)),
        (128, 65, None, (128, 128)),
        (256, 8, None, (128, 80)),
        (64, 8, 1024, (192, 160)),
        (128, 8, 1024, (128, 128)),
        # Windows that leave nothing out are none.
        (64, 8, 4096, (64, 192)),
        (128, 8, 4096, (64, 128)),
        (256, 8, 4096, (128, 80)),
    ],
)
def test_one_warpgroup_serves_few_rows_without_a_window(head_dim, group, window, tile):
    pattern, params = ("sliding_window", {"window": window}) if window else ("dense", {})
    asked = question(pattern, phase="decode", seq_kv=4096, q_heads=group, kv_heads=1, head_dim=head_dim, params=params, batch=2)
    choice = simulate(asked, H100, kernel="fa3", setting=Setting(fidelity="bound")).choice
    assert (*choice.tiling.q, *choice.tiling.kv) == tile


def test_divided_keys_fill_the_machine():
    profile = kernels.load("fa3_decode")
    whole = msgspec.structs.replace(profile, split=None)
    call = {"phase": "decode", "seq_kv": 65536, "batch": 1}
    assert seconds(**call) < seconds(**call, kernel=whole) / 4
    assert [op.op for op in simulate(question("dense", **LLAMA, **call), H100).side] == ["merge of split keys"]


def test_a_ragged_batch_takes_about_what_its_tokens_take():
    even = seconds("ragged", phase="decode", params={"lengths": (8192,) * 16})
    uneven = seconds("ragged", phase="decode", params={"lengths": (57344, *(4096,) * 14, 16384)})
    assert uneven == pytest.approx(even, rel=0.25)
    with pytest.raises(UserError, match="as many queries"):
        predict("ragged", "h100", phase="decode", seq_q=3, seq_kv=16384, params={"lengths": (8192, 8192)}, **LLAMA)


def test_shared_heads_cost_little_more_than_one():
    one, eight = (seconds(phase="decode", batch=16, seq_kv=32768, q_heads=8 * g) for g in (1, 8))
    assert one <= eight < 1.05 * one


def test_latent_attention_reads_one_latent_a_token():
    mla = {"q_heads": 128, "kv_heads": 1, "head_dim": 576, "head_dim_v": 512}
    p = predict("dense", "h800", phase="decode", batch=32, seq_kv=16384, **mla)
    assert p.kernel == "flashmla"
    # 128 heads on 576 + 512 columns do 242 FLOP for a byte; FlashMLA claims 660 TFLOP/s where products bound it.
    assert 400 < p.tflops < 660
    few = predict("dense", "h800", phase="decode", batch=32, seq_kv=16384, **{**mla, "q_heads": 16})
    bytes_ = 32 * 16384 * 576 * 2
    assert bytes_ / (gpus.load("h800").mem.dram.gbps * 1e9) < few.latency_ms * 1e-3 < p.latency_ms * 1e-3


def test_kernels_for_whole_sequences_say_so():
    with pytest.raises(UserError, match="cudnn_hopper is not for phase decode"):
        predict("dense", "h100", phase="decode", seq_kv=1024, kernel="cudnn_hopper", **LLAMA)
    with pytest.raises(UserError, match="expected one of prefill, decode"):
        predict("dense", "h100", phase="dekode", seq_kv=1024, **LLAMA)
    assert predict("dense", "h100", phase="decode", seq_kv=1024, kernel="fa3", **LLAMA).kernel == "fa3_decode"


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    batch=st.integers(1, 300), keys=st.integers(1, 40_000), kv_heads=st.sampled_from([1, 2, 8]), group=st.integers(1, 16),
    hw=st.sampled_from(["h100", "b200", "a100"]),
)  # fmt: skip
def test_random_decode_steps_are_sane(batch, keys, kv_heads, group, hw):
    spec = gpus.load(hw)
    call = {"phase": "decode", "batch": batch, "seq_kv": keys, "kv_heads": kv_heads, "q_heads": kv_heads * group}
    run = simulate(question("dense", head_dim=128, **call), spec)
    stages = list(run.stages.values())
    assert stages == sorted(stages)
    assert stages[-1] >= batch * kv_heads * keys * 512 / (spec.mem.dram.gbps * 1e9)


# -- backward --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hw", "kernel"), [("a100", "fa2"), ("h100", "fa3"), ("h100", "cudnn"), ("b200", "fa4"), ("b200", "cudnn")]
)
def test_a_backward_pass_takes_two_to_four_times_the_forward_one(hw, kernel):
    name = {"cudnn": {"h100": "cudnn_hopper", "b200": "cudnn_blackwell"}.get(hw)}.get(kernel, kernel)
    call = {"seq_q": 8192, "q_heads": 16, "kv_heads": 16, "hw": hw, "kernel": name}
    forward, backward = (seconds("causal", phase=phase, **call) for phase in ("prefill", "backward"))
    assert 1.8 < backward / forward < 4


def test_a_backward_answer_names_its_kernels():
    p = predict("causal", "h100", phase="backward", seq_q=4096, **LLAMA, kernel="fa3")
    assert p.kernel == "fa3_backward"
    assert [op.op for op in p.side] == ["row sums of dO O", "convert dQ", "convert dK", "convert dV"]
    window = predict("sliding_window", "h100", phase="backward", seq_q=16384, params={"window": 1024}, **LLAMA)
    assert 1 < window.speedup < window.bounds.flop


# -- fp8 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("hw", "kernel"), [("h100", "fa3"), ("b200", "trtllm_gen"), ("b200", "cudnn_blackwell")])
def test_eight_bits_are_faster_but_not_twice_as_fast(hw, kernel):
    call = {"hw": hw, "kernel": kernel, "seq_q": 16384, "kv_heads": 32}
    wide, narrow = (seconds(dtype=dtype, **call) for dtype in ("bf16", "fp8"))
    assert 1 < wide / narrow < 2


@pytest.mark.parametrize(("hw", "gain"), [("h100", 1.2), ("b200", 1.9)])
def test_eight_bits_halve_a_long_decode_step_where_nothing_else_bounds_it(hw, gain):
    """Turning V and converting P stand beside the products on Hopper; Blackwell takes V as it lies."""
    wide, narrow = (seconds(hw=hw, phase="decode", batch=32, seq_kv=32768, dtype=dtype) for dtype in ("bf16", "fp8"))
    assert gain < wide / narrow < 2.1


def test_scores_in_int8_take_the_rate_of_int8():
    """SageAttention2 on an RTX 4090: integers four times as fast as bf16, fp8 with fp32 accumulators twice."""
    spec = gpus.load("rtx_4090")
    profile = kernels.load("sage2")
    problem = AttentionProblem(q_heads=1, seq_q=4096, head_dim=128, dtype="fp8")
    tile = profile.tile_for(spec, 128, "dense")
    qk, pv = (
        sum(
            op.units["plain"].get("tensor", 0)
            for op in sm_pipeline(spec, profile, tile, problem, 128, 64).program.ops
            if op.name == name
        )
        for name in ("qk", "pv")
    )
    products = 2 * 128 * 64 * 128
    assert (qk, pv) == (products / 2048, products / 1024)


# -- scattered keys, and tiles passed over ---------------------------------------------------------------------------


def steady(kernel, segment=1, hw="h100", d=128):
    profile, spec = kernels.load(kernel), gpus.load(hw)
    problem = AttentionProblem(q_heads=1, seq_q=8192, head_dim=d)
    tile = profile.tile_for(spec, d, profile.masks[0])
    return sm_pipeline(spec, profile, tile, problem, 128, 64, segment=segment)


def test_scattered_keys_come_in_whole_sectors():
    """Two tokens of 8 fp8 elements lie in a sector of 32 bytes; tokens of 256 bytes fill sectors anyway."""
    loads = {kind: steady("fa3").program.load_bytes(kind) for kind in ("plain", "gather")}
    assert loads["plain"] == loads["gather"]
    narrow, wide = (steady("fa3", segment, d=8).program.load_bytes("gather") for segment in (1, 64))
    assert narrow == 2 * wide
    plain, gather = (steady("triton").steady().alone[KINDS.index(kind)] for kind in ("plain", "gather"))
    assert gather > plain


def with_kind(work, kind):
    from dataclasses import replace

    return replace(work, runs=replace(work.runs, kind=np.full_like(work.runs.kind, kind)))


@pytest.mark.parametrize("fidelity", ["fast", "cycle"])
def test_scattered_keys_cost_time_at_both_fidelities(fidelity):
    problem = AttentionProblem(q_heads=64, seq_q=1024, head_dim=64)
    choice = choose_kernel(H100, problem, "dense", kernel="triton")
    plain = schedule("dense", seq_q=1024, q_tile=128, kv_tile=64).with_copies(64)
    scattered = with_kind(plain, Kind.GATHER)
    side, gathered = (
        attention_time(H100, choice, work, problem, Setting(fidelity=fidelity)).stages["schedule"] for work in (plain, scattered)
    )
    assert side < gathered < 3 * side


def test_each_way_to_skip_has_its_price():
    """A list costs nothing for what it leaves out, a byte some cycles, a dense mask its bytes.

    Of one CTA an SM: two that stay in step may be the slower ones without anything that takes them out of it.
    """
    call = {"seq_q": 16384, "q_heads": 4, "kv_heads": 4, "params": {"window": 512, "sinks": 64}, "hw": "rtx_4090"}

    def priced(mechanism, look):
        profile = msgspec.structs.replace(kernels.load("triton_byte_mask"), skip=mechanism, look=look)
        return seconds("streaming_llm", kernel=profile, **call)

    from simattn.kernels.profile import Look

    listed = priced("index_list", Look(cycles=60))
    byte, bitmap = priced("byte_mask", Look(cycles=60)), priced("bitmap", Look(cycles=1))
    dense = priced("dense_mask", Look(cycles=60, mask_bytes=2))
    assert listed < bitmap < byte < dense
    tiles = 16384 / 64
    assert byte - listed == pytest.approx(4 * tiles * tiles / 2 * 60 / 128 / 2.52e9, rel=0.5)
