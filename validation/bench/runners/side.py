"""The kernels beside the attention: permute, pool, score, top-k, append, merge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..case import Case
from ..check import Checked, relative_error, require
from ..machine import Machine
from ..work import UnavailableError, Work, copies_of, generator, normal

SPLITS = 4
"""Parts that the merge kernel puts together."""
KEPT = 8
"""One block in so many is kept by top-k."""


class _Task(NamedTuple):
    """One side kernel on one copy of its inputs."""

    run: Callable[[], Any]
    want: Callable[[], Any]
    """The same in plain torch."""
    bytes: int
    seen: Callable[[Any], Any] = lambda got: got
    """What of the result is compared."""


def prepare(case: Case, machine: Machine) -> Work:
    """Inputs, calls and check of a side kernel."""
    make = _TASKS[case.kernel]
    first = make(case, machine, 0)
    tasks = [first, *(make(case, machine, copy) for copy in range(1, copies_of(first.bytes, machine, case)))]

    def check() -> Checked:
        got, want = tasks[-1].seen(tasks[-1].run()), tasks[-1].want()
        return require(relative_error(got, want), "bf16", got.shape[0])

    return Work([task.run for task in tasks], check, first.bytes, fields={"bytes": first.bytes})


def _size(*tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _tokens(case: Case, machine: Machine, copy: int, tokens: int | None = None) -> Any:
    """[batch, tokens, heads, d] at random."""
    source = generator(case, machine, copy)
    batch, heads, _, all_tokens, _, head_dim = case.shape
    return normal((batch, tokens or all_tokens, heads, head_dim), case, machine, source)


def _permute(case: Case, machine: Machine, copy: int) -> _Task:
    """A row-major video into tiles of 4 x 8 x 8 tokens."""
    from ....kernels.triton.side import box_order, permute

    x = _tokens(case, machine, copy).flatten(2)
    side = 32 if x.shape[1] % 1024 == 0 else 16
    if x.shape[1] % side**2:
        raise UnavailableError(f"{x.shape[1]} tokens are no whole frames of {side} x {side}")
    index = box_order((x.shape[1] // side**2, side, side), (4, 8, 8)).to(machine.device)

    def want() -> Any:
        return x[:, index.clamp_min(0).long()] * (index >= 0)[None, :, None]

    return _Task(lambda: permute(x, index), want, 2 * _size(x) + _size(index))


def _pool(case: Case, machine: Machine, copy: int) -> _Task:
    from ....kernels.triton.side import mean_pool

    x, block = _tokens(case, machine, copy), int(case.params["block"])

    def want() -> Any:
        return x.double().unflatten(1, (-1, block)).mean(2)

    return _Task(lambda: mean_pool(x, block), want, _size(x))


def _score(case: Case, machine: Machine, copy: int) -> _Task:
    """Pooled queries on pooled keys."""
    from ....kernels.triton.side import block_score

    blocks = int(case.seq_q or 0) // int(case.params["block"])
    q, k = (_tokens(case, machine, 2 * copy + which, blocks) for which in (0, 1))

    def want() -> Any:
        return q.transpose(1, 2).double() @ k.permute(0, 2, 3, 1).double() * q.shape[-1] ** -0.5

    return _Task(lambda: block_score(q, k), want, _size(q, k) + 4 * q.shape[2] * blocks**2)


def _top_k(case: Case, machine: Machine, copy: int) -> _Task:
    """One block in eight of each row of blocks; held against the values that torch finds."""
    import torch

    from ....kernels.triton.side import top_k

    blocks = int(case.seq_q or 0) // int(case.params["block"])
    source, kept = generator(case, machine, copy), max(blocks // KEPT, 1)
    scores = torch.randn((case.batch, int(case.q_heads or 0), blocks, blocks), generator=source, device=machine.device)

    def run() -> Any:
        return top_k(scores, kept)[0]

    def want() -> Any:
        return scores.gather(-1, scores.topk(kept).indices.sort(-1).values)

    # Scores, not indices: those of a wrong block are another number, its index nearly the same.
    return _Task(run, want, _size(scores), lambda got: scores.gather(-1, got.long()))


def _append(case: Case, machine: Machine, copy: int) -> _Task:
    """All tokens of a prompt into an empty cache of pages in random order."""
    import torch

    from ....kernels.triton.side import append

    k, v = (_tokens(case, machine, 2 * copy + which) for which in (0, 1))
    page = int(case.params["block"])
    pages = -(-k.shape[1] // page)
    caches = [torch.zeros((pages, page, *k.shape[2:]), dtype=k.dtype, device=k.device) for _ in range(2)]
    source = generator(case, machine, copy)
    table = torch.randperm(pages, generator=source, device=k.device).to(torch.int32)[None].contiguous()
    lengths = torch.zeros(1, dtype=torch.int32, device=k.device)

    def run() -> Any:
        append(k, v, caches[0], caches[1], table, lengths)
        return caches[1]

    def want() -> Any:
        padded = torch.zeros_like(caches[1]).flatten(0, 1)
        padded[: v.shape[1]] = v[0]
        expected = torch.empty_like(caches[1])
        expected[table[0].long()] = padded.reshape(expected.shape)
        return expected

    return _Task(run, want, 2 * _size(k, v))


def _merge(case: Case, machine: Machine, copy: int) -> _Task:
    """Partial outputs by their LSE."""
    import torch

    from ....kernels.triton.decode import merge

    x = torch.stack([_tokens(case, machine, SPLITS * copy + part) for part in range(SPLITS)]).float()
    lse = torch.randn(x.shape[:-1], generator=generator(case, machine, copy), device=x.device)

    def want() -> Any:
        return (torch.softmax(lse.double(), 0)[..., None] * x.double()).sum(0)

    return _Task(lambda: merge(x, lse, torch.bfloat16)[0], want, _size(x, lse))


_TASKS: dict[str, Callable[[Case, Machine, int], _Task]] = {
    "permute": _permute,
    "pool": _pool,
    "score": _score,
    "topk": _top_k,
    "append": _append,
    "merge": _merge,
}
