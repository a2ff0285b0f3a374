"""Time of a call: the median of many, taken on the device, with the host well ahead of it.

What is timed is the work on the device from the end of what was before it to its own end. For that the host has to be ahead:
calls are queued while the GPU is kept busy by an idle loop, so that no call waits for its launch. Calls take turns on copies of
their inputs that together are larger than L2; where copies are too small for that, a buffer is overwritten in between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple, Protocol

Call = Callable[[], Any]

FEWEST, MOST = 20, 100
"""Timed calls of a case: constants of the clock model are of kernels timed some twenty times over."""
QUEUE = 600
"""Operations that the host can queue without waiting for the GPU: drivers take about a thousand launches."""
WARM_UP_S = 0.02
"""Calls are repeated for so long before any is timed, once compiled."""


class Batch(NamedTuple):
    """What a timer saw of some calls in a row."""

    times_ms: list[float]
    host_bound: bool = False
    """The device had to wait for the host: the times contain launches, or host work."""
    clock_mhz: float | None = None
    """Median SM clock while they ran."""
    power_w: float | None = None


class Timer(Protocol):
    """Runs calls one after another and times each."""

    name: str

    def batch(self, calls: Sequence[Call], count: int, between: Call | None = None) -> Batch:
        """Time `count` calls, taken in turn from `calls`; `between` runs before each and is not timed."""


class Timing(NamedTuple):
    """The time of a call, in ms."""

    median_ms: float
    spread: dict[str, float]
    """min, p10, p90, max and mean, in ms."""
    repeats: int
    host_bound: bool
    clock_mhz: float | None
    power_w: float | None


class HostTimer:
    """Times calls by the host's clock: for the interpreter, where a call has ended when it returns."""

    name = "host"

    def __init__(self, now: Callable[[], float] = perf_counter) -> None:
        self._now = now

    def batch(self, calls: Sequence[Call], count: int, between: Call | None = None) -> Batch:
        """As in Timer."""
        times = []
        for turn in range(count):
            if between:
                between()
            begin = self._now()
            calls[turn % len(calls)]()
            times.append((self._now() - begin) * 1e3)
        return Batch(times)


class DeviceTimer:
    """Times calls by CUDA events around each, queued behind an idle loop.

    Parameters
    ----------
    torch : module
        PyTorch with a CUDA device.
    clock_hz : float
        Highest clock: the idle loop counts cycles.
    nvml : Nvml, optional
        Read for clock and power while the calls run.
    """

    name = "cuda-events"

    def __init__(self, torch: Any, clock_hz: float, nvml: Any = None) -> None:
        self._torch, self._clock_hz, self._nvml = torch, clock_hz, nvml
        self._host_s = 2e-4

    def batch(self, calls: Sequence[Call], count: int, between: Call | None = None) -> Batch:
        """As in Timer; tries three times, with more idle time each, until the host is ahead."""
        for _ in range(3):
            seen, host_s = self._once(calls, count, between)
            # What queueing took, once more: the next batch of like calls then needs one try only.
            self._host_s = host_s / count
            if not seen.host_bound:
                break
        return seen

    def _once(self, calls: Sequence[Call], count: int, between: Call | None) -> tuple[Batch, float]:
        cuda = self._torch.cuda
        begins, ends = ([cuda.Event(enable_timing=True) for _ in range(count)] for _ in range(2))
        cuda.synchronize()
        idle_s = min(2 * self._host_s * count + 1e-3, 2.0)
        cuda._sleep(int(idle_s * self._clock_hz))
        start = perf_counter()
        for turn in range(count):
            if between:
                between()
            begins[turn].record()
            calls[turn % len(calls)]()
            ends[turn].record()
        host_s = perf_counter() - start
        bound = bool(begins[0].query())
        clocks, powers = [], []
        while not ends[-1].query():
            if begins[0].query() and self._nvml is not None:
                clocks.append(self._nvml.clock_mhz())
                powers.append(self._nvml.power_w())
        cuda.synchronize()
        times = [begin.elapsed_time(end) for begin, end in zip(begins, ends, strict=True)]
        return Batch(times, bound, _median(clocks), _median(powers)), host_s


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def measure(
    timer: Timer,
    calls: Sequence[Call],
    *,
    between: Call | None = None,
    budget_s: float = 0.3,
    fewest: int = FEWEST,
    most: int = MOST,
) -> Timing:
    """Warm up, decide how many calls the budget allows, and time them.

    Parameters
    ----------
    timer : Timer
        What times a call.
    calls : sequence of callable
        The same call on different copies of its inputs, taken in turn.
    between : callable, optional
        Runs before each call, not timed: what empties L2.
    budget_s : float
        Time that the calls may take together, in s; `fewest` calls are made in any case, `most` at best.
    """
    first = timer.batch(calls, 1, between).times_ms[0]
    # An interpreted call is never faster the second time; a compiled one is, after it has been compiled.
    second = timer.batch(calls, 1, between).times_ms[0] if most > 1 else first
    if most > 1:
        timer.batch(calls, max(1, min(fewest, round(WARM_UP_S * 1e3 / max(second, 1e-3)))), between)
    count = min(max(fewest, round(budget_s * 1e3 / max(second, 1e-6))), most)
    seen = timer.batch(calls, count, between)
    return Timing(median(seen.times_ms), spread(seen.times_ms), count, seen.host_bound, seen.clock_mhz, seen.power_w)


def spread(times_ms: Sequence[float]) -> dict[str, float]:
    """Order statistics of times, in ms.

    >>> spread([3.0, 1.0, 2.0])
    {'min': 1.0, 'p10': 1.0, 'p90': 3.0, 'max': 3.0, 'mean': 2.0}
    """
    ordered = sorted(times_ms)
    last = len(ordered) - 1
    return {
        "min": ordered[0],
        "p10": ordered[round(0.1 * last)],
        "p90": ordered[round(0.9 * last)],
        "max": ordered[-1],
        "mean": sum(ordered) / len(ordered),
    }
