"""The points of a sweep, by number: all of a grid, or a random sample."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from itertools import accumulate
from math import prod
from typing import NamedTuple

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from ..facts import UserError, convert, unknown_name
from ..workloads.families import family_type
from ..workloads.related import system_of
from .spec import PROBLEM, SETTING, Options, Range, SweepSpec, Value

Ints = NDArray[np.int64]

COPIES = ("batch", "q_heads", "kv_heads")
"""Options of the problem that say how often the work of a head occurs."""


class Point(Struct, frozen=True, kw_only=True):
    """One call to predict: `options` are those of the problem and the setting, and parameters of the pattern."""

    number: int
    pattern: str
    hw: str
    kernel: str | None
    options: dict[str, Value]


class Axis(NamedTuple):
    """What varies under one name."""

    name: str
    values: tuple[Value | None, ...] | Range

    @property
    def size(self) -> int:
        """Values; 0 where they cannot be counted."""
        return 0 if isinstance(self.values, Range) else len(self.values)


class Space:
    """Every point of a spec.

    Points that have the dense call in common follow each other, and of these the ones that have the schedule in common: what
    varies slowest are the options of the problem, then comes the pattern with its parameters and tiles, then the kernel, then
    the GPU.

    Parameters
    ----------
    spec : SweepSpec

    Raises
    ------
    UserError
        A pattern is unknown, or a name belongs to none of them.

    Examples
    --------
    >>> vary = {"stride": (1, 16), "seq_q": (4096, 8192)}
    >>> space = Space(SweepSpec(patterns=("sliding_window", "gna"), hw=("h100", "b200"), vary=vary))
    >>> len(space), space[2].pattern, space[2].hw, space[2].options
    (12, 'gna', 'h100', {'seq_q': 4096, 'stride': 1})
    """

    def __init__(self, spec: SweepSpec) -> None:
        self.spec = spec
        for name, value in spec.values():
            # Where it is causal along which axis, a parameter of the same name says.
            if name in (*PROBLEM, *SETTING) and not (name == "causal" and isinstance(value, tuple)):
                convert({name: value}, Options, "sweep", "option")
        own = {name: _parameters(name) for name in spec.patterns}
        self.own_options: dict[str, dict[str, Value]] = {
            pattern: {n: v for n, v in spec.options.items() if _shared(n) or n in known} for pattern, known in own.items()
        }
        axes = [
            Axis(n, values.values() if isinstance(values, Range) and values.step is not None else values)
            for n, values in spec.vary.items()
        ]
        for name in (*spec.vary, *spec.options):
            if not _shared(name) and not any(name in known for known in own.values()):
                raise unknown_name("option", name, {*PROBLEM, *SETTING, *(n for known in own.values() for n in known)})
        self.outer = [axis for axis in axes if axis.name in PROBLEM]
        self.inner = {
            pattern: [axis for axis in axes if axis.name not in PROBLEM and (_shared(axis.name) or axis.name in known)]
            for pattern, known in own.items()
        }
        self.last = [Axis("kernel", spec.kernels or (None,)), Axis("hw", spec.hw)]
        self.ends = list(accumulate(prod(axis.size for axis in (*self.inner[p], *self.last)) for p in spec.patterns))

    def axes_of(self, pattern: str) -> list[Axis]:
        """What varies of a pattern, kernel and GPU included, from slowest to fastest."""
        return [*self.outer, *self.inner[pattern], *self.last]

    @property
    def countable(self) -> bool:
        """Whether all values can be counted."""
        return all(axis.size for pattern in self.spec.patterns for axis in self.axes_of(pattern))

    def __len__(self) -> int:
        return prod(axis.size for axis in self.outer) * self.ends[-1]

    def __getitem__(self, number: int) -> Point:
        if number >= len(self):
            raise IndexError(number)
        return self.at(number, number)

    def work_order(self) -> Ints:
        """Numbers of the points in the order in which they are predicted."""
        return self.by_work(np.arange(len(self)))

    def by_work(self, places: Ints) -> Ints:
        """Indices of places of the grid, those next to each other that have the most in common.

        Points that differ in heads and batch alone are often one simulation. A chunk that holds them together leaves no part of
        it to another process, which would do it again.
        """
        *outer, inner = np.unravel_index(places, [*(axis.size for axis in self.outer), self.ends[-1]])
        copies, others = ([d for d, axis in zip(outer, self.outer, strict=True) if (axis.name in COPIES) == so] for so in (1, 0))
        order: Ints = np.lexsort([*reversed(copies), inner, *reversed(others)])
        return order

    def at(self, place: int, number: int) -> Point:
        """The point at a place of the whole grid, as point `number` of a sweep."""
        problem, rest = divmod(place, self.ends[-1])
        which = bisect_right(self.ends, rest)
        pattern = self.spec.patterns[which]
        inner = rest - (self.ends[which - 1] if which else 0)
        chosen: dict[str, Value | None] = {}
        for digits, axes in ((inner, [*self.inner[pattern], *self.last]), (problem, self.outer)):
            for axis in reversed(axes):
                digits, digit = divmod(digits, axis.size)
                assert not isinstance(axis.values, Range)
                chosen[axis.name] = axis.values[digit]
        return self.point(number, pattern, {axis.name: chosen[axis.name] for axis in self.axes_of(pattern)})

    def point(self, number: int, pattern: str, chosen: Mapping[str, Value | None]) -> Point:
        """A point with these values of its axes."""
        varied = {name: value for name, value in chosen.items() if name not in ("kernel", "hw")}
        kernel = chosen["kernel"]
        return Point(
            number=number,
            pattern=pattern,
            hw=str(chosen["hw"]),
            kernel=None if kernel is None else str(kernel),
            options={**self.own_options[pattern], **varied},  # type: ignore[dict-item]
        )


class Sample:
    """Points drawn at random: without putting back where values can be counted, so that none comes twice."""

    def __init__(self, space: Space, size: int, seed: int) -> None:
        self.space, self.size, self.seed = space, size, seed
        self.places: list[int] = []
        if space.countable:
            if size > len(space):
                raise UserError(f"the grid has {len(space):,} points, fewer than the {size:,} to be drawn")
            self.places = sorted(random.Random(seed).sample(range(len(space)), size))

    def __len__(self) -> int:
        return self.size

    def work_order(self) -> Ints:
        """Numbers of the points in the order in which they are predicted."""
        return self.space.by_work(np.array(self.places)) if self.places else np.arange(self.size)

    def __getitem__(self, number: int) -> Point:
        if number >= self.size:
            raise IndexError(number)
        if self.places:
            return self.space.at(self.places[number], number)
        draw = random.Random(f"{self.seed} {number}")
        pattern = draw.choice(self.space.spec.patterns)
        chosen = {
            axis.name: axis.values.at(draw.random()) if isinstance(axis.values, Range) else draw.choice(axis.values)
            for axis in self.space.axes_of(pattern)
        }
        return self.space.point(number, pattern, chosen)


def points_of(space: Space) -> Space | Sample:
    """The points that a spec asks for, where no search chooses them."""
    spec = space.spec
    return space if spec.random is None else Sample(space, spec.random, spec.seed)


def chunks(total: int) -> Iterator[range]:
    """Places in the work order of points that are predicted and kept together; they depend on nothing but how many there are.

    >>> [len(chunk) for chunk in chunks(10_000)][:2], len(list(chunks(3)))
    ([39, 39], 3)
    """
    size = min(max(total // MOST_CHUNKS, 1), MOST_POINTS)
    for first in range(0, total, size):
        yield range(first, min(first + size, total))


MOST_CHUNKS, MOST_POINTS = 256, 128
"""Chunks into which small sweeps are cut, and points of a chunk of large ones."""


def _shared(name: str) -> bool:
    """Whether a name is one of every pattern's."""
    return name in PROBLEM or name in SETTING or name.startswith("hw.")


def _parameters(pattern: str) -> set[str]:
    """Parameters of a pattern and of its parts."""
    system = system_of(pattern)
    of_parts = {f"{part.name}.{name}" for part in system.parts for name in family_type(part.family).__struct_fields__}
    return of_parts | set(family_type(system.family).__struct_fields__) - set(system.fixed)
