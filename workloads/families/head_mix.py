"""Heads of several kinds in one layer: each kind is a family of its own, and has a share of the heads."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from ...facts import Document, UserError, convert
from ..heads import heads_of_kinds, stack_heads
from ..layout import Tiling, TokenLayout
from ..schedule import TileSchedule
from .band import Band


class HeadKind(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of head.

    Parameters
    ----------
    share : float
        Share of the heads.
    family : str
        Family by name; `none` for heads that are not computed at all.
    params : dict
        Its parameters.
    """

    share: Annotated[float, Meta(gt=0)]
    family: str
    params: Document = {}


class HeadMix(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """A share of the heads for each of several families.

    Parameters
    ----------
    heads : tuple of HeadKind
        The kinds; one kernel runs all of them.
    seed : int
        Handed to kinds that draw at random, as `seed` plus their place in the list.

    References
    ----------
    DuoAttention: arXiv 2410.10819 (retrieval and streaming heads); Sparse-vDiT: arXiv 2506.03065.

    Examples
    --------
    >>> full, streaming = {"causal": True}, {"window": 256, "sinks": 64}
    >>> duo = HeadMix(heads=tuple(HeadKind(share=0.5, family="band", params=p) for p in (full, streaming)))
    >>> s = duo.schedule_heads(TokenLayout(grid=(4096,)), Tiling(q=(64,), kv=(64,)), 8)
    >>> [g.copies for g in s.groups], s.mask_free
    ([4, 4], False)
    """

    heads: tuple[HeadKind, ...]
    seed: Annotated[int, Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        if not any(kind.family != "none" for kind in self.heads):
            raise UserError("heads must name at least one kind that is computed")

    def _families(self) -> list[Any]:
        from . import family_type

        families: list[Any] = []
        for place, kind in enumerate(self.heads):
            if kind.family == "none":
                families.append(None)
                continue
            struct = family_type(kind.family)
            drawn = {"seed": self.seed + place} if "seed" in struct.__struct_fields__ else {}
            families.append(convert({**drawn, **kind.params}, struct, f"heads of {kind.family}", "parameter"))
        return families

    def mask_class(self) -> str:
        classes = {family.mask_class() for family in self._families() if family}
        for widest in ("gather", "element", "blocks"):
            if widest in classes:
                return widest
        return classes.pop() if len(classes) == 1 else "blocks"

    def without_pattern(self) -> Band:
        first = next(family for family in self._families() if family)
        return Band(causal=first.without_pattern().causal)

    def schedule(self, layout: TokenLayout, tiling: Tiling) -> TileSchedule:
        return self.schedule_heads(layout, tiling, 1)

    def schedule_heads(self, layout: TokenLayout, tiling: Tiling, heads: int) -> TileSchedule:
        """The work of `heads` heads of one item: of each kind as many as its share."""
        parts = []
        for family, n in zip(self._families(), heads_of_kinds([k.share for k in self.heads], heads), strict=True):
            if family and n:
                parts.append(
                    (family.schedule_heads(layout, tiling, n), 1)
                    if hasattr(family, "schedule_heads")
                    else (family.schedule(layout, tiling), n)
                )
        if not parts:
            raise UserError(f"of {heads} heads none is left to compute")
        return stack_heads(parts)
