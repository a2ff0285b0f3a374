"""Ring attention against its closed form, and against measured rings (zhuzilin/ring-flash-attention README: 8 x 8k tokens)."""

from __future__ import annotations

import pytest
from simattn.facts import UserError
from simattn.hwspecs import gpus
from simattn.simulator import ring as rings
from simattn.simulator.ring import ring
from simattn.workloads import AttentionProblem

WHOLE = AttentionProblem(q_heads=32, kv_heads=8, seq_q=8 * 8192, head_dim=128, causal=True)

MEASURED = {
    ("h800", "contiguous"): 52.1,
    ("h800", "zigzag"): 85.2,
    ("h800", "striped"): 74.4,
    ("a100", "contiguous"): 51.4,
    ("a100", "zigzag"): 81.7,
}
"""Iterations a second over an eighth of what FlashAttention-2 reaches on one GPU, in percent."""

ALONE = 1 / 373.4
"""Seconds of FlashAttention-2 on the part of one A100, measured beside the ring."""


MERGES = "47.2 here, and 46.4 and 77.4 given the time of its attention: a merge takes 0.4 ms less there than we count"


@pytest.mark.parametrize(
    ("gpu", "order"),
    [
        pytest.param(*case, marks=pytest.mark.xfail(strict=True, reason=MERGES) if case == ("a100", "contiguous") else ())
        for case in MEASURED
    ],
)
def test_efficiency_is_the_measured_one(gpu: str, order: str) -> None:
    found = ring(gpus.load(gpu), WHOLE, gpus=8, order=order, kernel="fa2")  # type: ignore[arg-type]
    assert 100 * found.efficiency == pytest.approx(MEASURED[gpu, order], abs=4)


@pytest.mark.xfail(strict=True, reason=MERGES)
def test_rings_on_a100_given_the_time_of_their_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a ring adds is the more the faster the attention is, and ours is 13 % slower there than the measured one.

    The striped ring is not held to its 69.6: its kernels on 8,191 tokens are slower than we know.
    """
    ours = ring(gpus.load("a100"), WHOLE, gpus=8, kernel="fa2").alone_seconds
    attention = rings._Calls.attention
    monkeypatch.setattr(rings._Calls, "attention", lambda self, *call: attention(self, *call) * ALONE / ours)
    for order, measured in (("zigzag", 81.7), ("contiguous", 51.4)):
        found = ring(gpus.load("a100"), WHOLE, gpus=8, order=order, kernel="fa2")  # type: ignore[arg-type]
        assert found.alone_seconds == pytest.approx(ALONE)
        assert 100 * found.efficiency == pytest.approx(measured, abs=4)


def test_merges_by_hand() -> None:
    """Bytes of a value at the rate of a copy and instructions that find it; the last GPU merges all queries seven times."""
    spec = gpus.load("h800")
    found = ring(spec, WHOLE, gpus=8, order="zigzag", kernel="fa2").ranks[-1]
    values, rows = 8192 * 32 * 128, 8192 * 32
    moved = values * (7 * 38 + 6 + 6) + rows * 7 * 52
    instructions = values * (7 * (11 + 28 + 2 * 14) + 11)
    issued = instructions / 32 / (spec.chip.sm_count * 4 * spec.clock_hz("burst"))
    launched = (7 * 9 + 2) * spec.launch.kernel_us * 1e-6
    assert found.merges == pytest.approx(moved / (spec.mem.dram.gbps * 1e9 * spec.eff.dram_copy) + issued + launched)


@pytest.mark.parametrize("count", [2, 4, 8])
def test_ideal_causal_ring_waits_for_its_last_gpu(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Of P parts the last GPU computes P - 1/2, and the mean one P / 2."""

    class Ideal(rings._Calls):
        def attention(self, queries: int, keys: int, causal: bool) -> float:
            return queries * keys * (0.5 if causal else 1.0) * 1e-9

        def elementwise(self, kernels: rings.Elementwise, queries: int) -> float:
            return 0.0

        def send(self) -> float:
            return 0.0

    monkeypatch.setattr(rings, "_Calls", Ideal)
    spec = gpus.load("h100")
    assert ring(spec, WHOLE, gpus=count).efficiency == pytest.approx(count / 2 / (count - 0.5))
    assert ring(spec, WHOLE, gpus=count, order="zigzag").efficiency == pytest.approx(1)
    assert ring(spec, WHOLE, gpus=count, order="striped").efficiency == pytest.approx(1)


def test_only_an_even_order_keeps_all_gpus_busy() -> None:
    for order, idle in (("contiguous", 0.4), ("zigzag", 0.0)):
        found = ring(gpus.load("h100"), WHOLE, gpus=8, order=order)  # type: ignore[arg-type]
        first, *_, last = found.ranks
        assert first.waiting > idle * found.seconds
        assert last.waiting == pytest.approx(0, abs=0.02 * found.seconds)
        assert last.attention + last.merges + last.waiting == pytest.approx(found.seconds)


def test_timeline_has_every_stream_and_every_link() -> None:
    found = ring(gpus.load("h100"), WHOLE, gpus=4, order="zigzag", iterations=1)
    assert set(found.timeline.graph.places()) == {f"gpu {r}" for r in range(4)} | {
        f"gpu {r} to gpu {(r + 1) % 4}" for r in range(4)
    }
    assert sum(b'"ph":"X"' in line for line in found.timeline.to_json().splitlines()) == 4 * (3 + 2 * 4 + 1)


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
        (WHOLE, {"gpus": 8, "order": "zag"}, "unknown order 'zag'"),
    ],
)
def test_what_cannot_be_a_ring(problem: AttentionProblem, options: dict, says: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(UserError, match=says):
        ring(gpus.load("h100"), problem, **options)


def test_gpus_without_a_link_of_their_own_send_over_the_host() -> None:
    nvlink, host = (ring(gpus.load(gpu), WHOLE, gpus=2, kernel="fa2") for gpu in ("a100", "rtx_4090"))
    assert host.ranks[0].sending > 8 * nvlink.ranks[0].sending
