"""The grid behind a sequence, and how a kernel cuts it into tiles."""

from __future__ import annotations

from math import prod
from typing import Annotated, Literal

from msgspec import Meta, Struct

from ..facts import UserError

Size = Annotated[int, Meta(ge=1, le=2**40)]

MOST_TOKENS = 2**28
"""Longest sequence: a schedule holds some numbers for every tile of queries."""


class TokenLayout(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the tokens of a sequence lie: a 1-D to 3-D grid in row-major order, then text tokens.

    Parameters
    ----------
    grid : tuple of int
        Tokens per axis, slowest first: (frames, height, width), (height, width) or (tokens,).
    text : int
        Tokens after the grid that belong to no axis.
    queries : int
        Query tokens where they are fewer than the keys (a chunk of a prefill, a decode step); all by default.

    Examples
    --------
    >>> TokenLayout(grid=(30, 48, 80), text=256).tokens
    115456
    """

    grid: tuple[Size, ...]
    text: Annotated[int, Meta(ge=0, le=2**40)] = 0
    queries: Annotated[int, Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        if not 1 <= len(self.grid) <= 3:
            raise UserError(f"a grid has 1 to 3 axes, got {len(self.grid)}: {'x'.join(map(str, self.grid))}")
        if self.queries and (len(self.grid) > 1 or self.text):
            raise UserError("seq_q and seq_kv can differ only on a 1-D layout without text")
        if self.tokens > MOST_TOKENS:
            raise UserError(f"a sequence has at most {MOST_TOKENS:,} tokens, got {self.tokens:,}")
        if self.queries > self.tokens:
            raise UserError(f"seq_q must be at most seq_kv, got seq_q={self.queries} and seq_kv={self.tokens}")

    @property
    def tokens(self) -> int:
        """Keys: grid and text."""
        return prod(self.grid) + self.text

    @property
    def query_tokens(self) -> int:
        """Queries."""
        return self.queries or self.tokens


class Tiling(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a kernel cuts the work: tokens of a q tile and of a kv tile, per axis of the grid or over the flat sequence.

    Parameters
    ----------
    q, kv : tuple of int
        Tile shapes. One number cuts the flat sequence; as many numbers as the grid has axes cut boxes.
    pack : int
        Query heads that share a q tile (GQA packing): a tile of `q` rows then covers `q / pack` positions.
    dynamic_kv : bool
        KV tiles start at the first key that a q tile needs, not on a fixed grid.
    major : str
        Axis of the tiles that CTAs own: `kv` where they own keys and visit queries.
    block : int
        Tokens along each side of the blocks of the mask by which the kernel finds what to visit: every tile of a block that it
        lists is visited, and masked if the block is; 0 where tiles themselves are listed.
    """

    q: tuple[Size, ...]
    kv: tuple[Size, ...]
    pack: Size = 1
    dynamic_kv: bool = False
    major: Literal["q", "kv"] = "q"
    block: Annotated[int, Meta(ge=0, le=2**20)] = 0

    @property
    def q_rows(self) -> int:
        """Rows of a q tile."""
        return prod(self.q)

    @property
    def kv_rows(self) -> int:
        """Keys of a kv tile."""
        return prod(self.kv)

    def require_flat(self, family: str) -> None:
        """Raise UserError unless both tiles cut the flat sequence."""
        if len(self.q) != 1 or len(self.kv) != 1:
            raise UserError(f"{family} takes tiles of one number, got q_tile={self.q} and kv_tile={self.kv}")
