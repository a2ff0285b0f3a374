"""simattn report: one page with everything about one prediction, and pictures of explain and offload."""

import html
import json
import re
import subprocess
import sys

import pytest
from simattn.hwspecs import gpus, sources
from simattn.simulator import predict

from simattn.explain.words import ms

SIMATTN = [sys.executable, "-P", "-c", "from simattn.cli import main; main()"]


def run(*arguments, cwd=None):
    return subprocess.run([*SIMATTN, *map(str, arguments)], capture_output=True, text=True, check=False, cwd=cwd)


def words_of(path):
    """The page without scripts and marks."""
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"<(script|style).*?</\1>", "", text, flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]+>", " ", text))


@pytest.fixture(scope="module")
def radial(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "radial.html"
    done = run("report", "--hw", "b200", "--pattern", "radial", "--measured-ms", 70, "-o", path, "--json")
    assert done.returncode == 0, done.stderr
    return path, json.loads(done.stdout)


def test_everything_is_on_the_page(radial):
    path, answer = radial
    p, words = predict("radial", "b200"), words_of(path)
    assert answer["prediction"]["latency_ms"] == p.latency_ms
    assert answer["bytes"] == path.stat().st_size
    for text in (
        "Radial Attention on NVIDIA B200",
        ms(p.latency_ms),
        f"{ms(p.latency_ms_low)} to {ms(p.latency_ms_high)} (uncalibrated)",
        f"{p.speedup:.2f} times",
        "226,056 of 813,604 blocks of 128 a head",
        f"{p.bounds.flop:.2f} x by live FLOPs",
        answer["verdict"],
        answer["measured"]["words"],
        f"spec {p.provenance.spec_hash}",
        "arXiv 2506.19852",
        "chip.clock_sustained_mhz",
        "FlashAttention-4",
    ):
        assert text in words, text
    for stage in answer["stages"]:
        assert stage["cause"] in words
    for run_of in p.attention:
        assert run_of.op in words
        assert run_of.kernel in words
    for unit in p.utilization:
        assert f" {unit} " in words


def test_every_source_key_is_spelled_out(radial):
    words = words_of(radial[0])
    keys = {key.strip() for origin in gpus.load("b200").meta.values() for key in origin.source.split(";")}
    assert len(keys) > 5
    for key in keys & set(sources()):
        assert sources()[key] in words


def test_it_needs_no_network(radial):
    text = radial[0].read_text(encoding="utf-8")
    assert not re.search(r"<script[^>]+src", text)
    assert not re.search(r"<link|@import|src=|url\(", re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL))
    assert text.count("Plotly.newPlot(") >= 3
    assert text.count('class="plotly-graph-div"') == 3


def test_where_no_grid_exists_there_is_no_picture(tmp_path):
    path = tmp_path / "gna.html"
    done = run("report", "--hw", "a100", "--pattern", "gna", "--grid", "64x64", "--set", "window=16x16", "-o", path)
    assert done.returncode == 0, done.stderr
    assert "No picture: no grid of blocks exists" in words_of(path)
    assert path.read_text(encoding="utf-8").count('class="plotly-graph-div"') == 2


def test_names_of_ones_own_are_harmless(tmp_path):
    gpu, path = tmp_path / "mine.toml", tmp_path / "mine.html"
    gpu.write_text('inherits = "h100_sxm"\nname = "mine"\ntitle = "<script>alert(1)</script> & co"\n')
    kernel = tmp_path / "kernel.toml"
    kernel.write_text('name = "my_kernel"\ninherits = "fa3"\n')
    done = run("report", "--hw", gpu, "--pattern", "causal", "--seq-q", 2048, "--kernel", kernel, "-o", path)
    assert done.returncode == 0, done.stderr
    text = path.read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; co" in text
    assert "my_kernel" in words_of(path)
    assert "From memory, without a source: mine: units.alu_lanes" in words_of(path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["report", "--hw", "h100", "--pattern", "causal", "-o", "a.png"], "a report is an .html file, got a.png"),
        (["report", "--hw", "h100", "--pattern", "causal", "-o", "none/a.html"], "no such folder"),
        (["report", "--hw", "h100", "--pattern", "causal"], "Missing option '-o'"),
        (["explain", "--hw", "h100", "--pattern", "causal", "-o", "a.svg"], "must end in one of .html, .png"),
    ],
)
def test_mistakes_are_one_line(arguments, words, tmp_path):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("suffix", ["html", "png"])
@pytest.mark.parametrize(
    "command",
    [
        ["explain", "--hw", "h100", "--pattern", "sliding_window", "--seq-q", "4096"],
        [
            "offload",
            "--hw",
            "h100",
            "--model",
            "llama-3.1-8b",
            "--pattern",
            "sliding_window",
            "--set",
            "window=2048",
            "--context",
            "32768",
            "--hit-rate",
            "0.9",
        ],
    ],
    ids=["explain", "offload"],
)
def test_other_commands_draw_too(command, suffix, tmp_path):
    path = tmp_path / f"picture.{suffix}"
    plain, drawn = run(*command), run(*command, "-o", path)
    assert drawn.returncode == 0, drawn.stderr
    assert drawn.stdout == plain.stdout
    assert path.read_bytes()[:9].lower() in (b"<!doctype", b"\x89png\r\n\x1a\n\x00")
