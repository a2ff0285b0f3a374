# ruff: noqa: N803, SIM108
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Forward kernels: dense or causal attention, and block-sparse attention over index lists.

Both kernels are one loop over tiles that need no mask and one over tiles that do: masking every tile costs a quarter to a
half of the time on the fastest tensor cores. Token strides and all that is fixed for a call are compile-time constants, since
only then are all loads 16 bytes wide.
"""

import math
from typing import TYPE_CHECKING, Any

import triton
import triton.language as tl

from ...facts import UserError
from ...workloads.families import Band
from . import lists
from .configs import Config, find
from .steps import product, rows_of, store, visit

if TYPE_CHECKING:
    from ...workloads.schedule import TileSchedule


# Triton reads a global only if it says that it is constant.
MASK_SPAN = tl.constexpr(lists.SPAN)
MASK_CAUSAL = tl.constexpr(lists.CAUSAL)
MASK_CAUSAL_WINDOW = tl.constexpr(lists.CAUSAL_WINDOW)
MASK_BITS = tl.constexpr(lists.BITS)
FAR = tl.constexpr(lists.FAR)

RUNTIME_ONLY = ["seq_q", "seq_kv", "items", "left", "right", "sinks"]
"""Arguments whose value must not choose another binary: what is compiled without a GPU is then what runs."""


@triton.jit
def dense_tile(
    item, q, k, v, o, lse, scale, seq_q, seq_kv, q_batch, q_head, k_batch, k_head, v_batch, v_head,
    Q_TOKEN: tl.constexpr, K_TOKEN: tl.constexpr, V_TOKEN: tl.constexpr, HEADS: tl.constexpr, SHARED: tl.constexpr,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CAUSAL: tl.constexpr, REVERSED: tl.constexpr,
    TMA: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """One q tile of dense or causal attention."""
    tiles = (seq_q + BLOCK_M - 1) // BLOCK_M
    copy = item // tiles
    tile = item % tiles
    if REVERSED:
        tile = tiles - 1 - tile
    batch = copy // HEADS
    head = copy % HEADS
    first = tile * BLOCK_M
    q_of_head = q + tl.cast(batch, tl.int64) * q_batch + tl.cast(head, tl.int64) * q_head
    queries = rows_of(q_of_head, batch, head, first, seq_q, Q_TOKEN, BLOCK_M, D, True, False)
    if not TMA:
        k += tl.cast(batch, tl.int64) * k_batch + tl.cast(head // SHARED, tl.int64) * k_head
        v += tl.cast(batch, tl.int64) * v_batch + tl.cast(head // SHARED, tl.int64) * v_head

    # The last query is aligned with the last key.
    offset = seq_kv - seq_q
    whole = seq_kv
    end = seq_kv
    if CAUSAL:
        whole = tl.maximum(tl.minimum(whole, first + offset + 1), 0)
        end = tl.maximum(tl.minimum(end, first + offset + BLOCK_M), 0)
    whole = whole // BLOCK_N * BLOCK_N

    acc = tl.zeros([BLOCK_M, D], tl.float32)
    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    for key in tl.range(0, whole, BLOCK_N):
        keys = rows_of(k, batch, head // SHARED, key, seq_kv, K_TOKEN, BLOCK_N, D, False, TMA)
        values = rows_of(v, batch, head // SHARED, key, seq_kv, V_TOKEN, BLOCK_N, D, False, TMA)
        scores = product(queries, keys, UPCAST)
        acc, top, total = visit(acc, top, total, scores, values, scale, False, UPCAST)
    for key in tl.range(whole, end, BLOCK_N):
        keys = rows_of(k, batch, head // SHARED, key, seq_kv, K_TOKEN, BLOCK_N, D, True, TMA)
        values = rows_of(v, batch, head // SHARED, key, seq_kv, V_TOKEN, BLOCK_N, D, True, TMA)
        scores = product(queries, keys, UPCAST)
        at = key + tl.arange(0, BLOCK_N)[None, :]
        if CAUSAL:
            seen = at <= tl.minimum(first + offset + tl.arange(0, BLOCK_M)[:, None], seq_kv - 1)
        else:
            seen = at < seq_kv
        scores = tl.where(seen, scores, float("-inf"))
        acc, top, total = visit(acc, top, total, scores, values, scale, True, UPCAST)
    store(o, lse, acc, top, total, copy, first, seq_q, BLOCK_M, D)


@triton.jit(do_not_specialize=RUNTIME_ONLY)
def dense(
    q, k, v, o, lse, scale, seq_q, seq_kv, items, q_batch, q_head, k_batch, k_head, v_batch, v_head,
    Q_TOKEN: tl.constexpr, K_TOKEN: tl.constexpr, V_TOKEN: tl.constexpr, HEADS: tl.constexpr, SHARED: tl.constexpr,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CAUSAL: tl.constexpr, REVERSED: tl.constexpr,
    PERSISTENT: tl.constexpr, TMA: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Dense or causal attention: q [batch, q_heads, seq_q, D], k and v [batch, kv_heads, seq_kv, D].

    O [batch, q_heads, seq_q, D] and LSE [batch, q_heads, seq_q] are contiguous. A work item is a q tile of a head of a batch
    item, the tile running fastest; a program does one, or (PERSISTENT) every so many.
    """
    if PERSISTENT:
        for item in tl.range(tl.program_id(0), items, tl.num_programs(0)):
            dense_tile(
                item, q, k, v, o, lse, scale, seq_q, seq_kv, q_batch, q_head, k_batch, k_head, v_batch, v_head,
                Q_TOKEN, K_TOKEN, V_TOKEN, HEADS, SHARED, D, BLOCK_M, BLOCK_N, CAUSAL, REVERSED, TMA, UPCAST,
            )  # fmt: skip
    else:
        dense_tile(
            tl.program_id(0), q, k, v, o, lse, scale, seq_q, seq_kv, q_batch, q_head, k_batch, k_head, v_batch, v_head,
            Q_TOKEN, K_TOKEN, V_TOKEN, HEADS, SHARED, D, BLOCK_M, BLOCK_N, CAUSAL, REVERSED, TMA, UPCAST,
        )  # fmt: skip


@triton.jit
def seen_by_mask(
    first, key, stop, entry, bits, offset, left, right, sinks,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, MASK: tl.constexpr,
):  # fmt: skip
    """Which keys of a masked tile each row sees: bool [BLOCK_M, BLOCK_N], or [1, BLOCK_N] where rows do not differ."""
    row = tl.arange(0, BLOCK_M)[:, None]
    column = tl.arange(0, BLOCK_N)[None, :]
    at = key + column
    if MASK == MASK_BITS:
        # A word is loaded once and then spread: a load of every element's word takes 32 times the shared memory.
        words = bits + tl.cast(entry, tl.int64) * (BLOCK_M * BLOCK_N // 32)
        word = tl.load(words + row * (BLOCK_N // 32) + tl.arange(0, BLOCK_N // 32)[None, :])
        return tl.reshape((word[:, :, None] >> tl.arange(0, 32)[None, None, :]) & 1, [BLOCK_M, BLOCK_N]) != 0
    elif MASK == MASK_SPAN:
        return at < stop
    else:
        # Ends are folded into vectors of rows and of columns, so that an element costs one comparison, or two.
        position = first + offset + row
        if MASK == MASK_CAUSAL:
            return at <= tl.minimum(position, stop - 1)
        elif MASK == MASK_CAUSAL_WINDOW:
            return (tl.where(at < sinks, FAR, at) >= position - left) & (at <= tl.minimum(position, stop - 1))
        else:
            sink = at < tl.minimum(sinks, stop)
            after = tl.where(sink, FAR, at) >= position - left
            return after & (tl.where(sink, -FAR, at) <= tl.minimum(position + right, stop - 1))


@triton.jit
def sparse_tile(
    item, q, k, v, o, lse, scale, seq_q, seq_kv, full_first, full_key, part_first, part_key, part_stop, bits, heads, order,
    left, right, sinks, q_batch, q_head, k_batch, k_head, v_batch, v_head,
    Q_TOKEN: tl.constexpr, K_TOKEN: tl.constexpr, V_TOKEN: tl.constexpr, HEADS: tl.constexpr, SHARED: tl.constexpr,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, MASK: tl.constexpr, LISTS: tl.constexpr,
    ORDERED: tl.constexpr, TMA: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """One q tile of block-sparse attention."""
    if ORDERED:
        item = tl.load(order + item)
    tiles = (seq_q + BLOCK_M - 1) // BLOCK_M
    copy = item // tiles
    tile = item % tiles
    batch = copy // HEADS
    head = copy % HEADS
    first = tile * BLOCK_M
    q_of_head = q + tl.cast(batch, tl.int64) * q_batch + tl.cast(head, tl.int64) * q_head
    queries = rows_of(q_of_head, batch, head, first, seq_q, Q_TOKEN, BLOCK_M, D, True, False)
    if not TMA:
        k += tl.cast(batch, tl.int64) * k_batch + tl.cast(head // SHARED, tl.int64) * k_head
        v += tl.cast(batch, tl.int64) * v_batch + tl.cast(head // SHARED, tl.int64) * v_head
    row = tile
    if LISTS > 1:
        row += tl.load(heads + copy % LISTS)

    acc = tl.zeros([BLOCK_M, D], tl.float32)
    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    for entry in tl.range(tl.load(full_first + row), tl.load(full_first + row + 1)):
        key = tl.load(full_key + entry)
        keys = rows_of(k, batch, head // SHARED, key, seq_kv, K_TOKEN, BLOCK_N, D, False, TMA)
        values = rows_of(v, batch, head // SHARED, key, seq_kv, V_TOKEN, BLOCK_N, D, False, TMA)
        scores = product(queries, keys, UPCAST)
        acc, top, total = visit(acc, top, total, scores, values, scale, False, UPCAST)
    for entry in tl.range(tl.load(part_first + row), tl.load(part_first + row + 1)):
        key = tl.load(part_key + entry)
        stop = tl.load(part_stop + entry)
        keys = rows_of(k, batch, head // SHARED, key, stop, K_TOKEN, BLOCK_N, D, True, TMA)
        values = rows_of(v, batch, head // SHARED, key, stop, V_TOKEN, BLOCK_N, D, True, TMA)
        scores = product(queries, keys, UPCAST)
        seen = seen_by_mask(first, key, stop, entry, bits, seq_kv - seq_q, left, right, sinks, BLOCK_M, BLOCK_N, MASK)
        scores = tl.where(seen, scores, float("-inf"))
        acc, top, total = visit(acc, top, total, scores, values, scale, True, UPCAST)
    store(o, lse, acc, top, total, copy, first, seq_q, BLOCK_M, D)


@triton.jit(do_not_specialize=RUNTIME_ONLY)
def sparse(
    q, k, v, o, lse, scale, seq_q, seq_kv, items, full_first, full_key, part_first, part_key, part_stop, bits, heads, order,
    left, right, sinks, q_batch, q_head, k_batch, k_head, v_batch, v_head,
    Q_TOKEN: tl.constexpr, K_TOKEN: tl.constexpr, V_TOKEN: tl.constexpr, HEADS: tl.constexpr, SHARED: tl.constexpr,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, MASK: tl.constexpr, LISTS: tl.constexpr,
    ORDERED: tl.constexpr, PERSISTENT: tl.constexpr, TMA: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Block-sparse attention over the arrays of `Lists`; tensors and work items as in `dense`.

    LISTS is the number of entries of `heads`, which (batch item, head) copies go through in turn (1: one list for all);
    ORDERED: work items are taken in the order of the permutation `order`.
    """
    if PERSISTENT:
        for item in tl.range(tl.program_id(0), items, tl.num_programs(0)):
            sparse_tile(
                item, q, k, v, o, lse, scale, seq_q, seq_kv, full_first, full_key, part_first, part_key, part_stop, bits,
                heads, order, left, right, sinks, q_batch, q_head, k_batch, k_head, v_batch, v_head,
                Q_TOKEN, K_TOKEN, V_TOKEN, HEADS, SHARED, D, BLOCK_M, BLOCK_N, MASK, LISTS, ORDERED, TMA, UPCAST,
            )  # fmt: skip
    else:
        sparse_tile(
            tl.program_id(0), q, k, v, o, lse, scale, seq_q, seq_kv, full_first, full_key, part_first, part_key, part_stop,
            bits, heads, order, left, right, sinks, q_batch, q_head, k_batch, k_head, v_batch, v_head,
            Q_TOKEN, K_TOKEN, V_TOKEN, HEADS, SHARED, D, BLOCK_M, BLOCK_N, MASK, LISTS, ORDERED, TMA, UPCAST,
        )  # fmt: skip


INTERPRETED = not isinstance(dense, triton.JITFunction)
"""Whether the kernels run on the CPU: decided by TRITON_INTERPRET when they are defined."""
INTERPRETED_PROGRAMS = 3
"""Programs of a persistent launch on the interpreter: several, and few enough for each to go round more than once."""


def attention(
    q: Any,
    k: Any,
    v: Any,
    schedule: "TileSchedule | lists.Lists | None" = None,
    *,
    causal: bool = False,
    mask: "lists.Mask | None" = None,
    scale: float | None = None,
    config: Config | None = None,
) -> tuple[Any, Any]:
    """Attention on a GPU, or on the CPU under TRITON_INTERPRET=1.

    Parameters
    ----------
    q : torch tensor [batch, q_heads, seq_q, head_dim]
        fp16 or bf16; head_dim 16 to 256, a power of two and contiguous. Any other strides.
    k, v : torch tensor [batch, kv_heads, seq_kv, head_dim]
        kv_heads must divide q_heads.
    schedule : TileSchedule or Lists, optional
        What each q tile visits; all keys by default. Give the result of `csr` where the call is timed or repeated.
    causal : bool
        Keys up to the own position only; the last query is aligned with the last key.
    mask : Band or callable, optional
        Element mask inside the PARTIAL tiles of a TileSchedule (see `csr`).
    scale : float, optional
        Positive factor of the scores; 1 / sqrt(head_dim) by default.
    config : Config, optional
        In place of the shipped one of the GPU. With a schedule, its block must be the schedule's tile.

    Returns
    -------
    o : torch tensor like q, contiguous
        Zero in rows that see no key.
    lse : float32 tensor [batch, q_heads, seq_q]
        Natural logarithm of the sum of exponentials; -inf in rows that see no key.

    Raises
    ------
    UserError
        Shapes, types or options do not fit together.
    """
    import torch

    check(q, k, v)
    batch, q_heads, seq_q, d = q.shape
    kv_heads, seq_kv = k.shape[1], k.shape[2]
    work = _lists(schedule, causal, mask)
    if work is not None and (work.seq_q, work.seq_kv) != (seq_q, seq_kv):
        raise UserError(f"the schedule is of {work.seq_q} x {work.seq_kv} tokens, the tensors are of {seq_q} x {seq_kv}")
    block = None if work is None else (work.q_tile, work.kv_tile)
    config = config or default_config("dense" if work is None else "sparse", q, block)
    if block and block != (config.block_m, config.block_n):
        raise UserError(f"the schedule has tiles of {block[0]} x {block[1]}, the config of {config.block_m} x {config.block_n}")
    scale = d**-0.5 if scale is None else scale
    if not scale > 0:
        raise UserError(f"scale must be positive, got {scale}")

    o, lse = outputs(q)
    items = -(-seq_q // config.block_m) * batch * q_heads
    keys, values, tma = sources(k, v, config)
    strides = (*q.stride()[:2], *k.stride()[:2], *v.stride()[:2])
    constants = {
        "Q_TOKEN": q.stride(2), "K_TOKEN": k.stride(2), "V_TOKEN": v.stride(2), "HEADS": q_heads, "SHARED": q_heads // kv_heads,
        "D": d, "BLOCK_M": config.block_m, "BLOCK_N": config.block_n, "PERSISTENT": config.persistent, "TMA": tma,
        "UPCAST": INTERPRETED and q.dtype == torch.bfloat16,
    }  # fmt: skip
    options = {"num_warps": config.warps, "num_stages": config.stages, "enable_fp_fusion": True}
    grid = (min(_programs(config, q), items) if config.persistent else items,)
    common = (q, keys, values, o, lse, scale / math.log(2), seq_q, seq_kv, items)
    longest_first = config.order == "longest_first"
    if work is None:
        dense[grid](*common, *strides, CAUSAL=causal, REVERSED=causal and longest_first, **constants, **options)
    else:
        at = work.on(q.device)
        order = work.order_on(q.device, batch * q_heads) if longest_first else at["heads"]
        sparse[grid](
            *common, at["full_first"], at["full_key"], at["part_first"], at["part_key"], at["part_stop"], at["bits"],
            at["heads"], order, work.left, work.right, work.sinks, *strides,
            MASK=work.mask, LISTS=_list_count(work, batch, q_heads), ORDERED=longest_first, **constants, **options,
        )  # fmt: skip
    return o, lse


def outputs(q: Any) -> tuple[Any, Any]:
    """O and LSE, not filled in."""
    import torch

    return torch.empty(q.shape, dtype=q.dtype, device=q.device), torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)


def sources(k: Any, v: Any, config: Config) -> tuple[Any, Any, bool]:
    """K and V as the kernels take them, and whether as descriptors: wanted by the config, and possible with the strides."""
    if not (config.tma and _on_16_bytes(k) and _on_16_bytes(v)):
        return k, v, False
    return _descriptor(k, config.block_n), _descriptor(v, config.block_n), True


def check(q: Any, k: Any, v: Any) -> None:
    """Raise UserError unless the three tensors belong together."""
    if any(x.ndim != 4 for x in (q, k, v)) or k.shape != v.shape or q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        raise UserError(
            "q, k and v must be [batch, heads, tokens, head_dim] with one batch and head_dim, "
            f"got {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
        )
    if not all(q.shape) or not all(k.shape) or q.shape[1] % k.shape[1]:
        raise UserError(f"kv heads must divide q heads, and nothing be empty, got {tuple(q.shape)} and {tuple(k.shape)}")
    d = q.shape[3]
    if d & (d - 1) or not 16 <= d <= 256:
        raise UserError(f"head_dim must be a power of two from 16 to 256, got {d}")
    if str(q.dtype) not in ("torch.float16", "torch.bfloat16") or not q.dtype == k.dtype == v.dtype:
        raise UserError(f"q, k and v must be all fp16 or all bf16, got {q.dtype}, {k.dtype} and {v.dtype}")
    if any(x.stride(3) != 1 for x in (q, k, v)):
        raise UserError("the last dimension of q, k and v must be contiguous")


def _lists(schedule: Any, causal: bool, mask: Any) -> "lists.Lists | None":
    """The index lists of a schedule."""
    if schedule is None:
        if mask is not None:
            raise UserError("a mask needs a schedule")
        return None
    if isinstance(schedule, lists.Lists):
        if causal or mask is not None:
            raise UserError("index lists have their mask already")
        return schedule
    if causal and mask is not None:
        raise UserError("give either causal or a mask")
    return lists.csr(schedule, Band(causal=True) if causal else mask)


def _list_count(work: "lists.Lists", batch: int, heads: int) -> int:
    """Entries of `heads`, which the copies go through in turn."""
    count = len(work.heads)
    if count not in (0, heads, batch * heads):
        raise UserError(f"the schedule has lists for {count} heads, the call has {batch} x {heads}")
    return max(count, 1)


def default_config(kernel: str, q: Any, block: tuple[int, int] | None) -> Config:
    """The shipped config of the GPU that holds q; on the CPU small blocks, which the interpreter runs fastest."""
    if q.device.type == "cpu":
        m, n = block or (64, 64)
        return Config(block_m=m, block_n=n)
    import torch

    major, minor = torch.cuda.get_device_capability(q.device)
    return find(kernel, f"sm{major}{minor}", max(q.shape[3], 64), block)


def _on_16_bytes(x: Any) -> bool:
    """Whether a descriptor can describe a tensor: base and strides are multiples of 16 bytes."""
    return x.data_ptr() % 16 == 0 and all(stride * x.element_size() % 16 == 0 for stride in x.stride()[:3])


def _descriptor(x: Any, rows: int) -> Any:
    """A tensor-memory-access descriptor of a tensor, for blocks of so many rows of one head."""
    from triton.tools.tensor_descriptor import TensorDescriptor

    return TensorDescriptor(x, list(x.shape), list(x.stride()), [1, 1, rows, x.shape[3]])


def _programs(config: Config, q: Any) -> int:
    """Programs of a persistent launch: as many as fit on the GPU at once."""
    if q.device.type == "cpu":
        return INTERPRETED_PROGRAMS
    import torch

    return int(torch.cuda.get_device_properties(q.device).multi_processor_count) * config.ctas_per_sm
