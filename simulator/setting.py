"""Setting: how a call is run, and how closely it is simulated."""

from __future__ import annotations

from typing import Literal, NamedTuple

from ..hwspecs import Clock

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
    replayed : bool
        The kernels of the call are nodes of a graph that is replayed: those behind the first follow each other faster.
    """

    clock: Clock = "sustained"
    fidelity: Fidelity = "fast"
    off: frozenset[str] = frozenset()
    warm: bool = False
    writes_cache: bool = False
    replayed: bool = False
