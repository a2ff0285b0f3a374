"""simattn ring, and several GPUs in simattn e2e."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from simattn.cli import simattn


def answer(*words: str) -> dict:  # type: ignore[type-arg]
    result = CliRunner().invoke(simattn, [*words, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)  # type: ignore[no-any-return]


def test_ring(tmp_path: Path) -> None:
    trace = tmp_path / "ring.json"
    words = ("ring", "--hw", "h800", "--model", "llama-3.1-8b", "--seq-q", "65536", "--kernel", "fa2")
    zigzag = answer(*words, "-o", str(trace))
    assert (zigzag["schema"], zigzag["order"], zigzag["gpus"], len(zigzag["ranks"])) == ("simattn.ring/1", "zigzag", 8, 8)
    assert json.loads(trace.read_bytes())["traceEvents"]
    contiguous = answer(*words, "--order", "contiguous")
    assert contiguous["efficiency"] < zigzag["efficiency"] < 1
    text = CliRunner().invoke(simattn, words).output
    assert f"efficiency  {100 * zigzag['efficiency']:.1f} %" in text


def test_a_dense_ring_is_not_zigzag() -> None:
    result = CliRunner().invoke(simattn, ["ring", "--hw", "h800", "--seq-q", "65536", "--no-causal"])
    assert "the zigzag order is for causal attention" in str(result.exception)


def test_tensor_parallelism() -> None:
    words = ("e2e", "--hw", "h100", "--model", "llama-3.1-8b", "--pattern", "sliding_window", "--set", "window=4096")
    found = answer(*words, "--gpus", "4")
    assert found["gpus"] == 4
    assert "all-reduces" in [part["name"] for part in found["parts"]]
    assert "on 4 x h100_sxm" in CliRunner().invoke(simattn, [*words, "--gpus", "4"]).output
