"""Pages of a KV cache that a decode step reads: Quest, Kinetics, SeerAttention-R, TidalDecode, DELTA, and paged dense decode.

Which pages they are does not change the work: every query reads as many, each once. So the pages of a row are one run of
scattered keys, in pieces of a page.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from ...facts import UserError
from ..layout import Tiling, TokenLayout
from ..lists import list_rows
from ..runs import Runs
from ..schedule import BlockGrid, Buffer, Group, Kind, TileSchedule
from .band import Band

Ints = NDArray[np.int64]


class Pages(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The queries of a step read `budget` keys of the cache, in whole pages; all of it without a budget.

    Parameters
    ----------
    page : int
        Keys of a page, contiguous in memory.
    budget : int
        Keys that are read, the newest page and what else is forced included; 0 for all.

    References
    ----------
    Quest: arXiv 2406.10774; Kinetics: arXiv 2506.05333; SeerAttention-R: arXiv 2506.08889.

    Examples
    --------
    >>> quest = Pages(page=16, budget=128)
    >>> step = quest.schedule(TokenLayout(grid=(512,), queries=1), Tiling(q=(16,), kv=(64,)))
    >>> step.visited, step.pairs
    (2, 128)
    """

    page: Annotated[int, Meta(ge=1, le=2**20)] = 16
    budget: Annotated[int, Meta(ge=0, le=2**40)] = 0

    def mask_class(self) -> str:
        return "blocks"

    def without_pattern(self) -> Band:
        return Band(causal=True)

    def schedule(self, layout: TokenLayout, tiling: Tiling) -> TileSchedule:
        tiling.require_flat("a list of pages")
        if not layout.queries:
            raise UserError("pages are read by a decode step: give seq_q (its queries) beside seq_kv")
        keys, page = layout.tokens, self.page
        read = min(-(-self.budget // page) * page, keys) if self.budget else keys
        rows = list_rows(layout.queries, layout.queries, tiling.pack, tiling.q_rows)
        row = np.arange(len(rows.list))
        kind = np.full(len(row), Kind.GATHER, np.uint8)
        return TileSchedule(
            q_tile=tiling.q_rows,
            kv_tile=tiling.kv_rows,
            seq_q=layout.queries * tiling.pack,
            seq_kv=keys,
            row_live=rows.live,
            runs=Runs(row, np.zeros_like(row), np.full_like(row, read), kind, len(row)),
            groups=(Group(0, len(row), 1),),
            buffers=(Buffer("kv", 0, keys),),
            pairs_per_copy=(layout.queries * tiling.pack * read,),
            aligned=False,
            segment=page,
            blocks=BlockGrid(page, -(-read // page), -(-keys // page)),
        )
