"""The SM clock under load: short kernels run at the highest clock, long tensor-bound ones fall to what power allows."""

from __future__ import annotations

from math import exp

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


def clock_hz(spec: GpuSpec, regime: Clock, seconds: float, tensor_share: float) -> float:
    """Mean clock of a kernel, in Hz.

    Parameters
    ----------
    regime : str
        `burst`: the highest clock, as for a single short kernel. `boost`: the clock of the data sheet. `sustained`: falls
        from burst towards the clock that power allows, with run time.
    seconds : float
        Run time at the highest clock, of one run; benchmarks run a kernel some twenty times, back to back.
    tensor_share : float
        Share of that time in which the tensor cores work.

    Examples
    --------
    >>> from simattn.hwspecs import gpus
    >>> h100 = gpus.load("h100")
    >>> [round(clock_hz(h100, "sustained", t, 1.0) / 1e6) for t in (0, 0.009, 1)]
    [1980, 1658, 1470]
    """
    if regime != "sustained":
        return spec.clock_hz(regime)
    burst, floor = spec.clock_hz("burst"), settled_hz(spec, tensor_share)
    return burst - (burst - floor) * (1 - exp(-seconds * 1e3 / spec.chip.clock_settle_ms))
