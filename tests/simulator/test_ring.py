"""Ring attention against its closed form, and against measured rings (zhuzilin/ring-flash-attention README: 8 x 8k tokens)."""

from __future__ import annotations

import pytest
from simattn.facts import UserError
from simattn.hwspecs import gpus
from simattn.simulator import ring as rings
from simattn.simulator.ring import ring
from simattn.workloads import AttentionProblem

WHOLE = AttentionProblem(q_heads=32, kv_heads=8, seq_q=8 * 8192, head_dim=128, causal=True)

MEASURED = {("h800", "contiguous"): 52.1, ("h800", "zigzag"): 85.2, ("a100", "contiguous"): 51.4}
"""Iterations a second over an eighth of what FlashAttention-2 reaches on one GPU, in percent."""


@pytest.mark.parametrize(("gpu", "order"), MEASURED)
def test_efficiency_is_the_measured_one(gpu: str, order: str) -> None:
    found = ring(gpus.load(gpu), WHOLE, gpus=8, order=order, kernel="fa2")  # type: ignore[arg-type]
    assert 100 * found.efficiency == pytest.approx(MEASURED[gpu, order], abs=4)


@pytest.mark.parametrize("count", [2, 4, 8])
def test_ideal_causal_ring_waits_for_its_last_gpu(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Of P parts the last GPU computes P - 1/2, and the mean one P / 2."""

    class Ideal(rings._Calls):
        def attention(self, queries: int, keys: int, causal: bool) -> float:
            return queries * keys * (0.5 if causal else 1.0) * 1e-9

        def merge(self, queries: int, *, first: bool) -> float:
            return 0.0

        def send(self) -> float:
            return 0.0

    monkeypatch.setattr(rings, "_Calls", Ideal)
    spec = gpus.load("h100")
    assert ring(spec, WHOLE, gpus=count).efficiency == pytest.approx(count / 2 / (count - 0.5))
    assert ring(spec, WHOLE, gpus=count, order="zigzag").efficiency == pytest.approx(1)


def test_a_slow_link_shows() -> None:
    spec = gpus.load("h800", {"link": {"peer": {"kind": "pcie", "gbps": 5, "eff": 0.8}}})
    slow = ring(spec, WHOLE, gpus=8, order="zigzag", kernel="fa2")
    moved = 2 * 8192 * 8 * 128 * 2 / 4e9
    assert slow.seconds >= 7 * moved * (1 - 1e-9)
    assert slow.efficiency < 0.25


@pytest.mark.parametrize(
    ("problem", "options", "says"),
    [
        (WHOLE, {"gpus": 1}, "at least 2 GPUs, got 1"),
        (WHOLE, {"gpus": 7}, "divisible by 14"),
        (AttentionProblem(q_heads=8, seq_q=8192, head_dim=128), {"gpus": 8, "order": "zigzag"}, "zigzag order is for causal"),
    ],
)
def test_what_cannot_be_a_ring(problem: AttentionProblem, options: dict, says: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(UserError, match=says):
        ring(gpus.load("h100"), problem, **options)


def test_gpu_without_a_link() -> None:
    with pytest.raises(UserError, match="has no peer link"):
        ring(gpus.load("rtx_4090"), WHOLE, gpus=2)
