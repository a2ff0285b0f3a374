"""The rule of neighborhood attention along one axis of the grid, and what it makes a tile visit.

All in integers, as NATTEN's kernels have it (arXiv 2504.16922; SHI-Labs/NATTEN at 8c8729f).
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...facts import UserError

Ints = NDArray[np.int64]
Border = Literal["clamp", "cut"]


class Cut(NamedTuple):
    """The q tiles of one axis of one dilation group: which kv tiles each visits and covers. int64 arrays [q tiles]."""

    live: Ints
    """Real queries."""
    first: Ints
    last: Ints
    """Visited kv tiles, end exclusive."""
    full_first: Ints
    full_last: Ints
    """KV tiles that every real query sees whole, end exclusive."""
    keys: Ints
    """Real keys in the visited kv tiles."""
    dynamic: Ints
    """KV tiles visited where they start at the first needed key."""
    dynamic_keys: Ints
    """Real keys in those."""


class Axis(NamedTuple):
    """One axis of the grid and its rule."""

    length: int
    window: int
    stride: int
    dilation: int
    causal: bool
    border: Border = "clamp"

    def checked(self, index: int) -> Axis:
        """Self, or UserError where the rule does not fit the axis."""
        if self.border == "cut" and (self.dilation > 1 or self.causal):
            raise UserError(f"a cut border takes neither dilation nor causal axes, got them on axis {index}")
        if self.border == "clamp" and self.window * self.dilation > self.length:
            raise UserError(
                f"window x dilation must be at most the grid along each axis, got {self.window} x {self.dilation} "
                f"on axis {index} of {self.length} tokens"
            )
        if self.stride > self.window:
            raise UserError(
                f"stride must be at most the window, got stride {self.stride} and window {self.window} on axis {index}"
            )
        return self

    def group_length(self, group: Any) -> Any:
        """Tokens of a dilation group."""
        return -((group - self.length) // self.dilation)

    def window_of(self, i: Any, group: Any = 0) -> tuple[Any, Any]:
        """Window [start, end) of query i of a dilation group; i may lie in the padding behind the last token."""
        length, left = self.group_length(group), self.window // 2
        if self.causal:
            leader = ((i // self.stride) * self.stride + self.stride - 1).clip(max=length - 1)
            return (leader - self.window + 1).clip(min=0), (i + 1).clip(max=length)
        leader = ((i // self.stride) * self.stride + self.stride // 2).clip(max=length - 1)
        if self.border == "cut":
            return (leader - left).clip(min=0), (leader - left + self.window).clip(max=length)
        start = (leader - left).clip(min=0).clip(max=length - self.window)
        return start, start + self.window

    def visible(self, q: Any, k: Any) -> Any:
        """Whether coordinate q sees coordinate k."""
        start, end = self.window_of(q // self.dilation, q % self.dilation)
        inner = k // self.dilation
        return (q % self.dilation == k % self.dilation) & (inner >= start) & (inner < end)

    def cut(self, group: int, q_tile: int, kv_tile: int) -> Cut:
        """Visits of the q tiles of one dilation group."""
        length = self.group_length(group)
        begin = np.arange(0, length, q_tile, dtype=np.int64)
        live = np.minimum(length - begin, q_tile)
        last_real = np.minimum(begin + q_tile, length) - 1
        start, _ = self.window_of(begin, group)
        _, end = self.window_of(begin + q_tile - 1, group)
        latest_start, _ = self.window_of(last_real, group)
        _, earliest_end = self.window_of(begin, group)
        first, last = start // kv_tile, -(-end // kv_tile)
        return Cut(
            live=live,
            first=first,
            last=last,
            full_first=-(-latest_start // kv_tile),
            full_last=earliest_end // kv_tile,
            keys=np.minimum(last * kv_tile, length) - first * kv_tile,
            dynamic=-(-(end - start) // kv_tile),
            dynamic_keys=end - start,
        )

    def pairs(self) -> int:
        """Live pairs along the axis, over all dilation groups."""
        total = 0
        for group in range(self.dilation):
            start, end = self.window_of(np.arange(self.group_length(group), dtype=np.int64), group)
            total += int((end - start).sum())
        return total

    def block_sparse(self, q_tile: int, kv_tile: int, dynamic: bool) -> bool:
        """NATTEN's own test that no element mask is needed: in rare cases too careful, and sound for q tiles of two and more.

        NATTEN has no windows that are cut at the border; a kernel for them would mask as for causal axes.
        """
        lengths = {self.group_length(g) for g in range(self.dilation)}
        return (
            not self.causal
            and self.border == "clamp"
            and all(self._block_sparse(length, q_tile, kv_tile, dynamic) for length in lengths)
        )

    def _block_sparse(self, length: int, q_tile: int, kv_tile: int, dynamic: bool) -> bool:
        if length == self.window:
            return True
        if self.stride % q_tile or self.window % kv_tile:
            return False
        if dynamic:
            return True
        offset = self.window // 2 - self.stride // 2
        last_start = int(
            self._replace(length=length, dilation=1).window_of(np.array([(length - 1) // self.stride * self.stride]))[0][0]
        )
        ends_well = length % self.stride == 0 or last_start % kv_tile == 0
        two_groups = -(-length // self.stride) == 2 and self.stride + self.stride // 2 >= length - self.window
        return ends_well and (offset % kv_tile == 0 or (length % kv_tile == 0 and two_groups))
