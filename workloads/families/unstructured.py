"""Sparsity of single elements, which no tile can skip: pruned KV caches (Mustafar), and masks of single scores.

Zeros of a pruned cache are not stored, so they save bytes; its tiles are computed whole. Single scores that are skipped save
nothing where a tile holds any other.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta, Struct

from ..layout import Tiling, TokenLayout
from ..schedule import Kind, TileSchedule
from .band import Band

PIECE = 64
"""Elements that share a bitmap word: 64 tokens of a channel of K, 64 channels of a token of V."""


class Unstructured(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A share of the elements is left, wherever they lie.

    Parameters
    ----------
    keep : float
        Share that is left.
    of : str
        Elements of K and V in a cache of bitmaps and packed values (`cache`), or scores (`scores`).
    recent : int
        Newest keys that are kept whole.
    causal : bool
        Keys after a query are not seen.

    References
    ----------
    Mustafar: arXiv 2505.22913; dhjoo98/mustafar @d83ee7e kernel/compression.py.

    Examples
    --------
    >>> round(Unstructured(keep=0.5).stored(), 3)
    0.648
    """

    keep: Annotated[float, Meta(gt=0, le=1)]
    of: Literal["cache", "scores"] = "cache"
    recent: Annotated[int, Meta(ge=0, le=2**40)] = 0
    causal: bool = True

    def mask_class(self) -> str:
        return "unstructured" if self.of == "cache" else "element"

    def without_pattern(self) -> Band:
        return Band(causal=self.causal)

    def stored(self, element_bytes: int = 2) -> float:
        """Bytes of a pruned cache over those of a whole one: values in groups of eight, a bitmap word and an offset.

        The values of a piece are padded by 3.5 on the mean.
        """
        piece = element_bytes * (self.keep * PIECE + 3.5) + PIECE / 8 + 4
        return min(piece / (element_bytes * PIECE), 1.0)

    def schedule(self, layout: TokenLayout, tiling: Tiling) -> TileSchedule:
        tiling.require_flat("unstructured sparsity")
        whole = self.without_pattern().schedule(layout, tiling)
        if self.of == "cache":
            pruned = 1 - min(self.recent, layout.tokens) / layout.tokens
            return replace(whole, stored=1 - pruned * (1 - self.stored()))
        kept = tuple(round(pairs * self.keep) for pairs in whole.pairs_per_copy)
        runs = replace(whole.runs, kind=np.full_like(whole.runs.kind, Kind.PARTIAL))
        return replace(whole, runs=runs.joined(), pairs_per_copy=kept)
