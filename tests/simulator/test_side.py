"""What runs beside the attention: rates against published ceilings, and how the ops of a plan add up."""

import json
from pathlib import Path

import msgspec
import pytest
from simattn.facts import UserError
from simattn.hwspecs import gpus
from simattn.simulator.side import flops_per_clk, gemm_seconds, side_seconds
from simattn.validation import measurement
from simattn.workloads import Gemm, Host, Memory, Sort

TABLE = Path(measurement.__file__).parent / "measured" / "published.jsonl"
GPUS = {
    "b200": "b200",
    "a100-40gb-sxm": "a100_sxm_40gb",
    "rtx5090-400w": "rtx_5090",
    "h800-sxm": "h800",
    "h200": "h200",
    "gb200": "gb200",
    "gb300": "gb300",
}
CEILINGS = [row for row in map(json.loads, TABLE.open(encoding="utf-8")) if row["phase"] == "ceiling"]
GEMMS = {row["id"].removeprefix("ceilings/"): row for row in CEILINGS if "gemm_mnk" in row}
NORMS = {row["id"].removeprefix("ceilings/"): row for row in CEILINGS if "shape" in row}
WIDE = {
    # The product of 8192 x 8192 x 256 takes no longer than to store its result, and the kernel of fp8 hides part of the latter.
    "h800-tilelang-fp8-k256": 0.5,
    "h800-tilelang-fp8-k512": 0.4,
    # The board is held at 400 W, the spec is of one at 575 W.
    "5090-cublas-bf16-8192": 0.25,
}
H100 = gpus.load("h100")


@pytest.mark.parametrize("name", GEMMS)
def test_products_take_about_as_long_as_published(name):
    row = GEMMS[name]
    m, n, k = row["gemm_mnk"]
    flops = 2.0 * m * n * k
    op = Gemm("product", flops, 2 * m * n, 1, row["dtype"], (m, n, k))
    measured = flops / row["tflops"] / 1e12
    assert gemm_seconds(gpus.load(GPUS[row["gpu"]]), op, "sustained") == pytest.approx(measured, rel=WIDE.get(name, 0.235))


def test_products_are_right_on_the_median():
    errors = []
    for row in GEMMS.values():
        m, n, k = row["gemm_mnk"]
        op = Gemm("product", 2.0 * m * n * k, 2 * m * n, 1, row["dtype"], (m, n, k))
        seconds = gemm_seconds(gpus.load(GPUS[row["gpu"]]), op, "sustained")
        errors.append(abs(seconds * row["tflops"] * 1e12 / op.flops - 1))
    assert sorted(errors)[len(errors) // 2] < 0.08


@pytest.mark.parametrize("name", NORMS)
def test_kernels_that_move_data_take_about_as_long_as_published(name):
    """Root-mean-square norms read and write a tensor once; short ones are timed to a whole microsecond."""
    row = NORMS[name]
    rows, columns = row["shape"]
    op = Memory("norm", 2 * rows * columns * 2, 1)
    seconds = side_seconds(gpus.load(GPUS[row["gpu"]]), op, None, "sustained")
    assert seconds == pytest.approx(row["latency_ms"] * 1e-3, rel=0.28, abs=1.8e-6)


def test_a_part_empty_wave_costs_a_whole_one():
    def seconds(products):
        flops = 2.0 * 128 * 256 * 1024 * products
        return gemm_seconds(H100, Gemm("p", flops, 0, 1, "bf16", (128, 256, 1024)), "burst")

    assert seconds(132) == seconds(1)
    one = seconds(132) - H100.launch.kernel_us * 1e-6
    assert seconds(133) - H100.launch.kernel_us * 1e-6 == pytest.approx(2 * one)
    # Without a shape there are no waves: half the work, half the time.
    smooth = [gemm_seconds(H100, Gemm("p", flops, 0, 1), "burst") - H100.launch.kernel_us * 1e-6 for flops in (1e12, 2e12)]
    assert smooth[1] == pytest.approx(2 * smooth[0])


def test_what_shares_a_run_pays_its_share():
    whole, shared = (side_seconds(H100, Memory("pool", 2**30, 4, every=n), None, "burst") for n in (1, 10))
    assert shared == pytest.approx(whole / 10)


def test_sorts_pass_over_their_data_and_hosts_take_their_time():
    passes = [side_seconds(H100, Sort("top-k", 2**28, 1, passes=n), None, "burst") for n in (1, 2, 4)]
    launch = H100.launch.kernel_us * 1e-6
    assert passes[1] - launch == pytest.approx(2 * (passes[0] - launch))
    assert passes[2] - launch == pytest.approx(4 * (passes[0] - launch))
    assert side_seconds(H100, Host("plan", 1e-3), None, "burst") == 1e-3


def test_rates_by_type():
    # TOPS of int8, dense, as the data sheets say: A100 624, RTX 4090 661, H100 1979.
    for name, tops in (("a100", 624), ("rtx_4090", 661), ("h100", 1979)):
        spec = gpus.load(name)
        rate = spec.chip.sm_count * flops_per_clk(spec, "int8") * spec.clock_hz("boost") / 1e12
        assert rate == pytest.approx(tops, rel=0.02)
    a100 = gpus.load("a100")
    assert flops_per_clk(a100, "int4") == 2 * flops_per_clk(a100, "int8")
    assert flops_per_clk(H100, "int4") == flops_per_clk(H100, "int8")
    assert flops_per_clk(H100, "fp32") == 256


def test_a_rate_that_a_gpu_lacks_is_said():
    without = msgspec.structs.replace(H100, tensor=msgspec.structs.replace(H100.tensor, tf32_f32=None))
    with pytest.raises(UserError, match="h100_sxm has no tf32 rate"):
        flops_per_clk(without, "tf32")
