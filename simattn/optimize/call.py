"""The call whose configurations are searched: what stays the same, and how one of them is run."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from ..facts import Document
from ..hwspecs import GpuSpec
from ..kernels import KernelProfile
from ..simulator import KernelChoice, Question, Run, Setting, choose_kernel, question, simulate, with_tile

Tiles = tuple[tuple[int, ...], tuple[int, ...]]
"""Shapes of a q tile and of a kv tile."""

Fixed = int | tuple[int, ...] | None


class Call:
    """A call, of which parameters of the pattern and tiles can be changed."""

    def __init__(
        self,
        pattern: str,
        asked: Question,
        spec: GpuSpec,
        kernel: str | KernelProfile | None,
        fixed: tuple[Fixed, Fixed],
        setting: Setting,
        params: Document,
        seed: int,
        problem: dict[str, Any],
    ) -> None:
        self.pattern, self.asked, self.spec, self.kernel = pattern, asked, spec, kernel
        self.fixed, self.setting, self.params, self.seed, self.problem = fixed, setting, params, seed, problem

    def changed(self, params: dict[str, Any]) -> Question:
        """The same with other parameters of the pattern."""
        if not params:
            return self.asked
        return question(self.pattern, params=self.params | params, seed=self.seed, **self.problem)

    def run(self, params: dict[str, Any], tiles: Tiles | None, setting: Setting | None = None) -> Run:
        """Simulate it with other parameters and tiles."""
        q, kv = tiles or self.fixed
        return simulate(
            self.changed(params), self.spec, kernel=self.kernel, q_tile=q, kv_tile=kv, setting=setting or self.setting
        )

    def bound(self, params: dict[str, Any], tiles: Tiles | None) -> Run:
        """The same in closed form, at the highest clock of its regime."""
        clock = "burst" if self.setting.clock == "sustained" else self.setting.clock
        return self.run(params, tiles, self.setting._replace(clock=clock, fidelity="bound"))

    @cached_property
    def usual(self) -> KernelChoice:
        """The kernel as it is, or in the tile that was fixed."""
        kernel = self.kernel or self.run({}, None, self.setting._replace(fidelity="bound")).choice.profile.name
        choice = choose_kernel(
            self.spec, self.asked.problem, self.asked.pattern.family.mask_class(), len(self.asked.layout.grid), kernel
        )
        return with_tile(choice, self.asked.problem, *self.fixed)

    @property
    def usual_tiles(self) -> Tiles:
        """Its tile."""
        return self.usual.tiling.q, self.usual.tiling.kv

    def choice(self, tiles: Tiles) -> KernelChoice:
        """The kernel in another tile."""
        return with_tile(self.usual, self.asked.problem, *tiles)

    def shapes(self) -> list[Tiles]:
        """Tiles that the kernel has; the fixed one alone where it was given."""
        if self.fixed != (None, None):
            return [self.usual_tiles]
        problem, axes = self.asked.problem, len(self.asked.layout.grid)
        box = self.asked.pattern.family.mask_class() == "box"
        shapes = self.usual.profile.shapes(self.spec, max(problem.head_dim, problem.head_dim_v), axes if box else 1)
        return shapes or [self.usual_tiles]
