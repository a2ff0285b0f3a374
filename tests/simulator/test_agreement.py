"""The two fidelities agree: `fast` finds one SM's interval and dispatches CTAs of known cost, `cycle` simulates every visit."""

import pytest
from simattn.hwspecs import gpus
from simattn.simulator import Setting, question, simulate

LONG = {"seq_q": 24576, "q_heads": 8, "kv_heads": 8}
GQA = {"seq_q": 20480, "q_heads": 16, "kv_heads": 4}
MANY = {"seq_q": 12288, "q_heads": 8, "kv_heads": 8, "batch": 3}
NARROW = {"seq_q": 16384, "q_heads": 8, "kv_heads": 8, "head_dim": 64}
WINDOW = {"seq_q": 32768, "q_heads": 4, "kv_heads": 4, "params": {"window": 12288, "causal": True}}
SYMMETRIC = {"seq_q": 24576, "q_heads": 4, "kv_heads": 4, "params": {"window": (4096, 4096), "causal": False}}
RADIAL = {"grid": (24, 30, 40), "text": 64, "q_heads": 8, "kv_heads": 8}
BOX = {"grid": (128, 128), "text": 0, "q_heads": 12, "kv_heads": 12, "params": {"window": (96, 96)}}
BOX_FREE = {"grid": (128, 128), "text": 0, "q_heads": 12, "kv_heads": 12, "params": {"window": (96, 96), "stride": (16, 16)}}
BOX_3D = {"grid": (16, 32, 32), "text": 0, "q_heads": 12, "kv_heads": 12, "params": {"window": (12, 24, 24)}}
SINKS = {"seq_q": 32768, "q_heads": 4, "kv_heads": 4, "params": {"window": 16384, "sinks": 128}}

CASES = [
    *(("dense", hw, kernel, shape) for hw, kernel in (
        ("h100", "fa3"), ("h100", "cudnn_hopper"), ("h200", "fa3"), ("h20", "fa3"), ("gh200", "triton"), ("h100_pcie", "triton"),
        ("b200", "fa4"), ("b200", "trtllm_gen"), ("b200", "cudnn_blackwell"), ("b300", "fa4"), ("gb200", "trtllm_gen"),
        ("gb300", "cudnn_blackwell"), ("a100", "triton"), ("rtx_pro_6000", "triton"),
    ) for shape in (LONG, MANY)),
    *(("causal", hw, kernel, shape) for hw, kernel in (
        ("h100", "fa3"), ("h100", "fa3_paged"), ("b200", "fa4"), ("b200", "trtllm_gen"), ("b300", "trtllm_gen"),
        ("a100", "triton"), ("b200", "triton"), ("h800", "cudnn_hopper"),
    ) for shape in (LONG, GQA)),
    *(("dense", hw, kernel, NARROW) for hw, kernel in (("h100", "fa3"), ("b200", "fa4"), ("b300", "fa4"))),
    *(("sliding_window", hw, kernel, shape) for hw, kernel in (("h100", "fa3"), ("b200", "fa4"), ("a100", "triton"))
      for shape in (WINDOW, SYMMETRIC)),
    *(("radial", hw, None, RADIAL) for hw in ("h100", "b200", "b300", "h200")),
    *(("gna", hw, kernel, shape) for hw, kernel in (("h100", "natten_hopper"), ("b200", "natten_blackwell"))
      for shape in (BOX, BOX_FREE, BOX_3D)),
    *(("streaming_llm", hw, None, SINKS) for hw in ("b200", "h100")),
]  # fmt: skip


def answers(pattern, hw, kernel, shape):
    shape = dict(shape)
    asked = question(pattern, params=shape.pop("params", {}), **shape)
    spec = gpus.load(hw)
    fast = simulate(asked, spec, kernel=kernel, setting=Setting(clock="burst"))
    exact = simulate(asked, spec, kernel=kernel, setting=Setting(clock="burst", fidelity="cycle"))
    return fast, exact


def test_there_are_enough_cases():
    assert len(CASES) >= 60


@pytest.mark.parametrize(("pattern", "hw", "kernel", "shape"), CASES)
def test_fast_agrees_with_cycle_where_it_stands_on_its_own(pattern, hw, kernel, shape):
    fast, exact = answers(pattern, hw, kernel, shape)
    assert fast.correction == 1
    assert fast.stages["schedule"] == pytest.approx(exact.stages["schedule"], rel=0.02)


SMALL = [
    ("dense", "h100", "fa3", {"seq_q": 512, "q_heads": 40, "kv_heads": 40}),
    ("sliding_window", "h100", "fa3", {"seq_q": 8192, "q_heads": 16, "kv_heads": 8, "params": {"window": 128, "causal": True}}),
    ("sliding_window", "l40s", "fa2", {"seq_q": 16384, "q_heads": 8, "kv_heads": 8, "params": {"window": 1024, "causal": True}}),
    ("causal", "a100", "fa2", {"seq_q": 4096, "q_heads": 16, "kv_heads": 4}),
    ("gna", "b200", None, {"grid": (64, 64), "text": 0, "q_heads": 8, "kv_heads": 8, "params": {"window": (20, 20)}}),
    ("longformer", "a100", None, {"seq_q": 8192, "q_heads": 8, "kv_heads": 8}),
]


@pytest.mark.parametrize(("pattern", "hw", "kernel", "shape"), SMALL)
def test_elsewhere_fast_says_so_and_simulates_visits_itself(pattern, hw, kernel, shape):
    fast, exact = answers(pattern, hw, kernel, shape)
    assert fast.correction != 1
    assert fast.stages["schedule"] == pytest.approx(exact.stages["schedule"], rel=0.03)


@pytest.mark.parametrize(
    "heads",
    [
        {"seq_q": 8192, "q_heads": 32, "kv_heads": 32},
        {"seq_q": 8192, "q_heads": 48, "kv_heads": 1},
        {"seq_q": 10240, "q_heads": 32, "kv_heads": 16},
        pytest.param(
            {"seq_q": 16384, "q_heads": 40, "kv_heads": 1},
            marks=pytest.mark.xfail(strict=True, reason="3.8 % off: the heads that are simulated make nine waves, not sixteen"),
        ),
    ],
)
def test_a_part_of_ctas_that_share_an_sm_speaks_for_all(heads):
    """Also where so many heads share keys that those of one are too many to simulate."""
    fast, exact = answers("causal", "a100", "fa2_split", heads)
    assert fast.correction < 0.99
    assert fast.stages["schedule"] == pytest.approx(exact.stages["schedule"], rel=0.02)
