"""Decoding with keys and values in host memory: closed forms, and what must hold of any answer."""

from __future__ import annotations

from typing import Any

import pytest
from simattn.facts import UserError
from simattn.simulator.decode import Layer, decode_step
from simattn.simulator.offload import Offload, offload
from simattn.simulator.system import run

LAYER = Layer(10e-6, 5e-6, 20e-6, 40e-6)


def seconds(fetch: float, *, prefetch: bool = False) -> float:
    return run(decode_step([LAYER] * 32, 1e-4, fetch=[fetch] * 32, prefetch=prefetch)).seconds


def test_without_misses_a_step_is_the_sum_of_its_kernels() -> None:
    assert seconds(0.0) == pytest.approx(32 * sum(LAYER) + 1e-4)


def test_without_prefetch_transfers_come_on_top() -> None:
    assert seconds(70e-6) == pytest.approx(32 * (sum(LAYER) + 70e-6) + 1e-4)


def test_prefetched_transfers_hide_under_a_layer() -> None:
    """All but the first layer's, as long as a layer is longer than they are; else the link sets the pace."""
    assert seconds(30e-6, prefetch=True) == pytest.approx(32 * sum(LAYER) + 30e-6 + 1e-4)
    slow = seconds(200e-6, prefetch=True)
    assert 32 * 200e-6 < slow < 32 * 200e-6 + 3 * sum(LAYER) + 1e-4


def answer(**options: Any) -> Offload:
    given = {"context": 65536, "hit_rate": 0.9, "params": {"window": 4096}, **options}
    return offload("llama-3.1-8b", "sliding_window", "a800", **given)


def test_capacity_follows_from_bytes_a_token() -> None:
    found = answer(kv_memory_gib=21.0)
    a_token = 32 * 8 * 256 * 2
    assert found.budget == 4096
    assert found.resident is not None
    assert found.resident.batch == int(21 * 2**30 // (65536 * a_token))
    assert found.offloaded.batch == int(21 * 2**30 // (4096 * a_token))
    missed = 0.1 * found.offloaded.batch * 4096 * a_token
    assert found.offloaded.host_link_ms >= missed / 31.5e9 * 1e3


def test_more_hits_are_faster_and_break_even_is_where_both_are_equal() -> None:
    rates = [answer(hit_rate=hit).offloaded.tokens_per_s for hit in (0.5, 0.8, 0.95, 1.0)]
    assert rates == sorted(rates)
    found = answer()
    assert found.break_even_hit is not None
    even = answer(hit_rate=found.break_even_hit)
    assert even.speedup == pytest.approx(1, rel=0.02)
    bound = answer(hit_rate=found.link_bound_below).offloaded
    assert bound.host_link_ms == pytest.approx(bound.step_ms - bound.host_link_ms, rel=0.05)


def test_prefetch_never_hurts() -> None:
    assert answer(prefetch=True).offloaded.step_ms <= answer().offloaded.step_ms


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"hit_rate": 1.5}, r"hit_rate must lie in 0\.\.1, got 1\.5"),
        ({"link_share": 0.0}, "link_share must lie between 0 and 1, got 0"),
        ({"kv_memory_gib": 0.1}, r"0\.1 GiB do not hold what one sequence keeps on the GPU, 0\.5 GiB"),
    ],
)
def test_bad_questions(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        answer(**options)


def test_weights_have_to_fit() -> None:
    with pytest.raises(UserError, match=r"the weights of llama-3\.1-70b need 131 GiB, a800_sxm has 80"):
        offload("llama-3.1-70b", "sliding_window", "a800", context=65536, hit_rate=0.9, params={"window": 4096})
