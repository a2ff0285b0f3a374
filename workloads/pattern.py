"""Patterns by name: a family, its parameters, the workload on which it was published, and how it is run."""

from __future__ import annotations

from copy import copy
from functools import cache
from typing import Any, cast

import msgspec

from ..facts import Document, UserError, convert, unknown_name
from .families import Documents, Family, Listed, Ragged, family_type
from .layout import Tiling, TokenLayout
from .ops import Plan
from .plan import TilingOf, build_plan
from .problem import AttentionProblem
from .related import system_of
from .remembered import drawn
from .schedule import TileSchedule


class Pattern:
    """A system with parameters, ready to be scheduled.

    Parameters
    ----------
    name : str
        Name or alias of a system.
    params : dict
        Parameters of its family, over the system's own.
    published : bool
        Fill in the published setting where the user gives no parameter that the family requires.
    seed : int
        Seed of families that draw at random, unless `params` has one.

    Attributes
    ----------
    family : Family
        Of the main attention.
    parts : tuple of Family
        Of the further attention kernels of the same call.

    Examples
    --------
    >>> Pattern("gna", {"window": (18, 24, 24)}).family.stride
    1
    >>> Pattern("gna", published=True).family.stride
    (16, 8, 8)
    """

    def __init__(self, name: str, params: Document | None = None, *, published: bool = False, seed: int = 0) -> None:
        self.system = system_of(name)
        given, of_parts = self._sorted(dict(params or {}))
        for parameter in self.system.fixed:
            if parameter in given:
                raise UserError(f"pattern {self.system.name}: {parameter} is always {self.system.params[parameter]}")
        kind = family_type(self.system.family)
        required = {*self.system.required, *_required(self.system.family)}
        if "qk" in given and "qk" not in kind.__struct_fields__:
            raise UserError(f"pattern {self.system.name} does not choose by Q and K: it takes no file of them")
        defaults = dict(self.system.params)
        if published and not required & given.keys():
            defaults |= self.system.workload.params
        missing = sorted(set(self.system.required) - defaults.keys() - given.keys())
        self.family = _family(kind, {**defaults, **given}, seed, f"pattern {self.system.name}")
        if missing:
            raise UserError(f"pattern {self.system.name}: missing required parameter `{missing[0]}`")
        self.parts = tuple(
            _family(family_type(part.family), {**part.params, **own}, seed, f"pattern {self.system.name}, part {part.name}")
            for part, own in zip(self.system.parts, of_parts, strict=True)
        )

    def _sorted(self, given: Document) -> tuple[Document, list[Document]]:
        """Parameters of the main attention, and those of each part, which are given as PART.PARAMETER."""
        of_parts: dict[str, Document] = {part.name: {} for part in self.system.parts}
        for name in [name for name in given if "." in name]:
            part, _, parameter = name.partition(".")
            if part not in of_parts:
                raise UserError(f"pattern {self.system.name}: {unknown_name('part', part, of_parts)}")
            of_parts[part][parameter] = given.pop(name)
        return given, list(of_parts.values())

    @property
    def name(self) -> str:
        """Name of the system."""
        return self.system.name

    @property
    def items(self) -> int:
        """Sequences that the parameters themselves state; 1 where the batch does."""
        return len(self.family.lengths) if isinstance(self.family, Ragged) else 1

    def params(self) -> Document:
        """All parameters of the family, as JSON values."""
        return cast(Document, msgspec.json.decode(msgspec.json.encode(self.family)))

    @property
    def random(self) -> bool:
        """Whether any of its families draws at random: has a seed, and no file of Q and K."""
        return any(map(drawn, (self.family, *self.parts)))

    def with_seed(self, seed: int) -> Pattern:
        """The same pattern, drawn anew."""

        def redrawn(family: Any) -> Any:
            return msgspec.structs.replace(family, seed=seed) if "seed" in family.__struct_fields__ else family

        other = copy(self)
        other.family, other.parts = redrawn(self.family), tuple(map(redrawn, self.parts))
        return other

    def default_layout(self) -> TokenLayout:
        """Tokens of the published workload, or those that the parameters themselves state."""
        if isinstance(self.family, Listed):
            return self.family.own_layout()
        if isinstance(self.family, Documents | Ragged):
            return TokenLayout(grid=(sum(self.family.lengths),))
        return self.system.workload.layout()

    def schedule(self, layout: TokenLayout, tiling: Tiling) -> TileSchedule:
        """The work of one head of one item, text included."""
        return self.family.schedule(layout, tiling)

    def plan(self, problem: AttentionProblem, layout: TokenLayout, tiling_of: TilingOf) -> Plan:
        """The ops of one call over all heads and items."""
        return build_plan(self.system, (self.family, *self.parts), problem, layout, tiling_of)


@cache
def _required(family: str) -> tuple[str, ...]:
    return tuple(field.name for field in msgspec.structs.fields(family_type(family)) if field.required)


def _family(kind: type[Any], params: Document, seed: int, what: str) -> Family:
    if "seed" in kind.__struct_fields__:
        params = {"seed": seed, **params}
    return cast(Family, convert(params, kind, what, "parameter"))


def schedule(
    pattern: str,
    *,
    grid: tuple[int, ...] | None = None,
    text: int = 0,
    frames: int | None = None,
    tokens_per_frame: int | None = None,
    seq_q: int | None = None,
    seq_kv: int | None = None,
    q_tile: int | tuple[int, ...] = 128,
    kv_tile: int | tuple[int, ...] = 128,
    pack: int = 1,
    dynamic_kv: bool = False,
    **params: Any,
) -> TileSchedule:
    """Tile schedule of a pattern for one head.

    Parameters
    ----------
    pattern : str
        Name of a pattern (`simattn patterns list`).
    grid : tuple of int
        Tokens per axis; or `frames` and `tokens_per_frame`; or `seq_q` and `seq_kv` of a flat sequence.
    text : int
        Tokens behind the grid.
    q_tile, kv_tile : int or tuple of int
        Tile of the kernel: one number for a flat tile, one per axis of the grid for a box.
    pack : int
        Query heads packed into one tile (GQA).
    dynamic_kv : bool
        KV tiles start at the first key needed.
    **params
        Parameters of the pattern.

    Returns
    -------
    TileSchedule
        `q_tiles`, `kv_tiles`, `visited`, `full`, `partial`, `max_visited`, `pairs`, `to_mask()`, `to_bsr()`, `to_block_mask()`.

    Raises
    ------
    UserError
        A name or value is not usable; one line.

    Examples
    --------
    >>> s = schedule("gna", grid=(256, 256), window=(80, 80), q_tile=(16, 16), kv_tile=(16, 8))
    >>> s.visited, s.max_visited
    (18564, 84)
    """
    layout = make_layout(grid=grid, text=text, frames=frames, tokens_per_frame=tokens_per_frame, seq_q=seq_q, seq_kv=seq_kv)
    if layout is None:
        raise UserError("give grid, frames and tokens_per_frame, or seq_q")
    q, kv = (tile if isinstance(tile, tuple) else (tile,) for tile in (q_tile, kv_tile))
    tiling = convert({"q": q, "kv": kv, "pack": pack, "dynamic_kv": dynamic_kv}, Tiling, "tiles")
    return Pattern(pattern, params).schedule(layout, tiling)


def make_layout(
    *,
    grid: tuple[int, ...] | None,
    text: int | None,
    frames: int | None = None,
    tokens_per_frame: int | None = None,
    seq_q: int | None = None,
    seq_kv: int | None = None,
) -> TokenLayout | None:
    """The layout that was asked for in one of the three ways, or None if none was used.

    Raises
    ------
    UserError
        Two ways were mixed, or a number is out of range.
    """
    if (frames is None) != (tokens_per_frame is None):
        raise UserError("frames and tokens_per_frame go together")
    if frames is not None and tokens_per_frame is not None:
        if grid is not None:
            raise UserError("give either grid, or frames and tokens_per_frame")
        grid = (frames, tokens_per_frame)
    if grid is not None:
        if seq_q is not None or seq_kv is not None:
            raise UserError("give either grid or seq_q and seq_kv, not both")
        return convert({"grid": grid, "text": text or 0}, TokenLayout, "layout")
    if seq_q is None and seq_kv is None:
        return None
    keys = seq_kv if seq_kv is not None else seq_q
    queries = seq_q if seq_q is not None and seq_q != keys else 0
    if queries is not None and seq_q is not None and seq_q < 1:
        raise UserError(f"seq_q must be at least 1, got {seq_q}")
    return convert({"grid": (keys,), "text": text or 0, "queries": queries}, TokenLayout, "layout")
