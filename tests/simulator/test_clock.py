import pytest
from simattn.hwspecs import gpus
from simattn.simulator.clock import clock_hz

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


def test_timed_runs_are_part_fast_and_part_slow():
    settle = H100.chip.clock_settle_ms * 1e-3
    # Six runs fit into the time before the clock falls: three to warm up, and three of the six that are timed.
    half = clock_hz(H100, "sustained", settle / 6, 1.0)
    assert half == pytest.approx(2 / (1 / 1980e6 + 1 / 1470e6))
    assert clock_hz(H100, "sustained", settle / 3, 1.0) == pytest.approx(1470e6)
