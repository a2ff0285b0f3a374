"""The SM clock under load: short kernels run at the highest clock, long tensor-bound ones fall to what power allows."""

from __future__ import annotations

from ..hwspecs import Clock, GpuSpec


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


WARM_UPS, TIMED = 3, 6
"""Runs of a benchmark, back to back: those before its timer starts, and those that it times. As in ai-dynamo/aiconfigurator
(collector/vllm/collect_attn.py @15cb360), whose tables the times under load are fitted to."""


def clock_hz(spec: GpuSpec, regime: Clock, seconds: float, tensor_share: float) -> float:
    """Mean clock of a kernel, in Hz.

    Parameters
    ----------
    regime : str
        `burst`: the highest clock, as for a single short kernel. `boost`: the clock of the data sheet. `sustained`: that of a
        benchmark, which falls from burst to the clock that power allows.
    seconds : float
        Run time at the highest clock, of one run.
    tensor_share : float
        Share of that time in which the tensor cores work.

    Notes
    -----
    Power is averaged and limited by a controller that takes some time to act: until then the clock is the highest one, whatever
    the load is, and from then on the settled one. Of a kernel of 4 ms even the last of nine runs is over before it acts, of one
    of 12 ms all that are timed come after it.

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
    begin, end = WARM_UPS * seconds, (WARM_UPS + TIMED) * seconds
    fast = min(max(spec.chip.clock_settle_ms * 1e-3, begin), end) - begin
    slow = (end - begin - fast) * burst / settled
    return burst * (end - begin) / (fast + slow) if slow else burst
