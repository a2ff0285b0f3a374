"""Remembered: schedules that were drawn at random, so that no kernel, GPU or what-if draws and cuts the same one again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from .schedule import TileSchedule

MOST_BYTES = 2**30
"""Of all schedules that are kept; the one that was not asked for longest goes first."""

_kept: OrderedDict[Hashable, TileSchedule] = OrderedDict()


def drawn(family: Any) -> bool:
    """Whether a family draws at random: has a seed, and no file of Q and K.

    >>> from simattn.workloads import Pattern
    >>> drawn(Pattern("vsa", published=True).family), drawn(Pattern("radial", published=True).family)
    (True, False)
    """
    return "seed" in family.__struct_fields__ and not getattr(family, "qk", "")


def remembered(key: tuple[Any, ...], build: Callable[[], TileSchedule]) -> TileSchedule:
    """The schedule that was built for an equal key, or else a new one.

    Parameters
    ----------
    key : tuple
        All that the schedule depends on, the family first.
    """
    try:
        hash(key)
    except TypeError:  # families of families hold their parameters in a dict
        return build()
    if not drawn(key[0]):
        return build()
    if key in _kept:
        _kept.move_to_end(key)
        return _kept[key]
    schedule = build()
    _kept[key] = schedule
    while len(_kept) > 1 and sum(map(_bytes, _kept.values())) > MOST_BYTES:
        _kept.popitem(last=False)
    return schedule


def _bytes(schedule: TileSchedule) -> int:
    """Of its runs."""
    runs = schedule.runs
    # Their ends are kept too.
    return sum(part.nbytes for part in (runs.row, runs.start, runs.length, runs.stop, runs.kind))
