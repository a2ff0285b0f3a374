import itertools
import json

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simattn.hwspecs import gpus
from simattn.kernels import kernels
from simattn.simulator import STAGES, Prediction, Setting, attention_time, choose_kernel, predict, question, simulate
from simattn.workloads import AttentionProblem, from_bsr

import simattn
from simattn import UserError

PATTERNS = ("causal", "dense", "documents", "gna", "longformer", "radial", "ragged", "sliding_window", "streaming_llm")
"""Plain patterns, which every GPU has a kernel for; all systems: test_systems."""
calm = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def test_hunyuan_video_radial():
    p = predict("radial", "b200")
    assert p.blocks == simattn.simulator.prediction.Blocks(size=128, active=226056, total=902 * 902)
    assert p.kernel == "fa4"
    assert (p.problem["q_heads"], p.problem["head_dim"], p.problem["seq_q"]) == (24, 128, 115456)
    assert [op.op for op in p.side] == ["merge"]


def test_traffic_is_what_l2_and_dram_are_busy_with():
    shape = {"seq_q": 4096, "q_heads": 8, "kv_heads": 8, "kernel": "fa4", "clock": "boost"}
    p, spec = predict("dense", "b200", **shape), gpus.load("b200")
    one = 4096 * 128 * 2 * 8  # bytes of Q, of K, of V and of O
    assert p.traffic.dram_bytes == 4 * one
    assert p.traffic.l2_bytes == 2 * one + 2 * one * (4096 / 256)  # every tile of 256 queries reads all keys and values
    seconds = p.traffic.l2_bytes / (spec.mem.l2.bytes_per_clk * spec.eff.l2 * spec.clock_hz("boost"))
    assert p.utilization["l2"] * p.latency_ms == pytest.approx(seconds * 1e3)
    # A kernel that is launched for each head moves the bytes of all launches.
    half, whole = (predict("sta", "h100", batch=batch, text=0, fidelity="bound") for batch in (1, 2))
    assert whole.attention[0].launches == 2 * half.attention[0].launches == 48
    assert whole.traffic.l2_bytes == pytest.approx(2 * half.traffic.l2_bytes)


def test_answer_has_every_field_of_the_contract():
    answer = json.loads(predict("radial", "b200").to_json())
    assert {
        "schema", "gpu", "kernel", "fidelity", "problem", "pattern", "latency_ms", "latency_ms_low", "latency_ms_high", "speedup",
        "dense", "tflops", "bounds", "density", "blocks", "tiles", "waterfall", "limiter", "utilization", "side", "provenance",
    } <= answer.keys()  # fmt: skip
    assert answer["bounds"].keys() == {"flop", "tile_worst", "tile_mean"}
    assert answer["tiles"].keys() == {"visited", "full", "partial", "dense", "q_tiles"}
    assert answer["provenance"].keys() >= {"calibrated_on", "recalled", "validity", "spec_hash", "seed"}
    assert [s["stage"] for s in answer["waterfall"]] == list(STAGES)


@pytest.mark.parametrize("hw", [name for name in gpus.names() if gpus.load(name).vendor != "research"])
def test_every_pattern_on_every_gpu(hw):
    for pattern in PATTERNS:
        p = predict(pattern, hw)
        check_sane(p)


def check_sane(p):
    times = [stage.latency_ms for stage in p.waterfall]
    assert times == sorted(times)
    assert times[0] > 0
    assert times[-1] == p.latency_ms
    assert p.latency_ms_low < p.latency_ms < p.latency_ms_high
    assert p.speedup == pytest.approx(p.dense.latency_ms / p.latency_ms)
    assert all(0 <= share <= 1 + 1e-9 for share in p.utilization.values())
    assert p.tiles.full + p.tiles.partial == p.tiles.visited
    # No prediction is below its bound: the live work at the peak tensor rate, and its tiles at that rate.
    spec = gpus.load(p.gpu)
    peak = spec.chip.sm_count * spec.tensor_flops_per_clk(p.problem["dtype"]) * spec.clock_hz("burst")
    work = p.tflops * 1e12 * p.latency_ms * 1e-3
    assert p.latency_ms >= work / peak * 1e3 * (1 - 1e-9)
    assert Prediction.from_dict(json.loads(p.to_json())) == p


shapes = st.fixed_dictionaries(
    {
        "hw": st.sampled_from(["a100", "h100", "b200", "rtx_5090", "mi300x"]),
        "seq_q": st.integers(1, 20_000),
        "q_heads": st.sampled_from([1, 3, 8, 24]),
        "batch": st.integers(1, 3),
        "head_dim": st.sampled_from([64, 96, 128]),
        "pattern": st.sampled_from(["dense", "causal", "sliding_window", "streaming_llm"]),
    }
)


@given(shapes)
@calm
def test_random_calls_are_sane(call):
    check_sane(predict(call.pop("pattern"), call.pop("hw"), kv_heads=1, **call))


def seconds(pattern, spec, **problem):
    params = problem.pop("params", {})
    return simulate(question(pattern, params=params, **problem), spec).stages


@given(
    rows=st.lists(st.sets(st.integers(0, 15)), min_size=16, max_size=16),
    dropped=st.sets(st.tuples(st.integers(0, 15), st.integers(0, 15))),
    hw=st.sampled_from(["a100", "h100", "b200"]),
)
@calm
def test_fewer_visits_never_cost_time_on_a_balanced_machine(rows, dropped, hw):
    spec, problem = gpus.load(hw), AttentionProblem(q_heads=4, seq_q=2048, head_dim=128)
    choice = choose_kernel(spec, problem, "blocks")

    def balanced(blocks):
        indptr = [0, *itertools.accumulate(len(row) for row in blocks)]
        schedule = from_bsr(indptr, [b for row in blocks for b in sorted(row)], q_tile=128, kv_tile=128, seq_q=2048, seq_kv=2048)
        return attention_time(spec, choice, schedule.with_copies(4), problem, Setting("burst")).stages["memory"]

    fewer = [row - {b for r, b in dropped if r == i} for i, row in enumerate(rows)]
    assert balanced(fewer) <= balanced(rows) * (1 + 1e-12)


@given(tokens=st.integers(64, 20_000), factor=st.floats(1, 8), hw=st.sampled_from(["a100", "h100", "l40s"]))
@calm
def test_more_bandwidth_never_costs_time(tokens, factor, hw):
    spec = gpus.load(hw)
    dram = msgspec.structs.replace(spec.mem.dram, gbps=spec.mem.dram.gbps * factor)
    faster = msgspec.structs.replace(spec, mem=msgspec.structs.replace(spec.mem, dram=dram))
    # Balanced: with dispatch in the picture, CTAs that end earlier can meet in a worse order.
    assert seconds("causal", faster, seq_q=tokens)["memory"] <= seconds("causal", spec, seq_q=tokens)["memory"] * (1 + 1e-12)


def test_one_mask_under_two_names_has_one_baseline():
    shape = {"seq_q": 16384, "q_heads": 8, "kv_heads": 8}
    window = predict("sliding_window", "h100", params={"window": 1024}, **shape)
    box = predict("gna", "h100", params={"window": 1024, "causal": True}, **shape)
    assert window.dense == box.dense
    assert window.bounds.flop == pytest.approx(box.bounds.flop)


def test_a_batch_without_a_pattern_gains_nothing():
    p = predict("ragged", "h100", seq_q=8192, params={"lengths": (4096, 2048, 2048)}, kernel="fa3", baseline="fa3")
    assert (p.speedup, p.bounds.flop, p.density.pairs) == (1, 1, 1)


def test_padding_is_not_booked_as_whole_tiles():
    # A window over the whole grid masks nothing: all that tiles cost beyond the live work is the padding of 30 frames to 32.
    p = predict("gna", "b200", grid=(30, 44, 80), text=0, params={"window": (30, 44, 80)})
    time = {stage.stage: stage.latency_ms for stage in p.waterfall}
    assert time["tiles"] == pytest.approx(time["ideal"], rel=1e-6)
    assert time["padding"] == pytest.approx(time["ideal"] * 32 / 30 * 32 / 30, rel=1e-6)
    # 200 causal tokens in tiles of 128: the last key tile has 72 live keys.
    flat = simattn.schedule("causal", seq_q=200)
    assert flat.live_area() == 128 * 128 + 72 * 128 + 72 * 72


def test_a_mask_free_call_under_dynamic_tiles_pays_no_mask():
    options = {"grid": (32, 64, 64), "text": 0, "params": {"window": (16, 16, 16), "stride": (8, 8, 8)}}
    p = predict("gna", "a100", **options)
    assert p.kernel == "natten_ampere"
    assert (p.tiles.full, p.tiles.partial) == (p.tiles.visited, 0)


def test_baseline_changes_the_comparison_and_not_the_kernel():
    usual, other = predict("dense", "h100"), predict("dense", "h100", baseline="fa2")
    assert (other.kernel, other.latency_ms) == (usual.kernel, usual.latency_ms)
    assert (other.dense.kernel, usual.speedup) == ("fa2", 1)
    assert other.speedup > 1


def test_tiles_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="KiB of shared memory"):
        predict("dense", "h100", kernel="fa3", q_tile=4096, kv_tile=4096)


def test_mask_file_reports_its_blocks(tmp_path):
    mask = np.tri(16, dtype=bool)
    np.save(tmp_path / "mask.npy", mask)
    p = predict("mask_file", "h100", seq_q=2048, params={"file": str(tmp_path / "mask.npy")})
    assert (p.blocks.size, p.blocks.active, p.blocks.total) == (128, 136, 256)


def test_dense_equals_a_window_over_everything():
    dense = predict("causal", "h100", seq_q=5000, kernel="fa3")
    window = predict("sliding_window", "h100", seq_q=5000, params={"window": 5000}, kernel="fa3")
    assert window.latency_ms == dense.latency_ms
    assert window.tiles == dense.tiles


def test_a_mask_free_call_is_cheaper_than_a_masked_one():
    free = predict("gna", "b200", grid=(256, 256), window=(80, 80), stride=(16, 16))
    masked = predict("gna", "b200", grid=(256, 256), window=(80, 80), stride=(16, 1))
    assert free.tiles.partial == 0
    assert free.latency_ms < masked.latency_ms


def test_bound_fidelity_leaves_dispatch_out():
    bound, fast = predict("causal", "h100", fidelity="bound"), predict("causal", "h100")
    stage = {s.stage: s.latency_ms for s in bound.waterfall}
    assert stage["schedule"] == stage["memory"]
    assert bound.latency_ms <= fast.latency_ms


def test_clock_regimes_are_ordered():
    latency = {clock: predict("dense", "h100", clock=clock).latency_ms for clock in ("burst", "boost", "sustained")}
    assert latency["burst"] < latency["boost"] < latency["sustained"]


def test_head_width_and_heads_scale_the_work():
    one = predict("causal", "h100", q_heads=8, kv_heads=8)
    two = predict("causal", "h100", q_heads=16, kv_heads=16)
    assert two.tiles.visited == 2 * one.tiles.visited


def test_few_rows_split_their_keys():
    spec = gpus.load("h100")
    split = simulate(question("dense", seq_q=128, seq_kv=65536, q_heads=1, kv_heads=1), spec, kernel="fa3").stages
    whole = simulate(question("dense", seq_q=128, seq_kv=65536, q_heads=1, kv_heads=1), spec, kernel="cudnn_hopper").stages
    assert split["schedule"] < whole["schedule"] / 20


def test_best_dense_kernel_is_the_baseline():
    p = predict("radial", "h100")
    assert p.dense.latency_ms == min(
        predict("dense", "h100", model="hunyuan-video", kernel=name).latency_ms
        for name in kernels.names()
        if kernels.load(name).serves(gpus.load("h100"), "dense", "bf16", 128, "diffusion")
    )
    assert predict("radial", "h100", baseline="fa2").speedup > p.speedup


def test_own_gpu_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('inherits = "h100_sxm"\nname = "mine"\n[chip]\nsm_count = 66\n')
    assert predict("dense", str(path)).latency_ms > 1.5 * predict("dense", "h100").latency_ms


def test_seed_and_hash_are_recorded():
    p = predict("causal", "h100", seed=7)
    assert p.provenance.seed == 7
    assert p.provenance.spec_hash == gpus.load("h100").spec_hash()
    assert gpus.load("h100", {"chip": {"sm_count": 131}}).spec_hash() != p.provenance.spec_hash


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({"hw": "b2000"}, "did you mean 'b200'"),
        ({"pattern": "radiall"}, "did you mean 'radial'"),
        ({"fidelity": "exact"}, "known: bound, cycle, fast"),
        ({"dtype": "int3"}, "expected one of bf16, fp16, fp8"),
        ({"dtype": "fp8", "hw": "a100"}, "no profiled kernel"),
        ({"q_tile": 0}, "at least 1"),
        ({"unknown": 3}, "unknown parameter 'unknown'"),
        ({"baseline": "natten_blackwell"}, "cannot run dense masks"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(call, words):
    with pytest.raises(UserError) as raised:
        predict(**{"pattern": "radial", "hw": "b200", **call})
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
