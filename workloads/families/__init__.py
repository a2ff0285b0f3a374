"""families: parametric generators of tile schedules, one mechanism a module.

    band         intervals that move with the query: dense, causal, windows, sinks, global tokens, documents, ragged batches
    box          neighborhood attention on a 1-D to 3-D grid (GNA); axis: its rule along one axis
    frame_band   bands between frame pairs (radial attention)
    listed       blocks listed in a file
    mask_function  a mask of the user's own, as a Python function

A family is a frozen struct of its parameters. `schedule(layout, tiling)` builds the tile schedule of one head; where heads
differ, `schedule_heads(layout, tiling, heads)` builds that of all of them. Families that are defined by a mask on single tokens
also have `visible(q, k, layout)`, their plain meaning. Those that draw at random have a parameter `seed`.

Another package adds a family by an entry point of the group `simattn.families`: its name, and the struct.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any, Protocol, cast

from ...facts import unknown_name
from ..layout import Tiling, TokenLayout
from ..schedule import TileSchedule
from .band import Band, Documents, Ragged
from .box import Box
from .frame_band import FrameBand
from .listed import Listed
from .mask_function import MaskFunction


class Family(Protocol):
    """What every family offers."""

    __struct_fields__: tuple[str, ...]

    def schedule(self, layout: TokenLayout, tiling: Tiling) -> TileSchedule:
        """The work of one head of one item."""
        ...

    def mask_class(self) -> str:
        """Which kind of kernel can run it: dense, window, varlen, box, blocks or element."""
        ...

    def without_pattern(self) -> Band | Ragged:
        """The dense call that the pattern stands in for, over the flat sequence."""
        ...


FAMILIES: dict[str, type[Any]] = {
    "band": Band,
    "documents": Documents,
    "ragged": Ragged,
    "box": Box,
    "frame_band": FrameBand,
    "listed": Listed,
    "mask_function": MaskFunction,
}
"""Family by the name that systems use."""

PLUGINS = "simattn.families"
"""Group of entry points by which other packages add families."""


def family_type(name: str) -> type[Any]:
    """The struct of a family, of this package or of another one.

    Raises
    ------
    UserError
        No family has this name.
    """
    if name in FAMILIES:
        return FAMILIES[name]
    others = entry_points(group=PLUGINS)
    if name not in others.names:
        raise unknown_name("family", name, [*FAMILIES, *others.names])
    return cast(type[Any], others[name].load())


__all__ = ["FAMILIES", "PLUGINS", "Band", "Box", "Documents", "Family", "FrameBand", "Listed", "Ragged", "family_type"]
