"""Case: a call, with everything that can be changed about it."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from ..facts import Document, convert, merge
from ..facts.shelf import layer
from ..hwspecs import GpuSpec
from ..kernels import KernelProfile
from ..simulator import Question, Run, Setting, simulate
from ..workloads import AttentionProblem


class Case(NamedTuple):
    """A call, with everything that can be changed about it."""

    asked: Question
    spec: GpuSpec
    kernel: KernelProfile
    q_tile: int | tuple[int, ...] | None
    kv_tile: int | tuple[int, ...] | None
    setting: Setting
    baseline: str | None

    def run(self) -> Run:
        """Simulate it."""
        return simulate(self.asked, self.spec, kernel=self.kernel, q_tile=self.q_tile, kv_tile=self.kv_tile, setting=self.setting)

    def closed(self) -> Run:
        """The same in closed form, at the clock that the call starts with."""
        return self._replace(setting=closed_form(self.setting)).run()

    def on(self, problem: AttentionProblem) -> Case:
        """On another problem over the same tokens."""
        return self._replace(asked=self.asked._replace(problem=problem))

    def latency_ms(self) -> float:
        """Its time."""
        return self.run().stages["side"] * 1e3

    def with_gpu(self, changes: Document) -> Case:
        """On a GPU with other values."""
        document = layer(msgspec.to_builtins(self.spec), changes)
        return self._replace(spec=convert(document, GpuSpec, f"GPU {self.spec.name}"))

    def with_kernel(self, changes: Document) -> Case:
        """By a kernel with other values; those of `tiles` go into each of its tiles."""
        return self._replace(kernel=changed_kernel(self.kernel.name, msgspec.to_builtins(self.kernel), changes))

    def start_mhz(self) -> float:
        """The clock that the call starts with."""
        return self.spec.clock_hz("boost" if self.setting.clock == "boost" else "burst") / 1e6

    def at_clock(self, mhz: float) -> Case:
        """With one clock throughout."""
        return self.with_gpu({"chip": {f"clock_{name}_mhz": mhz for name in ("boost", "max", "sustained")}})


def changed_kernel(name: str, document: Document, changes: Document) -> KernelProfile:
    """A kernel profile with other values; those of the table `tiles` go into each of its tiles.

    >>> from simattn.kernels import kernels
    >>> changed_kernel("fa4", kernels.document("fa4"), {"tiles": {"stages": 3}}).tiles[0].stages
    3
    """
    if isinstance(changes.get("tiles"), dict):
        changes = {**changes, "tiles": [merge(tile, changes["tiles"]) for tile in document["tiles"]]}
    return convert(layer(document, changes), KernelProfile, f"kernel {name}")


def closed_form(setting: Setting) -> Setting:
    """Closed form, at the clock that the call starts with."""
    return setting._replace(clock="boost" if setting.clock == "boost" else "burst", fidelity="bound")
