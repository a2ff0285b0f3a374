"""families: parametric generators of tile schedules, one mechanism a module.

    band         intervals that move with the query: dense, causal, windows, sinks, global tokens, documents, ragged batches
    box          neighborhood attention on a 1-D to 3-D grid (GNA); axis: its rule along one axis
    frame_band   bands between frame pairs (radial attention)
    sliding_tile boxes of whole tiles (STA)
    memory_band  a band in memory order, text and sink frame (Sparse VideoGen)
    two_scale    windows, and windows of a small copy (Scale-DiT)
    levels       pooled copies of the keys: pyramids, hierarchies, compressed keys
    clustered    clusters of queries that see clusters of keys
    structured   batches of small dense attentions
    listed       blocks listed in a file
    mask_function  a mask of the user's own, as a Python function
    pooled_select  blocks chosen by a score: top-k, mass, thresholds
    strided      bands, spans, stripes, diagonals, powers of two and random blocks, on block numbers
    vertical_slash  columns and diagonals (MInference, FlexPrefill)
    elastic      bands whose width depends on head and length (MoA)
    head_mix     heads of several families in one layer (DuoAttention)
    chunks       chunks that attend to themselves alone
    token_select   blocks chosen by each query token (NSA, InfLLM-V2, MoBA)
    token_gather   single keys chosen by each query, or by neighbours together (DSA, AnchorAttention, HiP)
    prefix_top   the best keys of every prefix (DMA)
    pages        pages of a KV cache that a decode step reads
    compact      tokens dropped before attention
    chunk_linear   linear attention by chunks
    unstructured   sparsity of single elements

A family is a frozen struct of its parameters. `schedule(layout, tiling)` builds the tile schedule of one head; where heads
differ, `schedule_heads(layout, tiling, heads)` builds that of all of them. Families that are defined by a mask on single tokens
also have `visible(q, k, layout)`, their plain meaning. Those that draw at random have a parameter `seed`.

Another package adds a family by an entry point of the group `simattn.families`: its name, and the struct.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

from ...facts import unknown_name
from ..layout import Tiling, TokenLayout
from ..schedule import TileSchedule
from .band import Band, Documents, Ragged
from .box import Box
from .chunk_linear import ChunkLinear
from .chunks import Chunks
from .clustered import Clustered
from .compact import Compact
from .elastic import Elastic
from .frame_band import FrameBand
from .head_mix import HeadKind, HeadMix
from .levels import Level, Levels
from .listed import Listed
from .mask_function import MaskFunction
from .memory_band import MemoryBand
from .pages import Pages
from .pooled_select import PooledSelect
from .prefix_top import PrefixTop
from .sliding_tile import SlidingTile
from .strided import Strided
from .structured import Structured
from .token_gather import TokenGather
from .token_select import TokenSelect
from .two_scale import TwoScale
from .unstructured import Unstructured
from .vertical_slash import VerticalSlash


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
    "sliding_tile": SlidingTile,
    "memory_band": MemoryBand,
    "two_scale": TwoScale,
    "levels": Levels,
    "clustered": Clustered,
    "structured": Structured,
    "pooled_select": PooledSelect,
    "strided": Strided,
    "vertical_slash": VerticalSlash,
    "elastic": Elastic,
    "head_mix": HeadMix,
    "chunks": Chunks,
    "token_select": TokenSelect,
    "token_gather": TokenGather,
    "prefix_top": PrefixTop,
    "pages": Pages,
    "compact": Compact,
    "chunk_linear": ChunkLinear,
    "unstructured": Unstructured,
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
    from importlib.metadata import entry_points

    others = entry_points(group=PLUGINS)
    if name not in others.names:
        raise unknown_name("family", name, [*FAMILIES, *others.names])
    return cast(type[Any], others[name].load())


__all__ = [
    "FAMILIES",
    "PLUGINS",
    "Band",
    "Box",
    "ChunkLinear",
    "Chunks",
    "Clustered",
    "Compact",
    "Documents",
    "Elastic",
    "Family",
    "FrameBand",
    "HeadKind",
    "HeadMix",
    "Level",
    "Levels",
    "Listed",
    "MemoryBand",
    "Pages",
    "PooledSelect",
    "PrefixTop",
    "Ragged",
    "SlidingTile",
    "Strided",
    "Structured",
    "TokenGather",
    "TokenSelect",
    "TwoScale",
    "Unstructured",
    "VerticalSlash",
    "family_type",
]
