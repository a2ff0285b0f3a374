"""Setting: how a call is run, and how closely it is simulated."""

from __future__ import annotations

from math import inf
from typing import Literal, NamedTuple

from ..facts import UserError
from ..hwspecs import Clock
from ..workloads import Host
from .clock import SERVED, Repeats

Fidelity = Literal["bound", "fast", "cycle"]


class Setting(NamedTuple):
    """How a call is run, and how closely it is simulated.

    Attributes
    ----------
    clock : str
        Clock regime: `sustained`, `burst` or `boost`.
    fidelity : str
        `bound`: closed form. `fast`: CTAs of known cost are dispatched. `cycle`: every visit on every SM.
    off : frozenset of str
        Stages of the waterfall that are left out: the machine without these limits. `ideal` cannot be.
    warm : bool
        L2 holds what it can of Q, K and V at the start, as after an earlier run of the same call.
    writes_cache : bool
        The timed call first writes its K and V into a paged cache, as serving frameworks do.
    clears_output : bool
        The timed call first sets what it returns to zero, as Transformer Engine does for packed sequences.
    replayed : bool
        The kernels of the call are nodes of a graph that is replayed: those behind the first follow each other faster.
    host : Host or None
        What the GPU waits for before the call: the building of a mask or of a plan.
    repeats : Repeats
        The calls among which this one is timed: the load under which the clock falls.
    """

    clock: Clock = "sustained"
    fidelity: Fidelity = "fast"
    off: frozenset[str] = frozenset()
    warm: bool = False
    writes_cache: bool = False
    clears_output: bool = False
    replayed: bool = False
    host: Host | None = None
    repeats: Repeats = SERVED


def mask_or_plan(ms: float, reuse: float = 1.0) -> Host | None:
    """The building of a mask or a plan, of which so many calls make use; None where it takes no time.

    Raises
    ------
    UserError
        A time below zero, less than one call, or calls that share nothing.

    Examples
    --------
    >>> mask_or_plan(24, reuse=60)
    Host(name='mask or plan', seconds=0.024, every=60.0)
    """
    if not 0 <= ms < inf:
        raise UserError(f"host_ms must be a time of 0 ms or more, got {ms:g}")
    if not 1 <= reuse < inf:
        raise UserError(f"reuse must be at least 1, got {reuse:g}")
    if reuse > 1 and not ms:
        raise UserError("reuse says how many calls share a mask or plan: give the time of that too, as host_ms")
    return Host("mask or plan", ms * 1e-3, every=float(reuse)) if ms else None
