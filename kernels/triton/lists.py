"""A TileSchedule as index lists: which keys each q tile visits, without and with an element mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...facts import UserError
from ...workloads.families import Band
from ...workloads.schedule import Kind, TileSchedule
from ...workloads.visits import visits

Int32 = NDArray[np.int32]
Visible = Callable[[Any, Any], Any]
"""Whether query q sees key k, on integer numpy arrays that broadcast; both count from 0 in the order of the tensors."""
Mask = Band | Visible

SPAN, CAUSAL, WINDOW, CAUSAL_WINDOW, BITS = range(5)
"""How a PARTIAL tile is masked: by its last key, by position, by a window (and sinks), by both, by one bit an element."""

FAR = 1 << 30
"""More than any distance between two tokens, and far from the end of int32."""


@dataclass(frozen=True, eq=False)
class Lists:
    """The visits of the block-sparse kernel, CSR by q tile.

    A visit is a place in the key tensor, not a tile number, so that visits on no grid have the same form.

    Attributes
    ----------
    q_tile, kv_tile : int
        Rows and keys of a tile: the block shape that the kernel must run with.
    rows : int
        Q tiles of a head.
    seq_q, seq_kv : int
        Tokens that the tensors must have.
    full_first, full_key : int32 array [rows of all lists + 1], [full visits]
        First visit of each row, and first key of each visit that needs no mask.
    part_first, part_key, part_stop : int32 array [rows of all lists + 1], [masked visits], [masked visits]
        The same of masked visits, and the end of their keys, exclusive.
    bits : int32 array [masked visits, q_tile, kv_tile / 32]
        Which keys a row sees, lowest bit first; empty where the mask is no BITS.
    heads : int32 array [copies]
        First list row of each (batch item, head) or each head; empty where all share one list.
    mask, left, right, sinks : int
        Kind of mask; keys seen before and after the own position, and at the start.
    """

    q_tile: int
    kv_tile: int
    rows: int
    seq_q: int
    seq_kv: int
    full_first: Int32
    full_key: Int32
    part_first: Int32
    part_key: Int32
    part_stop: Int32
    bits: Int32
    heads: Int32
    mask: int
    left: int = FAR
    right: int = FAR
    sinks: int = 0
    _devices: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)

    def on(self, device: Any) -> dict[str, Any]:
        """The arrays as torch tensors on a device; kept, so that a second launch copies nothing."""
        import torch

        if str(device) not in self._devices:
            names = ("full_first", "full_key", "part_first", "part_key", "part_stop", "bits", "heads")
            self._devices[str(device)] = {name: torch.from_numpy(getattr(self, name)).to(device) for name in names}
        return self._devices[str(device)]

    def order_on(self, device: Any, copies: int) -> Any:
        """`longest_first` as a torch tensor on a device; kept too."""
        import torch

        kept = self.on(device)
        name = f"order of {copies}"
        if name not in kept:
            kept[name] = torch.from_numpy(self.longest_first(copies)).to(device)
        return kept[name]

    def visits_of_rows(self) -> NDArray[np.int64]:
        """Visits of each list row."""
        return np.diff(self.full_first).astype(np.int64) + np.diff(self.part_first)

    def longest_first(self, copies: int) -> Int32:
        """Work items (copy x rows + row) of so many (batch item, head) copies, those with most visits first."""
        first = np.resize(self.heads, copies) if len(self.heads) else np.zeros(copies, np.int32)
        work = self.visits_of_rows()[(first[:, None] + np.arange(self.rows)).ravel()]
        return np.argsort(-work, kind="stable").astype(np.int32)


def csr(schedule: TileSchedule, mask: Mask | None = None) -> Lists:
    """The index lists of a schedule.

    Parameters
    ----------
    schedule : TileSchedule
        FULL and PARTIAL runs. With several groups, each stands for `copies` heads (or heads x items), in order.
    mask : Band or callable, optional
        The element mask inside PARTIAL tiles. A band is computed in the kernel; anything else, `visible(q, k)`, becomes one
        bit an element. Without a mask every key of a run is seen, and only the ends of runs are cut off.

    Raises
    ------
    UserError
        The schedule has PARTIAL runs and no mask, or work that this kernel cannot do.

    Examples
    --------
    >>> from simattn.workloads import schedule
    >>> lists = csr(schedule("dense", seq_q=100, q_tile=64, kv_tile=64))
    >>> lists.full_key.tolist(), lists.part_key.tolist(), lists.part_stop.tolist()
    ([0, 0], [64, 64], [100, 100])
    """
    if (schedule.runs.kind > Kind.PARTIAL).any():
        raise UserError("the block-sparse kernel runs FULL and PARTIAL visits only")
    if len({group.rows for group in schedule.groups}) > 1:
        raise UserError("the block-sparse kernel needs items of one length")
    seq_kv = max(b.start + b.tokens for b in schedule.buffers)
    row, key, stop, full = _runs_in_tiles(schedule) if mask is None else _visited_tiles(schedule, seq_kv)
    rows = schedule.groups[0].rows
    copies = [group.copies for group in schedule.groups]
    kind, left, right, sinks = _kind(schedule, mask, seq_kv)
    part = ~full
    return Lists(
        q_tile=schedule.q_tile,
        kv_tile=schedule.kv_tile,
        rows=rows,
        # Boxes are padded to whole tiles inside the tensors; a flat sequence is not.
        seq_q=rows * schedule.q_tile if any(schedule.box) else _flat_queries(schedule),
        seq_kv=seq_kv,
        full_first=_first(row[full], len(schedule.row_live)),
        full_key=key[full].astype(np.int32),
        part_first=_first(row[part], len(schedule.row_live)),
        part_key=key[part].astype(np.int32),
        part_stop=stop[part].astype(np.int32),
        bits=_bits(schedule, row[part], key[part], stop[part], mask) if kind == BITS else np.zeros(0, np.int32),
        heads=np.repeat([g.first_row for g in schedule.groups], copies).astype(np.int32)
        if len(copies) > 1
        else np.zeros(0, np.int32),
        mask=kind,
        left=left,
        right=right,
        sinks=sinks,
    )


def _flat_queries(schedule: TileSchedule) -> int:
    """Live queries of one head."""
    group = schedule.groups[0]
    return int(schedule.row_live[group.first_row : group.first_row + group.rows].sum())


def _kind(schedule: TileSchedule, mask: Mask | None, seq_kv: int) -> tuple[int, int, int, int]:
    """How the kernel masks, and the window and sinks that it masks by."""
    if mask is None:
        if (schedule.runs.kind == Kind.PARTIAL).any():
            raise UserError("a schedule with PARTIAL runs needs a mask")
        return SPAN, FAR, FAR, 0
    if not isinstance(mask, Band) or mask.global_tokens:
        return BITS, FAR, FAR, 0
    if mask.window is None:
        return (CAUSAL if mask.causal else SPAN), FAR, FAR, 0
    if isinstance(mask.window, int):
        return CAUSAL_WINDOW, mask.window - 1, 0, mask.sinks
    left, right = mask.window
    return (CAUSAL_WINDOW if mask.causal else WINDOW), left, right, mask.sinks


Entries = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]
"""Row, first key, end of the keys, and whether no mask is needed, of each visit."""


def _visited_tiles(schedule: TileSchedule, seq_kv: int) -> Entries:
    """One entry a visited tile: the mask says what is seen in it."""
    if not schedule.aligned:
        raise UserError("an element mask needs visits on the fixed kv grid")
    found = visits(schedule)
    row = np.repeat(np.arange(len(schedule.row_live)), np.diff(found.row_first))
    key = found.tile.astype(np.int64) * schedule.kv_tile
    return row, key, np.minimum(key + schedule.kv_tile, seq_kv), found.kind == Kind.FULL


def _runs_in_tiles(schedule: TileSchedule) -> Entries:
    """One entry for each run in each tile: a tile that holds two runs with a gap between them is visited twice."""
    runs, tile = schedule.runs, schedule.kv_tile
    origin = np.zeros(len(runs.row), np.int64) if schedule.aligned else runs.start
    first, last = (runs.start - origin) // tile, -(-(runs.stop - origin) // tile)
    count = last - first
    at = np.repeat(np.arange(len(count)), count)
    cut = np.repeat(first - np.cumsum(count) + count, count) + np.arange(count.sum())
    begin = origin[at] + cut * tile
    key, stop = np.maximum(begin, runs.start[at]), np.minimum(begin + tile, runs.stop[at])
    return runs.row[at], key, stop, stop - key == tile


def _first(row: NDArray[np.int64], rows: int) -> Int32:
    """First entry of each row, and the number of entries."""
    return np.searchsorted(row, np.arange(rows + 1)).astype(np.int32)


def _bits(schedule: TileSchedule, row: Any, key: Any, stop: Any, mask: Any) -> Int32:
    """One bit for each element of the masked visits."""
    if schedule.kv_tile % 32:
        raise UserError(f"a mask of bits needs a kv tile that is a multiple of 32, got {schedule.kv_tile}")
    visible = mask
    if isinstance(mask, Band):
        from ...workloads.layout import TokenLayout

        band, queries = mask, _flat_queries(schedule)
        layout = TokenLayout(grid=(schedule.seq_kv,), queries=0 if queries == schedule.seq_kv else queries)

        def visible(q: Any, k: Any) -> Any:
            return band.visible(q, k, layout)

    first_row = np.asarray([g.first_row for g in schedule.groups])
    place = row - first_row[np.searchsorted(first_row, row, side="right") - 1]
    words = np.empty((len(row), schedule.q_tile, schedule.kv_tile // 32), np.uint32)
    for entry in range(len(row)):
        q = (place[entry] * schedule.q_tile + np.arange(schedule.q_tile))[:, None]
        k = (key[entry] + np.arange(schedule.kv_tile))[None, :]
        # Rows behind the end repeat the last one: what they see is never stored.
        live = schedule.row_live[row[entry]] if not any(schedule.box) else schedule.q_tile
        q = np.minimum(q, place[entry] * schedule.q_tile + live - 1)
        seen = np.broadcast_to(visible(q, np.minimum(k, stop[entry] - 1)), (schedule.q_tile, schedule.kv_tile))
        packed = np.packbits(seen & (k < stop[entry]), axis=1, bitorder="little")
        words[entry] = np.ascontiguousarray(packed).view("<u4")
    return words.view(np.int32)
