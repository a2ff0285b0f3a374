import pytest
from simattn.hwspecs import gpus
from simattn.simulator.clock import SERVED, Repeats, clock_hz

H100 = gpus.load("h100")


def test_regimes():
    assert clock_hz(H100, "burst", 1.0, 1.0) == 1980e6
    assert clock_hz(H100, "boost", 1.0, 1.0) == 1830e6
    assert clock_hz(H100, "sustained", 10.0, 1.0) == pytest.approx(1470e6)


def test_short_and_idle_kernels_run_at_the_highest_clock():
    assert clock_hz(H100, "sustained", 0.0, 1.0) == 1980e6
    # Nine runs of it are over before power is limited.
    assert clock_hz(H100, "sustained", H100.chip.clock_settle_ms * 1e-3 / 9, 1.0) == 1980e6
    assert clock_hz(H100, "sustained", 10.0, 0.0) == 1980e6


def test_falls_with_time_and_load():
    clocks = [clock_hz(H100, "sustained", t, s) for t, s in ((1e-4, 0.5), (1e-2, 0.5), (1e-2, 0.9), (1, 0.9))]
    assert clocks == sorted(clocks, reverse=True)


ALONE = Repeats(before=0, timed=1)
FILLING = Repeats(before=6, timed=1, before_ms=25, timed_ms=100)
"""As `triton.testing.do_bench` with its defaults."""


@pytest.mark.parametrize(
    ("repeats", "seconds", "span"),
    [
        (ALONE, 0.01, (0, 0.01)),
        (SERVED, 0.01, (0.03, 0.09)),
        (Repeats(before=2, timed=30), 0.01, (0.02, 0.32)),
        # The benchmark fills 125 ms however short a call is; one that is longer than that is still made once.
        (FILLING, 0.0, (0.025, 0.125)),
        (FILLING, 0.01, (0.085, 0.185)),
        (FILLING, 1.0, (6.025, 7.025)),
    ],
)
def test_load_while_calls_are_timed(repeats, seconds, span):
    assert repeats.span(seconds) == pytest.approx(span)


def test_a_call_between_rests_runs_faster_than_one_of_many():
    alone, served, filling = (clock_hz(H100, "sustained", 6e-3, 0.8, repeats) for repeats in (ALONE, SERVED, FILLING))
    assert alone > served > filling
    # However often, a burst is a burst.
    assert clock_hz(H100, "burst", 6e-3, 0.8, FILLING) == 1980e6


def test_timed_runs_are_part_fast_and_part_slow():
    settle = H100.chip.clock_settle_ms * 1e-3
    # Six runs fit into the time before the clock falls: three to warm up, and three of the six that are timed.
    half = clock_hz(H100, "sustained", settle / 6, 1.0)
    assert half == pytest.approx(2 / (1 / 1980e6 + 1 / 1470e6))
    assert clock_hz(H100, "sustained", settle / 3, 1.0) == pytest.approx(1470e6)
