"""What a search looks at: strides, windows, tiles, token orders, and any other parameter with values of the user's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import product
from math import prod
from typing import Any, get_args

import msgspec
import numpy as np

from ..facts import UserError, unknown_name
from ..simulator import Question
from ..simulator.visit import visit_seconds
from ..workloads import Attention
from ..workloads.families import Box
from ..workloads.families.box import per_axis
from ..workloads.orders import Order
from .call import Call, Tiles
from .candidate import Merit
from .neighborhoods import Some, family, windows_of
from .search import Candidate, Candidates

TILE, STRIDE, WINDOW, ORDER = "tile", "stride", "window", "order"

Vary = Mapping[str, Sequence[Any] | None]
"""What is varied: values of each, or None for every one there is."""

ORDERS = get_args(Order)
"""Token orders under flat tiles, row-major first."""

FEW = 64
"""Combinations up to which all are simulated, so that they can be compared."""

TOLERANCE = 0.05
"""How far the pairs that a window keeps may be from those that the wanted sparsity leaves, as a share of these."""


def checked(vary: Vary, asked: Question) -> dict[str, tuple[Any, ...] | None]:
    """What is varied; with nothing, all that the pattern has and that needs no values.

    Raises
    ------
    UserError
        The pattern has no such parameter, or it needs values.
    """
    own, box = asked.pattern.family.__struct_fields__, isinstance(asked.pattern.family, Box)
    for name, values in vary.items():
        if name != TILE and name not in own:
            raise unknown_name("what to vary", name, [TILE, *own])
        if name in asked.pattern.system.fixed:
            raise UserError(f"pattern {asked.pattern.name}: {name} is always {asked.pattern.system.params[name]}")
        if name == TILE and values is not None:
            raise UserError("tile takes no values: the kernel has its own, and --q-tile and --kv-tile fix one")
        if values is None and name != TILE and not (name == ORDER or (box and name in (STRIDE, WINDOW))):
            raise UserError(f"{name} needs values, as in {name}=VALUE,VALUE")
        if values is not None and not values:
            raise UserError(f"{name} needs at least one value")
    if not vary:
        return {STRIDE: None, TILE: None} if box else {TILE: None}
    return {name: None if values is None else tuple(values) for name, values in vary.items()}


def windows_to_try(vary: Vary, asked: Question, sparsity: float | None) -> list[tuple[int, ...]]:
    """Windows of a neighborhood pattern.

    All whose share of the pairs is near the one that the wanted sparsity leaves, or all there are; where windows are not varied,
    the pattern's own, or of those near a wanted sparsity the one most like it in shape.
    """
    family, grid, text = asked.pattern.family, asked.layout.grid, asked.layout.text
    assert isinstance(family, Box)
    given = vary.get(WINDOW)
    own = tuple(int(w) for w in per_axis(WINDOW, family.window, grid))
    if given is not None:
        return [tuple(per_axis(WINDOW, w, grid)) for w in given]
    if sparsity is None:
        return windows_of(family.axes(asked.layout), text, (0.0, 1.0)) if WINDOW in vary else [own]
    share = (1 - sparsity) * (1 - TOLERANCE), (1 - sparsity) * (1 + TOLERANCE)
    if WINDOW not in vary and all(w <= n for w, n in zip(own, grid, strict=True)):
        pairs = (prod(own) + text) / (prod(grid) + text)
        if share[0] <= pairs <= share[1]:
            return [own]
    # The smallest window fits every axis: the strides and windows of the pattern may not.
    small = family.__class__(window=1, dilation=family.dilation, causal=family.causal, border=family.border)
    found = windows_of(small.axes(asked.layout), text, share)
    if not found:
        raise UserError(f"no window on the grid {'x'.join(map(str, grid))} has a sparsity of {sparsity:g}")
    if WINDOW in vary:
        return found
    scale = (prod(own) / ((1 - sparsity) * prod(grid))) ** (1 / len(grid))
    return [min(found, key=lambda w: sum(abs(a * scale / b - 1) for a, b in zip(w, own, strict=True)))]


def strides_to_try(vary: Vary, asked: Question, window: tuple[int, ...]) -> list[list[Some]]:
    """Strides along each axis that fit under a window: sets of which every combination is looked at."""
    family, grid = asked.pattern.family, asked.layout.grid
    assert isinstance(family, Box)
    if STRIDE in vary and vary[STRIDE] is None:
        return [[range(1, w + 1) for w in window]]
    given = [per_axis(STRIDE, s, grid) for s in vary.get(STRIDE) or (family.stride,)]
    return [[(s,) for s in own] for own in given if all(s <= w for s, w in zip(own, window, strict=True))]


class Neighborhoods:
    """Windows, strides and tiles of neighborhood attention in a kernel whose tiles are boxes: all in closed form.

    Parameters
    ----------
    dense_pairs : int
        Pairs of the dense call.
    """

    def __init__(self, call: Call, vary: Vary, sparsity: float | None, dense_pairs: int) -> None:
        self.call, self.vary, self.sparsity, self.dense_pairs = call, vary, sparsity, dense_pairs
        self.by_keys = WINDOW in vary and sparsity is None
        self.windows = windows_to_try(vary, call.asked, sparsity)
        self.tiles = call.shapes() if TILE in vary else [call.usual_tiles]

    @property
    def every(self) -> bool:
        """Whether all are simulated."""
        return self.combinations() <= FEW

    def combinations(self) -> int:
        """Windows, strides and tiles that there are."""
        strides = sum(prod(map(len, one)) for w in self.windows for one in strides_to_try(self.vary, self.call.asked, w))
        return strides * len(self.tiles)

    def candidates(self) -> Iterator[Candidates]:
        """All of them that tiles can tell apart."""
        asked, rule = self.call.asked, self.call.asked.pattern.family
        assert isinstance(rule, Box)
        for tiles, window in product(self.tiles, self.windows):
            axes = msgspec.structs.replace(rule, window=window, stride=1).axes(asked.layout)
            keys = 0.0
            if self.by_keys:
                pairs = prod(a.pairs() for a in axes) + prod(asked.layout.grid) * asked.layout.text
                keys = 1 - (1 - pairs * self._copies / self.dense_pairs)
            choice, beside = self._of_tiles[tiles]
            for strides in strides_to_try(self.vary, asked, window):
                found = family(axes, strides, tiles, text=asked.layout.text, dynamic_kv=choice.tiling.dynamic_kv)
                visit = self._visits[tiles]
                each = np.where(found.mask_free | (choice.profile.mask.policy == "partial"), visit.plain, visit.masked)
                ms = found.visited * each * self._copies * 1e3 + beside
                yield Candidates({WINDOW: window}, tiles, found.strides, Merit(ms, found.shared, keys))

    def usual(self) -> Candidate:
        """The pattern's own strides, as far as they fit, in the kernel's own tile."""
        family = self.call.asked.pattern.family
        assert isinstance(family, Box)
        window = windows_to_try({}, self.call.asked, self.sparsity)[0]
        own = per_axis(STRIDE, family.stride, self.call.asked.layout.grid)
        stride = tuple(min(s, w) for s, w in zip(own, window, strict=True))
        params = {WINDOW: window, STRIDE: stride}
        bound_ms = self.call.bound(params, self.call.usual_tiles).stages["side"] * 1e3
        return Candidate(params, self.call.usual_tiles, Merit(bound_ms, prod(stride), 0.0))

    @property
    def _copies(self) -> int:
        return self.call.asked.problem.batch * self.call.asked.problem.q_heads

    @cached_property
    def _of_tiles(self) -> dict[Tiles, Any]:
        """The kernel in each tile, and the milliseconds that a launch and the permutation take whatever the strides."""
        params = {WINDOW: self.windows[0], STRIDE: 1}
        found = {}
        for tiles in self.tiles:
            stages = self.call.bound(params, tiles).stages
            found[tiles] = self.call.choice(tiles), (stages["side"] - stages["clock"]) * 1e3
        return found

    @cached_property
    def _visits(self) -> dict[Tiles, Any]:
        axes, setting = len(self.call.asked.layout.grid), self.call.setting
        return {
            tiles: visit_seconds(choice, self.call.asked.problem, axes, setting.clock)
            for tiles, (choice, _) in self._of_tiles.items()
        }


class Values:
    """Every combination of given values of parameters, token orders and tiles, each by the closed form of its own schedule."""

    by_keys = True

    def __init__(self, call: Call, vary: Vary, dense_pairs: int) -> None:
        self.call, self.dense_pairs = call, dense_pairs
        named = {name: values for name, values in vary.items() if name != TILE}
        if ORDER in named and named[ORDER] is None:
            named[ORDER] = ORDERS
        given = {name: values for name, values in named.items() if values is not None}
        missing = sorted(named.keys() - given.keys())
        if missing:
            raise UserError(f"{missing[0]} needs values where {', '.join(sorted(given))} is varied too")
        params = [dict(zip(given, values, strict=True)) for values in product(*given.values())]
        tiles: list[Tiles | None] = [*call.shapes()] if TILE in vary else [None]
        self.all = list(product(params, tiles))

    @property
    def every(self) -> bool:
        """Whether all are simulated."""
        return len(self.all) <= FEW

    def combinations(self) -> int:
        """Combinations that there are."""
        return len(self.all)

    def candidates(self) -> Iterator[Candidates]:
        """All of them."""
        yield from self._candidates

    def usual(self) -> Candidate:
        """The pattern's own parameters in the kernel's own tile."""
        return self._candidate({}, None)

    @cached_property
    def _candidates(self) -> list[Candidates]:
        found = (self._candidate(params, tiles) for params, tiles in self.all)
        return [Candidates(c.params, c.tiles, None, c.merit) for c in found]

    def _candidate(self, params: dict[str, Any], tiles: Tiles | None) -> Candidate:
        run = self.call.bound(params, tiles)
        pairs = sum(op.schedule.pairs for op in run.plan if isinstance(op, Attention))
        family, shared = self.call.changed(params).pattern.family, 1
        if isinstance(family, Box):
            shared = prod(per_axis(STRIDE, family.stride, self.call.asked.layout.grid))
        return Candidate(params, tiles, Merit(run.stages["side"] * 1e3, shared, 1 - (1 - pairs / self.dense_pairs)))
