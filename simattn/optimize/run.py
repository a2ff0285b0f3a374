"""optimize: which tiles, strides, windows, blocks and token orders to use."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from ..facts import Document, UserError
from ..hwspecs import Clock, GpuSpec, gpus
from ..kernels import KernelProfile
from ..simulator import Setting, question
from ..simulator.baseline import dense_schedule, fastest_dense
from ..simulator.question import problem_fields
from ..workloads import Tiling
from ..workloads.families import Box
from .call import Call
from .candidate import Configuration, Optimum, configuration, merit, told_apart
from .search import Candidate, Progress, search
from .space import STRIDE, TILE, WINDOW, Neighborhoods, Values, Vary, checked

MOST = 2000
"""Candidates that are simulated at most."""


def optimize(
    pattern: str = "gna",
    hw: str | GpuSpec = "b200",
    *,
    vary: Vary | None = None,
    sparsity: float | None = None,
    kernel: str | KernelProfile | None = None,
    baseline: str | None = None,
    q_tile: int | tuple[int, ...] | None = None,
    kv_tile: int | tuple[int, ...] | None = None,
    clock: Clock = "sustained",
    seed: int = 0,
    most: int = MOST,
    progress: Progress = lambda done, total: None,
    params: Document | None = None,
    **problem: Any,
) -> Optimum:
    """Search for the configurations of a pattern that no other one beats: in time, in overlap, and in what a query sees.

    Parameters
    ----------
    pattern, hw, kernel, baseline, clock, seed, params, problem
        As in `predict`.
    vary : dict, optional
        What is varied, with its values, or None for every one there is: `stride`, `window` (neighborhoods), `tile` (those that
        the kernel has), `order` (of tokens), or a parameter of the pattern. By default `stride` and `tile`, as far as there are.
    sparsity : float, optional
        Wanted share of pairs that are not live: windows that keep within 5 % of the others count as equal.
    q_tile, kv_tile : int or tuple of int, optional
        Fix the tile.
    most : int
        Candidates to simulate at most.

    Returns
    -------
    Optimum

    Raises
    ------
    UserError
        A name or value is not usable, or nothing is left to look at.

    Notes
    -----
    The front is exact among what is looked at as far as no prediction is below its closed form (short calls, which are simulated
    visit by visit, can be by some percent). Times within half a percent of each other count as equal.

    Examples
    --------
    >>> found = optimize("gna", "b200", grid=(256, 256), params={"window": (80, 80)}, model="flux-dev-4k", q_tile=(16, 16),
    ...                  kv_tile=(16, 8), vary={"stride": None})
    >>> [c.params["stride"] for c in found.front]
    [(16, 16), (16, 1), (1, 1)]
    """
    begin = time.perf_counter()
    spec = gpus.load(hw) if isinstance(hw, str) else hw
    if sparsity is not None and not 0 < sparsity < 1:
        raise UserError(f"sparsity is a share of the pairs, above 0 and below 1, got {sparsity:g}")
    if most < 1:
        raise UserError(f"most must be at least 1, got {most}")
    asked = question(pattern, params=params, seed=seed, **problem)
    varied = checked(vary or {}, asked)
    if sparsity is not None and not isinstance(asked.pattern.family, Box):
        raise UserError(f"pattern {asked.pattern.name} has no window to bring to a sparsity: vary a parameter of its own")
    call = Call(pattern, asked, spec, kernel, (q_tile, kv_tile), Setting(clock), dict(params or {}), seed, problem)
    dense = fastest_dense(asked, spec, call.setting, only=baseline)
    dense_pairs = dense_schedule(asked, Tiling(q=(128,), kv=(128,))).pairs

    def simulated(candidate: Candidate) -> Configuration:
        return configuration(
            call.run(candidate.params, candidate.tiles),
            candidate.params,
            bound_ms=candidate.merit.ms,
            dense_ms=dense.seconds * 1e3,
            dense_pairs=dense_pairs,
            shared=candidate.merit.shared,
        )

    space: Neighborhoods | Values
    if asked.pattern.family.mask_class() == "box" and not varied.keys() - {STRIDE, WINDOW, TILE}:
        space = Neighborhoods(call, varied, sparsity, dense_pairs)
    else:
        space = Values(call, varied, dense_pairs)
    found = search(space.candidates, simulated, by_keys=space.by_keys, every=space.every, most=most, progress=progress)
    if not found.configurations:
        raise UserError("nothing is left to look at: no stride fits under any window")
    kept = set(told_apart(merit(found.configurations, space.by_keys)))
    rows = tuple(msgspec.structs.replace(c, front=i in kept) for i, c in enumerate(found.configurations))
    return Optimum(
        gpu=spec.name,
        pattern=asked.pattern.name,
        problem=problem_fields(asked),
        clock=clock,
        dense_kernel=dense.kernel,
        dense_ms=dense.seconds * 1e3,
        vary=tuple(varied),
        sparsity=sparsity,
        usual=simulated(space.usual()),
        configurations=rows,
        combinations=space.combinations(),
        distinct=found.distinct,
        simulated=len(rows),
        unresolved=found.unresolved,
        seconds=time.perf_counter() - begin,
    )
