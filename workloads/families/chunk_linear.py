"""Linear attention by chunks: Lightning Attention, and the linear branches of hybrid methods.

The queries of a chunk see its keys as scores, and all keys before it as a state, a matrix of `state` x head width. A product
with the state costs what `state` keys cost, and so does adding the keys of a chunk to it, half each.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from ...facts import UserError
from ..layout import Tiling, TokenLayout
from ..runs import Runs
from ..schedule import Buffer, Group, Kind, TileSchedule, tile_rows
from .band import Band

Ints = NDArray[np.int64]


class ChunkLinear(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Scores inside a chunk, a running state before it.

    Parameters
    ----------
    chunk : int
        Tokens of a chunk.
    state : int
        Rows of the state: the width of Q and K after their feature map.
    order : str
        One CTA goes through the chunks of a head one after the other and carries the state (`chain`), or every chunk has a CTA of
        its own and reads a state that other kernels have made (`parallel`).
    slices : int
        CTAs that share the columns of the output; each of them computes all scores.
    causal : bool
        Without it all tokens are in the state, and there are no scores.

    References
    ----------
    Lightning Attention-2: arXiv 2401.04658; OpenNLPLab/lightning-attention @d15c385 lightning_attn/ops/triton/lightning_attn2.py.

    Examples
    --------
    >>> lightning = ChunkLinear(chunk=64, state=64, slices=2)
    >>> chain = lightning.schedule(TokenLayout(grid=(512,)), Tiling(q=(64,), kv=(64,)))
    >>> chain.work_rows, chain.max_visited
    (2, 8)
    """

    chunk: Annotated[int, Meta(ge=1, le=2**20)] = 64
    state: Annotated[int, Meta(ge=1, le=2**16)] = 128
    order: Literal["chain", "parallel"] = "chain"
    slices: Annotated[int, Meta(ge=1, le=64)] = 1
    causal: bool = True

    def __post_init__(self) -> None:
        if not self.causal and self.order == "chain":
            raise UserError("a chain of chunks is causal; give order=parallel")

    def mask_class(self) -> str:
        return "linear_chain" if self.order == "chain" else "linear"

    def without_pattern(self) -> Band:
        return Band(causal=self.causal)

    def schedule(self, layout: TokenLayout, tiling: Tiling) -> TileSchedule:
        tiling.require_flat("linear attention")
        if layout.queries:
            raise UserError("linear attention needs as many queries as keys")
        tokens, chunk = layout.tokens, self.chunk
        sizes = tile_rows(tokens, chunk)
        scores = int((sizes * (sizes + 1) // 2).sum()) if self.causal else 0
        if self.order == "chain":
            return TileSchedule(
                q_tile=chunk,
                kv_tile=chunk,
                seq_q=tokens,
                seq_kv=tokens,
                row_live=np.full(self.slices, min(chunk, tokens), np.int64),
                runs=_one_run_a_row(self.slices, 0, tokens),
                groups=(Group(0, self.slices, 1),),
                buffers=(Buffer("kv", 0, tokens),),
                # Of a product with the state and an addition to it each is half of a pair's work.
                pairs_per_copy=(scores + tokens * self.state,),
            )
        live = tile_rows(tokens, tiling.q_rows)
        # A product with the state is half of what as many keys would cost.
        columns, place = -(-self.state // 2), -(-tokens // tiling.kv_rows) * tiling.kv_rows
        runs = _one_run_a_row(len(live), place, columns)
        return TileSchedule(
            q_tile=tiling.q_rows,
            kv_tile=tiling.kv_rows,
            seq_q=tokens,
            seq_kv=tokens,
            row_live=live,
            runs=_own_chunks(live, tiling.q_rows, chunk, runs) if self.causal else runs,
            groups=(Group(0, len(live), 1),),
            buffers=(Buffer("kv", 0, tokens), Buffer("state", place, columns)),
            pairs_per_copy=(scores + tokens * columns,),
        )


def _one_run_a_row(rows: int, start: int, length: int) -> Runs:
    row = np.arange(rows)
    return Runs(row, np.full(rows, start), np.full(rows, length), np.zeros(rows, np.uint8), rows)


def _own_chunks(live: Ints, q_tile: int, chunk: int, others: Runs) -> Runs:
    """Before the other run of each tile: from the start of the chunk of its first query to its last query."""
    begin = np.arange(len(live), dtype=np.int64) * q_tile
    start = begin // chunk * chunk
    row = np.repeat(others.row, 2)
    starts, lengths = (np.stack(pair, axis=1).ravel() for pair in ((start, others.start), (begin + live - start, others.length)))
    kind = np.tile(np.array([Kind.PARTIAL, Kind.FULL], np.uint8), len(live))
    return Runs(row, starts, lengths, kind, others.rows)
