import numpy as np
import pytest
from simattn.hwspecs import gpus
from simattn.kernels import KINDS, kernels
from simattn.simulator.pipeline import SHORT, sm_pipeline
from simattn.workloads import AttentionProblem

PROBLEM = AttentionProblem(q_heads=1, seq_q=4096, head_dim=128)
PLAIN, MASKED, QK_ONLY, SKIPPED, GATHER = range(len(KINDS))


def pipeline(hw, kernel, q_rows=128, kv_rows=128, axes=1):
    spec, profile = gpus.load(hw), kernels.load(kernel)
    tile = profile.tile_for(spec, 128, profile.masks[0])
    return sm_pipeline(spec, profile, tile, PROBLEM, q_rows, kv_rows, axes)


def test_tensor_and_exp_cycles_of_the_published_roofline():
    # FlashAttention-4 (arXiv 2603.05451), table 1: 128 x 128 x 128 on B200 takes 1,024 tensor and 1,024 exp cycles.
    units = pipeline("b200", "trtllm_gen").units("plain")
    assert (units["tensor"], units["ex2"]) == (1024, 1024)


def test_doubled_exp_unit_of_b300():
    assert pipeline("b300", "trtllm_gen").units("plain")["ex2"] == 512


def test_software_exponentials_only_where_the_profile_says():
    assert pipeline("b200", "fa4").units("plain")["ex2"] < 1024
    assert pipeline("b300", "fa4").units("plain")["ex2"] == 512


def test_legacy_instruction_gets_part_of_the_peak():
    assert pipeline("h100", "fa2").units("plain")["tensor"] == pytest.approx(2048 / 0.629)
    assert pipeline("h100", "fa3").units("plain")["tensor"] == 2048


def test_no_loop_is_faster_than_its_busiest_unit_nor_a_serial_one_than_all_of_them():
    for hw, kernel in (("a100", "fa2"), ("h100", "fa3"), ("b200", "fa4"), ("h100", "triton"), ("rtx_5090", "fa2")):
        sm = pipeline(hw, kernel, q_rows=256 if kernel == "fa4" else 128)
        units, interval = sm.units("plain"), sm.steady().together[PLAIN]
        assert interval >= max(units.values()) * (1 - 1e-9)
        if sm.program.name == "triton_serial":
            assert interval >= (units["tensor"] + units["ex2"] + units["fma"] + units["alu"]) * (1 - 1e-9)


def test_ping_pong_hides_what_a_serial_loop_does_not():
    serial, pingpong = pipeline("h100", "triton"), pipeline("h100", "fa3")
    assert pingpong.steady().alone[PLAIN] < serial.steady().alone[PLAIN]


@pytest.mark.parametrize("kernel", ["fa3", "natten_hopper", "flashinfer_bsr_fa3", "flex"])
def test_a_mask_never_makes_a_tile_cheaper(kernel):
    one, three = pipeline("h100", kernel, axes=1).steady(), pipeline("h100", kernel, axes=3).steady()
    assert one.alone[PLAIN] < one.alone[MASKED] < three.alone[MASKED]
    assert one.alone[PLAIN] == three.alone[PLAIN]


def test_what_is_left_out_costs_less():
    steady = pipeline("h100", "fa3").steady()
    assert steady.alone[SKIPPED] < steady.alone[QK_ONLY] < steady.alone[PLAIN]


def test_more_visits_take_longer_and_end_in_the_steady_interval():
    for hw, kernel in (("a100", "fa2"), ("h100", "fa3"), ("b200", "fa4")):
        steady = pipeline(hw, kernel).steady()
        steps = np.diff(steady.short)
        assert (steps > 0).all()
        assert steps[SHORT // 2 :].mean() == pytest.approx(steady.alone[PLAIN], rel=0.02)


def test_a_cta_without_visits_still_starts_and_ends():
    sm = pipeline("b200", "fa4")
    assert sm.steady().short[0] > sm.profile.timing.prologue_cycles


def test_only_the_first_cta_of_a_persistent_kernel_waits_for_all_of_its_loads():
    steady = pipeline("h100", "fa3").steady()
    assert steady.first > 500
    assert pipeline("h100", "fa3_paged").steady().first == 0
    assert 0 < steady.short[0] < steady.short[1]


def test_two_ctas_of_a_small_tile_share_an_a100():
    sm = pipeline("a100", "fa2", 128, 64)
    assert sm.ctas == 2
    steady = sm.steady()
    assert steady.alone[PLAIN] / 2 < steady.together[PLAIN] < steady.alone[PLAIN]


@pytest.mark.parametrize(("group", "by_tma"), [(1, False), (2, False), (4, True), (8, True), (12, False), (16, True)])
def test_packed_rows_of_q_that_tma_fetches(group, by_tma):
    """As vLLM's FlashAttention-3 has it: boxes of 4, 8 and 16 heads."""
    spec, profile = gpus.load("h100"), kernels.load("fa3_paged", {"timing": {"rows_bytes_per_clk": 16.0}})
    problem = AttentionProblem(q_heads=2 * group, kv_heads=2, seq_q=4096, head_dim=128)
    sm = sm_pipeline(spec, profile, profile.tile_for(spec, 128, "window"), problem, 128, 128)
    memory = sm.memory(l2_bytes_per_clk=0, dram_bytes_per_clk=0, clock_hz=1e9, capacity_bytes=1e9, streams=False)
    assert memory.q == (memory.port if by_tma else memory.o)
    assert memory.o > memory.port


def test_warpgroups_without_turns_expose_their_masks():
    """All of it, where warpgroups in turn hide it under the products of each other."""
    natten, fa3 = (pipeline("h100", kernel, axes=2).steady().together for kernel in ("natten_hopper", "fa3"))
    mask = 128 * 128 * kernels.load("natten_hopper").mask.operations(2) / gpus.load("h100").units.alu_lanes
    assert natten[MASKED] - natten[PLAIN] == pytest.approx(mask, abs=0.1)
    assert fa3[MASKED] - fa3[PLAIN] < mask
