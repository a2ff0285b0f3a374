"""The SM clock under load: short kernels run at the highest clock, long tensor-bound ones fall to what power allows."""

from __future__ import annotations

from typing import NamedTuple

from ..hwspecs import Clock, GpuSpec


class Repeats(NamedTuple):
    """Calls made back to back around those that are timed: the load under which the clock falls.

    Calls first, as many as were asked for; of a benchmark that fills a time instead, as many as fit into it.

    Attributes
    ----------
    before, timed : float
        Calls before the timed ones, and calls that are timed, at the least.
    before_ms, timed_ms : float
        Time that is filled with further calls before, and with timed ones, in milliseconds.

    Examples
    --------
    >>> Repeats(before=2, timed=30).span(0.001)
    (0.002, 0.032)
    >>> Repeats(before=6, timed=1, before_ms=25, timed_ms=100).span(1e-3)
    (0.031, 0.131)
    """

    before: float = 3
    timed: float = 6
    before_ms: float = 0
    timed_ms: float = 0

    def span(self, seconds: float) -> tuple[float, float]:
        """When the timer starts and stops, in seconds under load, for a call of so many seconds."""
        begin = self.before * seconds + self.before_ms * 1e-3
        return begin, begin + max(self.timed * seconds, self.timed_ms * 1e-3)


SERVED = Repeats()
"""Three calls, then six that are timed: how the tables of aiconfigurator were collected, from which clocks are calibrated."""

SETTLED = Repeats(before=0, timed=1, before_ms=1e6)
"""A call on a GPU that has been under load for long."""


def settled_hz(spec: GpuSpec, tensor_share: float) -> float:
    """Clock of a long run, in Hz: the highest one whose power the board sustains.

    Power above idle is taken as the share of time in which the tensor cores work, times the cube of the clock (voltage follows
    frequency). A GEMM, whose share is near 1, settles at the sustained clock of the spec; a share s allows s^(-1/3) times that.

    >>> from simattn.hwspecs import gpus
    >>> h100 = gpus.load("h100")
    >>> [round(settled_hz(h100, share) / 1e6) for share in (1, 0.7, 0.1)]
    [1470, 1656, 1980]
    """
    burst, sustained = spec.clock_hz("burst"), spec.clock_hz("sustained")
    return min(burst, float(sustained * min(max(tensor_share, 1e-9), 1.0) ** (-1 / 3)))


def clock_hz(spec: GpuSpec, regime: Clock, seconds: float, tensor_share: float, repeats: Repeats = SERVED) -> float:
    """Mean clock of the calls that are timed, in Hz.

    Parameters
    ----------
    regime : str
        `burst`: the highest clock, as for a single short kernel. `boost`: the clock of the data sheet. `sustained`: falls
        from burst to the clock that power allows, with time under load.
    seconds : float
        Run time of one call at the highest clock.
    tensor_share : float
        Share of that time in which the tensor cores work.
    repeats : Repeats
        The calls around it.

    Notes
    -----
    Power is averaged and limited by a controller that takes some time to act: until then the clock is the highest one, whatever
    the load is, and from then on the settled one. Of a call of 4 ms even the last of nine is over before it acts; of one of
    12 ms all six that are timed come after it.

    Examples
    --------
    >>> from simattn.hwspecs import gpus
    >>> h100 = gpus.load("h100")
    >>> [round(clock_hz(h100, "sustained", t, 1.0) / 1e6) for t in (0.004, 0.008, 0.016)]
    [1980, 1608, 1470]
    """
    if regime != "sustained":
        return spec.clock_hz(regime)
    burst, settled = spec.clock_hz("burst"), settled_hz(spec, tensor_share)
    begin, end = repeats.span(seconds)
    if end == begin:
        return burst
    fast = min(max(spec.chip.clock_settle_ms * 1e-3, begin), end) - begin
    slow = end - begin - fast
    return burst * (end - begin) / (fast + slow * burst / settled)
