import pytest
from simattn.hwspecs import gpus
from simattn.kernels import kernels
from simattn.simulator.intervals import intervals
from simattn.simulator.pipeline import sm_pipeline
from simattn.workloads import AttentionProblem

PROBLEM = AttentionProblem(q_heads=1, seq_q=4096, head_dim=128)


def pipeline(hw, kernel, q_rows, kv_rows):
    spec, profile = gpus.load(hw), kernels.load(kernel)
    return sm_pipeline(spec, profile, profile.tile_for(spec, 128, profile.masks[0]), PROBLEM, q_rows, kv_rows)


@pytest.mark.parametrize(
    ("hw", "kernel", "q_rows", "kv_rows"),
    [("a100", "triton", 128, 64), ("h100", "fa3", 128, 128), ("h100", "fa3", 128, 176), ("b200", "fa4", 256, 128),
     ("b200", "trtllm_gen", 256, 128), ("h100", "triton", 128, 128), ("rtx_5090", "fa2", 128, 64)],
)  # fmt: skip
def test_no_simulated_interval_is_below_its_bounds(hw, kernel, q_rows, kv_rows):
    sm = pipeline(hw, kernel, q_rows, kv_rows)
    found, simulated = intervals(sm.program), sm.steady().alone[0]
    assert simulated >= max(found.resource, found.recurrence) * (1 - 1e-3)
    assert simulated <= (found.resource + found.recurrence) * (1 + 1e-3)


def test_a_serial_loop_is_bound_by_its_recurrence_and_ping_pong_by_the_tensor_core():
    serial, pingpong = pipeline("a100", "triton", 128, 64), pipeline("h100", "fa3", 128, 128)
    assert intervals(serial.program).recurrence == pytest.approx(serial.steady().alone[0], rel=1e-3)
    assert intervals(pingpong.program).unit == "tensor"
    assert intervals(pingpong.program).resource == pytest.approx(pingpong.steady().alone[0], rel=1e-3)


def test_a_masked_tile_has_longer_bounds():
    program = pipeline("b200", "fa4", 256, 128).program
    assert intervals(program, "masked").recurrence > intervals(program, "plain").recurrence
