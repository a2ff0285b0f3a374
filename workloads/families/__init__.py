"""families: parametric generators of tile schedules, one mechanism a module.

    band         intervals that move with the query: dense, causal, windows, sinks, global tokens, documents, ragged batches
    box          neighborhood attention on a 1-D to 3-D grid (GNA); axis: its rule along one axis
    frame_band   bands between frame pairs (radial attention)
    listed       blocks listed in a file
    pooled_select  blocks chosen by a score: top-k, mass, thresholds

A family is a frozen struct of its parameters. `schedule(layout, tiling)` builds the tile schedule; families that are
defined by a mask on single tokens also have `visible(q, k, layout)`, their plain meaning.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from ..layout import Tiling, TokenLayout
from ..schedule import TileSchedule
from .band import Band, Documents, Ragged
from .box import Box
from .frame_band import FrameBand
from .listed import Listed
from .pooled_select import PooledSelect


class Family(Protocol):
    """What every family offers."""

    def schedule(self, layout: TokenLayout, tiling: Tiling) -> TileSchedule:
        """The work of one head of one item."""
        ...

    def mask_class(self) -> str:
        """Which kind of kernel can run it: dense, window, varlen, box, blocks or element."""
        ...

    def without_pattern(self) -> Band | Ragged:
        """The dense call that the pattern stands in for, over the flat sequence."""
        ...


FAMILIES: dict[str, type[Struct]] = {
    "band": Band,
    "documents": Documents,
    "ragged": Ragged,
    "box": Box,
    "frame_band": FrameBand,
    "listed": Listed,
    "pooled_select": PooledSelect,
}
"""Family by the name that systems use."""

__all__ = ["FAMILIES", "Band", "Box", "Documents", "Family", "FrameBand", "Listed", "PooledSelect", "Ragged"]
