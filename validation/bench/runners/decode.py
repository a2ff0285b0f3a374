"""Decode calls: a paged cache in GPU memory, selected parts of it, and pages that have to come from host memory first."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..case import Case
from ..check import Checked, attention_rows
from ..machine import Machine
from ..work import Work, copies_of, generator, normal


def prepare(case: Case, machine: Machine) -> Work:
    """Inputs, calls and check of a decode case.

    Parameters of the case: `page` (tokens of a page), `splits`, `select` (keys that each kv head sees, by token, or in blocks of
    `grain` tokens), `miss` (share of the pages that is copied from host memory before each step; `bulk` in one copy).
    """
    bytes_each = round(case.gib * 2**30)
    made = [_Cache(case, machine, copy) for copy in range(copies_of(bytes_each, machine, case))]
    fields = {"missed_bytes": made[0].missed_bytes} if "miss" in case.params else {}
    return Work([cache.step for cache in made], made[-1].check, bytes_each, made[0].copies + 2, fields=fields)


class _Cache:
    """A paged cache of random tokens, its pages in random order, and the queries of one step."""

    def __init__(self, case: Case, machine: Machine, copy: int) -> None:
        import torch

        self._case, params = case, case.params
        _, self._q_heads, self._kv_heads, _, self._keys, head_dim = case.shape
        page = int(params["page"])
        pages = -(-self._keys // page)
        source = generator(case, machine, copy)
        # Keys and values of a page lie together, as one copy over the link moves them.
        self._cache = normal((case.batch * pages, 2, page, self._kv_heads, head_dim), case, machine, source)
        self._q = normal((case.batch, self._q_heads, head_dim), case, machine, source)
        order = torch.randperm(case.batch * pages, generator=source, device=machine.device)
        self._table = order.to(torch.int32).reshape(case.batch, pages)
        self._lengths = torch.full((case.batch,), self._keys, dtype=torch.int32, device=machine.device)
        self._splits = params.get("splits")
        self._select(machine, source)
        missed = round(float(params.get("miss", 0.0)) * pages)
        self.missed_bytes = missed * self._cache[0].numel() * self._cache.element_size()
        self._host = self._cache[:missed].cpu()
        if machine.device == "cuda" and missed:
            self._host = self._host.pin_memory()
        self._bulk = bool(params.get("bulk", False))
        self.copies = 1 if self._bulk else missed

    def _select(self, machine: Machine, source: Any) -> None:
        """Random keys for each kv head, ascending, as a selection leaves them."""
        import torch

        case, params = self._case, self._case.params
        self._selected = None
        if "select" in params:
            grain = int(params.get("grain", 1))
            count, blocks = int(params["select"]) // grain, self._keys // grain
            drawn = torch.rand((case.batch, self._kv_heads, blocks), generator=source, device=machine.device)
            self._selected = drawn.argsort(-1)[..., :count].sort(-1).values.to(torch.int32).contiguous()
            self._counts = torch.full((case.batch, self._kv_heads), count, dtype=torch.int32, device=machine.device)

    def step(self) -> Any:
        """Fetch what is missing, and attend."""
        from ....kernels.triton.decode import decode, decode_pages, decode_tokens

        if len(self._host) and self._bulk:
            self._cache[: len(self._host)].copy_(self._host, non_blocking=True)
        elif len(self._host):
            for place, page in enumerate(self._host):
                self._cache[place].copy_(page, non_blocking=True)
        given = (self._q, self._cache[:, 0], self._cache[:, 1], self._table, self._lengths)
        if self._selected is None:
            return decode(*given, splits=self._splits)[0]
        lists, grain = (self._selected, self._counts), int(self._case.params.get("grain", 1))
        if grain == 1:
            return decode_tokens(*given, *lists, splits=self._splits)[0]
        return decode_pages(*given, *lists, grain=grain, splits=self._splits)[0]

    def check(self) -> Checked:
        """Hold the first and the last sequence against float64."""
        import torch

        case, o = self._case, self.step()
        worst = None
        for batch in sorted({0, case.batch - 1}):
            pages = self._cache[self._table[batch].long()]
            k, v = (pages[:, which].flatten(0, 1)[: self._keys].transpose(0, 1)[None] for which in (0, 1))
            q, got = self._q[batch][None, :, None], o[batch][None, :, None]
            shared = self._q_heads // self._kv_heads
            # A kv head at a time: each has a selection of its own.
            for head in sorted({0, self._kv_heads - 1}):
                rows = slice(head * shared, (head + 1) * shared)
                mask = None
                if self._selected is not None:
                    grain = int(case.params.get("grain", 1))
                    mask = torch.zeros(self._keys, dtype=torch.bool, device=q.device)
                    first = self._selected[batch, head].long() * grain
                    mask[(first[:, None] + torch.arange(grain, device=q.device)).flatten()] = True
                one = q[:, rows], k[:, head : head + 1], v[:, head : head + 1]
                found = attention_rows(got[:, rows], *one, partial(_same, mask), case.dtype)
                worst = max(worst or found, found)
        assert worst is not None
        return worst


def _same(mask: Any, row: int) -> Any:
    """What a query row sees: there is one row, and its heads see the same."""
    return mask
