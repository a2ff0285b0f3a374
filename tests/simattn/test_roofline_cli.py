"""simattn roofline: roofs by hand, points by prediction."""

import json
import subprocess
import sys

import pytest
from simattn.simulator import predict

import simattn
from simattn.roofline import below_roofs, roofline

SIMATTN = [sys.executable, "-P", "-c", "from simattn.cli import main; main()", "roofline"]


def run(*arguments, cwd=None):
    return subprocess.run([*SIMATTN, *map(str, arguments)], capture_output=True, text=True, check=False, cwd=cwd)


def answer(*arguments):
    done = run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_roofs_by_hand():
    """H100 SXM: 132 SMs of 4096 FLOPs and 16 exponentials a clock at 1980 MHz; its bandwidths as micro-benchmarks found them."""
    roofs = {roof["name"]: roof for roof in answer("--hw", "h100", "--patterns", "causal")["roofs"]}
    assert roofs["tensor"]["tflops"] == pytest.approx(132 * 4096 * 1.98e9 / 1e12)
    assert roofs["ex2"]["tflops"] == pytest.approx(132 * 16 * 1.98e9 * 4 * 128 / 1e12)
    assert roofs["ex2"]["head_dim"] == 128
    assert roofs["l2"]["gbps"] == pytest.approx(3942 * 1.98)
    assert roofs["dram"]["gbps"] == pytest.approx(3350 * 0.926)
    assert roofs["host"]["gbps"] == pytest.approx(63 * 0.88)


@pytest.mark.parametrize("gpu", simattn.hwspecs.gpus.names())
def test_every_gpu_has_roofs(gpu):
    found = roofline(gpu, [])
    assert [roof.name for roof in found.roofs][:4] == ["tensor", "ex2", "l2", "dram"]
    assert all((roof.tflops or roof.gbps) > 0 for roof in found.roofs)
    assert found.points == ()


def test_points_are_predictions():
    p = predict("sliding_window", "b200", seq_q=16384, window=1024)
    (point,) = roofline("b200", ["sliding_window"], seq_q=16384, params={"window": 1024}).points
    flops = 4 * 128 * (1024 * 16384 - 1024 * 1023 // 2) * p.problem["q_heads"]
    assert point.tflops == pytest.approx(flops / p.latency_ms / 1e9)
    assert point.l2_intensity == pytest.approx(flops / p.traffic.l2_bytes)
    assert point.dram_intensity == pytest.approx(flops / p.traffic.dram_bytes)
    assert (point.limiter, point.latency_ms, point.speedup) == (p.limiter, p.latency_ms, p.speedup)


def test_no_point_is_above_its_roof():
    for gpu, options in (("h100", {}), ("b200", {}), ("a100", {"clock": "boost"})):
        for point in roofline(gpu, ["dense", "causal", "radial", "gna"], **options).points:
            assert 0 < point.tflops <= point.roof_tflops


def test_decode_lies_on_the_slope_of_dram():
    found = roofline("h100", ["dense"], model="llama-3.1-8b", phase="decode", batch=16, seq_q=1, seq_kv=65536)
    (point,) = found.points
    # Four query heads share keys and values of two bytes: 4 FLOPs for each of 4 queries over 4 bytes of K and V.
    assert point.dram_intensity == pytest.approx(4, rel=0.01)
    assert point.roof == "dram"
    assert 0.8 < point.tflops / point.roof_tflops < 1


def test_heads_of_other_widths_have_roofs_of_their_own():
    answers = [predict("causal", "b200", seq_q=4096, head_dim=width) for width in (64, 128)]
    found = below_roofs(simattn.load_gpu("b200"), answers)
    assert [(roof.head_dim, round(roof.tflops)) for roof in found.roofs if roof.name == "ex2"] == [(64, 1191), (128, 2382)]
    assert [point.roof for point in found.points] == ["ex2", "tensor"]


def test_types_are_not_mixed():
    answers = [predict("causal", "h100", seq_q=1024, dtype=dtype) for dtype in ("bf16", "fp8")]
    with pytest.raises(simattn.UserError, match="one roofline is of one type, got bf16, fp8"):
        below_roofs(simattn.load_gpu("h100"), answers)


def test_a_pattern_without_an_answer_stops_no_other():
    done = run("--hw", "h100", "--patterns", "causal,radial", "--seq-q", 4096)
    assert done.returncode == 0
    assert "causal" in done.stdout
    assert "simattn: radial: " in done.stderr
    assert set(answer("--hw", "h100", "--patterns", "causal,radial", "--seq-q", 4096)["skipped"]) == {"radial"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--hw", "h101"], "unknown GPU 'h101'"),
        (["--hw", "h100", "--patterns", "nothing"], "unknown pattern"),
        (["--hw", "h100", "--patterns", "causal,radiall"], "unknown pattern 'radiall'; did you mean 'radial'"),
        (["--hw", "h100", "--patterns", ","], "expected names with commas between them"),
        (["--hw", "h100", "-o", "roofline.pdf"], "must end in one of .html, .png"),
        (["--hw", "h100", "-o", "none/roofline.png"], "no such folder"),
    ],
)
def test_mistakes_are_one_line(arguments, words, tmp_path):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


@pytest.mark.parametrize("name", ["roofline.html", "roofline.png"])
def test_files(name, tmp_path):
    done = run("--hw", "b200", "--patterns", "causal", "-o", name, cwd=tmp_path)
    assert done.returncode == 0
    assert f"wrote {name}" in done.stderr
    assert (tmp_path / name).read_bytes()[:9].lower() in (b"<!doctype", b"\x89png\r\n\x1a\n\x00")


def test_a_table_needs_no_drawing_library():
    script = (
        "import sys; from simattn.cli import simattn; simattn.main(sys.argv[1:], standalone_mode=False); "
        "print([name for name in ('plotly', 'matplotlib', 'pandas', 'networkx') if name in sys.modules])"
    )
    command = [sys.executable, "-P", "-c", script, "roofline", "--hw", "h100", "--patterns", "causal"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "host link" in done.stdout
