"""Timers, by clocks and devices that are made up."""

from types import SimpleNamespace

import pytest
from simattn.validation.bench.timer import FEWEST, MOST, Batch, DeviceTimer, HostTimer, measure, spread


class Clock:
    """Time passes only while calls run."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def calls_of(clock, seconds):
    """A call that takes each of the given times in turn, and stays with the last."""
    left = list(seconds)

    def call():
        clock.now += left.pop(0) if len(left) > 1 else left[0]

    return call


def test_median_of_many_after_warm_up():
    clock = Clock()
    slow_at_first = calls_of(clock, [5.0, 0.010, 0.010, 0.010, 0.5, *[0.012] * 10, 0.011])
    found = measure(HostTimer(clock), [slow_at_first], budget_s=0.2, fewest=5, most=50)
    assert found.repeats == 20
    assert found.median_ms == pytest.approx(11.0, abs=1.01)
    assert found.spread["max"] <= 500
    assert found.spread["min"] <= found.spread["p10"] <= found.median_ms <= found.spread["p90"]


@pytest.mark.parametrize(("seconds", "repeats"), [(10.0, FEWEST), (1e-6, MOST), (0.005, 60)])
def test_number_of_calls(seconds, repeats):
    clock = Clock()
    assert measure(HostTimer(clock), [calls_of(clock, [seconds])], budget_s=0.3).repeats == repeats


def test_inputs_take_turns_and_what_is_between_is_not_timed():
    clock, seen = Clock(), []

    def call(name):
        seen.append(name)
        clock.now += 0.001

    def flush():
        seen.append("-")
        clock.now += 1.0

    batch = HostTimer(clock).batch([lambda: call("a"), lambda: call("b")], 3, flush)
    assert seen == ["-", "a", "-", "b", "-", "a"]
    assert batch.times_ms == pytest.approx([1.0] * 3)


def test_interpreted_cases_run_once():
    clock, count = Clock(), []
    found = measure(HostTimer(clock), [lambda: count.append(1)], fewest=1, most=1)
    assert (found.repeats, len(count)) == (1, 2)


def test_spread_of_one():
    assert set(spread([2.0]).values()) == {2.0}


class Device:
    """A GPU with a queue: what is queued runs one after another, and ends at a time that the host can ask for."""

    def __init__(self, host_s_per_call, kernel_s):
        self.host, self.busy_until, self.sleeps = 0.0, 0.0, []
        self.host_s_per_call, self.kernel_s = host_s_per_call, kernel_s
        device = self

        class Event:
            def __init__(self, enable_timing):
                self.at = None

            def record(self):
                self.at = max(device.busy_until, device.host)

            def query(self):
                device.host += 1e-6
                return device.host >= self.at

            def elapsed_time(self, other):
                return (other.at - self.at) * 1e3

        self.torch = SimpleNamespace(cuda=SimpleNamespace(Event=Event, synchronize=self.synchronize, _sleep=self.sleep))

    def synchronize(self):
        self.host = max(self.host, self.busy_until)

    def sleep(self, cycles):
        self.sleeps.append(cycles / 1e9)
        self.busy_until = max(self.busy_until, self.host) + cycles / 1e9

    def call(self):
        self.host += self.host_s_per_call
        self.busy_until = max(self.busy_until, self.host) + self.kernel_s


@pytest.fixture
def device_time(monkeypatch):
    def make(device):
        monkeypatch.setattr("simattn.validation.bench.timer.perf_counter", lambda: device.host)
        return DeviceTimer(device.torch, 1e9)

    return make


def test_launches_are_no_part_of_short_kernels(device_time):
    device = Device(host_s_per_call=50e-6, kernel_s=3e-6)
    found = device_time(device).batch([device.call], 40)
    assert not found.host_bound
    assert found.times_ms == pytest.approx([0.003] * 40)


def test_slow_hosts_get_more_idle_time(device_time):
    device = Device(host_s_per_call=2e-3, kernel_s=3e-6)
    found = device_time(device).batch([device.call], 40)
    assert len(device.sleeps) == 2
    assert device.sleeps[1] > 40 * 2e-3 > device.sleeps[0]
    assert not found.host_bound
    assert found.times_ms == pytest.approx([0.003] * 40)


def test_calls_that_wait_for_the_device_are_marked(device_time):
    device = Device(host_s_per_call=1e-6, kernel_s=3e-6)

    def waiting():
        device.call()
        device.synchronize()

    assert device_time(device).batch([waiting], 5).host_bound


def test_clock_is_read_while_the_calls_run(device_time):
    device = Device(host_s_per_call=1e-6, kernel_s=1e-3)
    timer = device_time(device)
    timer._nvml = SimpleNamespace(clock_mhz=lambda: 1500, power_w=lambda: None)
    found = timer.batch([device.call], 5)
    assert isinstance(found, Batch)
    assert (found.clock_mhz, found.power_w) == (1500, None)
