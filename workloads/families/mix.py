"""Heads of different families in one call: per-head tables."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any

import numpy as np
from msgspec import Meta, Struct

from ...facts import Document, UserError, convert
from ..layout import Tiling, TokenLayout
from ..schedule import TileSchedule
from ..stack import stack
from .band import Band


class Part(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Heads of one kind."""

    share: Annotated[float, Meta(gt=0, le=1)]
    """Share of the heads of a layer, or of all layers where the table is of a whole model."""
    family: str
    params: Document = {}


ROUNDED = 1e-3
"""By how much the shares of a published table may miss one."""


class Mix(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """Heads of several kinds, each with a family of its own, in one launch.

    Parameters
    ----------
    heads : tuple of {share, family, params}
        Kinds of heads. Heads are handed out by largest remainder, so a layer has the mix of the table as nearly as whole
        heads can. Shares may add up to less than one: the other heads are skipped (their output is zero).

    Examples
    --------
    >>> table = Mix(heads=(Part(share=0.5, family="band"), Part(share=0.25, family="band", params={"causal": True})))
    >>> s = table.schedule_heads(TokenLayout(grid=(512,)), Tiling(q=(128,), kv=(128,)), heads=4)
    >>> s.visited, s.copies
    (42, 3)
    """

    heads: tuple[Part, ...]

    @cached_property
    def families(self) -> tuple[Any, ...]:
        """The family of each kind of head, with its parameters."""
        from . import family_type

        if not self.heads or sum(part.share for part in self.heads) > 1 + ROUNDED:
            raise UserError("the shares of the heads of a mix must add up to at most 1, and there must be one")
        for part in self.heads:
            if family_type(part.family) is Mix:
                raise UserError("heads of a mix have a family of their own, got another mix")
        return tuple(
            convert(dict(p.params), family_type(p.family), f"heads of family {p.family}", "parameter") for p in self.heads
        )

    def mask_class(self) -> str:
        """The class of its heads where they agree: kernels for blocks take all others."""
        classes = {family.mask_class() for family in self.families}
        return classes.pop() if len(classes) == 1 else "element" if "element" in classes else "blocks"

    def without_pattern(self) -> Band:
        return Band()

    def counts(self, heads: int) -> list[int]:
        """Heads of each kind, out of so many."""
        exact = np.array([part.share for part in self.heads]) * heads
        whole = np.floor(exact + 1e-9).astype(int)
        for kind in np.argsort(whole - exact, kind="stable")[: round(float(exact.sum())) - int(whole.sum())]:
            whole[kind] += 1
        return [int(n) for n in whole]

    def schedule(self, layout: TokenLayout, tiling: Tiling) -> TileSchedule:
        """The most common kind of head."""
        return self.schedule_heads(layout, tiling, 1)

    def schedule_heads(self, layout: TokenLayout, tiling: Tiling, heads: int) -> TileSchedule:
        """All heads of one item."""
        kinds = [(f.schedule(layout, tiling), n) for f, n in zip(self.families, self.counts(heads), strict=True) if n]
        if not kinds:
            raise UserError(f"a mix leaves no head to compute of {heads}")
        return stack(kinds)
