import pytest
from simattn.hwspecs import gpus
from simattn.simulator.clock import SERVED, Loop, clock_hz

H100 = gpus.load("h100")


def test_regimes():
    assert clock_hz(H100, "burst", 1.0, 1.0) == 1980e6
    assert clock_hz(H100, "boost", 1.0, 1.0) == 1830e6
    assert clock_hz(H100, "sustained", 10.0, 1.0) == pytest.approx(1470e6)


def test_short_and_idle_kernels_run_at_the_highest_clock():
    assert clock_hz(H100, "sustained", 0.0, 1.0) == 1980e6
    assert clock_hz(H100, "sustained", 10.0, 0.0) == 1980e6


def test_falls_with_time_and_load():
    clocks = [clock_hz(H100, "sustained", t, s) for t, s in ((1e-4, 0.5), (1e-2, 0.5), (1e-2, 0.9), (1, 0.9))]
    assert clocks == sorted(clocks, reverse=True)


ALONE = Loop(before=0, timed=1)
FILLING = Loop(before=6, timed=1, before_ms=25, timed_ms=100)
"""As `triton.testing.do_bench` with its defaults."""


@pytest.mark.parametrize(
    ("loop", "seconds", "load"),
    [
        (ALONE, 0.01, 0.005),
        (SERVED, 0.01, 0.06),
        (Loop(before=2, timed=30), 0.01, 0.17),
        # The benchmark fills 125 ms however short a call is; one that is longer than that is still made once.
        (FILLING, 0.0, 0.075),
        (FILLING, 0.01, 0.135),
        (FILLING, 1.0, 6.525),
    ],
)
def test_load_until_the_middle_of_the_timed_calls(loop, seconds, load):
    assert loop.load(seconds) == pytest.approx(load)


def test_a_call_between_rests_runs_faster_than_one_of_many():
    alone, served, filling = (clock_hz(H100, "sustained", 2e-3, 0.8, loop) for loop in (ALONE, SERVED, FILLING))
    assert alone > served > filling
    # However often, a burst is a burst.
    assert clock_hz(H100, "burst", 2e-3, 0.8, FILLING) == 1980e6
