"""Blocks listed in a file: a user's own mask."""

from __future__ import annotations

from functools import cached_property
from math import prod
from pathlib import Path
from typing import Annotated, Any
from zipfile import BadZipFile

import numpy as np
from msgspec import Meta, Struct

from ...facts import UserError
from ..bsr import coarsened, from_bsr
from ..heads import stack_heads
from ..layout import Tiling, TokenLayout
from ..orders import Order, token_order
from ..reorder import reordered
from ..schedule import Kind, TileSchedule
from .band import Band

BSR = ("indptr", "indices", "q_tile", "kv_tile", "seq_q", "seq_kv")
"""What a `.npz` file that `simattn mask` writes holds, beside `kinds`."""

BLOCK_MASK = ("kv_num_blocks", "kv_indices", "BLOCK_SIZE", "seq_lengths")
"""What one of a FlexAttention BlockMask holds, beside `full_kv_num_blocks` and `full_kv_indices`."""


class Listed(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """The blocks of a file, the same for every head or a list for each.

    Parameters
    ----------
    file : str
        `.npz` as `simattn mask` writes it (indptr, indices, kinds, q_tile, kv_tile, seq_q, seq_kv); `.npz` with the arrays of a
        FlexAttention BlockMask under their own names (kv_num_blocks, kv_indices, full_kv_num_blocks, full_kv_indices, BLOCK_SIZE,
        seq_lengths), or the BlockMask itself as `torch.save` writes it (`.pt`; needs torch); or `.npy` with a bool array
        [q blocks, kv blocks] or [heads, q blocks, kv blocks] over the tokens of the call.
    order : str
        Order into which the tokens of the grid are permuted before the call: `rows` (row-major, as the file has them), `blocks`,
        `morton` or `hilbert`. What a partial block leaves out is not known, so all its keys count as seen.
    block : int
        Cut the mask into blocks of so many tokens, each of which is kept if any part of it is; 0 for those of the file.
    """

    file: str
    order: Order = "rows"
    block: Annotated[int, Meta(ge=0, le=2**20)] = 0

    def mask_class(self) -> str:
        return "blocks"

    def without_pattern(self) -> Band:
        return Band()

    @cached_property
    def _content(self) -> dict[str, Any]:
        path = Path(self.file)
        if path.suffix not in (".npz", ".npy", ".pt"):
            raise UserError(f"a mask file ends in .npz, .npy or .pt, got {self.file}")
        content = _of_torch(path) if path.suffix == ".pt" else _of_numpy(path)
        if path.suffix == ".npy":
            mask = content["mask"]
            if mask.dtype != bool or mask.ndim not in (2, 3) or not mask.size:
                raise UserError(
                    f"mask file {self.file} must hold a bool array [q blocks, kv blocks] or [heads, q blocks, kv blocks], "
                    f"got {mask.dtype} {mask.shape}"
                )
            return content
        needed = BLOCK_MASK if "kv_indices" in content else BSR
        missing = sorted(set(needed) - content.keys())
        if missing:
            raise UserError(f"mask file {self.file} lacks {', '.join(missing)}")
        return content

    def own_layout(self) -> TokenLayout:
        """Tokens that the file states."""
        if "mask" in self._content:
            raise UserError(
                f"mask file {self.file} does not say how many tokens it cuts: give seq_q (--seq-q), a grid or a model"
            )
        seq_q, seq_kv = self._lengths()
        return TokenLayout(grid=(seq_kv,), queries=0 if seq_q == seq_kv else seq_q)

    def schedule(self, layout: TokenLayout, tiling: Tiling) -> TileSchedule:
        self._check(layout, tiling)
        return self._tiled(layout, tiling, 0)

    def schedule_heads(self, layout: TokenLayout, tiling: Tiling, heads: int) -> TileSchedule:
        listed = self._heads()
        if listed == 1:
            return self.schedule(layout, tiling).with_copies(heads)
        if listed != heads:
            raise UserError(f"mask file {self.file} lists the blocks of {listed} heads, and the call has {heads}")
        self._check(layout, tiling)
        return stack_heads([(self._tiled(layout, tiling, head), 1) for head in range(heads)])

    def needs_permutation(self, layout: TokenLayout, tiling: Tiling) -> bool:
        """Whether tokens must be reordered."""
        return self.order != "rows" and len(layout.grid) > 1

    def permuted(self, layout: TokenLayout, tiling: Tiling) -> tuple[int, int]:
        """Tokens of Q and of K that are reordered."""
        return prod(layout.grid), prod(layout.grid)

    def _tiled(self, layout: TokenLayout, tiling: Tiling, head: int) -> TileSchedule:
        """The blocks of one head in the kernel's tiles, and in the order of the tokens."""
        own = self._head(layout, head)
        if not self.needs_permutation(layout, tiling):
            return own.retile(tiling.q_rows, tiling.kv_rows)
        order = token_order(self.order, layout, min(tiling.q_rows, tiling.kv_rows))
        return reordered(own, order, tiling.q_rows, tiling.kv_rows)

    def _lengths(self) -> tuple[int, int]:
        content = self._content
        if "seq_lengths" in content:
            seq_q, seq_kv = (int(n) for n in content["seq_lengths"])
            return seq_q, seq_kv
        return int(content["seq_q"]), int(content["seq_kv"])

    def _heads(self) -> int:
        content = self._content
        if "mask" in content:
            return len(content["mask"]) if content["mask"].ndim == 3 else 1
        return content["kv_indices"].shape[1] if "kv_indices" in content else 1

    def _check(self, layout: TokenLayout, tiling: Tiling) -> None:
        """Refuse a file that is of another call."""
        tiling.require_flat("a mask file")
        if "mask" not in self._content and self._lengths() != (layout.query_tokens, layout.tokens):
            seq_q, seq_kv = self._lengths()
            raise UserError(
                f"mask file {self.file} is of {seq_q} x {seq_kv} tokens, the call of {layout.query_tokens} x {layout.tokens}"
            )

    def _head(self, layout: TokenLayout, head: int) -> TileSchedule:
        """The blocks of one head, in tiles of their own size."""
        listed = self._listed(layout, head)
        return coarsened(listed, self.block) if self.block else listed

    def _listed(self, layout: TokenLayout, head: int) -> TileSchedule:
        """The blocks of one head, as the file has them."""
        content, seq_q, seq_kv = self._content, layout.query_tokens, layout.tokens
        sizes: dict[str, Any] = {"seq_q": seq_q, "seq_kv": seq_kv}
        if "kv_indices" in content:
            return _block_mask_head(content, head, sizes)
        if "mask" not in content:
            sizes |= {name: int(content[name]) for name in ("q_tile", "kv_tile")}
            return from_bsr(content["indptr"], content["indices"], kinds=content.get("kinds"), **sizes)
        mask = content["mask"].reshape(-1, *content["mask"].shape[-2:])[head]
        if not mask.any():
            raise UserError(f"mask file {self.file} keeps no block{f' of head {head}' if self._heads() > 1 else ''}")
        q_block, kv_block = -(-seq_q // mask.shape[0]), -(-seq_kv // mask.shape[1])
        if (-(-seq_q // q_block), -(-seq_kv // kv_block)) != mask.shape:
            raise UserError(f"a mask of {mask.shape[0]} x {mask.shape[1]} blocks does not cut {seq_q} x {seq_kv} tokens evenly")
        indptr = np.concatenate([[0], np.cumsum(mask.sum(1))])
        return from_bsr(indptr, np.nonzero(mask)[1], q_tile=q_block, kv_tile=kv_block, **sizes)


def _block_mask_head(content: dict[str, Any], head: int, sizes: dict[str, Any]) -> TileSchedule:
    """One head of a BlockMask: rows of partial blocks, and rows of full ones."""
    q_tile, kv_tile = (int(n) for n in np.broadcast_to(content["BLOCK_SIZE"], (2,)))
    columns, kinds = [], []
    counts: Any = 0
    for count, index, kind in (
        ("kv_num_blocks", "kv_indices", Kind.PARTIAL),
        ("full_kv_num_blocks", "full_kv_indices", Kind.FULL),
    ):
        if count not in content:
            continue
        listed, many = content[index][0, head], content[count][0, head].astype(np.int64)
        row = np.repeat(np.arange(len(many)), many)
        column = listed[np.arange(listed.shape[1]) < many[:, None]]
        columns.append(np.stack([row, column]))
        kinds.append(np.full(len(row), kind))
        counts = counts + many
    (row, column), all_kinds = np.concatenate(columns, axis=1), np.concatenate(kinds)
    order = np.argsort(row, kind="stable")
    indptr = np.concatenate([[0], np.cumsum(counts)])
    return from_bsr(indptr, column[order], kinds=all_kinds[order], q_tile=q_tile, kv_tile=kv_tile, **sizes)


def _of_numpy(path: Path) -> dict[str, Any]:
    try:
        loaded = np.load(path, allow_pickle=False)
        return dict(loaded) if path.suffix == ".npz" else {"mask": loaded}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise UserError(f"cannot read mask file {path}: {getattr(error, 'strerror', None) or 'not a numpy file'}") from None


def _of_torch(path: Path) -> dict[str, Any]:
    """The arrays of a BlockMask that torch.save wrote; nothing but tensors and a BlockMask is unpickled."""
    try:
        import torch
        from torch.nn.attention import flex_attention
    except ImportError:
        raise UserError(f"reading {path} needs torch: pip install 'simattn[kernels]'") from None
    from pickle import UnpicklingError

    allowed: list[Any] = [flex_attention.BlockMask, flex_attention.noop_mask, flex_attention._ModificationType]
    try:
        with torch.serialization.safe_globals(allowed):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        if isinstance(error, UnpicklingError) and "GLOBAL" in str(error):
            raise UserError(
                f"{path} holds more than a BlockMask (its mask_mod, say), which is not run: save its arrays with numpy.savez"
            ) from None
        raise UserError(
            f"cannot read mask file {path}: {getattr(error, 'strerror', None) or 'not a file of torch.save'}"
        ) from None
    names = (*BLOCK_MASK, "full_kv_num_blocks", "full_kv_indices")
    if not isinstance(loaded, dict):
        loaded = {name: getattr(loaded, name, None) for name in names}
    return {name: np.asarray(loaded[name]) for name in names if loaded.get(name) is not None}
