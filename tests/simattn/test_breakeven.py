"""Where a pattern begins to pay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from simattn.facts import UserError
from simattn.simulator import predict

from simattn.breakeven import breakeven
from simattn.cli import simattn
from simattn.plots.breakeven import breakeven_figure


def test_the_passing_lies_between_losing_and_winning_points() -> None:
    found = breakeven("sliding_window", "a100", params={"window": 4096}, target=2.0)
    assert found.value is not None
    assert found.above
    values = [point.value for point in found.points]
    assert values == sorted(values)
    after = next(point for point in found.points if point.value == found.value)
    before = found.points[found.points.index(after) - 1]
    assert before.speedup < 2.0 <= after.speedup
    assert after.value <= 1.02 * before.value
    assert after.latency_ms == predict("sliding_window", "a100", params={"window": 4096}, seq_q=int(found.value)).latency_ms


def test_frames_of_a_video() -> None:
    found = breakeven("radial", "h100", target=2.0)
    assert {point.tokens % 3840 for point in found.points} == {256}
    assert len({point.value for point in found.points}) == len(found.points)
    assert found.above


def test_a_parameter_that_costs() -> None:
    found = breakeven("sliding_window", "h100", vary="window", seq_q=32768, target=4.0)
    assert found.above is False
    assert found.value is not None
    assert 3000 < found.value < 6000


def test_nowhere_and_everywhere() -> None:
    nowhere = breakeven("causal", "h100", target=2.0, low=1024, high=4096, points=3)
    assert (nowhere.value, nowhere.reuse) == (None, None)
    everywhere = breakeven("causal", "h100", target=0.5, low=1024, high=4096, points=3)
    assert (everywhere.value, everywhere.reuse) == (None, 1)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"vary": "decay_rate"}, "decay_rate is no number of the pattern to vary; these are: tokens, block, decay"),
        ({"target": 0.0}, "target must be above 0, got 0"),
        ({"low": 9000, "high": 2000}, r"the range of tokens must rise from above 0, got 9000\.\.2000"),
        ({"points": 1}, "points must be at least 2, got 1"),
    ],
)
def test_bad_questions(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        breakeven("radial", "h100", **options)


def test_command_line() -> None:
    args = ["breakeven", "--hw", "h100", "--pattern", "sliding_window", "--set", "window=4096", "--target", "2"]
    answer = json.loads(CliRunner().invoke(simattn, [*args, "--json"]).stdout)
    assert answer["schema"] == "simattn.breakeven/1"
    text = CliRunner().invoke(simattn, args).stdout
    assert f"2 x dense is reached from {answer['value']:,.0f} tokens" in text


NSA = {"q_heads": 64, "kv_heads": 4, "head_dim": 128, "head_dim_v": 128}
"""Of the benchmarks of XunhaoLai/native-sparse-attention-triton, which compare with FlashAttention-2."""


def test_nsa_with_all_that_it_runs_beside_attention() -> None:
    """The whole module, projections included, was measured on an H100 (its issue 9): slower than dense at 16K, faster at 32K.

    Ours passes dense at 14K, short of that: scores and selection take 10.4 ms at 32K where they were measured alone,
    and ours 6.3 of the 8.9 that run beside attention. Without the op counts of its code it was 8K.
    """
    found = breakeven("nsa", "h100", low=2048, high=131072, points=7, baseline="fa2", **NSA)
    assert found.above
    assert found.value is not None
    assert 13_000 < found.value < 32_768
    at_32k = predict("nsa", "h100", seq_q=32768, baseline="fa2", **NSA)
    beside = sum(op.latency_ms for op in at_32k.side)
    assert at_32k.speedup > 1.5
    assert 8 < beside < 15


@pytest.mark.parametrize(("tokens", "measured", "close"), [(16384, 1.44, 0.3), (32768, 4.58, 0.2), (131072, 60.15, 0.1)])
def test_attention_to_compressed_keys(tokens: int, measured: float, close: float) -> None:
    """README of the same repository, H100: `compressed_attention` without the scores for the selection."""
    found = predict("nsa", "h100", seq_q=tokens, baseline="fa2", **NSA)
    (part,) = (run for run in found.attention if run.op == "compressed")
    assert part.kernel == "triton_masking"
    assert part.latency_ms == pytest.approx(measured, rel=close)


@pytest.mark.parametrize(("tokens", "measured"), [(32768, 10.41), (65536, 36.87), (131072, 131.05)])
def test_selection_of_nsa(tokens: int, measured: float) -> None:
    """The same with scores, less without: two fifths short at 32K, a quarter at 128K.

    Products at the rate of cuBLAS and the bytes of a top-k stand for kernels that reach less.
    """
    found = predict("nsa", "h100", seq_q=tokens, baseline="fa2", **NSA)
    words = ("scores", "shares", "top blocks", "their numbers")
    assert 0.6 < sum(op.latency_ms for op in found.side if op.op.startswith(words)) / measured < 0.85


def test_the_picture(tmp_path: Path) -> None:
    page = tmp_path / "length.html"
    asked = [
        "breakeven",
        "--hw",
        "h200",
        "--pattern",
        "sliding_window",
        "--set",
        "window=1024",
        "--host-ms",
        "24",
        "--points",
        "3",
    ]
    answer = CliRunner().invoke(simattn, [*asked, "-o", str(page)])
    assert answer.exit_code == 0, answer.output
    found = breakeven("sliding_window", "h200", params={"window": 1024}, host_ms=24, points=3)
    assert found.words() in answer.stdout
    assert found.words() in page.read_text()
    drawn = breakeven_figure(found)
    assert [list(trace.y) for trace in drawn.data] == [
        [p.latency_ms for p in found.points],
        [p.side_ms for p in found.points],
        [p.dense_ms for p in found.points],
    ]
    assert (drawn.layout.xaxis.title.text, drawn.layout.yaxis.title.text) == ("tokens", "time, ms")
    still = CliRunner().invoke(simattn, [*asked, "-o", str(tmp_path / "length.png")])
    assert still.exit_code == 0, still.output
    refused = CliRunner().invoke(simattn, [*asked, "-o", str(tmp_path / "none" / "x.html")])
    assert isinstance(refused.exception, UserError)


def test_calls_that_must_share_a_mask() -> None:
    asked = ["breakeven", "--hw", "h200", "--pattern", "sliding_window", "--set", "window=1024", "--host-ms", "24"]
    answer = CliRunner().invoke(simattn, [*asked, "--to", "4096", "--points", "2"])
    found = breakeven("sliding_window", "h200", params={"window": 1024}, host_ms=24, high=4096, points=2)
    assert f"if {found.reuse} calls shared" in answer.stdout
    shared = breakeven(
        "sliding_window", "h200", params={"window": 1024}, host_ms=24, reuse=found.reuse, low=4000, high=4096, points=2
    )
    assert shared.points[-1].speedup >= 1
