"""Candidates and what became of them: the terms in which a search is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from ..simulator import Run
from ..workloads import Attention

SCHEMA = "simattn.optimize/1"
Bools = NDArray[np.bool_]


class Merit(NamedTuple):
    """What candidates are compared by; scalars, or arrays of the same length."""

    ms: Any
    """Less is better."""
    shared: Any
    """Queries that share one window: less is better, for windows of neighbours then overlap more."""
    keys: Any
    """Keys that a query sees on the mean: more is better."""

    def beaten_by(self, other: Merit) -> Any:
        """Whether another candidate is nowhere worse."""
        return (other.ms <= self.ms) & (other.shared <= self.shared) & (other.keys >= self.keys)


def front_of(merits: Merit) -> NDArray[np.int64]:
    """Candidates that no other one beats, of equal ones the first: indices, fastest first.

    >>> front_of(Merit(np.array([3.0, 2.0, 2.5]), np.array([1, 4, 4]), np.array([9, 9, 9]))).tolist()
    [1, 0]
    """
    order = np.lexsort((-merits.keys, merits.shared, merits.ms))
    left = np.ones(len(order), bool)
    kept = []
    # Fastest first: nothing behind a candidate can beat it, so what is left when its turn comes stays.
    while left.any():
        at = int(np.argmax(left))
        kept.append(order[at])
        best = Merit(*(values[order[at]] for values in merits))
        rest = np.flatnonzero(left)
        left[rest[Merit(*(values[order[rest]] for values in merits)).beaten_by(best)]] = False
    return np.array(kept, np.int64)


RESOLUTION = 1.005
"""Ratio of two predicted times below which neither is said to be the faster one."""


def told_apart(merits: Merit) -> list[int]:
    """The front without those that are faster than a better one of it by less than predictions can tell, fastest first.

    >>> told_apart(Merit(np.array([3.0, 2.0, 2.001]), np.array([1, 4, 2]), np.array([9, 9, 9])))
    [2, 0]
    """
    kept: list[int] = []
    for i in front_of(merits)[::-1]:
        slower = Merit(merits.ms[i] * RESOLUTION, merits.shared[i], merits.keys[i])
        if not any(slower.beaten_by(Merit(*(values[j] for values in merits))) for j in kept):
            kept.append(int(i))
    return kept[::-1]


class Configuration(Struct, frozen=True, kw_only=True):
    """One configuration, simulated.

    Attributes
    ----------
    params : dict
        What was varied of the pattern.
    latency_ms, attention_ms, side_ms : float
        Of the call, of its attention kernels, and of what runs beside them (permutation, selection ...).
    bound_ms : float
        Closed form: no prediction is below it, but for corrections of short calls.
    speedup, bound_flop, bound_worst : float
        Over the dense call: predicted, by live pairs, and by the worst q tile (NATTENSim).
    sparsity : float
        Share of the pairs of the dense call that are not live.
    shared : int
        Queries that share one window; 1 where the pattern has no strides.
    visited : int
        KV tiles visited, over all heads.
    perfect : bool
        No visited tile needs an element mask: the call is fully block-sparse.
    front : bool
        No other configuration is as good in everything.
    """

    params: dict[str, Any]
    kernel: str
    q_tile: tuple[int, ...]
    kv_tile: tuple[int, ...]
    latency_ms: float
    attention_ms: float
    side_ms: float
    bound_ms: float
    speedup: float
    bound_flop: float
    bound_worst: float
    sparsity: float
    shared: int
    visited: int
    perfect: bool
    front: bool = False


def configuration(
    run: Run, params: dict[str, Any], *, bound_ms: float, dense_ms: float, dense_pairs: int, shared: int
) -> Configuration:
    """What a simulated call amounts to."""
    schedules = [op.schedule for op in run.plan if isinstance(op, Attention)]
    pairs, main = sum(s.pairs for s in schedules), schedules[0]
    whole, attention = run.stages["side"] * 1e3, run.stages["launch"] * 1e3
    return Configuration(
        params=params,
        kernel=run.choice.profile.name,
        q_tile=run.choice.tiling.q,
        kv_tile=run.choice.tiling.kv,
        latency_ms=whole,
        attention_ms=attention,
        side_ms=whole - attention,
        bound_ms=bound_ms,
        speedup=dense_ms / whole,
        bound_flop=dense_pairs / max(pairs, 1),
        bound_worst=main.kv_tiles / max(main.max_visited, 1),
        sparsity=1 - pairs / dense_pairs,
        shared=shared,
        visited=sum(s.visited for s in schedules),
        perfect=all(s.mask_free or not s.partial for s in schedules),
    )


class Optimum(Struct, frozen=True, kw_only=True):
    """What a search found.

    Attributes
    ----------
    vary : tuple of str
        What was varied.
    sparsity : float or None
        Wanted sparsity; windows near it count as equal.
    usual : Configuration
        The pattern's own setting in the kernel's own tile.
    configurations : tuple of Configuration
        Everything simulated, fastest first.
    combinations, distinct, simulated : int
        Combinations of what was varied, those that tiles can tell apart, and those that closed forms could not rule out.
    unresolved : int
        Combinations that might belong to the front, and were not simulated because there were too many.
    seconds : float
        Time of the search.
    """

    gpu: str
    pattern: str
    problem: dict[str, Any]
    clock: str
    dense_kernel: str
    dense_ms: float
    vary: tuple[str, ...]
    sparsity: float | None
    usual: Configuration
    configurations: tuple[Configuration, ...]
    combinations: int
    distinct: int
    simulated: int
    unresolved: int
    seconds: float
    schema: str = SCHEMA

    @property
    def front(self) -> list[Configuration]:
        """Configurations that no other one beats, fastest first."""
        return [c for c in self.configurations if c.front]

    @property
    def best(self) -> Configuration:
        """The fastest."""
        return self.configurations[0]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `simattn optimize --json` prints them."""
        plain = cast(dict[str, Any], msgspec.to_builtins(self))
        return {"schema": plain.pop("schema"), **plain}


def merit(found: Sequence[Configuration], keys: bool) -> Merit:
    """Merits of configurations as arrays; what each query sees counts if `keys` says so."""
    return Merit(
        np.array([c.latency_ms for c in found]),
        np.array([c.shared for c in found]),
        np.array([1 - c.sparsity if keys else 0.0 for c in found]),
    )
