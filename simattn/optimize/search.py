"""The search: closed forms rule out what cannot belong to the front, and the rest is simulated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .call import Tiles
from .candidate import Configuration, Merit, front_of, merit

Progress = Callable[[int, int], None]
"""Told how many candidates were simulated, and how many there are to be."""


class Candidates(NamedTuple):
    """Candidates that differ in one array of parameters; `merit` is what closed forms say: no time is below it."""

    params: dict[str, Any]
    """What they have in common."""
    tiles: Tiles | None
    strides: NDArray[np.int64] | None
    """[candidates, axes], or None where there is but one candidate."""
    merit: Merit

    def of(self, index: int) -> Candidate:
        """One of them."""
        own = {} if self.strides is None else {"stride": tuple(map(int, self.strides[index]))}
        ms, shared, keys = (values[index] for values in _arrays(self.merit))
        return Candidate(self.params | own, self.tiles, Merit(float(ms), int(shared), float(keys)))


class Candidate(NamedTuple):
    """One candidate."""

    params: dict[str, Any]
    tiles: Tiles | None
    merit: Merit


class Found(NamedTuple):
    """Simulated configurations, fastest first, and how many candidates there were."""

    configurations: list[Configuration]
    distinct: int
    unresolved: int


def search(
    candidates: Callable[[], Iterable[Candidates]],
    simulate: Callable[[Candidate], Configuration],
    *,
    by_keys: bool,
    every: bool,
    most: int,
    progress: Progress,
) -> Found:
    """Find the front.

    First the front that the closed forms alone would give is simulated. A candidate that one of these beats even by its closed
    form is ruled out; the rest is simulated in the order of the closed forms, each unless it has been ruled out since.

    Parameters
    ----------
    candidates : callable
        Gives them anew at each call.
    by_keys : bool
        Whether what a query sees counts.
    every : bool
        Nothing is ruled out.
    most : int
        Candidates to simulate at most.
    """
    simulated: dict[Any, Configuration] = {}

    def look(candidate: Candidate, total: int) -> None:
        key = (candidate.tiles, tuple(candidate.params.items()))
        if key not in simulated:
            simulated[key] = simulate(candidate)
            progress(len(simulated), total)

    firsts: list[Candidate] = []
    distinct = 0
    for part in candidates():
        distinct += np.size(part.merit.ms)
        firsts.extend(part.of(int(i)) for i in front_of(_arrays(part.merit)))
    if not firsts:
        return Found([], 0, 0)
    seeds = (firsts if every else [firsts[i] for i in front_of(_stacked(firsts))])[:most]
    for candidate in seeds:
        look(candidate, len(seeds))
    front = _front([*simulated.values()], by_keys)
    left = sorted(_unbeaten(candidates(), merit(front, by_keys)), key=lambda candidate: candidate.merit.ms)
    unresolved = 0
    for candidate in left:
        if candidate.merit.beaten_by(merit(front, by_keys)).any():
            continue
        if len(simulated) >= most:
            unresolved += 1
            continue
        before = len(simulated)
        look(candidate, len(left))
        if len(simulated) > before:
            front = _front([*front, simulated[next(reversed(simulated))]], by_keys)
    found = sorted(simulated.values(), key=lambda c: (c.latency_ms, c.shared))
    return Found(found, distinct, unresolved)


def _arrays(values: Merit) -> Merit:
    return Merit(*(np.atleast_1d(v) for v in np.broadcast_arrays(*values)))


def _stacked(candidates: list[Candidate]) -> Merit:
    return Merit(*(np.array(values) for values in zip(*(c.merit for c in candidates), strict=True)))


def _front(found: list[Configuration], by_keys: bool) -> list[Configuration]:
    return [found[i] for i in front_of(merit(found, by_keys))]


def _unbeaten(parts: Iterable[Candidates], best: Merit) -> Iterator[Candidate]:
    """Candidates that no simulated configuration is known to beat."""
    for part in parts:
        values = _arrays(part.merit)
        left = np.ones(len(values.ms), bool)
        for row in zip(*best, strict=True):
            left &= ~values.beaten_by(Merit(*row))
        yield from (part.of(int(i)) for i in np.flatnonzero(left))
