"""Bands whose width depends on the head and grows with the sequence (MoA)."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from ...facts import UserError
from ..heads import heads_of_kinds, stack_heads
from ..layout import Tiling, TokenLayout
from ..schedule import TileSchedule
from .band import Band
from .strided import Strided

Count = Annotated[int, Meta(ge=0, le=2**30)]


class Elastic(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A head sees first blocks and newest blocks, `alpha + beta * keys` tokens together.

    Parameters
    ----------
    spans : tuple of (share, alpha, beta)
        Share of the heads, tokens, and share of the keys.
    block : int
        Tokens of a block; spans are rounded up to blocks.
    least : int
        Shortest span, in tokens.
    sinks : int
        Tokens of the span that are first ones.

    References
    ----------
    MoA: arXiv 2406.14909; thu-nics/MoA @e224fe3 cache_utils.py.

    Examples
    --------
    >>> half = Elastic(spans=((1.0, 0.0, 0.5),))
    >>> half.schedule(TokenLayout(grid=(2048,)), Tiling(q=(64,), kv=(64,))).max_visited
    16
    """

    spans: tuple[tuple[float, float, float], ...]
    block: Annotated[int, Meta(ge=1, le=2**20)] = 64
    least: Count = 128
    sinks: Count = 64

    def __post_init__(self) -> None:
        if not self.spans:
            raise UserError("spans must name at least one kind of head")
        if self.least <= self.sinks:
            raise UserError(f"the shortest span must be longer than the sinks, got {self.least} and {self.sinks}")

    def mask_class(self) -> str:
        return "blocks"

    def without_pattern(self) -> Band:
        return Band(causal=True)

    def schedule(self, layout: TokenLayout, tiling: Tiling) -> TileSchedule:
        return self.schedule_heads(layout, tiling, 1)

    def schedule_heads(self, layout: TokenLayout, tiling: Tiling, heads: int) -> TileSchedule:
        """The work of `heads` heads of one item: of each kind as many as its share."""
        copies: dict[int, int] = {}
        for (_, alpha, beta), n in zip(self.spans, heads_of_kinds([s[0] for s in self.spans], heads), strict=True):
            tokens = max(alpha + beta * layout.tokens, self.least)
            blocks = -(-int(tokens) // self.block)
            copies[blocks] = copies.get(blocks, 0) + n
        sinks = self.sinks // self.block
        kinds = [(Strided(block=self.block, local=max(blocks - sinks, 1), sinks=sinks), n) for blocks, n in copies.items() if n]
        return stack_heads([(kind.schedule(layout, tiling), n) for kind, n in kinds])
