"""families: parametric generators of tile schedules, one mechanism a module.

    band         intervals that move with the query: dense, causal, windows, sinks, global tokens, documents, ragged batches
    box          neighborhood attention on a 1-D to 3-D grid (GNA); axis: its rule along one axis
    frame_band   bands between frame pairs (radial attention)
    sliding_tile boxes of whole tiles (STA)
    mix          heads of different families in one call
    listed       blocks listed in a file

A family is a frozen struct of its parameters. `schedule(layout, tiling)` builds the tile schedule; families that are
defined by a mask on single tokens also have `visible(q, k, layout)`, their plain meaning.
"""

from __future__ import annotations

from typing import Any, Protocol

from ..layout import Tiling, TokenLayout
from ..schedule import TileSchedule
from .band import Band, Documents, Ragged
from .box import Box
from .frame_band import FrameBand
from .listed import Listed
from .mix import Mix
from .sliding_tile import SlidingTile


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


FAMILIES: dict[str, type[Any]] = {
    "band": Band,
    "documents": Documents,
    "ragged": Ragged,
    "box": Box,
    "frame_band": FrameBand,
    "listed": Listed,
    "mix": Mix,
    "sliding_tile": SlidingTile,
}
"""Family by the name that systems use."""

__all__ = ["FAMILIES", "Band", "Box", "Documents", "Family", "FrameBand", "Listed", "Mix", "Ragged", "SlidingTile"]
