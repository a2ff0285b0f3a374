"""All SMs: every CTA of a schedule dispatched, in launch order, to the first SM with a free slot.

CTAs that share an SM share its speed. The simulation is event-driven: its cost grows with the number of CTAs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ONE = np.uint64(1)
"""Makes an index unsigned: numba then need not check whether it counts from the end."""


def makespan(costs: Floats, first: Ints, rows: Ints, copies: Ints, sms: int, slots: int, speed: float) -> float:
    """Cycles until the last CTA is done.

    Parameters
    ----------
    costs : float array [rows]
        Cycles of each CTA, alone on an SM, in launch order within its group.
    first, rows, copies : int arrays [groups]
        First row, number of rows and number of copies of each group; copies are launched one after the other.
    sms, slots : int
        SMs, and CTAs that fit on one.
    speed : float
        Speed of two or more CTAs on an SM together, over that of one alone.

    Examples
    --------
    >>> one = np.array([1])
    >>> makespan(np.full(3, 100.0), np.array([0]), np.array([3]), one, sms=2, slots=1, speed=1.0)
    200.0
    """
    return float(_makespan(costs, first, rows, copies, sms, slots, speed))


@njit(cache=True)
def _makespan(costs: Any, first: Any, rows: Any, copies: Any, sms: int, slots: int, speed: float) -> float:
    # State of each SM: resident CTAs as virtual finishing times, its virtual clock, and when it was last looked at. The
    # virtual clock runs at the speed that each resident gets, so residents that come or go change no finishing time.
    finish = np.empty((sms, slots))
    resident = np.zeros(sms, np.int64)
    virtual = np.zeros(sms)
    looked = np.zeros(sms)
    size = 1
    while size < sms:
        size *= 2
    soonest, leader = np.full(2 * size, np.inf), np.full(2 * size, sms)
    now = 0.0
    filling = sms * slots
    placed = 0
    for g in range(len(first)):
        for _ in range(copies[g]):
            for r in range(first[g], first[g] + rows[g]):
                if placed < filling:
                    sm = placed % sms
                    finish[sm, resident[sm]] = costs[r]
                    resident[sm] += 1
                    placed += 1
                    if placed == filling:
                        for s in range(sms):
                            _place(soonest, leader, s, _due(finish, resident[s], virtual[s], 0.0, s, speed))
                    continue
                sm, now = leader[1], soonest[1]
                _advance(finish, resident, virtual, looked, sm, now)
                finish[sm, resident[sm]] = virtual[sm] + costs[r]
                resident[sm] += 1
                _place(soonest, leader, sm, _due(finish, resident[sm], virtual[sm], now, sm, speed))
    end = now
    for s in range(sms):
        due = _due(finish, resident[s], virtual[s], 0.0, s, speed) if placed < filling else soonest[size + s]
        while resident[s] > 0:
            end = max(end, due)
            _advance(finish, resident, virtual, looked, s, due)
            due = _due(finish, resident[s], virtual[s], looked[s], s, speed)
    return end


@njit(inline="always")
def _share(resident: int, speed: float) -> float:
    """Speed that each of the resident CTAs gets."""
    return 1.0 if resident <= 1 else speed / resident


@njit(inline="always")
def _due(finish: Any, resident: int, virtual: float, now: float, sm: int, speed: float) -> Any:
    """When the next CTA of an SM ends."""
    if resident == 0:
        return np.inf
    soonest = finish[sm, 0]
    for slot in range(1, resident):
        soonest = min(soonest, finish[sm, slot])
    return now + (soonest - virtual) / _share(resident, speed)


@njit(inline="always")
def _advance(finish: Any, resident: Any, virtual: Any, looked: Any, sm: int, now: float) -> None:
    """Run an SM up to `now`, when its next CTA ends, and take that CTA off."""
    last = 0
    for slot in range(1, resident[sm]):
        if finish[sm, slot] < finish[sm, last]:
            last = slot
    virtual[sm] = finish[sm, last]
    looked[sm] = now
    resident[sm] -= 1
    finish[sm, last] = finish[sm, resident[sm]]


@njit(inline="always")
def _place(soonest: Any, leader: Any, sm: int, when: float) -> None:
    """Enter an SM's next event into the tree of SMs, whose node n leads nodes 2n and 2n + 1; of equals the lower number leads."""
    node, first = np.uint64(len(soonest) // 2 + sm), sm
    soonest[node], leader[node] = when, first
    while node > ONE:
        # Of equals the left one, whose node is even.
        other = node ^ ONE
        sooner = (soonest[other] < when) | ((soonest[other] == when) & ((node & ONE) == ONE))
        when = soonest[other] if sooner else when
        first = leader[other] if sooner else first
        node >>= ONE
        soonest[node], leader[node] = when, first
