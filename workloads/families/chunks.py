"""A sequence cut into chunks that attend to nothing but themselves, run as the items of a call of equal lengths."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from ...facts import UserError
from ..layout import Tiling, TokenLayout
from ..schedule import TileSchedule
from .band import Band, Ragged


class Chunks(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A query sees the keys of its own chunk.

    Parameters
    ----------
    chunk : int
        Tokens of a chunk; the last one has what is left.
    causal : bool
        Only those up to itself.

    Examples
    --------
    >>> Chunks(chunk=128).schedule(TokenLayout(grid=(512,)), Tiling(q=(64,), kv=(64,))).visited
    12
    """

    chunk: Annotated[int, Meta(ge=1, le=2**40)]
    causal: bool = True

    def mask_class(self) -> str:
        return "varlen"

    def without_pattern(self) -> Band:
        return Band(causal=self.causal)

    def schedule(self, layout: TokenLayout, tiling: Tiling) -> TileSchedule:
        if layout.queries:
            raise UserError("chunks need as many queries as keys")
        whole, rest = divmod(layout.tokens, self.chunk)
        lengths = (self.chunk,) * whole + ((rest,) if rest else ())
        return Ragged(lengths=lengths, causal=self.causal).schedule(TokenLayout(grid=(layout.tokens,)), tiling)
